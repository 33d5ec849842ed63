//! What is known of one expected worker, shared by its streams and the supervisor.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use proxyplane_proto::worker::{
    Certificates, Identity, LogLine, SessionResponse, Stats, Welcome, WorkerConfig,
    session_response::Message as ToWorker,
};
use proxyplane_spec::{Epoch, FEATURE_OPEN_COUNTS, Sandbox, ServiceId, Violation, WorkspaceId};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use super::worker_lines::{Allowance, Told};

/// Messages on their way to a worker. A worker that lets it fill up does not read: its session is given up.
pub(super) const SESSION_QUEUE: usize = 32;
/// What a worker said of its life and the supervisor has not read yet; when full, the session waits.
const EVENT_QUEUE: usize = 8;
/// For a worker to build or apply a configuration.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Who is expected.
#[derive(Debug)]
pub(crate) struct Expected {
    /// The instance.
    pub(crate) epoch: Epoch,
    /// SHA-256 of its secret: that of an adopted worker is known only so.
    pub(crate) nonce_sha256: [u8; 32],
    /// The process that must be at the other end of the socket.
    pub(crate) pid: i32,
    /// The service it runs.
    pub(crate) service_id: ServiceId,
    /// Where that belongs.
    pub(crate) workspace_id: WorkspaceId,
}

impl Expected {
    /// Is it this worker that shows `identity`, from the process `pid`? The nonce is compared in constant time.
    pub(super) fn admits(&self, identity: &Identity, pid: Option<i32>) -> bool {
        bool::from(
            self.nonce_sha256
                .ct_eq(&<[u8; 32]>::from(Sha256::digest(&identity.nonce))),
        ) && identity.service_id == self.service_id.0.as_bytes().as_slice()
            && pid == Some(self.pid)
    }
}

/// What a worker says of its own life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FromWorker {
    /// It serves with this revision.
    Ready {
        /// In force.
        revision: i64,
    },
    /// It was told to drain before it dialled this control plane.
    Draining {
        /// Until its deadline.
        remaining: Duration,
    },
    /// It gave its listeners back: [`WorkerLink::take_listeners`](super::WorkerLink::take_listeners).
    Returned,
    /// It has finished open work and will exit.
    Drained,
    /// The process that is expected dialled and could not prove to be the worker.
    Stranger,
}

/// Why a change did not come into force.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ChangeError {
    /// The worker refuses it.
    Rejected(Vec<Violation>),
    /// The worker is not connected, or went away before it answered.
    Lost,
    /// It did not answer in time.
    TimedOut,
}

/// A worker's counters, with how far its records are committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) requests: u64,
    pub(crate) websockets: u64,
    pub(crate) open_connections: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Connections that a panic ended.
    pub(crate) panics: u64,
    /// Records made and not yet committed.
    pub(crate) backlog: u64,
    /// Bytes on its disk, and how many there may be.
    pub(crate) spool_bytes: u64,
    pub(crate) spool_limit: u64,
    /// Of what is open; `None` if its build does not count that.
    pub(crate) open: Option<OpenExchanges>,
}

/// Exchanges that are open in a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OpenExchanges {
    pub(crate) requests: u64,
    pub(crate) websockets: u64,
    pub(crate) tunnels: u64,
}

#[derive(Debug)]
pub(super) struct Instance {
    pub(super) expected: Expected,
    events: mpsc::Sender<FromWorker>,
    stats: watch::Sender<Stats>,
    committed: AtomicU64,
    streams: TaskTracker,
    /// What of its log is let through.
    allowance: Mutex<Allowance>,
    state: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// In force, or about to be; what a redialling worker is given.
    config: Option<WorkerConfig>,
    build: String,
    features: Vec<String>,
    /// Why it refused a configuration last.
    refused: Option<Vec<Violation>>,
    sandbox: Option<Sandbox>,
    /// Since then.
    serving: Option<Instant>,
    returned: Option<Vec<(SocketAddr, TcpListener)>>,
    /// What it may ask for.
    lent: Option<Vec<(SocketAddr, TcpListener)>>,
    session: Option<Session>,
    waiting: HashMap<(Step, i64), oneshot::Sender<Result<(), ChangeError>>>,
}

/// The session in use.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// What goes down to the worker.
    pub(super) sender: mpsc::Sender<Result<SessionResponse, tonic::Status>>,
    /// Cancelled when another takes its place or it does not read.
    pub(super) ended: CancellationToken,
}

/// Which answer to a change is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    Stage,
    Activate,
}

impl Inner {
    fn attach(&mut self, build: String, serving: Duration, session: Session) {
        self.build = build;
        self.serving = Instant::now().checked_sub(serving);
        self.end_session();
        self.session = Some(session);
    }

    fn end_session(&mut self) {
        if let Some(session) = self.session.take() {
            session.ended.cancel();
        }
        self.waiting.clear();
    }
}

impl Session {
    pub(super) fn new(sender: mpsc::Sender<Result<SessionResponse, tonic::Status>>) -> Self {
        Self {
            sender,
            ended: CancellationToken::new(),
        }
    }
}

impl Instance {
    pub(super) fn new(expected: Expected, config: Option<WorkerConfig>) -> (Self, mpsc::Receiver<FromWorker>) {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        let state = Inner {
            config,
            build: String::new(),
            features: Vec::new(),
            refused: None,
            sandbox: None,
            serving: None,
            returned: None,
            lent: None,
            session: None,
            waiting: HashMap::new(),
        };
        let instance = Self {
            expected,
            events,
            stats: watch::channel(Stats::default()).0,
            committed: AtomicU64::new(0),
            streams: TaskTracker::new(),
            allowance: Mutex::new(Allowance::new(Instant::now())),
            state: Mutex::new(state),
        };
        (instance, receiver)
    }

    /// A line that it logged, unless there were too many.
    pub(super) fn logged(&self, line: LogLine) -> Option<Told> {
        // It stays whole when a holder panics.
        let mut allowance = self.allowance.lock().unwrap_or_else(PoisonError::into_inner);
        allowance.admit(line, Instant::now())
    }

    /// A new session takes the place of the one before, and begins with Welcome: an order that comes at this very moment
    /// must not be the first that the worker hears.
    pub(super) fn welcome(&self, build: String, serving: Duration, session: Session, certificates: Certificates) {
        let mut state = self.lock();
        let welcome = Welcome {
            config: state.config.clone(),
            certificates: Some(certificates),
        };
        // There is room: it is the first message. A worker that is gone already is noticed by its session.
        let _ = session.sender.try_send(Ok(SessionResponse {
            message: Some(ToWorker::Welcome(welcome)),
        }));
        state.attach(build, serving, session);
    }

    /// A session ended. Whoever waits for an answer on it learns that it is lost.
    pub(super) fn detach(&self, session: &Session) {
        let mut state = self.lock();
        if state
            .session
            .as_ref()
            .is_some_and(|present| present.sender.same_channel(&session.sender))
        {
            state.end_session();
        }
    }

    /// Sends without waiting; `false` if there is no session or it does not read.
    pub(super) fn send(&self, message: ToWorker) -> bool {
        let mut state = self.lock();
        let Some(session) = &state.session else { return false };
        let sent = session
            .sender
            .try_send(Ok(SessionResponse { message: Some(message) }))
            .is_ok();
        if !sent {
            state.end_session();
        }
        sent
    }

    /// Sends a change and waits for its answer.
    pub(super) async fn ask(&self, revision: i64, message: ToWorker) -> Result<(), ChangeError> {
        let step = if matches!(message, ToWorker::Stage(_)) {
            Step::Stage
        } else {
            Step::Activate
        };
        let (answer, answered) = oneshot::channel();
        self.lock().waiting.insert((step, revision), answer);
        if !self.send(message) {
            self.lock().waiting.remove(&(step, revision));
            return Err(ChangeError::Lost);
        }
        match tokio::time::timeout(CHANGE_TIMEOUT, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ChangeError::Lost),
            Err(_) => {
                self.lock().waiting.remove(&(step, revision));
                Err(ChangeError::TimedOut)
            }
        }
    }

    /// An answer to a change came. One that nobody waits for is late, and ignored.
    pub(super) fn answered(&self, step: Step, revision: i64, answer: Result<(), ChangeError>) {
        if let Some(waiting) = self.lock().waiting.remove(&(step, revision)) {
            let _ = waiting.send(answer);
        }
    }

    /// Tells the supervisor; waits while it is busy.
    pub(super) async fn tell(&self, event: FromWorker) {
        // The supervisor lets go of a worker only when it is dead: nobody needs its news then.
        let _ = self.events.send(event).await;
    }

    /// Tells the supervisor if it is not busy.
    pub(super) fn offer(&self, event: FromWorker) {
        let _ = self.events.try_send(event);
    }

    /// Minds the latest counters; answers those before.
    pub(super) fn count(&self, stats: Stats) -> Stats {
        self.stats.send_replace(stats)
    }

    pub(super) fn committed(&self, next_seq: u64) {
        self.committed.store(next_seq, Ordering::Relaxed);
    }

    pub(super) fn counted(&self) -> watch::Receiver<Stats> {
        self.stats.subscribe()
    }

    pub(super) fn counters(&self) -> Counters {
        let counts_open = self.can(FEATURE_OPEN_COUNTS);
        let stats = self.stats.borrow();
        Counters {
            open: counts_open.then_some(OpenExchanges {
                requests: stats.open_requests,
                websockets: stats.open_websockets,
                tunnels: stats.open_tunnels,
            }),
            requests: stats.requests,
            websockets: stats.websockets,
            open_connections: stats.open_connections,
            bytes_in: stats.bytes_in,
            bytes_out: stats.bytes_out,
            panics: stats.panics,
            backlog: stats.next_seq.saturating_sub(self.committed.load(Ordering::Relaxed)),
            spool_bytes: stats.spool_bytes,
            spool_limit: stats.spool_limit,
        }
    }

    #[cfg(test)]
    pub(super) fn config(&self) -> Option<WorkerConfig> {
        self.lock().config.clone()
    }

    pub(super) fn set_config(&self, config: WorkerConfig) {
        self.lock().config = Some(config);
    }

    pub(super) fn build(&self) -> String {
        self.lock().build.clone()
    }

    /// Minds what the worker says that its build can do.
    pub(super) fn is_able(&self, features: Vec<String>) {
        self.lock().features = features;
    }

    /// Has its build this feature? Not before it dialled.
    pub(super) fn can(&self, feature: &str) -> bool {
        self.lock().features.iter().any(|has| has == feature)
    }

    /// Minds why it refused a configuration.
    pub(super) fn refuses(&self, violations: Vec<Violation>) {
        self.lock().refused = Some(violations);
    }

    pub(super) fn refused(&self) -> Option<Vec<Violation>> {
        self.lock().refused.clone()
    }

    /// Minds what the worker says that it has given up.
    pub(super) fn confined(&self, sandbox: Sandbox) {
        let known = self.lock().sandbox.replace(sandbox);
        if known.is_none() && sandbox.landlock_abi == 0 {
            let service = self.expected.service_id;
            tracing::warn!(%service, "a worker runs without landlock: it can read what its account can read");
        }
    }

    pub(super) fn sandbox(&self) -> Option<Sandbox> {
        self.lock().sandbox
    }

    /// Since when it has been serving, as it said when it last dialled.
    pub(super) fn serving_since(&self) -> Option<Instant> {
        self.lock().serving
    }

    /// Keeps listeners that were given back, until the supervisor takes them.
    pub(super) fn put_listeners(&self, listeners: Vec<(SocketAddr, TcpListener)>) {
        self.lock().returned = Some(listeners);
    }

    pub(super) fn take_listeners(&self) -> Option<Vec<(SocketAddr, TcpListener)>> {
        self.lock().returned.take()
    }

    /// What the worker gets when it asks for listeners.
    pub(super) fn lend(&self, listeners: Option<Vec<(SocketAddr, TcpListener)>>) {
        self.lock().lent = listeners;
    }

    /// Duplicates of what was lent, if anything.
    pub(super) fn lent(&self) -> Option<io::Result<Vec<(SocketAddr, TcpListener)>>> {
        let state = self.lock();
        let listeners = state.lent.as_ref()?.iter();
        Some(
            listeners
                .map(|(address, listener)| Ok((*address, listener.try_clone()?)))
                .collect(),
        )
    }

    /// Held by a record stream while it is read.
    pub(super) fn stream(&self) -> TaskTrackerToken {
        self.streams.token()
    }

    /// Waits until no record stream is being read.
    pub(super) async fn streams_ended(&self) {
        self.streams.close();
        self.streams.wait().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Expected {
        let (epoch, service_id, workspace_id) = (Epoch::new(), ServiceId::new(), WorkspaceId::new());
        Expected {
            epoch,
            nonce_sha256: Sha256::digest([7; 32]).into(),
            pid: 42,
            service_id,
            workspace_id,
        }
    }

    fn identity(of: &Expected) -> Identity {
        Identity {
            epoch: of.epoch.0.as_bytes().to_vec().into(),
            nonce: vec![7; 32].into(),
            service_id: of.service_id.0.as_bytes().to_vec().into(),
        }
    }

    #[test]
    fn only_the_spawned_process_with_its_nonce_and_service_is_admitted() {
        let expected = expected();
        let shown = identity(&expected);
        assert!(expected.admits(&shown, Some(42)));
        assert!(!expected.admits(&shown, Some(43)));
        assert!(!expected.admits(&shown, None));
        assert!(!expected.admits(
            &Identity {
                nonce: vec![7; 31].into(),
                ..shown.clone()
            },
            Some(42)
        ));
        assert!(!expected.admits(
            &Identity {
                nonce: vec![8; 32].into(),
                ..shown.clone()
            },
            Some(42)
        ));
        assert!(!expected.admits(
            &Identity {
                service_id: vec![0; 16].into(),
                ..shown
            },
            Some(42)
        ));
    }

    #[tokio::test]
    async fn a_change_is_answered_by_its_step_and_revision_only() {
        let (instance, _events) = Instance::new(expected(), None);
        let (sender, mut sent) = mpsc::channel(SESSION_QUEUE);
        instance
            .lock()
            .attach("1.0".into(), Duration::ZERO, Session::new(sender));
        let config = WorkerConfig {
            revision: 5,
            ..WorkerConfig::default()
        };
        let asked = instance.ask(5, ToWorker::Stage(config));
        let answers = async {
            sent.recv().await.expect("it is sent").expect("not an error");
            instance.answered(Step::Activate, 5, Ok(()));
            instance.answered(Step::Stage, 4, Ok(()));
            instance.answered(Step::Stage, 5, Err(ChangeError::Rejected(vec![])));
        };
        assert_eq!(tokio::join!(asked, answers).0, Err(ChangeError::Rejected(vec![])));
    }

    #[tokio::test]
    async fn a_change_is_lost_with_its_session() {
        let (instance, _events) = Instance::new(expected(), None);
        let activate = || ToWorker::Activate(proxyplane_proto::worker::Activate { revision: 1 });
        assert_eq!(instance.ask(1, activate()).await, Err(ChangeError::Lost));
        let (sender, _sent) = mpsc::channel(SESSION_QUEUE);
        let session = Session::new(sender);
        instance.lock().attach(String::new(), Duration::ZERO, session.clone());
        let (lost, ()) = tokio::join!(instance.ask(1, activate()), async { instance.detach(&session) });
        assert_eq!(lost, Err(ChangeError::Lost));
    }

    #[test]
    fn a_session_begins_with_welcome_whatever_is_sent_at_once() {
        let (instance, _events) = Instance::new(expected(), None);
        let (sender, mut sent) = mpsc::channel(SESSION_QUEUE);
        instance.welcome(
            String::new(),
            Duration::ZERO,
            Session::new(sender),
            Certificates::default(),
        );
        assert!(instance.send(ToWorker::ReportStats(proxyplane_proto::worker::ReportStats {})));
        let mut next = || sent.try_recv().unwrap().unwrap().message.unwrap();
        assert!(matches!(next(), ToWorker::Welcome(_)));
        assert!(matches!(next(), ToWorker::ReportStats(_)));
    }

    #[test]
    fn a_session_that_does_not_read_is_given_up() {
        let (instance, _events) = Instance::new(expected(), None);
        let (sender, _unread) = mpsc::channel(1);
        let session = Session::new(sender);
        instance.lock().attach(String::new(), Duration::ZERO, session.clone());
        let report = || ToWorker::ReportStats(proxyplane_proto::worker::ReportStats {});
        assert!(instance.send(report()));
        assert!(!instance.send(report()));
        assert!(session.ended.is_cancelled());
    }

    #[test]
    fn what_a_build_does_not_count_is_not_known() {
        let (instance, _events) = Instance::new(expected(), None);
        let _ = instance.count(Stats {
            open_tunnels: 2,
            ..Stats::default()
        });
        assert_eq!(instance.counters().open, None);
        instance.is_able(vec![FEATURE_OPEN_COUNTS.to_owned()]);
        assert_eq!(instance.counters().open.map(|open| open.tunnels), Some(2));
    }

    #[test]
    fn the_backlog_is_what_was_made_and_not_committed() {
        let (instance, _events) = Instance::new(expected(), None);
        let _ = instance.count(Stats {
            next_seq: 10,
            ..Stats::default()
        });
        instance.committed(4);
        assert_eq!(instance.counters().backlog, 6);
        instance.committed(11);
        assert_eq!(
            instance.counters().backlog,
            0,
            "counters may be older than acknowledgements"
        );
    }
}
