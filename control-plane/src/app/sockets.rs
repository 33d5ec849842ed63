//! The sockets that workers dial: the link's, and the one on which they give listeners back.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

use proxyplane_spec::HANDOFF_SOCKET;
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

/// Serves both until `stop`.
pub(super) fn serve(
    link: &Link,
    link_socket: &Path,
    stop: &CancellationToken,
    process: &Lifecycle,
) -> Result<(), StartError> {
    // First the second one: a worker that is welcomed may be asked for its listeners at once.
    let returned =
        bind_packets(&link_socket.with_file_name(HANDOFF_SOCKET)).map_err(StartError::of("handoff socket"))?;
    let taking = link::serve_returned(link.clone(), returned, stop.clone());
    process.spawn(taking);
    let streams = bind_streams(link_socket).map_err(StartError::of("worker link"))?;
    let serving = link::serve(link.clone(), streams, stop.clone());
    process.spawn(async move {
        if let Err(error) = serving.await {
            error!(%error, "the worker link ended");
        }
    });
    Ok(())
}

fn bind_streams(path: &Path) -> io::Result<UnixListener> {
    clear(path)?;
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn bind_packets(path: &Path) -> io::Result<UnixListener> {
    clear(path)?;
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    UnixListener::from_std(socket.into())
}

/// What a former control plane left there is removed: the data directory is ours.
fn clear(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
