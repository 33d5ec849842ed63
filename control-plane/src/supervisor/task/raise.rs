//! What happens to a service, as events.

use proxyplane_spec::Violation;

use super::Task;
use crate::{
    events::{Events, Subject},
    store::services::ServiceRow,
    supervisor::{error::LifecycleError, state::State},
};

impl Task {
    /// The worker serves; for the first time, if it did not yet: it says so again whenever it has redialled.
    pub(super) fn raise_ready(&self, revision: i64) {
        let Some(worker) = self.worker.as_ref().filter(|_| self.seen.ready.is_none()) else {
            return;
        };
        if matches!(self.state, State::Adopting { .. }) {
            // That is an event of its own, once its listeners are back.
            return;
        }
        let pid = worker.process.pid;
        match self.seen.restarts {
            0 => self.events().worker_started(self.subject(), pid, revision),
            restarts => self.events().worker_respawned(self.subject(), pid, restarts),
        }
    }

    pub(super) fn raise_adopted(&self, pid: i32) {
        self.events().worker_adopted(self.subject(), pid);
    }

    pub(super) fn raise_crashed(&self, pid: i32, exit: &str) {
        self.events()
            .worker_crashed(self.subject(), pid, &self.seen.last_error, exit);
    }

    pub(super) fn raise_stopped(&self, pid: i32, exit: &str) {
        self.events().worker_stopped(self.subject(), pid, exit);
    }

    pub(super) fn raise_breaker_opened(&self) {
        self.events().breaker_opened(self.subject(), &self.seen.last_error);
    }

    /// Binding failed; at boot, once for all attempts. A caller that waits is told otherwise.
    pub(super) fn raise_address_taken(&self) {
        let boot = matches!(self.state, State::Binding { boot: Some(_), .. });
        if boot && self.bind_error.is_none() {
            self.events().port_conflict(self.subject(), &self.seen.last_error);
        }
    }

    pub(super) fn raise_address_stayed_taken(&self) {
        self.events()
            .port_conflict_lasted(self.subject(), &self.seen.last_error);
    }

    /// A change of a service without a worker is refused: as the worker's refusal would be, it is an event.
    pub(super) fn refused(&self, row: &ServiceRow, violations: Vec<Violation>) -> LifecycleError {
        self.events()
            .config_rejected(Subject::proxy(self.id, Some(row)), row.revision, &violations);
        LifecycleError::Invalid(violations)
    }

    /// The worker did not say whether it can use a configuration.
    pub(super) fn raise_unresponsive(&self, why: &str) {
        self.events().worker_unresponsive(self.subject(), why);
    }

    pub(super) fn raise_address_waited_for(&self) {
        self.events()
            .port_conflict_waited_for(self.subject(), &self.seen.last_error);
    }

    pub(super) fn events(&self) -> &Events {
        &self.shared.options.events
    }

    pub(super) fn subject(&self) -> Subject {
        Subject::proxy(self.id, self.row.as_ref())
    }
}
