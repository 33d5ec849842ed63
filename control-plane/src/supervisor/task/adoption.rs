//! Taking over the worker of a former control plane: it redials, says READY or that it drains, and gives its listeners
//! back. What the service is now decides what becomes of it.

use super::{Adoptee, Orphaned, Task, Worker};
use crate::supervisor::{
    listeners::Listeners,
    resume::Death,
    state::{Event, State},
};

impl Task {
    /// A worker was found. From here on it is this task's, as one that it started itself.
    pub(super) async fn adopt(&mut self, adoptee: Adoptee) {
        let Adoptee {
            process,
            link,
            events,
            row,
            binary,
            listeners,
            pending,
        } = adoptee;
        self.row = row;
        self.binary = binary;
        self.listeners = listeners;
        self.adopting = pending;
        self.worker = Some(Worker { process, link, events });
        self.apply(Event::Found).await;
    }

    /// There is no worker to adopt. One that died unasked is followed by another at once, as if it had died under us.
    pub(super) async fn resume(&mut self, orphaned: Orphaned) {
        let Orphaned { row, listeners, death } = orphaned;
        self.row = Some(row);
        self.listeners = listeners;
        let Some(Death { pid, exit }) = death else {
            return self.apply(Event::Boot).await;
        };
        let exit = exit.to_string();
        self.log.note(&format!("worker {pid} ended: {exit}"));
        self.seen.last_error = format!("worker {pid} died: {exit}");
        self.seen.last_exit.clone_from(&exit);
        self.raise_crashed(pid, &exit);
        self.apply(Event::FoundDead).await;
    }

    /// Is the service there, and to run?
    pub(super) fn is_wanted(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.enabled)
    }

    /// The worker is back and serves: what it does not say is whether it should.
    pub(super) fn found_serving(&mut self) -> Option<Event> {
        if !self.is_wanted() {
            tracing::info!(service = %self.id, "stopping a former worker: its service is not to run any more");
            return Some(Event::Unwanted {
                drain: self.shared.options.drain_timeout,
            });
        }
        if let (Some(row), Some((applied, at))) = (&self.row, self.seen.applied)
            && row.revision != applied
        {
            // Redialling, it was given the stored one; it has said why it does not take it.
            tracing::warn!(service = %self.id, stored = row.revision, applied, "an adopted worker has another revision");
            self.seen.rejected_at = Some(at);
        }
        if let Some(worker) = &self.worker {
            worker.link.ask_for_listeners();
        }
        None
    }

    /// The worker gave its listeners back: we have what a control plane has that bound them itself.
    pub(super) fn take_back(&mut self) -> Option<Event> {
        let worker = self.worker.as_ref()?;
        let returned = worker.link.take_listeners()?;
        let (State::Adopting { .. }, Some(row)) = (&self.state, &self.row) else {
            return None;
        };
        // Moved while there was no control plane, or when one died: as soon as it is adopted it follows.
        let listeners = Listeners::returned(returned, row.host, row.port);
        let pid = worker.process.pid;
        self.listeners = Some(listeners);
        self.log.note(&format!("worker {pid} adopted"));
        let serving = self
            .seen
            .ready
            .map_or_else(Default::default, |(since, _)| since.elapsed());
        // The control plane before may have died on the point of telling it to end.
        self.set_ending(false);
        self.raise_adopted(pid);
        Some(Event::Adopted { serving })
    }
}
