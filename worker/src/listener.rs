//! Data-plane threads: a runtime each, all accepting from the same listening sockets.

use std::{
    io,
    net::{self, SocketAddr},
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use futures_util::FutureExt as _;
use proxyplane_spec::limits;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Handle},
    sync::oneshot,
};

use crate::service::Service;

/// Pause after accept failed for want of descriptors or memory. Connections wait in the kernel's queue meanwhile.
const BACKOFF: Duration = Duration::from_millis(100);
/// Threads for name resolution, per runtime; more lookups than that wait for each other.
const LOOKUPS: usize = 32;
/// A thread with this many more connections than another gives new ones away.
const IMBALANCE: usize = 2;

/// What is done with a connection: its two addresses are the client's and ours.
pub trait Serve: Clone + Send + Sync + 'static {
    /// Carries the connection to its end.
    fn serve(
        &self,
        service: Arc<Service>,
        stream: TcpStream,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> impl Future<Output = ()> + Send + 'static;
}

impl<F, R> Serve for F
where
    F: Fn(Arc<Service>, TcpStream, SocketAddr, SocketAddr) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    fn serve(
        &self,
        service: Arc<Service>,
        stream: TcpStream,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> impl Future<Output = ()> + Send + 'static {
        self(service, stream, peer, local)
    }
}

/// A data-plane thread, as the others see it.
struct Lane {
    handle: Handle,
    open: Arc<AtomicUsize>,
}

/// The data-plane threads of one worker. They end when this is dropped.
pub struct DataPlane {
    _stop: Vec<oneshot::Sender<()>>,
}

impl DataPlane {
    /// Starts `threads` threads that accept from `listeners` until the service drains.
    pub fn start<S: Serve>(
        service: &Arc<Service>,
        listeners: &[net::TcpListener],
        threads: usize,
        serve: &S,
    ) -> io::Result<Self> {
        let mut lanes = Vec::new();
        let mut stop = Vec::new();
        for index in 0..threads {
            let (lane, stop_lane) = spawn_lane(index)?;
            lanes.push(lane);
            stop.push(stop_lane);
        }
        let lanes: Arc<[Lane]> = lanes.into();
        for index in 0..lanes.len() {
            for listener in listeners {
                let listener = listener.try_clone()?;
                let (service, serve) = (Arc::clone(service), serve.clone());
                let acceptor = Acceptor {
                    service,
                    lanes: Arc::clone(&lanes),
                    index,
                    serve,
                };
                lanes[index].handle.spawn(acceptor.run(listener));
            }
        }
        Ok(Self { _stop: stop })
    }
}

fn spawn_lane(index: usize) -> io::Result<(Lane, oneshot::Sender<()>)> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(LOOKUPS)
        .build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel();
    thread::Builder::new().name(format!("data-{index}")).spawn(move || {
        // An error means that the sender was dropped: the same.
        let _ = runtime.block_on(stopped);
        runtime.shutdown_background();
    })?;
    Ok((
        Lane {
            handle,
            open: Arc::default(),
        },
        stop,
    ))
}

struct Acceptor<S> {
    service: Arc<Service>,
    lanes: Arc<[Lane]>,
    index: usize,
    serve: S,
}

impl<S: Serve> Acceptor<S> {
    async fn run(self, listener: net::TcpListener) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "cannot accept on this thread"),
        };
        let mut failing = false;
        loop {
            let accepted = tokio::select! {
                biased;
                // Dropping the listener deregisters and closes this duplicate. It is never shut down: that would end
                // it for every holder.
                () = self.service.drain.started() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    failing = false;
                    self.place(stream, peer);
                    // Lets the other threads have the next one of a burst.
                    tokio::task::yield_now().await;
                }
                Err(error) if is_peers_fault(&error) => {}
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "cannot accept connections; trying again until it works");
                    }
                    tokio::time::sleep(BACKOFF).await;
                }
            }
        }
    }

    /// Serves the connection on this thread, or on another that has clearly less to do.
    fn place(&self, stream: TcpStream, peer: SocketAddr) {
        let own = &self.lanes[self.index];
        let least = self
            .lanes
            .iter()
            .min_by_key(|lane| lane.open.load(Relaxed))
            .unwrap_or(own);
        if own.open.load(Relaxed) < least.open.load(Relaxed) + IMBALANCE {
            self.spawn(own, async move { Ok(stream) }, peer);
        } else {
            let moved = stream.into_std();
            self.spawn(least, async move { TcpStream::from_std(moved?) }, peer);
        }
    }

    fn spawn(
        &self,
        lane: &Lane,
        stream: impl Future<Output = io::Result<TcpStream>> + Send + 'static,
        peer: SocketAddr,
    ) {
        let (service, serve) = (Arc::clone(&self.service), self.serve.clone());
        let counted = Counted::new(&lane.open);
        let connection = async move {
            let _counted = (counted, service.stats.connection());
            let drain = service.drain.clone();
            let stats = Arc::clone(&service.stats);
            let served = AssertUnwindSafe(async move {
                let stream = stream.await?;
                let local = prepare(&stream)?;
                serve.serve(service, stream, peer, local).await;
                io::Result::Ok(())
            });
            tokio::select! {
                biased;
                served = served.catch_unwind() => match served {
                    Ok(Ok(())) => {}
                    // The client was gone before anything was read.
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "connection not served"),
                    Err(_) => {
                        stats.panicked();
                        tracing::error!(%peer, "a connection's task panicked; the others go on");
                    }
                },
                // Dropping what serves closes the connection and ends its records.
                () = drain.deadline() => {}
            }
        };
        self.service.drain.tracker().spawn_on(connection, &lane.handle);
    }
}

fn prepare(stream: &TcpStream) -> io::Result<SocketAddr> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(limits::TCP_KEEPALIVE))?;
    stream.local_addr()
}

/// The connection failed between the handshake and our call (accept(2)); the listener is as good as before.
fn is_peers_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// A connection counts as its thread's until this is dropped.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
