//! Data-plane threads: a runtime each, all accepting from the same listening sockets.

mod accepting;

use std::{
    io,
    net::{self, SocketAddr},
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
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
use tokio_util::sync::CancellationToken;

use self::accepting::Accept;
pub(crate) use self::accepting::Accepting;
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
    crew: Arc<dyn Accept>,
    accepting: Mutex<Accepting>,
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
        let crew = Arc::new(Crew {
            service: Arc::clone(service),
            lanes: lanes.into(),
            serve: serve.clone(),
        });
        let accepting = Accepting::begin(&*crew, listeners)?;
        Ok(Self {
            crew,
            accepting: Mutex::new(accepting),
            _stop: stop,
        })
    }

    /// Accepts from `listeners` too, from now on. What it accepted from before is the caller's to end.
    pub(crate) fn accept_also(&self, listeners: &[net::TcpListener]) -> io::Result<Accepting> {
        let next = Accepting::begin(&*self.crew, listeners)?;
        let mut accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut accepting, next))
    }

    /// Stops accepting `from` these `listeners`, once those are served who wait in their queues.
    pub(crate) async fn leave(&self, from: Accepting, listeners: Vec<net::TcpListener>) {
        from.end(&*self.crew, listeners).await;
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

/// The threads and what they do with connections.
#[derive(Clone)]
struct Crew<S> {
    service: Arc<Service>,
    lanes: Arc<[Lane]>,
    serve: S,
}

impl<S: Serve> Crew<S> {
    /// Accepts on one thread until `stop`.
    async fn run(self, index: usize, listener: net::TcpListener, stop: CancellationToken) {
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
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    failing = false;
                    self.place(&self.lanes[index], stream, peer);
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
    fn place(&self, own: &Lane, stream: TcpStream, peer: SocketAddr) {
        let least = self.least(own);
        if own.open.load(Relaxed) < least.open.load(Relaxed) + IMBALANCE {
            self.spawn(own, async move { Ok(stream) }, peer);
        } else {
            let moved = stream.into_std();
            self.spawn(least, async move { TcpStream::from_std(moved?) }, peer);
        }
    }

    /// The thread that has least to do; `own` if all have the same.
    fn least<'l>(&'l self, own: &'l Lane) -> &'l Lane {
        let lanes = self.lanes.iter();
        lanes.min_by_key(|lane| lane.open.load(Relaxed)).unwrap_or(own)
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
