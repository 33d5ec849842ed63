//! Replacing the worker while it serves: another one is started on the same listeners, and takes over once it is READY.

use std::{io, sync::Arc, time::Duration};

use tokio::sync::OwnedMutexGuard;

use super::{Answer, Heard, Task, Waiting, Worker, beside::Beside, generations::Generation, requests::refuse};
use crate::{
    clock,
    link::FromWorker,
    supervisor::{
        binary::WorkerBinary,
        error::LifecycleError,
        run_record::{self, Role},
        state::{Event, READY_TIMEOUT, Request, State},
    },
};

/// Replaced workers of one service that may drain at the same time. Cutting the oldest would end connections that
/// nobody asked to end, so one more is refused; each has its deadline, so that does not last.
const DRAINING_MAX: usize = 2;

/// What a worker is to be replaced by, and how.
#[derive(Debug)]
pub(in crate::supervisor) struct Upgrade {
    pub(in crate::supervisor) binary: Arc<WorkerBinary>,
    /// For the old worker.
    pub(in crate::supervisor) drain: Duration,
    /// Nobody else's worker is replaced meanwhile.
    pub(in crate::supervisor) _turn: OwnedMutexGuard<()>,
}

/// A replacement that is under way.
pub(super) struct Overlap {
    upgrade: Upgrade,
    pub(super) successor: Option<Worker>,
    /// It was killed because it was late.
    late: bool,
    /// With which it became READY.
    revision: i64,
    /// Why it did not, and what it refused.
    failure: Option<LifecycleError>,
}

impl Task {
    pub(super) async fn upgrade(&mut self, upgrade: Upgrade, answer: Answer) {
        if let Err(error) = self.admit_upgrade().await {
            return refuse(answer, error);
        }
        match self.state {
            State::Running { .. } => {
                let overlap = Overlap {
                    upgrade,
                    successor: None,
                    late: false,
                    revision: 0,
                    failure: None,
                };
                self.overlap = Some(overlap);
            }
            // There is no worker whose clients could be handed on.
            State::Crashed { .. } => self.unproven = Some(upgrade.binary),
            _ => {
                self.run_from_now_on(upgrade.binary);
                // A caller that went away needs no answer.
                let _ = answer.send(Ok(()));
                return;
            }
        }
        self.waiting = Some(Waiting { answer, enable: true });
        self.apply(Event::Upgrade).await;
    }

    async fn admit_upgrade(&mut self) -> Result<(), LifecycleError> {
        self.admit(Request::Upgrade)?;
        if self.generations.len() >= DRAINING_MAX {
            return Err(LifecycleError::TooManyDraining(self.generations.len()));
        }
        self.load().await?;
        Ok(())
    }

    /// What the service's next worker is started from, and every other service's that is started by somebody.
    pub(super) fn run_from_now_on(&mut self, binary: Arc<WorkerBinary>) {
        self.shared.accept(&binary);
        self.binary = Some(binary);
    }

    pub(super) fn spawn_successor(&mut self) -> Option<Event> {
        let binary = self.overlap.as_ref()?.upgrade.binary.clone();
        let spawned = self.try_spawn(&binary, Role::Successor);
        let overlap = self.overlap.as_mut()?;
        match spawned {
            Ok(successor) => {
                self.log.note(&format!(
                    "worker {} started beside the present one",
                    successor.process.pid
                ));
                overlap.successor = Some(successor);
                None
            }
            Err(error) => {
                overlap.failure = Some(LifecycleError::WorkerFailed {
                    detail: format!("the new worker could not be started: {error}; the old one serves on"),
                    log: Vec::new(),
                });
                Some(Event::SuccessorExited)
            }
        }
    }

    pub(super) fn kill_successor(&mut self) {
        let Some(overlap) = &mut self.overlap else { return };
        overlap.late = true;
        if let Some(successor) = &overlap.successor {
            successor.process.kill();
        }
    }

    /// What the successor says, or how it ended, as an event of the table.
    pub(super) fn hear_successor(&mut self, heard: Heard) -> Option<Event> {
        match heard {
            Heard::News(FromWorker::Ready { revision }) => {
                self.overlap.as_mut()?.revision = revision;
                Some(Event::SuccessorReady)
            }
            // It has nothing else to say before that.
            Heard::News(_) | Heard::Overdue => None,
            Heard::Exit(exit) => {
                self.bury_successor(&exit.to_string());
                Some(Event::SuccessorExited)
            }
        }
    }

    fn bury_successor(&mut self, exit: &str) {
        let overlap = self.overlap.as_mut();
        let Some((successor, late)) = overlap.and_then(|overlap| Some((overlap.successor.take()?, overlap.late)))
        else {
            return;
        };
        let pid = successor.process.pid;
        self.log.note(&format!("worker {pid} ended: {exit}"));
        let failure = match successor.link.refused() {
            Some(violations) => LifecycleError::Rejected(violations),
            None => LifecycleError::WorkerFailed {
                detail: if late {
                    let seconds = READY_TIMEOUT.as_secs();
                    format!("the new worker {pid} was not ready within {seconds} s; the old one serves on")
                } else {
                    format!("the new worker {pid} died: {exit}; the old one serves on")
                },
                log: self.last_log_lines(),
            },
        };
        if let Some(overlap) = &mut self.overlap {
            overlap.failure = Some(failure);
        }
        self.let_go(successor, Role::Successor);
    }

    /// Why the worker was not replaced; that is over now.
    pub(super) fn not_replaced(&mut self) -> LifecycleError {
        let failure = self.overlap.take().and_then(|overlap| overlap.failure);
        let failure = failure.unwrap_or_else(|| LifecycleError::WorkerFailed {
            detail: "the new worker did not take over; the old one serves on".to_owned(),
            log: Vec::new(),
        });
        let why = match &failure {
            LifecycleError::Rejected(violations) => {
                let why: Vec<String> = violations.iter().map(ToString::to_string).collect();
                format!("the new worker refused the configuration: {}", why.join("; "))
            }
            other => other.to_string(),
        };
        self.events().upgrade_failed(self.subject(), &why);
        failure
    }

    /// The successor serves. From here on it is the worker, and what was is on its way out.
    pub(super) fn promote(&mut self) {
        let Some(overlap) = self.overlap.take() else { return };
        let (Some(new), Some(old)) = (overlap.successor, self.worker.take()) else {
            return;
        };
        self.record(run_record::replace(
            &self.shared.options.run_dir,
            self.id,
            old.epoch(),
            new.epoch(),
        ));
        self.events().worker_upgraded(
            self.subject(),
            new.process.pid,
            old.process.pid,
            &new.link.build(),
            &old.link.build(),
        );
        self.log.note(&format!(
            "worker {} serves; worker {} drains",
            new.process.pid, old.process.pid
        ));
        let (since, now) = (new.link.serving_since(), clock::now());
        self.seen.ready = Some((since.unwrap_or_else(std::time::Instant::now), now));
        self.seen.applied = Some((overlap.revision, now));
        self.seen.last_error.clear();
        self.worker = Some(new);
        self.run_from_now_on(overlap.upgrade.binary);
        self.generations.push(Generation::replaced(old, overlap.upgrade.drain));
    }

    /// The worker died before the successor was READY: that is the worker now, and comes up as any other.
    pub(super) fn succeed(&mut self) -> Option<Event> {
        let overlap = self.overlap.take()?;
        self.unproven = Some(overlap.upgrade.binary);
        let Some(successor) = overlap.successor else {
            // It was just buried too.
            return Some(Event::Exited {
                killed: false,
                jitter: rand::random(),
            });
        };
        let roles = [Role::Successor, Role::Serving];
        self.record(run_record::change(
            &self.shared.options.run_dir,
            self.id,
            successor.epoch(),
            roles,
        ));
        self.worker = Some(successor);
        None
    }

    /// The successor is not wanted any more. It may have clients already.
    pub(super) fn dismiss(&mut self, drain: Duration) {
        let Some(successor) = self.overlap.take().and_then(|overlap| overlap.successor) else {
            return;
        };
        let roles = [Role::Successor, Role::Draining];
        self.record(run_record::change(
            &self.shared.options.run_dir,
            self.id,
            successor.epoch(),
            roles,
        ));
        self.generations.push(Generation::dismissed(successor, drain));
    }

    /// Without its record, a worker is not found by the next control plane: it is worth a warning, no more.
    pub(super) fn record(&self, written: io::Result<()>) {
        if let Err(error) = written {
            tracing::warn!(service = %self.id, %error, "a run record could not be changed");
        }
    }

    /// What was heard of a worker beside the one that serves.
    pub(super) fn hear_beside(&mut self, heard: Beside) -> Option<Event> {
        match heard {
            Beside::Successor(heard) => self.hear_successor(heard),
            Beside::Generation(index, heard) => self.hear_generation(index, heard),
        }
    }
}
