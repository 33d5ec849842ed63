//! Listeners that go through an upgrade in place, from the program that is left to the one that is executed.
//!
//! Without them nobody but the workers would listen until those are adopted: clients of one that died meanwhile would be
//! refused. With them they wait in the accept queue for the worker that comes after it.
//!
//! Which descriptor is what is told by a sealed memfd, found by its name among the open descriptors. It lives exactly as
//! long as what it tells of. A file in the run directory would outlive a program that died before it read it, and name
//! descriptors that are something else in the next process; a variable of the environment would go on to every child.
//!
//! Only a program that says that it takes them ([`FEATURE`]) is left any. One from before this would never set FD_CLOEXEC
//! again, nor close them: each child of it, a worker or Postgres, would keep the listeners of proxies that were stopped
//! long ago, and their clients would wait in queues that nobody reads.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::{self, Seek as _, Write as _},
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    path::Path,
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, SealFlag, fcntl},
    libc::STDERR_FILENO,
    sched::{CloneFlags, unshare},
    sys::memfd::{MFdFlags, memfd_create},
};
use proxyplane_spec::ServiceId;
use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, time::timeout};

use super::{
    Supervisor,
    listeners::{self, Listeners},
    task::Command,
};
use crate::store::services::ServiceRow;

/// What a program that takes listeners says of itself.
pub(crate) const FEATURE: &str = "inherits-listeners";
/// Of the memfd.
const NAME: &str = "proxyplane-listeners";
/// Open descriptors of the calling thread, which may have a table of its own.
const DESCRIPTORS: &str = "/proc/thread-self/fd";
/// For a service's task to come to the end of what it does. One that is later keeps its listeners: they come back from
/// its worker.
const PATIENCE: Duration = Duration::from_millis(500);

/// A line of the memfd.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    service: ServiceId,
    address: SocketAddr,
    descriptor: RawFd,
}

/// What is left to the program that is executed next.
#[derive(Debug, Default)]
pub(crate) struct Bequest(Vec<(ServiceId, Listeners)>);

impl Supervisor {
    /// Has every service's task stop where it is, for good: its listeners are for the next program, and so is the end of
    /// a worker that dies from now on. To be called when nothing but the upgrade in place follows.
    pub(crate) async fn leave(&self) -> Bequest {
        let handles: Vec<_> = self
            .services()
            .iter()
            .map(|(id, handle)| (*id, handle.commands.clone()))
            .collect();
        let left = handles.into_iter().map(|(id, commands)| async move {
            let (listeners, left) = oneshot::channel();
            let asked = async {
                commands.send(Command::Leave { listeners }).await.ok()?;
                left.await.ok()?
            };
            let answered = timeout(PATIENCE, asked).await.ok();
            if answered.is_none() {
                tracing::warn!(service = %id, "it is busy; its listeners are not handed on");
            }
            Some((id, answered??))
        });
        let left = futures_util::future::join_all(left).await;
        Bequest(left.into_iter().flatten().collect())
    }
}

impl Bequest {
    /// Lets the listeners, and the memfd that tells of them, pass through exec: as long as what is returned lives.
    ///
    /// The calling thread gets descriptors of its own first, so that a child which another thread starts at this moment
    /// does not have them. Where that is not allowed (some containers), such a child would keep the listeners open as
    /// long as it lives.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        if let Err(error) = unshare(CloneFlags::CLONE_FILES) {
            tracing::debug!(%error, "descriptors are shared with the other threads");
        }
        let entries: Vec<Entry> = self
            .0
            .iter()
            .flat_map(|(id, listeners)| entries(*id, listeners))
            .collect();
        let note = note(&entries)?;
        // First: what it tells of and is not there is passed over, what it does not tell of would stay open.
        set_cloexec(&note, false)?;
        for descriptor in self.0.iter().flat_map(|(_, listeners)| listeners.descriptors()) {
            set_cloexec(&descriptor, false)?;
        }
        Ok(note)
    }
}

fn entries(service: ServiceId, listeners: &Listeners) -> impl Iterator<Item = Entry> {
    let descriptors = listeners.descriptors().into_iter();
    let sockets: Vec<_> = listeners.addresses().into_iter().zip(descriptors).collect();
    sockets.into_iter().map(move |(address, descriptor)| Entry {
        service,
        address,
        descriptor: descriptor.as_raw_fd(),
    })
}

fn note(entries: &[Entry]) -> io::Result<OwnedFd> {
    let note = memfd_create(NAME, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut note = File::from(note);
    note.write_all(&serde_json::to_vec(entries)?)?;
    fcntl(&note, FcntlArg::F_ADD_SEALS(seals()))?;
    Ok(note.into())
}

fn seals() -> SealFlag {
    SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

/// The listeners that the program before this one left in this process. Dropped, they are closed.
#[derive(Debug, Default)]
pub(crate) struct Inherited(HashMap<ServiceId, Vec<(SocketAddr, TcpListener)>>);

impl Inherited {
    /// Takes them over. To be called first of all: until then they go on to every child.
    pub(crate) fn take() -> Self {
        let entries = take_notes().unwrap_or_else(|error| {
            tracing::warn!(%error, "what the program before this one left cannot be read");
            Vec::new()
        });
        let mut taken = HashSet::new();
        // All of them first: they are close-on-exec from here on.
        let sockets: Vec<_> = entries
            .into_iter()
            .filter(|entry| taken.insert(entry.descriptor))
            .map(|entry| (own(entry.descriptor), entry))
            .collect();
        let mut inherited: HashMap<_, Vec<_>> = HashMap::new();
        for (socket, Entry { service, address, .. }) in sockets {
            let listener = socket.map(|socket| listeners::listening(address, socket));
            match listener {
                Some(Ok(Some(listener))) => inherited.entry(service).or_default().push((address, listener)),
                Some(Err(error)) => tracing::warn!(%service, %address, %error, "an inherited listener is not usable"),
                Some(Ok(None)) | None => {
                    tracing::warn!(%service, %address, "what was inherited as a listener is none, and closed");
                }
            }
        }
        Self(inherited)
    }

    /// Of which services there are some.
    pub(super) fn services(&self) -> impl Iterator<Item = ServiceId> {
        self.0.keys().copied()
    }

    /// Takes out those of a service that is to run. What listens elsewhere than is stored by now is closed.
    pub(super) fn of(&mut self, row: &ServiceRow) -> Option<Listeners> {
        let listeners = Listeners::returned(self.0.remove(&row.id)?, row.host, row.port);
        if listeners.is_at(row.host, row.port) {
            return Some(listeners);
        }
        let addresses = listeners.addresses();
        tracing::info!(service = %row.id, ?addresses, "inherited listeners are closed: the service listens elsewhere by now");
        None
    }
}

/// Reads what the memfd says. It is closed then: what it tells is no longer true.
fn take_notes() -> io::Result<Vec<Entry>> {
    let name = format!("/memfd:{NAME} (deleted)");
    let mut entries = Vec::new();
    for number in open_as(Path::new(&name))? {
        let Some(note) = own(number) else { continue };
        let mut note = File::from(note);
        let sealed = fcntl(&note, FcntlArg::F_GET_SEALS)?;
        if SealFlag::from_bits_truncate(sealed).contains(seals()) {
            note.rewind()?;
            entries.extend(serde_json::from_reader::<_, Vec<Entry>>(note)?);
        }
    }
    Ok(entries)
}

/// Descriptors that are open and lead to `target`.
fn open_as(target: &Path) -> io::Result<Vec<RawFd>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(DESCRIPTORS)? {
        let entry = entry?;
        if fs::read_link(entry.path()).is_ok_and(|found| found == target) {
            numbers.extend(entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()));
        }
    }
    Ok(numbers)
}

/// The descriptor of this number, close-on-exec from here on; `None` if none is open.
#[expect(
    unsafe_code,
    reason = "a descriptor that came through exec is known by its number only"
)]
fn own(number: RawFd) -> Option<OwnedFd> {
    if number <= STDERR_FILENO || !Path::new(DESCRIPTORS).join(number.to_string()).is_symlink() {
        return None;
    }
    // SAFETY: it is open, and nobody in this process owns it: the program before this one left it here, its number is
    // read before anything else is opened, and taken once.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    set_cloexec(&descriptor, true).ok()?;
    Some(descriptor)
}

fn set_cloexec(descriptor: &impl AsFd, on: bool) -> io::Result<()> {
    let flags = if on { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    fcntl(descriptor, FcntlArg::F_SETFD(flags))?;
    Ok(())
}

#[cfg(test)]
mod tests;
