//! Spools of workers that are gone.
//!
//! `spool/<service>/<epoch>/` belongs to the worker instance that keeps its `lock` locked. When that is gone and has left
//! records, a worker without listeners is started to send them; only then is closed what the instance left open.

use std::{
    collections::HashMap,
    fs::{self, File},
    future::Future,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg};
use proxyplane_record::segment;
use proxyplane_spec::{Epoch, HANDOFF_VERSION, Manifest, ServiceId};
use sha2::{Digest as _, Sha256};
use tokio::{sync::Semaphore, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{Shared, exit, handoff, logs::LogFile, run_record};
use crate::{
    hex,
    ingest::Source,
    link::{Expected, WorkerLink},
    store,
};

/// Workers that drain at the same time; the other spools wait.
const DRAINS_AT_ONCE: usize = 2;
/// Between attempts to drain one spool: from this,
const AGAIN_FIRST: Duration = Duration::from_secs(1);
/// doubled up to this.
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// Between looks at a spool whose owner lives and is nobody that we know.
const LOOK: Duration = Duration::from_millis(500);

/// Spools that are not settled yet.
pub(super) struct Orphans {
    drains: Semaphore,
    unsettled: Mutex<HashMap<Epoch, Unsettled>>,
}

#[derive(Clone)]
struct Unsettled {
    service: ServiceId,
    /// Its records are not wanted.
    discard: CancellationToken,
    settled: CancellationToken,
}

impl Default for Orphans {
    fn default() -> Self {
        Self {
            drains: Semaphore::new(DRAINS_AT_ONCE),
            unsettled: Mutex::default(),
        }
    }
}

impl Orphans {
    /// Waits until nothing of a service is left in spools of workers that are gone.
    pub(super) async fn settled(&self, service: ServiceId) {
        for unsettled in self.of(service) {
            unsettled.settled.cancelled().await;
        }
    }

    /// Gives up what is left of a service in spools of workers that are gone.
    pub(super) fn discard(&self, service: ServiceId) {
        for unsettled in self.of(service) {
            unsettled.discard.cancel();
        }
    }

    fn of(&self, service: ServiceId) -> Vec<Unsettled> {
        let unsettled = self.lock();
        unsettled
            .values()
            .filter(|one| one.service == service)
            .cloned()
            .collect()
    }

    fn begin(&self, source: Source) -> Unsettled {
        let one = Unsettled {
            service: source.service_id,
            discard: CancellationToken::new(),
            settled: CancellationToken::new(),
        };
        self.lock().insert(source.epoch, one.clone());
        one
    }

    fn is_settling(&self, epoch: Epoch) -> bool {
        self.lock().contains_key(&epoch)
    }

    fn end(&self, epoch: Epoch) {
        if let Some(one) = self.lock().remove(&epoch) {
            one.settled.cancel();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Epoch, Unsettled>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn path(shared: &Shared, service: ServiceId, epoch: Epoch) -> PathBuf {
    shared
        .options
        .spool_dir
        .join(service.to_string())
        .join(epoch.to_string())
}

/// A worker is gone: has everything committed that it recorded, then closes what it left open. When the control plane
/// stops meanwhile, that is left to the next one.
pub(super) fn settle(shared: &Arc<Shared>, source: Source, link: WorkerLink) -> impl Future<Output = ()> + use<> {
    // At once: who removes the service next has to find it.
    let unsettled = shared.orphans.begin(source);
    let shared = shared.clone();
    async move {
        link.retire().await;
        empty(&shared, source, &unsettled).await;
    }
}

/// Looks for what workers of former control planes left. What is in spools is settled in the background, everything else
/// that they left open is closed at once. Comes before the first record of our own is written.
pub(super) async fn sweep(shared: &Arc<Shared>) {
    let found = found(&shared.options.spool_dir).unwrap_or_else(|error| {
        tracing::error!(%error, "spools of former workers cannot be looked for");
        Vec::new()
    });
    match store::ingest::unclosed(&shared.db).await {
        Ok(epochs) => {
            let spooled = |epoch: &Epoch| found.iter().any(|(_, spooled)| spooled == epoch);
            for epoch in epochs
                .into_iter()
                .filter(|epoch| !spooled(epoch) && !shared.link.expects(*epoch))
            {
                shared.ingest.close_epoch(epoch).await;
            }
        }
        Err(error) => tracing::warn!(?error, "what former workers left open cannot be read"),
    }
    for (service_id, epoch) in found {
        match store::ingest::workspace(&shared.db, epoch, service_id).await {
            Ok(Some(workspace_id)) => {
                let source = Source {
                    epoch,
                    service_id,
                    workspace_id,
                };
                shared.tracker.spawn(adopt(shared.clone(), source));
            }
            Ok(None) => tracing::warn!(%service_id, %epoch, "a spool of a proxy that is not known is left alone"),
            Err(error) => tracing::warn!(?error, %epoch, "a spool is left to the next start"),
        }
    }
}

/// Settles a spool once its owner is gone, unless that is a worker of ours by then.
async fn adopt(shared: Arc<Shared>, source: Source) {
    let path = path(&shared, source.service_id, source.epoch);
    while is_owned(&path) {
        if shared.link.expects(source.epoch) {
            return;
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            () = shared.closing.cancelled() => return,
        }
    }
    // One that died while it was adopted is settled by its service's task: two that drain are in each other's way.
    if !shared.link.expects(source.epoch) && !shared.orphans.is_settling(source.epoch) {
        let unsettled = shared.orphans.begin(source);
        empty(&shared, source, &unsettled).await;
    }
}

async fn empty(shared: &Arc<Shared>, source: Source, unsettled: &Unsettled) {
    let path = path(shared, source.service_id, source.epoch);
    let mut again = AGAIN_FIRST;
    while has_records(&path) && !unsettled.discard.is_cancelled() {
        let attempt = async {
            if let Err(error) = drain(shared, source, &path).await {
                tracing::warn!(service = %source.service_id, epoch = %source.epoch, %error, "a spool could not be drained");
                sleep(again).await;
                again = (again * 2).min(AGAIN_MAX);
            }
        };
        tokio::select! {
            biased;
            // A drain that is cut is begun anew by the next control plane.
            () = shared.closing.cancelled() => return shared.orphans.end(source.epoch),
            () = unsettled.discard.cancelled() => {}
            () = attempt => {}
        }
    }
    if unsettled.discard.is_cancelled() && has_records(&path) {
        tracing::warn!(service = %source.service_id, epoch = %source.epoch, "the records in a spool are discarded");
    }
    remove(&path, unsettled.discard.is_cancelled());
    shared.ingest.close_epoch(source.epoch).await;
    shared.orphans.end(source.epoch);
}

/// Starts a worker that sends what the spool at `path` holds, and waits for its end. Cancelled, it kills it.
async fn drain(shared: &Arc<Shared>, source: Source, path: &Path) -> io::Result<()> {
    let _turn = shared.orphans.drains.acquire().await.map_err(io::Error::other)?;
    let (ours, theirs) = handoff::pair()?;
    let log = LogFile::of(&shared.options.log_dir, source.service_id).open()?;
    let mut command = shared
        .binary()
        .command(&run_record::process_name("drain", source.epoch));
    command
        .arg("--drain-only")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log));
    let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let nonce: [u8; 32] = rand::random();
    let expected = Expected {
        epoch: source.epoch,
        nonce_sha256: Sha256::digest(nonce).into(),
        pid: pid.ok_or(io::ErrorKind::NotFound)?,
        service_id: source.service_id,
        workspace_id: source.workspace_id,
    };
    let (link, _events) = shared.link.expect(expected, None);
    let link = Forgotten(Some(link));
    let manifest = Manifest {
        version: HANDOFF_VERSION,
        epoch: source.epoch,
        nonce: hex::encode(&nonce),
        service_id: source.service_id,
        link: shared.options.link_socket.clone(),
        spool: Some(path.to_owned()),
        listeners: Vec::new(),
        account: shared.options.account,
    };
    handoff::send(&ours, &manifest, &[])?;
    tracing::info!(service = %source.service_id, epoch = %source.epoch, "draining the spool of a worker that is gone");
    let status = child.wait().await?;
    link.retire().await;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(exit::describe(status)))
    }
}

/// A link that is forgotten whatever becomes of the worker at its other end.
struct Forgotten(Option<WorkerLink>);

impl Forgotten {
    async fn retire(mut self) {
        if let Some(link) = self.0.take() {
            link.retire().await;
        }
    }
}

impl Drop for Forgotten {
    fn drop(&mut self) {
        if let Some(link) = &self.0 {
            link.forget();
        }
    }
}

/// Services and instances that have a directory.
fn found(spool_dir: &Path) -> io::Result<Vec<(ServiceId, Epoch)>> {
    let mut found = Vec::new();
    for service in fs::read_dir(spool_dir)? {
        let service = service?;
        let Some(id) = service
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<ServiceId>().ok())
        else {
            continue;
        };
        for epoch in fs::read_dir(service.path())? {
            let epoch = epoch?.file_name().to_str().and_then(|name| name.parse::<Epoch>().ok());
            found.extend(epoch.map(|epoch| (id, epoch)));
        }
    }
    Ok(found)
}

fn has_records(path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(path) else { return false };
    let mut names = entries.flatten().map(|entry| entry.file_name());
    names.any(|name| name.to_str().is_some_and(|name| segment::parse_name(name).is_some()))
}

/// Does a living process hold the directory's lock?
fn is_owned(path: &Path) -> bool {
    let Ok(lock) = File::open(path.join("lock")) else {
        return false;
    };
    Flock::lock(lock, FlockArg::LockSharedNonblock).is_err()
}

/// Removes a settled spool; segments that were put aside stay for whoever wants to look at them.
fn remove(path: &Path, all: bool) {
    let put_aside = fs::read_dir(path).is_ok_and(|entries| {
        let mut paths = entries.flatten().map(|entry| entry.path());
        paths.any(|path| path.extension().is_some_and(|extension| extension == "bad"))
    });
    if put_aside && !all {
        return tracing::warn!(path = %path.display(), "bad segments of a spool are kept here");
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "a settled spool could not be removed");
        }
        _ => {}
    }
    // The service's directory goes with its last instance.
    let _ = path.parent().map(fs::remove_dir);
}
