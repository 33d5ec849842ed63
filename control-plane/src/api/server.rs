//! Accepts connections of the API's port and serves HTTP/1.1 and HTTP/2 on them, within limits.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tonic::{body::Body, transport::server::TcpConnectInfo};
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::front::Front;
use crate::lifecycle::Lifecycle;

/// Connections at once; further ones wait in the accept queue.
const CONNECTIONS_MAX: usize = 1_024;
/// Calls at once on one HTTP/2 connection; the client waits with further ones.
const STREAMS_MAX: u32 = 256;
/// Bytes of a head: a call has few and short fields.
const HEAD_MAX: u32 = 64 * 1024;
/// Until a connection has said something, and until the head of an HTTP/1 request is complete.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Between pings on an HTTP/2 connection, so that a stream whose client is gone ends.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// After a failed accept (no descriptors left): soon enough for users, seldom enough for the processor.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves until the soft token; then lets open calls end, until the hard one.
pub(super) async fn serve(listener: TcpListener, front: Front, lifecycle: Lifecycle) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = lifecycle.soft().cancelled() => return,
            accepted = async {
                let permit = room.clone().acquire_owned().await.ok()?;
                Some((listener.accept().await, permit))
            } => accepted,
        };
        match accepted {
            Some((Ok((stream, peer)), permit)) => {
                let connection = connection(stream, peer, front.clone(), lifecycle.clone());
                lifecycle.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Some((Err(error), _)) => {
                warn!(%error, "no connection could be accepted");
                sleep(ACCEPT_AGAIN).await;
            }
            None => return,
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, front: Front, lifecycle: Lifecycle) {
    if prepare(&stream).await.is_err() {
        return;
    }
    let info = TcpConnectInfo {
        local_addr: stream.local_addr().ok(),
        remote_addr: Some(peer),
    };
    let service = front.map_request(move |request: http::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(info.clone());
        request
    });
    let builder = builder();
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = lifecycle.soft().cancelled() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                result = serving => result,
                () = lifecycle.hard().cancelled() => return,
            }
        }
    };
    if let Err(error) = result {
        debug!(%peer, error = %error, "a connection of the API ended badly");
    }
}

/// Waits for the first byte: hyper has no time-out for a client that connects and says nothing.
async fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(stream).set_keepalive(true)?;
    timeout(HEAD_TIMEOUT, stream.readable()).await?
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_MAX)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE);
    builder
}
