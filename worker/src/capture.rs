//! Capture: every exchange is recorded while it passes.
//!
//! A [`Recorder`] belongs to one exchange. Its records go into the queue, from there to the spool on disk, and once they
//! are written to the control plane; they are kept until it has committed them. What was written outlives this process.
//! While the disk takes nothing, the queue keeps them in memory, and when that is full, new exchanges and captured
//! bodies wait.

mod access_log;
mod block;
mod body;
mod cell;
mod ids;
mod open;
mod queue;
mod recorder;
mod spool;

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use proxyplane_record::{Exchange, ExchangeKind, Kind, Record};
use proxyplane_spec::CaptureSpec;
use tokio::sync::mpsc;

pub use self::recorder::Recorder;
pub(crate) use self::{
    access_log::AccessLog,
    open::sweep,
    queue::{AckError, PRESSURE_FILE, Queue, Sender},
    spool::Spool,
};
use self::{open::OpenExchanges, queue::Pressure};
use crate::service::{Drain, Stats};

/// Updates on their way to watchers; when it is full the next ones are dropped, which live updates allow.
const LIVE_UPDATES: usize = 256;

/// What records of all exchanges of this worker go through.
pub struct Capture {
    queue: Arc<Queue>,
    /// The spool's threads, until they are told to end.
    spooling: Mutex<Vec<JoinHandle<()>>>,
    open: OpenExchanges,
    log: AccessLog,
    stats: Arc<Stats>,
    drain: Drain,
    verbose: AtomicBool,
    watched: AtomicBool,
    durable: AtomicBool,
    live: mpsc::Sender<Bytes>,
}

impl Capture {
    /// An empty capture, and where its live updates come out while somebody watches. Records wait in memory.
    pub fn new(drain: Drain) -> (Arc<Self>, mpsc::Receiver<Bytes>) {
        Self::with(drain, Arc::default(), Vec::new())
    }

    /// The same with records that go through a spool in the directory `dir`.
    pub fn spooling(drain: Drain, dir: &Path) -> io::Result<(Arc<Self>, mpsc::Receiver<Bytes>)> {
        let spool = Arc::new(Spool::open(dir)?);
        let queue = Arc::new(Queue::spooling(Arc::clone(&spool), Pressure::of_machine()));
        let thread = |name: &str, run: fn(&Arc<Queue>, &Arc<Spool>)| {
            let (queue, spool) = (Arc::clone(&queue), Arc::clone(&spool));
            thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || run(&queue, &spool))
        };
        let threads = vec![thread("spool-write", spool::write)?, thread("spool-keep", spool::keep)?];
        Ok(Self::with(drain, queue, threads))
    }

    fn with(drain: Drain, queue: Arc<Queue>, threads: Vec<JoinHandle<()>>) -> (Arc<Self>, mpsc::Receiver<Bytes>) {
        let (live, updates) = mpsc::channel(LIVE_UPDATES);
        let capture = Self {
            queue,
            spooling: Mutex::new(threads),
            open: OpenExchanges::default(),
            log: AccessLog::default(),
            stats: Arc::default(),
            drain,
            verbose: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            durable: AtomicBool::new(false),
            live,
        };
        (Arc::new(capture), updates)
    }

    /// Begins the record of an exchange; waits while the queue is full.
    pub async fn begin(self: &Arc<Self>, start: Start) -> Recorder {
        self.queue.room().await;
        Recorder::begin(self, start)
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Ends the spool once everything is written, and removes it if everything is committed. Blocks.
    pub(crate) fn close(&self) {
        self.queue.close();
        for thread in lock(&self.spooling).drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the spool panicked");
            }
        }
        if let Some(spool) = self.queue.spool()
            && self.queue.is_empty()
        {
            spool.clear();
        }
    }

    /// What the service's configuration says of records.
    pub(crate) fn configure(&self, spec: &CaptureSpec) {
        self.durable.store(spec.durable_before_end, Relaxed);
        self.queue.set_eager(spec.durable_before_end);
        self.queue.configure(spec.spool_limit, spec.spool_full);
    }

    pub(crate) fn access_log(&self) -> &AccessLog {
        &self.log
    }

    pub(crate) fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    pub(crate) fn set_verbose(&self, verbose: bool) {
        self.verbose.store(verbose, Relaxed);
    }

    /// Whether somebody watches exchanges begin.
    pub(crate) fn set_watched(&self, watched: bool) {
        self.watched.store(watched, Relaxed);
    }

    fn tell_watchers(&self, exchange: &Exchange) {
        if self.watched.load(Relaxed) {
            let record = Record {
                kind: Some(Kind::Head(exchange.clone())),
            };
            let mut payload = BytesMut::new();
            // Encoding into a growing buffer cannot fail, and a full channel means a watcher that is behind.
            if prost::Message::encode(&record, &mut payload).is_ok() {
                let _ = self.live.try_send(payload.freeze());
            }
        }
    }

    fn log(&self, exchange: &Exchange) {
        if self.verbose.load(Relaxed) {
            self.log.exchange(exchange);
        }
    }
}

/// What is known of an exchange when it begins. Made when its first byte arrives: the clocks are read then.
#[derive(Clone, Debug)]
pub struct Start {
    /// The client's `ip:port`, made once per connection.
    pub client: Bytes,
    /// What it is, as far as known; [`Recorder::with`] may change it.
    pub kind: ExchangeKind,
    /// Captured bytes per body; see `CaptureSpec::capture_limit`.
    pub capture_limit: u64,
    began: Instant,
    began_at_us: i64,
}

impl Start {
    /// An exchange that begins now.
    pub fn new(client: Bytes, kind: ExchangeKind, capture_limit: u64) -> Self {
        Self {
            client,
            kind,
            capture_limit,
            began: Instant::now(),
            began_at_us: wall_clock_us(),
        }
    }
}

/// Wall time, microseconds since 1970. For stamps only: durations are measured with [`Instant`].
pub fn wall_clock_us() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as i64)
}

/// Locks `mutex`. What it guards is valid between any two statements here, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
