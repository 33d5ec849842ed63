//! Carries out what the table says.

use std::io;

use proxyplane_proto::worker::{self, Capture, WorkerConfig};
use proxyplane_spec::{OnPortConflict, SpoolFull};

use super::{Task, Worker, address_error};
use crate::{
    store::services::ServiceRow,
    supervisor::{
        Shared,
        binary::WorkerBinary,
        error::LifecycleError,
        listeners::Listeners,
        refuse::Refuser,
        run_record::{self, Role},
        spawn::Newborn,
        state::{ADOPT_TIMEOUT, Action, Event, Outcome, READY_TIMEOUT, State},
    },
};

/// Lines of the worker's log that go with an error.
const ERROR_LOG_LINES: usize = 20;

impl Task {
    /// Carries out `action`; what it leads to at once is the next event.
    pub(super) async fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Bind => return Some(self.bind().await),
            Action::Spawn => return self.spawn(),
            Action::SpawnSuccessor => return self.spawn_successor(),
            Action::KillSuccessor => self.kill_successor(),
            Action::Promote => self.promote(),
            Action::Succeed => return self.succeed(),
            Action::Dismiss(drain) => self.dismiss(drain),
            Action::Answer(outcome) => return self.answer(outcome).await,
            Action::Drain(timeout) => {
                self.set_ending(true);
                if let Some(worker) = &self.worker
                    && !worker.link.drain(timeout)
                {
                    // Not connected just now; a signal says the same, with the worker's own time-out.
                    worker.process.terminate();
                }
            }
            Action::Kill => {
                self.overdue = match self.state {
                    State::Starting { .. } => Some(format!("was not ready within {} s", READY_TIMEOUT.as_secs())),
                    State::Adopting { .. } => Some(format!("did not come back within {} s", ADOPT_TIMEOUT.as_secs())),
                    _ => None,
                };
                match &self.overdue {
                    Some(missed) => self.log.note(&format!("the worker {missed}; killed")),
                    None => self.set_ending(true),
                }
                if let Some(worker) = &self.worker {
                    worker.process.kill();
                }
            }
            Action::Forget => self.forget(),
            Action::Release => {
                self.refuser = None;
                self.listeners = None;
            }
            Action::Refuse => self.refuse(),
            Action::Disable => self.disable().await,
            Action::WaitOn => self.raise_address_waited_for(),
        }
        None
    }

    async fn bind(&mut self) -> Event {
        if self.listeners.is_some() {
            return Event::Bound;
        }
        if !self.shared.may_bind().await {
            self.bind_error = Some(LifecycleError::ShuttingDown);
            return self.bind_failed();
        }
        let Some(row) = &self.row else {
            return self.bind_failed();
        };
        let (host, port) = (row.host, row.port);
        match Listeners::bind(host, port) {
            Ok(listeners) => {
                self.listeners = Some(listeners);
                Event::Bound
            }
            Err(error) => {
                let holder = self.shared.holder(host, port, Some(self.id)).await;
                let error = address_error(&error, host, holder);
                self.seen.last_error = error.to_string();
                self.raise_address_taken();
                self.bind_error = Some(error);
                self.bind_failed()
            }
        }
    }

    fn bind_failed(&self) -> Event {
        let setting = self.row.as_ref().map(|row| row.on_port_conflict);
        Event::BindFailed {
            jitter: rand::random(),
            for_ever: setting == Some(OnPortConflict::Retry),
        }
    }

    /// The worker is about to be told to end, or killed, on the way to a stop or restart; or it serves after all.
    pub(super) fn set_ending(&self, ending: bool) {
        let Some(worker) = &self.worker else { return };
        let run_dir = &self.shared.options.run_dir;
        if let Err(error) = run_record::set_ending(run_dir, self.id, worker.epoch(), ending) {
            tracing::warn!(service = %self.id, %error, "a run record could not be changed");
        }
    }

    /// What was taken for a former worker is none of ours: whatever it does, it is left alone.
    fn forget(&mut self) {
        let Some(worker) = self.worker.take() else { return };
        let pid = worker.process.pid;
        tracing::warn!(service = %self.id, pid, "a former worker cannot prove itself; it is left alone and not adopted");
        self.seen.ready = None;
        self.seen.applied = None;
        // Whoever it is accepts on them too.
        self.listeners = None;
        self.let_go(worker, Role::Serving);
    }

    fn spawn(&mut self) -> Option<Event> {
        self.refuser = None;
        self.overdue = None;
        // A respawn runs the build that the service had.
        let had = self.binary.get_or_insert_with(|| self.shared.binary()).clone();
        let binary = self.unproven.clone().unwrap_or(had);
        match self.try_spawn(&binary, Role::Serving) {
            Ok(worker) => {
                self.log.note(&format!("worker {} started", worker.process.pid));
                self.worker = Some(worker);
                None
            }
            Err(error) => {
                self.seen.last_error = format!("the worker could not be started: {error}");
                tracing::error!(service = %self.id, %error, "a worker could not be started");
                Some(Event::Exited {
                    killed: false,
                    jitter: rand::random(),
                })
            }
        }
    }

    /// Starts a worker of `binary` on the listeners.
    pub(super) fn try_spawn(&mut self, binary: &WorkerBinary, role: Role) -> io::Result<Worker> {
        let missing = || io::Error::other("it has no listeners");
        let (row, listeners) = (
            self.row.as_ref().ok_or_else(missing)?,
            self.listeners.as_ref().ok_or_else(missing)?,
        );
        let newborn = Newborn::spawn(&self.shared, binary, row, &self.log, role)?;
        // Expected before it is told where to dial.
        let config = worker_config(&self.shared, row);
        let (link, events) = self.shared.link.expect(newborn.expected(), Some(config));
        match newborn.hand_over(&self.shared, listeners) {
            Ok(process) => Ok(Worker { process, link, events }),
            Err(error) => {
                self.retire(link);
                Err(error)
            }
        }
    }

    /// Answers who waits. A start that cannot be stored is undone: the store is what counts at the next boot.
    async fn answer(&mut self, outcome: Outcome) -> Option<Event> {
        let waiting = self.waiting.take()?;
        let (result, undo) = match outcome {
            Outcome::Done if waiting.enable => match self.set_enabled(true).await {
                Ok(()) => (Ok(()), None),
                Err(error) => (
                    Err(error),
                    Some(Event::Stop {
                        drain: std::time::Duration::ZERO,
                    }),
                ),
            },
            Outcome::Done => (Ok(()), None),
            failed => (Err(self.failure(failed)), None),
        };
        self.publish();
        // A caller that went away needs no answer.
        let _ = waiting.answer.send(result);
        undo
    }

    fn failure(&mut self, outcome: Outcome) -> LifecycleError {
        let detail = self.seen.last_error.clone();
        match (outcome, self.bind_error.take()) {
            (Outcome::ShuttingDown, _) => LifecycleError::ShuttingDown,
            (Outcome::NotReplaced, _) => self.not_replaced(),
            (Outcome::BindFailed, Some(error)) => error,
            _ => LifecycleError::WorkerFailed {
                detail,
                log: self.last_log_lines(),
            },
        }
    }

    /// What goes with an error.
    pub(super) fn last_log_lines(&self) -> Vec<String> {
        self.log.tail(ERROR_LOG_LINES).unwrap_or_default()
    }

    fn refuse(&mut self) {
        self.seen
            .last_error
            .push_str("; it keeps dying early and is not started again");
        self.log
            .note("too many early deaths: not started again until somebody does; clients get 503");
        self.raise_breaker_opened();
        match self.listeners.as_ref().map(Refuser::on).transpose() {
            Ok(refuser) => self.refuser = refuser,
            Err(error) => tracing::error!(service = %self.id, %error, "clients cannot be answered"),
        }
    }

    async fn disable(&mut self) {
        self.raise_address_stayed_taken();
        if let Err(error) = self.set_enabled(false).await {
            tracing::error!(service = %self.id, %error, "it could not be stored as disabled");
        }
    }
}

/// What a worker needs to know of its service.
pub(in crate::supervisor) fn worker_config(shared: &Shared, row: &ServiceRow) -> WorkerConfig {
    let capture = Capture {
        insecure_upstream: row.spec.insecure_upstream,
        extra_ca_pem: row.spec.extra_ca_pem.clone(),
        passthrough_hosts: row.spec.passthrough_hosts.iter().map(ToString::to_string).collect(),
        capture_limit: row.spec.capture_limit,
        spool_limit_bytes: row.spec.spool_limit,
        spool_full: match row.spec.spool_full {
            SpoolFull::DropOldest => worker::SpoolFull::DropOldest.into(),
            SpoolFull::Block => worker::SpoolFull::Block.into(),
        },
        durable_before_end: row.spec.durable_before_end,
    };
    WorkerConfig {
        revision: row.revision,
        required_features: Vec::new(),
        service_name: row.name.clone(),
        verbose: row.verbose,
        log_out_of_scope: row.log_out_of_scope,
        capture: Some(capture),
        control_addresses: shared
            .options
            .control_addresses
            .iter()
            .map(ToString::to_string)
            .collect(),
        listeners: Vec::new(),
    }
}
