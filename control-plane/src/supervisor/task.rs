//! The task of one service: it alone owns the service's listeners and worker process.
//!
//! Requests, news of the worker and timers become events of the table in `state.rs`; `task/actions.rs` carries out what
//! the table says. Calls to the store are awaited here, so nothing else happens to the service meanwhile.

mod actions;
mod adoption;
mod beside;
mod generations;
mod moving;
mod overlap;
mod raise;
mod requests;

use std::{sync::Arc, time::Duration};

use proxyplane_spec::{Epoch, ListenHost, ServiceId};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    Shared,
    adopt::{Adoptee, Pending},
    binary::WorkerBinary,
    error::LifecycleError,
    exit::Exit,
    holder::PortHolder,
    listeners::{BindError, Listeners},
    logs::LogFile,
    observed::{Observed, add},
    orphans,
    process::Process,
    refuse::Refuser,
    resume::Orphaned,
    run_record::{self, Role},
    state::{self, Event, State},
};
use crate::{
    link::{FromWorker, WorkerLink},
    store::services::{ServiceChange, ServiceRow},
};

pub(super) use actions::worker_config;
use beside::Beside;
use generations::Generation;
use overlap::Overlap;
pub(super) use overlap::Upgrade;

type Answer<T = ()> = oneshot::Sender<Result<T, LifecycleError>>;

/// What is asked of a service.
#[derive(Debug)]
pub(super) enum Command {
    Start {
        answer: Answer,
    },
    Stop {
        drain: Duration,
        answer: Answer,
    },
    Restart {
        drain: Duration,
        answer: Answer,
    },
    Update {
        update: Box<Update>,
        answer: Answer<ServiceRow>,
    },
    Remove {
        etag: Option<String>,
        discard: bool,
        answer: Answer,
    },
    /// `settled` is dropped once the start has come to an end or to waiting.
    Boot {
        row: Box<ServiceRow>,
        settled: oneshot::Sender<()>,
    },
    /// Another worker, without a pause.
    Upgrade {
        upgrade: Box<Upgrade>,
        answer: Answer,
    },
    /// A former control plane's worker, the first command that a task gets.
    Adopt(Box<Adoptee>),
    /// The same for one that does not serve any more.
    AdoptDraining(Box<Adoptee>),
    /// A former control plane's service without a worker.
    Resume(Box<Orphaned>),
    /// An upgrade in place follows: gives the listeners away and does nothing any more.
    Leave {
        listeners: oneshot::Sender<Option<Listeners>>,
    },
    Shutdown {
        drain: Duration,
    },
}

/// A change of configuration.
#[derive(Debug)]
pub(super) struct Update {
    pub(super) etag: Option<String>,
    pub(super) change: ServiceChange,
    pub(super) validate_only: bool,
}

/// A live worker.
struct Worker {
    process: Process,
    link: WorkerLink,
    events: mpsc::Receiver<FromWorker>,
}

/// What is heard of a worker.
enum Heard {
    News(FromWorker),
    /// It is gone, and how.
    Exit(Exit),
    /// It should be.
    Overdue,
}

impl Worker {
    /// Waits until it says something or ends. What it said before it died comes first. May be cancelled and called again.
    async fn heard(&mut self) -> Heard {
        tokio::select! {
            biased;
            Some(news) = self.events.recv() => Heard::News(news),
            exit = self.process.ended() => Heard::Exit(exit),
        }
    }

    fn epoch(&self) -> Epoch {
        self.link.source().epoch
    }
}

struct Task {
    shared: Arc<Shared>,
    id: ServiceId,
    state: State,
    /// As last read from or written to the store; what the next worker gets.
    row: Option<ServiceRow>,
    listeners: Option<Listeners>,
    refuser: Option<Refuser>,
    worker: Option<Worker>,
    /// The build that it has, and that replaces it if it dies; `None` until one was started.
    binary: Option<Arc<WorkerBinary>>,
    /// The build of one that is coming up in an upgrade: it becomes the service's once it serves.
    unproven: Option<Arc<WorkerBinary>>,
    /// Its replacement that is under way.
    overlap: Option<Overlap>,
    /// Those that were replaced and are not gone yet, oldest first.
    generations: Vec<Generation>,
    /// Who waits for the start, stop or restart that is under way.
    waiting: Option<Waiting>,
    /// Records of workers that are gone are being read to their end.
    retiring: Vec<JoinHandle<()>>,
    /// Why the last bind failed.
    bind_error: Option<LifecycleError>,
    settled: Option<oneshot::Sender<()>>,
    /// The worker's adoption has not settled.
    adopting: Option<Pending>,
    /// The worker is being killed because it did not do this in time.
    overdue: Option<String>,
    log: LogFile,
    seen: Observed,
    publisher: watch::Sender<Observed>,
    ending: bool,
}

/// A caller that waits.
struct Waiting {
    answer: Answer,
    /// What the store is to say once it is done; a stop has said so before it began.
    enable: bool,
}

/// Runs until the service is removed or the control plane stops.
pub(super) async fn run(
    shared: Arc<Shared>,
    id: ServiceId,
    mut commands: mpsc::Receiver<Command>,
    publisher: watch::Sender<Observed>,
) {
    let log = LogFile::of(&shared.options.log_dir, id);
    let mut task = Task {
        shared,
        id,
        state: State::Stopped,
        row: None,
        listeners: None,
        refuser: None,
        worker: None,
        binary: None,
        unproven: None,
        overlap: None,
        generations: Vec::new(),
        waiting: None,
        retiring: Vec::new(),
        bind_error: None,
        settled: None,
        adopting: None,
        overdue: None,
        log,
        seen: Observed::default(),
        publisher,
        ending: false,
    };
    loop {
        match task.next_step(&mut commands).await {
            Step::Command(command) => task.command(command).await,
            Step::Event(event) => task.apply(event).await,
            Step::News(news) => {
                if let Some(event) = task.hear(news) {
                    task.apply(event).await;
                }
            }
            Step::Beside(heard) => {
                if let Some(event) = task.hear_beside(heard) {
                    task.apply(event).await;
                }
            }
            Step::Gone(exit) => {
                // What we killed ourselves, because it did not do something in time, is nobody else's kill.
                let killed = exit.is_somebodys_kill() && task.overdue.is_none();
                let adopting = matches!(task.state, State::Adopting { .. });
                task.buried(&exit.to_string());
                if adopting && task.is_wanted() {
                    task.apply(Event::FoundDead).await;
                } else if !task.is_stopping() || task.generations.is_empty() {
                    // On the way to a stop, replaced workers may still drain.
                    let jitter = rand::random();
                    task.apply(Event::Exited { killed, jitter }).await;
                }
            }
            Step::NoCallers => return,
        }
        task.come_home().await;
        task.publish();
        if task.ending && task.state == State::Stopped && task.generations.is_empty() {
            for retiring in std::mem::take(&mut task.retiring) {
                // Their records must be with ingest before that ends.
                let _ = retiring.await;
            }
            return;
        }
    }
}

enum Step {
    Command(Command),
    Event(Event),
    News(FromWorker),
    Beside(Beside),
    /// The worker is, and how.
    Gone(Exit),
    NoCallers,
}

impl Task {
    async fn next_step(&mut self, commands: &mut mpsc::Receiver<Command>) -> Step {
        let due = self.state.due();
        let (news, exit) = match &mut self.worker {
            Some(worker) => (Some(&mut worker.events), Some(&mut worker.process)),
            None => (None, None),
        };
        let news = async {
            match news {
                Some(events) => events.recv().await,
                None => None,
            }
        };
        tokio::select! {
            // What a worker said before it died comes before its death.
            biased;
            Some(news) = news => Step::News(news),
            Some(exit) = ended(exit) => Step::Gone(exit),
            heard = beside::heard(&mut self.overlap, &mut self.generations) => Step::Beside(heard),
            command = commands.recv() => command.map_or(Step::NoCallers, Step::Command),
            () = sleep_until(due.map_or_else(Instant::now, Instant::from_std)), if due.is_some() => {
                Step::Event(Event::Due)
            }
        }
    }

    /// What the worker says of its life, as an event of the table.
    fn hear(&mut self, news: FromWorker) -> Option<Event> {
        match news {
            FromWorker::Ready { revision } => {
                self.ready(revision);
                if let State::Adopting { .. } = self.state {
                    return self.found_serving();
                }
                self.repeat_drain();
                Some(Event::Ready)
            }
            FromWorker::Draining { remaining } => Some(Event::FoundDraining {
                remaining,
                wanted: self.is_wanted(),
            }),
            FromWorker::Returned => self.take_back(),
            // The service drains as long as those do that were replaced.
            FromWorker::Drained if self.is_stopping() && !self.generations.is_empty() => None,
            FromWorker::Drained => Some(Event::Drained),
            FromWorker::Stranger => Some(Event::Stranger),
        }
    }

    /// A worker says so once it serves, and again whenever it has redialled.
    fn ready(&mut self, revision: i64) {
        let now = crate::clock::now();
        self.raise_ready(revision);
        let serving = self.worker.as_ref().and_then(|worker| worker.link.serving_since());
        let since = serving.unwrap_or_else(std::time::Instant::now);
        self.seen.ready.get_or_insert((since, now - since.elapsed()));
        if self.seen.applied.is_none_or(|(applied, _)| applied != revision) {
            self.seen.applied = Some((revision, now));
        }
        self.seen.last_error.clear();
        if let Some(binary) = self.unproven.take() {
            self.run_from_now_on(binary);
        }
    }

    /// A worker that serves and is to drain was told so on a session that was lost before it heard it.
    fn repeat_drain(&self) {
        if let (Some(until), Some(worker)) = (self.state.drains_until(), &self.worker) {
            let remaining = until.saturating_duration_since(std::time::Instant::now());
            worker.link.drain(remaining);
        }
    }

    /// The worker is gone: notes how, keeps its counters, and lets its records be read to the end.
    fn buried(&mut self, exit: &str) {
        let Some(worker) = self.worker.take() else { return };
        let pid = worker.process.pid;
        let unasked = matches!(
            self.state,
            State::Adopting { .. } | State::Starting { .. } | State::Running { .. } | State::Replacing { .. }
        );
        self.log.note(&format!("worker {pid} ended: {exit}"));
        if unasked {
            self.seen.last_error = match self.overdue.take() {
                Some(missed) => format!("worker {pid} {missed}"),
                None => format!("worker {pid} died: {exit}"),
            };
            exit.clone_into(&mut self.seen.last_exit);
            self.raise_crashed(pid, exit);
        } else {
            self.raise_stopped(pid, exit);
        }
        self.count_past(&worker);
        if self.row.is_none() {
            // Nobody can ask for the log of a proxy that was deleted past us.
            self.log.remove();
        }
        self.seen.ready = None;
        self.seen.applied = None;
        self.unproven = None;
        self.let_go(worker, Role::Serving);
    }

    /// What passed through a worker that is gone goes on being counted.
    fn count_past(&mut self, worker: &Worker) {
        self.seen.before = add(self.seen.before, worker.link.counters());
    }

    /// A worker is this task's no more: its record goes, and its records are read to the end.
    fn let_go(&mut self, worker: Worker, role: Role) {
        let run_dir = &self.shared.options.run_dir;
        if let Err(error) = run_record::remove(run_dir, self.id, worker.epoch(), role) {
            tracing::warn!(service = %self.id, %error, "a run record could not be removed");
        }
        self.retire(worker.link);
    }

    /// A worker's records are read to their end, also those that are in its spool only; then what it left open is closed.
    fn retire(&mut self, link: WorkerLink) {
        let settled = orphans::settle(&self.shared, link.source(), link);
        self.retiring.retain(|retiring| !retiring.is_finished());
        self.retiring.push(self.shared.tracker.spawn(settled));
    }

    /// Takes an event through the table and carries out what follows, and what follows from that.
    async fn apply(&mut self, event: Event) {
        let mut next_event = Some(event);
        while let Some(event) = next_event.take() {
            let before = self.state.shown();
            let was_crashed = matches!(self.state, State::Crashed { .. });
            let state = std::mem::replace(&mut self.state, State::Stopped);
            let (state, actions) = state::next(state, event, std::time::Instant::now());
            self.state = state;
            if !matches!(self.state, State::Adopting { .. }) {
                self.adopting = None;
            }
            if was_crashed && event == Event::Due || event == Event::FoundDead {
                self.seen.restarts += 1;
            }
            if before != self.state.shown() {
                tracing::debug!(service = %self.id, from = ?before, to = ?self.state.shown(), "state changed");
                self.publish();
            }
            for action in actions {
                if let Some(event) = self.perform(action).await {
                    next_event = Some(event);
                }
            }
        }
        if !matches!(self.state, State::Starting { .. }) {
            self.settled = None;
        }
    }

    fn publish(&mut self) {
        self.seen.state = self.state.shown();
        self.seen.pid = self.worker.as_ref().map(|worker| worker.process.pid);
        self.seen.worker = self.worker.as_ref().map(|worker| worker.link.clone());
        self.seen.draining = self.generations.iter().map(Generation::observed).collect();
        self.seen.drain_deadline = self
            .state
            .drains_until()
            .map(|at| crate::clock::now() + at.saturating_duration_since(std::time::Instant::now()));
        self.seen.listening = self.listeners.as_ref().map(Listeners::addresses).unwrap_or_default();
        self.publisher.send_replace(self.seen.clone());
        // Nobody may be watching.
        let _ = self.shared.changed.send(self.id);
    }
}

async fn ended(process: Option<&mut Process>) -> Option<Exit> {
    match process {
        Some(process) => Some(process.ended().await),
        None => None,
    }
}

/// What a failed bind means to who asked.
pub(super) fn address_error(error: &BindError, host: ListenHost, holder: PortHolder) -> LifecycleError {
    match error {
        BindError::InUse(address) => LifecycleError::PortInUse {
            port: address.port(),
            holder,
        },
        BindError::NotAvailable { address, source } => {
            tracing::debug!(%host, %source, "address not available");
            LifecycleError::AddressNotAvailable {
                address: *address,
                detail: source.to_string(),
                blamed: error.blamed(),
            }
        }
    }
}
