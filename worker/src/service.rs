//! What all connections of this worker share: the configuration in force, capture, statistics and drain.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use proxyplane_proto::worker as wire;
use proxyplane_spec::CaptureSpec;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{capture::Capture, tls::Tls};

/// The ProxyService that this worker runs.
pub struct Service {
    config: ArcSwap<ServiceConfig>,
    /// Where exchanges are recorded.
    pub capture: Arc<Capture>,
    /// Counters since this worker began.
    pub stats: Arc<Stats>,
    /// Whether connections are to end.
    pub drain: Drain,
    listeners: ArcSwap<Vec<SocketAddr>>,
}

impl Service {
    /// A service that serves by `config` on `listeners`.
    pub fn new(config: ServiceConfig, capture: Arc<Capture>, drain: Drain, listeners: Vec<SocketAddr>) -> Arc<Self> {
        capture.set_verbose(config.verbose);
        capture.configure(&config.spec);
        let stats = Arc::clone(capture.stats());
        Arc::new(Self {
            config: ArcSwap::from_pointee(config),
            capture,
            stats,
            drain,
            listeners: ArcSwap::from_pointee(listeners),
        })
    }

    /// The configuration in force. An exchange keeps the one it began with.
    pub fn config(&self) -> Arc<ServiceConfig> {
        self.config.load_full()
    }

    /// Puts `config` in force for every exchange that begins from now on.
    pub fn apply(&self, config: ServiceConfig) {
        self.capture.set_verbose(config.verbose);
        self.capture.configure(&config.spec);
        self.config.store(Arc::new(config));
    }

    /// The addresses it accepts on.
    pub fn listeners(&self) -> Arc<Vec<SocketAddr>> {
        self.listeners.load_full()
    }

    /// It accepts on these addresses from now on.
    pub fn moved(&self, listeners: Vec<SocketAddr>) {
        self.listeners.store(Arc::new(listeners));
    }
}

/// One revision of the service's configuration, built and ready for use.
#[derive(Clone)]
pub struct ServiceConfig {
    /// Revision as the control plane counts them.
    pub revision: i64,
    /// Name of the service, for people.
    pub name: String,
    /// Log a line for every exchange.
    pub verbose: bool,
    /// What to do with what passes.
    pub spec: CaptureSpec,
    /// Addresses of the control plane's API: requests to them are loops.
    pub control_addresses: Vec<SocketAddr>,
    /// Both TLS legs, built from `spec`.
    pub tls: Arc<Tls>,
}

/// Counters since the worker began. Data-plane threads only add; the link reads.
#[derive(Debug, Default)]
pub struct Stats {
    requests: AtomicU64,
    websockets: AtomicU64,
    open_connections: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    panics: AtomicU64,
    /// By [`OpenKind`].
    open: [AtomicU64; 3],
    /// Somebody waits for a change; keeps the cost of a change at one relaxed load.
    armed: AtomicBool,
    changed: Notify,
}

impl Stats {
    /// A request's head is known.
    pub fn request(&self) {
        self.requests.fetch_add(1, Relaxed);
        self.touch();
    }

    /// A WebSocket was opened.
    pub fn websocket(&self) {
        self.websockets.fetch_add(1, Relaxed);
        self.touch();
    }

    /// Bytes of heads and bodies came from a client.
    pub fn received(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Relaxed);
        self.touch();
    }

    /// Bytes of heads and bodies went to a client.
    pub fn sent(&self, bytes: u64) {
        self.bytes_out.fetch_add(bytes, Relaxed);
        self.touch();
    }

    /// A connection's task panicked.
    pub fn panicked(&self) {
        self.panics.fetch_add(1, Relaxed);
        self.touch();
    }

    /// How many connections' tasks panicked.
    pub fn panics(&self) -> u64 {
        self.panics.load(Relaxed)
    }

    /// An exchange of this kind is open, until [`Stats::closed`].
    pub fn opened(&self, kind: OpenKind) {
        self.open[kind as usize].fetch_add(1, Relaxed);
        self.touch();
    }

    /// It is over, or of another kind from now on.
    pub fn closed(&self, kind: OpenKind) {
        self.open[kind as usize].fetch_sub(1, Relaxed);
        self.touch();
    }

    /// Counts a client's connection as open until the guard is dropped.
    pub fn connection(self: &Arc<Self>) -> ConnectionGuard {
        self.open_connections.fetch_add(1, Relaxed);
        self.touch();
        ConnectionGuard(Arc::clone(self))
    }

    /// The counters as the link sends them, beside what the record queue says of itself.
    pub fn snapshot(&self, queue: QueueStats) -> wire::Stats {
        let QueueStats {
            next_seq,
            spool_bytes,
            spool_limit,
        } = queue;
        wire::Stats {
            requests: self.requests.load(Relaxed),
            websockets: self.websockets.load(Relaxed),
            open_connections: self.open_connections.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            next_seq,
            panics: self.panics.load(Relaxed),
            spool_bytes,
            spool_limit,
            open_requests: self.open[OpenKind::Request as usize].load(Relaxed),
            open_websockets: self.open[OpenKind::WebSocket as usize].load(Relaxed),
            open_tunnels: self.open[OpenKind::Tunnel as usize].load(Relaxed),
        }
    }

    /// Asks for one [`Stats::changed`] after the next change.
    pub(crate) fn arm(&self) {
        self.armed.store(true, Relaxed);
    }

    /// Resolves after a change since [`Stats::arm`].
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn touch(&self) {
        if self.armed.load(Relaxed) && self.armed.swap(false, Relaxed) {
            self.changed.notify_one();
        }
    }
}

/// What an open exchange is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenKind {
    /// A request that has not been answered to its end.
    Request,
    /// A WebSocket.
    WebSocket,
    /// Bytes that are carried untouched.
    Tunnel,
}

/// What the record queue says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueStats {
    /// Sequence number that the next record gets.
    pub next_seq: u64,
    /// Bytes on disk.
    pub spool_bytes: u64,
    /// Bytes that there may be on disk.
    pub spool_limit: u64,
}

/// An open client connection; see [`Stats::connection`].
#[derive(Debug)]
pub struct ConnectionGuard(Arc<Stats>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.open_connections.fetch_sub(1, Relaxed);
        self.0.touch();
    }
}

/// The end of a worker in two steps: soft, finish what is open; hard, close it.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    soft: CancellationToken,
    hard: CancellationToken,
    tracker: TaskTracker,
    /// Time from the soft end to the hard one, as it was when it began.
    within: Arc<OnceLock<Duration>>,
    /// For how long connections without a request stay open.
    idle: Arc<OnceLock<Duration>>,
}

impl Drain {
    /// Nothing is to end yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has the soft end begun? HTTP/1 then answers `Connection: close`, HTTP/2 GOAWAY, WebSockets close with 1001.
    pub fn draining(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Resolves when the soft end begins.
    pub async fn started(&self) {
        self.soft.cancelled().await;
    }

    /// Connections without a request are to stay open for this long after the soft end began: another worker serves, and
    /// a request that comes on one of them is not to be lost. Comes before [`Self::begin`]; without it they are closed
    /// at once.
    pub fn keep_idle(&self, idle: Duration) {
        self.idle.get_or_init(|| idle);
    }

    /// Resolves when a connection without a request is to be closed. One that is new then has the whole time.
    pub async fn idle_ended(&self) {
        self.soft.cancelled().await;
        if let Some(idle) = self.idle.get().filter(|idle| !idle.is_zero()) {
            tokio::time::sleep(*idle).await;
        }
    }

    /// Has the deadline passed?
    pub fn expired(&self) -> bool {
        self.hard.is_cancelled()
    }

    /// Resolves at the deadline: close now.
    pub async fn deadline(&self) {
        self.hard.cancelled().await;
    }

    /// Begins the soft end; the hard one comes `within` this time.
    pub fn begin(&self, within: Duration) {
        self.within.get_or_init(|| within);
        self.soft.cancel();
    }

    /// Over how long goodbyes may be spread, so that a thousand clients do not reconnect at once: at most two seconds,
    /// and half of the time that there is.
    pub fn spread(&self) -> Duration {
        let half = self.within.get().map_or(Duration::ZERO, |within| *within / 2);
        half.min(Duration::from_secs(2))
    }

    /// The deadline has passed.
    pub fn expire(&self) {
        self.soft.cancel();
        self.hard.cancel();
    }

    /// Every connection's task is spawned through this, so that the end can wait for them.
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goodbyes_are_spread_over_half_of_the_drain_at_most() {
        for (within, spread) in [(0, 0), (1, 500), (30, 2_000)] {
            let drain = Drain::new();
            drain.begin(Duration::from_secs(within));
            assert_eq!(drain.spread(), Duration::from_millis(spread));
        }
    }
}
