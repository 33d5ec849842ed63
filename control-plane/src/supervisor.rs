//! Runs services: one task per service owns its listeners and its worker process, callers send it requests and wait
//! for the answer, so two starts never race.
//!
//! Desired state is in the store, observed state in the task. What a task does is decided by the pure table in
//! `state.rs`.

pub(crate) mod account;
mod adopt;
mod backoff;
mod binary;
mod boot;
pub(crate) mod certificates;
mod error;
mod exit;
pub(crate) mod handoff;
pub mod holder;
mod inherited;
mod left_behind;
pub(crate) mod listeners;
mod logs;
mod observed;
mod orphans;
mod pidfd;
mod process;
mod refuse;
mod resume;
mod run_record;
mod spawn;
mod spool_dir;
mod state;
mod status;
mod task;
mod upgrade;

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use adopt::Adoption;
pub use binary::BinaryError;
pub use error::LifecycleError;
pub use holder::PortHolder;
pub(crate) use inherited::{Bequest, FEATURE as INHERITS_LISTENERS, Inherited};
pub use logs::LogFile;
use observed::Observed;
use proxyplane_spec::{Account, ListenHost, ServiceId};
pub use status::{DrainingWorker, OpenCounts, ServiceState, ServiceStatus};
use task::{Command, Update};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use crate::{
    events::Events,
    ingest::IngestHandle,
    link::Link,
    store::{
        self, Db,
        services::{ServiceChange, ServiceRow},
    },
};

/// Requests that wait for a service's task; when full, callers wait.
const COMMAND_QUEUE: usize = 16;
/// Changed services that a watcher has not read; when it lags, it reads everything again.
const CHANGED_QUEUE: usize = 1_024;

/// For ingest to commit what it has. Under load of other services there is always more.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the supervisor is told once.
#[derive(Clone, Debug)]
pub struct Options {
    /// The worker's binary, opened once.
    pub worker_binary: PathBuf,
    /// Where run records are kept.
    pub run_dir: PathBuf,
    /// Where workers' spools are kept.
    pub spool_dir: PathBuf,
    /// Whom workers run as; `None` if as we do.
    pub account: Option<Account>,
    /// Where workers' logs are kept.
    pub log_dir: PathBuf,
    /// Where workers dial.
    pub link_socket: PathBuf,
    /// Where the API listens: workers refuse to connect to it.
    pub control_addresses: Vec<SocketAddr>,
    /// How long a drain lasts unless a call says otherwise.
    pub drain_timeout: Duration,
    /// Where it raises what happens to workers.
    pub events: Events,
}

/// Handle on the supervisor. Cloning shares it.
#[derive(Clone)]
pub struct Supervisor {
    shared: Arc<Shared>,
}

/// What every service's task uses.
struct Shared {
    options: Options,
    /// What a start runs; a respawn after a crash runs the build that the service had.
    binary: Mutex<Arc<binary::WorkerBinary>>,
    /// One worker is replaced at a time.
    upgrades: Arc<tokio::sync::Mutex<()>>,
    adoption: Adoption,
    db: Db,
    link: Link,
    ingest: IngestHandle,
    tracker: TaskTracker,
    changed: broadcast::Sender<ServiceId>,
    closing: CancellationToken,
    services: Mutex<HashMap<ServiceId, Handle>>,
    orphans: orphans::Orphans,
}

#[derive(Clone)]
struct Handle {
    commands: mpsc::Sender<Command>,
    observed: watch::Receiver<Observed>,
}

impl Supervisor {
    /// Opens the worker binary and accepts it by what it says of itself. Nothing runs yet: see `adopt` and
    /// [`Self::boot`].
    pub async fn open(
        options: Options,
        db: Db,
        link: Link,
        ingest: IngestHandle,
        tracker: TaskTracker,
    ) -> Result<Self, BinaryError> {
        let binary = binary::WorkerBinary::open(&options.worker_binary).await?;
        tracing::info!(version = binary.version.version, features = ?binary.version.features, "worker binary accepted");
        let shared = Shared {
            options,
            binary: Mutex::new(Arc::new(binary)),
            upgrades: Arc::default(),
            adoption: Adoption::default(),
            db,
            link,
            ingest,
            tracker,
            changed: broadcast::channel(CHANGED_QUEUE).0,
            closing: CancellationToken::new(),
            services: Mutex::default(),
            orphans: orphans::Orphans::default(),
        };
        let supervisor = Self {
            shared: Arc::new(shared),
        };
        supervisor.shared.tracker.spawn(supervisor.clone().cut_logs());
        Ok(supervisor)
    }

    /// Starts a service; answers once its worker serves and it is stored as enabled. Starting what runs has no effect.
    pub async fn start(&self, id: ServiceId) -> Result<(), LifecycleError> {
        self.ask(id, |answer| Command::Start { answer }).await
    }

    /// Stores a service as not enabled, drains and stops it. Stopping what is stopped has no effect.
    pub async fn stop(&self, id: ServiceId, drain: Option<Duration>) -> Result<(), LifecycleError> {
        let drain = drain.unwrap_or(self.shared.options.drain_timeout);
        self.ask(id, |answer| Command::Stop { drain, answer }).await
    }

    /// Replaces a service's worker, or starts it: ends running and enabled, whatever came before.
    pub async fn restart(&self, id: ServiceId, drain: Option<Duration>) -> Result<(), LifecycleError> {
        let drain = drain.unwrap_or(self.shared.options.drain_timeout);
        self.ask(id, |answer| Command::Restart { drain, answer }).await
    }

    /// Changes a service's configuration: built by its worker, then stored, then in force, when this returns.
    /// With `validate_only`, everything but storing and applying.
    pub async fn reconfigure(
        &self,
        id: ServiceId,
        etag: Option<String>,
        change: ServiceChange,
        validate_only: bool,
    ) -> Result<ServiceRow, LifecycleError> {
        let update = Update {
            etag,
            change,
            validate_only,
        };
        self.ask(id, |answer| Command::Update {
            update: Box::new(update),
            answer,
        })
        .await
    }

    /// Deletes a stopped service from the store; its log goes with it.
    ///
    /// Waits for what is left in spools of its workers to be stored, or gives it up if `discard`.
    pub async fn remove(&self, id: ServiceId, etag: Option<String>, discard: bool) -> Result<(), LifecycleError> {
        self.ask(id, |answer| Command::Remove { etag, discard, answer }).await
    }

    /// What is observed of a service and its workers now, with counters that they were asked for.
    pub async fn status(&self, id: ServiceId) -> ServiceStatus {
        let observed = self.services().get(&id).map(|handle| handle.observed.borrow().clone());
        match observed {
            Some(observed) => observed.status().await,
            None => ServiceStatus::default(),
        }
    }

    /// The same with what lies in spools and is told by no worker: with a `backlog` of 0, everything that the service's
    /// workers put on disk is committed.
    pub async fn status_and_spools(&self, id: ServiceId) -> ServiceStatus {
        let observed = self.services().get(&id).map(|handle| handle.observed.borrow().clone());
        let observed = observed.unwrap_or_default();
        // Both at once: a worker is told of by itself or by its spool.
        let (mut status, left) = tokio::join!(
            observed.status(),
            left_behind::look(&self.shared, id, observed.telling())
        );
        status.backlog += left.records;
        status.spool_bytes += left.bytes;
        status
    }

    /// Ids of services whose status or configuration changed.
    pub fn watch(&self) -> broadcast::Receiver<ServiceId> {
        self.shared.changed.subscribe()
    }

    /// Waits, not for ever, until what stopped workers recorded is in the store.
    pub(crate) async fn records_settled(&self) {
        let _ = tokio::time::timeout(SETTLE_TIMEOUT, self.shared.ingest.drained()).await;
    }

    /// Spawns work that outlives the call that asked for it; the server waits for it before it ends.
    pub(crate) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.shared.tracker.spawn(work.in_current_span())
    }

    /// Tells watchers that a service's row changed.
    pub(crate) fn announce(&self, id: ServiceId) {
        // Nobody may be watching.
        let _ = self.shared.changed.send(id);
    }

    /// The log of a service's workers.
    pub fn log(&self, id: ServiceId) -> LogFile {
        LogFile::of(&self.shared.options.log_dir, id)
    }

    /// A port that is free on every address of `host`; `None` if none was found.
    pub fn pick_port(host: ListenHost) -> Result<Option<u16>, LifecycleError> {
        listeners::pick_port(host).map_err(|error| task::address_error(&error, host, PortHolder::Unknown))
    }

    /// Could `host` and `port` be bound now? `PortInUse` names the holder.
    pub async fn probe(&self, host: ListenHost, port: u16) -> Result<(), LifecycleError> {
        match listeners::probe(host, port) {
            Ok(()) => Ok(()),
            Err(error) => {
                let holder = self.holder(host, port).await;
                Err(task::address_error(&error, host, holder))
            }
        }
    }

    /// Who listens on `port`: one of our services, or the process that stands in the way of `host`.
    pub async fn holder(&self, host: ListenHost, port: u16) -> PortHolder {
        self.shared.holder(host, port, None).await
    }

    /// Stops every worker at once, draining for up to `drain`. What is enabled stays enabled. Called again, with less
    /// time, it hurries.
    pub async fn shutdown(&self, drain: Duration) {
        self.shared.closing.cancel();
        let handles: Vec<Handle> = self.services().values().cloned().collect();
        let stops = handles.into_iter().map(|handle| async move {
            if handle.commands.send(Command::Shutdown { drain }).await.is_ok() {
                // The task ends, and its receiver with it, when the worker is gone.
                handle.commands.closed().await;
            }
        });
        futures_util::future::join_all(stops).await;
    }

    async fn ask<T>(
        &self,
        id: ServiceId,
        command: impl FnOnce(oneshot::Sender<Result<T, LifecycleError>>) -> Command,
    ) -> Result<T, LifecycleError> {
        let (answer, answered) = oneshot::channel();
        let handle = self.handle(id)?;
        // A worker that is just being adopted is waited for.
        let adopted = self.shared.adoption.settled_for(id);
        if self.shared.closing.run_until_cancelled(adopted).await.is_none() {
            return Err(LifecycleError::ShuttingDown);
        }
        handle.commands.send(command(answer)).await.map_err(|_| self.gone())?;
        answered.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Why a service's task does not answer.
    fn gone(&self) -> LifecycleError {
        if self.shared.closing.is_cancelled() {
            LifecycleError::ShuttingDown
        } else {
            LifecycleError::NotFound
        }
    }

    /// The service's task, started if it is the first time that somebody asks.
    fn handle(&self, id: ServiceId) -> Result<Handle, LifecycleError> {
        let mut services = self.services();
        // Checked under the lock: what `shutdown` does not find there must not come afterwards.
        if self.shared.closing.is_cancelled() {
            return Err(LifecycleError::ShuttingDown);
        }
        if let Some(handle) = services.get(&id).filter(|handle| !handle.commands.is_closed()) {
            return Ok(handle.clone());
        }
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let (publisher, observed) = watch::channel(Observed::default());
        self.shared
            .tracker
            .spawn(task::run(self.shared.clone(), id, receiver, publisher));
        let handle = Handle { commands, observed };
        services.insert(id, handle.clone());
        Ok(handle)
    }

    fn services(&self) -> MutexGuard<'_, HashMap<ServiceId, Handle>> {
        self.shared.services()
    }

    async fn cut_logs(self) {
        let mut every = tokio::time::interval(logs::LOG_CHECK);
        loop {
            tokio::select! {
                _ = every.tick() => {}
                () = self.shared.closing.cancelled() => return,
            }
            let ids: Vec<ServiceId> = self.services().keys().copied().collect();
            for id in ids {
                if let Err(error) = self.log(id).cut() {
                    tracing::warn!(service = %id, %error, "a worker's log could not be cut");
                }
            }
        }
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor")
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn services(&self) -> MutexGuard<'_, HashMap<ServiceId, Handle>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker binary that was accepted last.
    fn binary(&self) -> Arc<binary::WorkerBinary> {
        self.binary.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts run this from now on.
    fn accept(&self, binary: &Arc<binary::WorkerBinary>) {
        *self.binary.lock().unwrap_or_else(PoisonError::into_inner) = binary.clone();
    }

    /// Who holds `port`, other than `asking`.
    async fn holder(&self, host: ListenHost, port: u16, asking: Option<ServiceId>) -> PortHolder {
        match store::services::by_port(&self.db, port).await {
            Ok(Some(row)) if Some(row.id) != asking => {
                return PortHolder::Service {
                    id: row.id,
                    name: row.name,
                    workspace: row.workspace_code,
                };
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, port, "the holder of a port could not be looked up"),
        }
        let found = tokio::task::spawn_blocking(move || holder::listening_on(&host.addresses(), port)).await;
        found.unwrap_or(PortHolder::Unknown)
    }
}
