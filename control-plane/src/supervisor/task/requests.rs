//! Requests of callers: admitted by the table's conflicts, stored where the store is to say so, then events.

use std::{future::Future, time::Duration};

use super::{Answer, Command, Task, Update, Waiting, actions::worker_config};
use crate::{
    link::{ChangeError, Counters},
    store::{self, StoreError, services::ServiceRow},
    supervisor::{
        certificates,
        error::LifecycleError,
        spool_dir,
        state::{Asked, Conflict, Event, Request, State},
    },
};

/// For the store to answer: a task that waits for it does not respawn its worker.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

impl From<Conflict> for LifecycleError {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::Starting => Self::AlreadyStarting,
            Conflict::Stopping => Self::AlreadyStopping,
            Conflict::Upgrading => Self::AlreadyUpgrading,
        }
    }
}

impl Task {
    pub(super) async fn command(&mut self, command: Command) {
        match command {
            Command::Start { answer } => match self.admit_start(Request::Start).await {
                Ok(asked) => self.begin(answer, true, Event::Start(asked)).await,
                Err(error) => refuse(answer, error),
            },
            Command::Restart { drain, answer } => match self.admit_start(Request::Restart).await {
                Ok(asked) => self.begin(answer, true, Event::Restart { drain, asked }).await,
                Err(error) => refuse(answer, error),
            },
            Command::Stop { drain, answer } => match self.admit_stop().await {
                Ok(()) => {
                    self.hurry(drain);
                    let event = if self.worker.is_none() && !self.generations.is_empty() {
                        Event::StopRest { drain }
                    } else {
                        Event::Stop { drain }
                    };
                    self.begin(answer, false, event).await;
                }
                Err(error) => refuse(answer, error),
            },
            Command::Update { update, answer } => {
                let result = self.update(*update).await;
                if let Err(LifecycleError::Unresponsive(why)) = result {
                    self.raise_unresponsive(why);
                }
                self.publish();
                let _ = answer.send(result);
            }
            Command::Remove { etag, discard, answer } => {
                let result = self.remove(etag, discard).await;
                let _ = answer.send(result);
            }
            Command::Boot { row, settled } => match self.state {
                State::Stopped => {
                    self.row = Some(*row);
                    self.settled = Some(settled);
                    self.apply(Event::Boot).await;
                }
                // It was resumed.
                State::Starting { .. } => self.settled = Some(settled),
                _ => {}
            },
            Command::Upgrade { upgrade, answer } => self.upgrade(*upgrade, answer).await,
            Command::Adopt(adoptee) => self.adopt(*adoptee).await,
            Command::AdoptDraining(adoptee) => self.adopt_draining(*adoptee),
            Command::Resume(orphaned) => self.resume(*orphaned).await,
            Command::Leave { listeners } => {
                let _unwanted = listeners.send(self.listeners.take());
                // Nobody waits for the worker from here on: should it die, the next program is told how.
                std::future::pending::<()>().await;
            }
            Command::Shutdown { drain } => {
                self.ending = true;
                self.hurry(drain);
                self.apply(Event::Shutdown { drain }).await;
            }
        }
    }

    async fn begin(&mut self, answer: Answer, enable: bool, event: Event) {
        self.waiting = Some(Waiting { answer, enable });
        self.apply(event).await;
    }

    async fn admit_start(&mut self, request: Request) -> Result<Asked, LifecycleError> {
        self.admit(request)?;
        let enabled = self.load().await?.enabled;
        if request == Request::Restart || !matches!(self.state, State::Running { .. }) {
            // A start by somebody runs what was accepted last.
            self.binary = None;
            self.seen.before = Counters::default();
            self.seen.restarts = 0;
            self.seen.last_error.clear();
            self.bind_error = None;
        }
        Ok(Asked { enabled })
    }

    async fn admit_stop(&mut self) -> Result<(), LifecycleError> {
        self.admit(Request::Stop)?;
        self.load().await?;
        self.set_enabled(false).await?;
        self.seen.last_error.clear();
        Ok(())
    }

    pub(super) fn admit(&self, request: Request) -> Result<(), LifecycleError> {
        if self.ending {
            return Err(LifecycleError::ShuttingDown);
        }
        self.state
            .conflict(request)
            .map_or(Ok(()), |conflict| Err(conflict.into()))
    }

    /// Reads the service anew.
    pub(super) async fn load(&mut self) -> Result<&ServiceRow, LifecycleError> {
        let row = in_time(store::services::get(&self.shared.db, self.id)).await?;
        let row = self.found(row)?;
        Ok(self.row.insert(row))
    }

    /// There is nothing to own for a service that does not exist: its task ends.
    fn found(&mut self, row: Option<ServiceRow>) -> Result<ServiceRow, LifecycleError> {
        if row.is_none() && self.listeners.is_none() && self.worker.is_none() && self.generations.is_empty() {
            self.end();
        }
        row.ok_or(LifecycleError::NotFound)
    }

    /// Whoever asks next gets a task of its own; who waits for this one is told that there is no such service.
    fn end(&mut self) {
        self.shared.services().remove(&self.id);
        self.state = State::Stopped;
        self.ending = true;
    }

    /// Stores whether the service is to run, unless the store says so already.
    pub(super) async fn set_enabled(&mut self, enabled: bool) -> Result<(), LifecycleError> {
        let Some(row) = self.row.as_mut().filter(|row| row.enabled != enabled) else {
            return Ok(());
        };
        in_time(store::services::set_enabled(&self.shared.db, self.id, enabled)).await?;
        row.enabled = enabled;
        Ok(())
    }

    /// The change is made in a transaction that is committed once the worker has built it.
    async fn update(&mut self, update: Update) -> Result<ServiceRow, LifecycleError> {
        self.admit(Request::Update)?;
        let mut transaction = in_time(async { Ok(self.shared.db.begin().await?) }).await?;
        let before = in_time(store::services::lock(&mut transaction, self.id)).await?;
        let before = self.found(before)?;
        let etag = update.etag.as_deref();
        let row = in_time(store::services::update(&mut transaction, &before, etag, &update.change)).await?;
        if row == before {
            // Nothing to store, and nothing that the worker does not have in force.
            return Ok(row);
        }
        let moves = self.check_address(&before, &row, update.validate_only).await?;
        let config = worker_config(&self.shared, &row);
        if let Some(worker) = &self.worker {
            let staged = worker.link.stage(config.clone()).await;
            staged.map_err(|error| self.change_failed(error))?;
        } else {
            let checked = certificates::check("capture.extra_ca_pem", &row.spec.extra_ca_pem);
            checked.map_err(|violations| self.refused(&row, violations))?;
        }
        if update.validate_only {
            // Dropping the transaction undoes it; the worker holds what was staged until the next change.
            return Ok(row);
        }
        let next = if moves {
            // Bound once everything else is found good: what listens lets clients in.
            let next = self.prepare_move(&row, &config).await;
            Some(next.inspect_err(|_| self.give_up_move())?)
        } else {
            None
        };
        let committed = in_time(async { Ok(transaction.commit().await?) }).await;
        committed.inspect_err(|_| self.give_up_move())?;
        self.row = Some(row.clone());
        let in_force = match next {
            Some(next) => self.make_move(next, config).await,
            None => self.activate(config).await,
        };
        if let Err(error) = in_force {
            // It is stored, so it has to come into force.
            tracing::warn!(service = %self.id, ?error, "a stored change was not put in force; replacing the worker");
            let detail = "the change is stored, but its worker did not put it in force; a new one will".to_owned();
            return Err(LifecycleError::WorkerFailed {
                detail,
                log: Vec::new(),
            });
        }
        Ok(row)
    }

    pub(super) fn change_failed(&mut self, error: ChangeError) -> LifecycleError {
        match error {
            ChangeError::Rejected(violations) => {
                self.seen.rejected_at = Some(crate::clock::now());
                LifecycleError::Rejected(violations)
            }
            ChangeError::Lost => LifecycleError::Unresponsive("the worker is not connected"),
            ChangeError::TimedOut => LifecycleError::Unresponsive("the worker did not answer in time"),
        }
    }

    async fn remove(&mut self, etag: Option<String>, discard: bool) -> Result<(), LifecycleError> {
        self.admit(Request::Stop)?;
        if self.listeners.is_some() || self.worker.is_some() || !self.generations.is_empty() {
            // Somebody started it again between the caller's stop and this.
            return Err(LifecycleError::AlreadyStarting);
        }
        if discard {
            self.shared.orphans.discard(self.id);
        }
        for retiring in std::mem::take(&mut self.retiring) {
            // Whoever removes its traffic next must find all of it.
            let _ = retiring.await;
        }
        // Also of workers that died before the last one.
        self.shared.orphans.settled(self.id).await;
        let mut transaction = in_time(async { Ok(self.shared.db.begin().await?) }).await?;
        in_time(store::services::delete(&mut transaction, self.id, etag.as_deref())).await?;
        in_time(async { Ok(transaction.commit().await?) }).await?;
        self.log.remove();
        spool_dir::remove_empty(&self.shared.options.spool_dir, self.id);
        self.end();
        Ok(())
    }
}

pub(super) fn refuse(answer: Answer, error: LifecycleError) {
    let _ = answer.send(Err(error));
}

async fn in_time<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, LifecycleError> {
    match tokio::time::timeout(STORE_TIMEOUT, call).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut).into()),
    }
}
