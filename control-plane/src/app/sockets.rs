//! The sockets that workers dial: the link's, and the one on which they give listeners back.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
};

use proxyplane_spec::{Account, HANDOFF_SOCKET};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::StartError;
use crate::{
    lifecycle::Lifecycle,
    link::{self, Link},
};

/// Workers that give their listeners back at the same time; further ones wait, and try again if that takes long.
const BACKLOG: i32 = 1_024;

/// Both, bound: who connects waits until they are served.
pub(super) struct Sockets {
    streams: UnixListener,
    returned: UnixListener,
}

impl Sockets {
    /// Only we and `workers` can connect.
    pub(super) fn bind(link_socket: &Path, workers: Option<Account>) -> Result<Self, StartError> {
        let handoff_socket = link_socket.with_file_name(HANDOFF_SOCKET);
        Ok(Self {
            returned: bind_packets(&handoff_socket, workers).map_err(StartError::of("handoff socket"))?,
            streams: bind_streams(link_socket, workers).map_err(StartError::of("worker link"))?,
        })
    }

    /// Serves both until `stop`.
    pub(super) fn serve(self, link: &Link, stop: &CancellationToken, process: &Lifecycle) {
        // First the second one: a worker that is welcomed may be asked for its listeners at once.
        process.spawn(link::serve_returned(link.clone(), self.returned, stop.clone()));
        let serving = link::serve(link.clone(), self.streams, stop.clone());
        process.spawn(async move {
            if let Err(error) = serving.await {
                error!(%error, "the worker link ended");
            }
        });
    }
}

fn bind_streams(path: &Path, workers: Option<Account>) -> io::Result<UnixListener> {
    clear(path)?;
    let listener = UnixListener::bind(path)?;
    open_to(path, workers)?;
    Ok(listener)
}

fn bind_packets(path: &Path, workers: Option<Account>) -> io::Result<UnixListener> {
    clear(path)?;
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    open_to(path, workers)?;
    socket.listen(BACKLOG)?;
    UnixListener::from_std(socket.into())
}

/// Connecting needs the right to write.
fn open_to(path: &Path, workers: Option<Account>) -> io::Result<()> {
    let mode = match workers {
        Some(Account { gid, .. }) => {
            chown(path, None, Some(gid))?;
            0o660
        }
        None => 0o600,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// What a former control plane left there is removed: the data directory is ours.
fn clear(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
