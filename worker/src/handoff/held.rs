//! The listening sockets that are in use, kept to be given back: a control plane that comes after the one that bound them
//! has none of its own. On the same socket a worker asks for those of a configuration that listens elsewhere.

use std::{
    io::{self, IoSlice},
    net::TcpListener,
    os::fd::{AsFd as _, AsRawFd, RawFd},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use proxyplane_spec::{HANDOFF_SOCKET, Manifest};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{HandoffError, receive};

/// For the control plane to take the message. It accepts at once, or it is going away.
const PATIENCE: Duration = Duration::from_secs(2);

/// A worker's manifest with its listeners, until these are closed.
#[derive(Debug)]
pub(crate) struct Held {
    manifest: Manifest,
    listeners: Mutex<Option<Vec<TcpListener>>>,
}

impl Held {
    pub(crate) fn new(manifest: Manifest, listeners: Vec<TcpListener>) -> Self {
        Self {
            manifest,
            listeners: Mutex::new(Some(listeners)),
        }
    }

    /// Closes these duplicates: nobody new is to be served.
    pub(crate) fn close(&self) {
        self.lock().take();
    }

    /// Sends the manifest and the listeners to the control plane's handoff socket; `false` if they are closed. Blocks.
    pub(crate) fn give_back(&self) -> io::Result<bool> {
        let duplicates: Option<io::Result<Vec<TcpListener>>> = self
            .lock()
            .as_ref()
            .map(|listeners| listeners.iter().map(TcpListener::try_clone).collect());
        let Some(listeners) = duplicates.transpose()? else {
            return Ok(false);
        };
        self.send(&listeners)?;
        Ok(true)
    }

    /// The listeners that the control plane has for the configuration that it asks us to build. Blocks.
    pub(crate) fn ask_for_next(&self) -> Result<Vec<TcpListener>, HandoffError> {
        // A manifest without listeners asks for some.
        let socket = self.send(&[])?;
        Ok(receive(socket.as_fd())?.listeners)
    }

    /// `listeners` are in use now. Answers those that were until now; none, with all closed, if nobody new is to be
    /// served any more.
    pub(crate) fn replace(&self, listeners: Vec<TcpListener>) -> Vec<TcpListener> {
        let mut held = self.lock();
        match held.as_mut() {
            Some(held) => std::mem::replace(held, listeners),
            None => Vec::new(),
        }
    }

    /// Sends the manifest with these listeners on a connection of its own.
    fn send(&self, listeners: &[TcpListener]) -> io::Result<Socket> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.connect(&SockAddr::unix(self.manifest.link.with_file_name(HANDOFF_SOCKET))?)?;
        let addresses: io::Result<_> = listeners.iter().map(TcpListener::local_addr).collect();
        let text = serde_json::to_vec(&Manifest {
            listeners: addresses?,
            ..self.manifest.clone()
        })?;
        let raw: Vec<RawFd> = listeners.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if raw.is_empty() { &rights[..0] } else { &rights[..] };
        let sent = sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(&text)],
            rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        // A packet goes whole or not at all.
        debug_assert_eq!(sent, text.len());
        Ok(socket)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<TcpListener>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proxyplane_spec::{Epoch, HANDOFF_VERSION, ServiceId};

    use super::*;

    #[test]
    fn listeners_are_given_back_until_they_are_closed() {
        let dir = std::env::temp_dir().join(format!("pp-held-{}", uuid::Uuid::now_v7().simple()));
        std::fs::create_dir(&dir).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let manifest = Manifest {
            version: HANDOFF_VERSION,
            epoch: Epoch::new(),
            nonce: "00".repeat(32),
            service_id: ServiceId::new(),
            link: dir.join("link.sock"),
            listeners: vec![listener.local_addr().unwrap()],
            account: None,
            spool: None,
        };
        let held = Held::new(manifest.clone(), vec![listener]);
        assert!(held.give_back().is_err(), "nobody is there");

        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        socket.bind(&SockAddr::unix(dir.join(HANDOFF_SOCKET)).unwrap()).unwrap();
        socket.listen(1).unwrap();
        assert!(held.give_back().unwrap());
        let (peer, _) = socket.accept().unwrap();
        let taken = receive(peer.as_fd()).unwrap();
        assert_eq!(taken.manifest, manifest);
        assert_eq!(taken.listeners[0].local_addr().unwrap(), manifest.listeners[0]);

        held.close();
        assert!(!held.give_back().unwrap());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
