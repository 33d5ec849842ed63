//! The listening sockets as they were handed over, kept to be given back: a control plane that comes after the one that
//! bound them has none of its own.

use std::{
    io::{self, IoSlice},
    net::TcpListener,
    os::fd::{AsRawFd, RawFd},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use proxyplane_spec::{HANDOFF_SOCKET, Manifest};
use socket2::{Domain, SockAddr, Socket, Type};

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
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.connect(&SockAddr::unix(self.manifest.link.with_file_name(HANDOFF_SOCKET))?)?;
        let text = serde_json::to_vec(&self.manifest)?;
        let raw: Vec<RawFd> = listeners.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let sent = sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(&text)],
            &rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        // A packet goes whole or not at all.
        debug_assert_eq!(sent, text.len());
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<TcpListener>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use proxyplane_spec::{Epoch, HANDOFF_VERSION, ServiceId};

    use super::{super::receive, *};

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
