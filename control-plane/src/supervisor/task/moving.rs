//! A service that is to listen elsewhere: the new listeners are open before the old ones let nobody in any more, and the
//! worker stays.
//!
//! Until the change is stored, giving up means closing the new ones. Once it is stored, it comes into force: if not by this
//! worker now, then as soon as the next one is ready (`come_home`).

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use proxyplane_proto::worker::WorkerConfig;

use super::{Task, actions::worker_config, address_error};
use crate::{
    link::ChangeError,
    store::services::ServiceRow,
    supervisor::{
        error::LifecycleError,
        listeners::{self, BindError, Closing, Listeners},
        refuse::{self, Refuser},
        state::{Event, State},
    },
};

impl Task {
    /// Where `row` listens is free, or ours already. `true` if listeners that are open have to move there.
    pub(super) async fn check_address(
        &self,
        before: &ServiceRow,
        row: &ServiceRow,
        validate_only: bool,
    ) -> Result<bool, LifecycleError> {
        let Some(present) = &self.listeners else {
            if (row.host, row.port) != (before.host, before.port) {
                self.bound(row, listeners::probe(row.host, row.port)).await?;
            }
            return Ok(false);
        };
        if present.is_at(row.host, row.port) {
            return Ok(false);
        }
        if let State::Crashed { .. } = self.state {
            // Whoever waits in the queues is for the worker that is due.
            return Err(LifecycleError::AlreadyStarting);
        }
        if validate_only {
            self.bound(row, present.probe_beside(row.host, row.port, self.id))
                .await?;
        }
        Ok(true)
    }

    /// Opens the listeners of `row`, and has the worker build `config` with them.
    pub(super) async fn prepare_move(
        &mut self,
        row: &ServiceRow,
        config: &WorkerConfig,
    ) -> Result<Listeners, LifecycleError> {
        let next = match &self.listeners {
            Some(present) => present.bind_beside(row.host, row.port, self.id),
            None => Listeners::bind(row.host, row.port),
        };
        let next = self.bound(row, next).await?;
        if let Some(worker) = &self.worker {
            let lent = lent(&next);
            let lent = self
                .bound(row, lent.map_err(|source| not_available(&next, source)))
                .await?;
            let staged = worker.link.stage_on(config.clone(), lent).await;
            staged.map_err(|error| match error {
                // It knows the rest of the configuration already.
                ChangeError::Rejected(violations) if violations.iter().any(|v| v.field == "required_features") => {
                    LifecycleError::RestartRequired
                }
                error => self.change_failed(error),
            })?;
        }
        Ok(next)
    }

    /// Has the worker let go of listeners that it may have been given for nothing.
    pub(super) fn give_up_move(&self) {
        if let (Some(worker), Some(row)) = (&self.worker, &self.row) {
            worker.link.stage_instead(worker_config(&self.shared, row));
        }
    }

    /// Puts `config` in force with the listeners that it was built with.
    pub(super) async fn make_move(&mut self, next: Listeners, config: WorkerConfig) -> Result<(), ChangeError> {
        let Some(present) = self.listeners.take() else {
            self.listeners = Some(next);
            return self.activate(config).await;
        };
        let closing = Closing::begin(&present, &next).await;
        if let Err(error) = self.activate(config).await {
            // The next worker serves who waits there before it moves.
            closing.reopen();
            self.listeners = Some(present);
            return Err(error);
        }
        if let Some(refuser) = self.refuser.take() {
            refuser.end().await;
            refuse::answer_waiting(&present);
            match Refuser::on(&next) {
                Ok(refuser) => self.refuser = Some(refuser),
                Err(error) => tracing::error!(service = %self.id, %error, "clients cannot be answered"),
            }
        }
        let (from, to) = (present.addresses(), next.addresses());
        tracing::info!(service = %self.id, ?from, ?to, "listening elsewhere");
        self.log.note(&format!("listening on {to:?} instead of {from:?}"));
        self.listeners = Some(next);
        Ok(())
    }

    /// Puts `config`, which was staged, in force. A worker that does not do so is killed: the next one begins with what is
    /// stored.
    pub(super) async fn activate(&mut self, config: WorkerConfig) -> Result<(), ChangeError> {
        let Some(worker) = &self.worker else { return Ok(()) };
        let revision = config.revision;
        if let Err(error) = worker.link.activate(config).await {
            self.overdue = Some("did not put a stored change in force".to_owned());
            worker.process.kill();
            return Err(error);
        }
        self.seen.applied = Some((revision, crate::clock::now()));
        Ok(())
    }

    /// A worker that serves elsewhere than is stored goes there: a change was stored when its worker or its control plane
    /// died, or past any control plane. If it cannot, it is drained, and its service starts there as at boot.
    pub(super) async fn come_home(&mut self) {
        let (State::Running { .. }, Some(row), Some(present)) = (&self.state, &self.row, &self.listeners) else {
            return;
        };
        if present.is_at(row.host, row.port) || self.worker.is_none() || !self.shared.may_bind().await {
            return;
        }
        let row = row.clone();
        let config = worker_config(&self.shared, &row);
        let next = self.prepare_move(&row, &config).await;
        match next.inspect_err(|_| self.give_up_move()) {
            Ok(next) => {
                if let Err(error) = self.make_move(next, config).await {
                    tracing::warn!(service = %self.id, ?error, "a worker did not move; replacing it");
                }
            }
            // It is asked again when it is connected again, or does anything at all.
            Err(error @ LifecycleError::Unresponsive(_)) => {
                tracing::warn!(service = %self.id, %error, "a worker listens elsewhere and cannot be reached");
            }
            Err(error) => {
                tracing::warn!(service = %self.id, %error, "a worker listens elsewhere and cannot move; replacing it");
                let drain = self.shared.options.drain_timeout;
                self.apply(Event::Misplaced { drain }).await;
            }
        }
    }

    /// Names the holder of an address that could not be bound.
    async fn bound<T>(&self, row: &ServiceRow, bound: Result<T, BindError>) -> Result<T, LifecycleError> {
        match bound {
            Ok(bound) => Ok(bound),
            Err(error) => {
                let holder = self.shared.holder(row.host, row.port, Some(self.id)).await;
                Err(address_error(&error, row.host, holder))
            }
        }
    }
}

fn lent(listeners: &Listeners) -> io::Result<Vec<(SocketAddr, TcpListener)>> {
    let duplicates = listeners.duplicates()?;
    Ok(listeners.addresses().into_iter().zip(duplicates).collect())
}

fn not_available(listeners: &Listeners, source: io::Error) -> BindError {
    let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
    let address = listeners.addresses().first().copied().unwrap_or(unspecified);
    BindError::NotAvailable { address, source }
}
