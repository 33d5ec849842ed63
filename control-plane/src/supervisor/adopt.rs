//! Workers of a former control plane: found by their run records, expected on the link, and each handed to the task of
//! its service, which takes the listeners back and has the worker from then on.
//!
//! Of a service whose worker was just being replaced there are several: the one that is recorded as serving goes on, or
//! else its successor; the others are told to drain, or said so themselves, and are left to end.
//!
//! A recorded worker that is gone, and was not told to end, has crashed: see `resume.rs`.
//!
//! What is found here is only a claim. The worker proves itself by its nonce when it dials; a process that cannot is
//! left alone.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use proxyplane_spec::ServiceId;
use tokio::sync::{mpsc, watch};

use super::{
    Shared, Supervisor,
    binary::WorkerBinary,
    exit::Exit,
    inherited::Inherited,
    listeners::Listeners,
    orphans,
    process::Process,
    resume::Death,
    run_record::{self, Role, RunRecord},
    task::{Command, worker_config},
};
use crate::{
    link::{Expected, FromWorker, WorkerLink},
    store::{self, StoreError, services::ServiceRow},
};

/// A recorded worker that still runs, on its way to its service's task.
#[derive(Debug)]
pub(super) struct Adoptee {
    pub(super) process: Process,
    pub(super) link: WorkerLink,
    pub(super) events: mpsc::Receiver<FromWorker>,
    /// `None` if the service was deleted meanwhile.
    pub(super) row: Option<ServiceRow>,
    /// The build that it runs, unless that cannot be had.
    pub(super) binary: Option<Arc<WorkerBinary>>,
    /// Its listeners, if they came through an upgrade in place: should it die before it has given them back, the next
    /// worker gets these.
    pub(super) listeners: Option<Listeners>,
    /// Dropped once it is adopted, on its way out, or gone. Nobody waits for one that drains.
    pub(super) pending: Option<Pending>,
}

/// What is left of a recorded worker.
enum Found {
    Worker,
    /// It died, and nobody had asked it to.
    Dead(Death),
    Nothing,
}

/// What is said of an end that nobody saw.
const UNSEEN: &str = "unknown (no control plane ran)";

/// Which services' adoption has not settled yet.
#[derive(Debug, Default)]
pub(super) struct Adoption(watch::Sender<HashSet<ServiceId>>);

/// The adoption of one service has not settled as long as this lives.
#[derive(Debug)]
pub(super) struct Pending {
    adoption: watch::Sender<HashSet<ServiceId>>,
    service: ServiceId,
}

impl Adoption {
    fn begin(&self, service: ServiceId) -> Pending {
        self.0.send_modify(|pending| {
            pending.insert(service);
        });
        Pending {
            adoption: self.0.clone(),
            service,
        }
    }

    /// Until that of every service has settled: a listener that is bound before might be one that comes back.
    pub(super) async fn settled(&self) {
        // The sender lives as long as we do.
        let _ = self.0.subscribe().wait_for(HashSet::is_empty).await;
    }

    /// Until that of one service has settled.
    pub(super) async fn settled_for(&self, service: ServiceId) {
        let mut pending = self.0.subscribe();
        let _ = pending.wait_for(|pending| !pending.contains(&service)).await;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.adoption.send_modify(|pending| {
            pending.remove(&self.service);
        });
    }
}

impl Supervisor {
    /// Finds the workers of a former control plane and expects them on the link; then closes what dead ones left open, and
    /// replaces those that were to run. Comes before the link is served, or a worker that dials is told that it is not
    /// wanted. Their adoption settles by itself within some seconds; see [`Self::boot`]. Inherited listeners that nobody
    /// is to have any more are closed.
    pub(crate) async fn adopt(&self, mut inherited: Inherited) -> Result<(), StoreError> {
        let records = RunRecord::all(&self.shared.options.run_dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "run records of former workers cannot be read");
            Vec::new()
        });
        let mut serving: Option<ServiceId> = None;
        let mut known = HashSet::new();
        let mut dead = HashMap::new();
        // By service, and who served first.
        for (recorded, record) in records {
            let service = record.service_id;
            let role = match recorded {
                Role::Serving | Role::Successor if serving != Some(service) => Role::Serving,
                _ => Role::Draining,
            };
            // Recorded twice if the control plane died in between.
            let found = if known.insert(record.epoch) {
                self.adopt_one(&record, role, &mut inherited).await?
            } else {
                Found::Nothing
            };
            let lives = matches!(found, Found::Worker);
            if lives && role == Role::Serving {
                serving = Some(service);
                dead.remove(&service);
            }
            if let (Found::Dead(death), Role::Serving) = (found, recorded) {
                dead.insert(service, death);
            }
            let run_dir = &self.shared.options.run_dir;
            let changed = if !lives {
                run_record::remove(run_dir, service, record.epoch, recorded)
            } else if role != recorded {
                run_record::change(run_dir, service, record.epoch, [recorded, role])
            } else {
                Ok(())
            };
            if let Err(error) = changed {
                tracing::warn!(%service, %error, "a run record could not be changed");
            }
        }
        // Those that are expected by now go on.
        orphans::sweep(&self.shared).await;
        self.resume(dead, inherited).await
    }

    /// Is the recorded worker there? Then its service's task is told of it.
    async fn adopt_one(&self, record: &RunRecord, role: Role, inherited: &mut Inherited) -> Result<Found, StoreError> {
        let (service, pid) = (record.service_id, record.pid);
        let found = record.find().and_then(|found| {
            let adopted = found.map(|process| Process::adopted(pid, process));
            adopted.transpose()
        });
        let process = match (found, record.nonce_sha256()) {
            // Our child, if an upgrade in place came in between: it waited to be reaped, and to tell how it ended.
            (Ok(Some(mut process)), _) if role == Role::Serving && process.has_ended() => {
                return Ok(gone(record, process.ended().await));
            }
            (Ok(Some(process)), Some(nonce_sha256)) => (process, nonce_sha256),
            (Ok(None), _) => return Ok(gone(record, Exit::unknown(UNSEEN))),
            (Ok(Some(_)), None) => {
                tracing::warn!(%service, pid, "the run record of a former worker is damaged");
                return Ok(Found::Nothing);
            }
            (Err(error), _) => {
                tracing::warn!(%service, pid, %error, "a former worker cannot be watched");
                return Ok(Found::Nothing);
            }
        };
        let row = store::patiently(|| store::services::get(&self.shared.db, service)).await?;
        tracing::info!(%service, pid, ?role, "a former worker still runs");
        self.hand_to_task(record, role, process, row, inherited).await;
        Ok(Found::Worker)
    }

    async fn hand_to_task(
        &self,
        record: &RunRecord,
        role: Role,
        (process, nonce): (Process, [u8; 32]),
        row: Option<ServiceRow>,
        inherited: &mut Inherited,
    ) {
        let expected = Expected {
            epoch: record.epoch,
            nonce_sha256: nonce,
            pid: record.pid,
            service_id: record.service_id,
            workspace_id: record.workspace_id,
        };
        // A worker whose service is gone keeps the configuration that it has.
        let config = row.as_ref().map(|row| worker_config(&self.shared, row));
        let (link, events) = self.shared.link.expect(expected, config);
        let mut adoptee = Adoptee {
            process,
            link,
            events,
            row,
            binary: None,
            listeners: None,
            pending: None,
        };
        let command = if role == Role::Serving {
            adoptee.binary = WorkerBinary::of_process(record.pid, &self.shared.binary()).await;
            let to_run = adoptee.row.as_ref().filter(|row| row.enabled);
            adoptee.listeners = to_run.and_then(|row| inherited.of(row));
            adoptee.pending = Some(self.shared.adoption.begin(record.service_id));
            Command::Adopt(Box::new(adoptee))
        } else {
            Command::AdoptDraining(Box::new(adoptee))
        };
        let Ok(handle) = self.handle(record.service_id) else {
            return;
        };
        // Before anybody can ask anything of the service: nobody else knows the task yet.
        let _ = handle.commands.send(command).await;
    }
}

fn gone(record: &RunRecord, exit: Exit) -> Found {
    let (service, pid) = (record.service_id, record.pid);
    tracing::info!(%service, pid, %exit, "a former worker is gone");
    if record.died_unasked() {
        Found::Dead(Death { pid, exit })
    } else {
        Found::Nothing
    }
}

impl Shared {
    /// Waits until listeners may be bound; `false` if the control plane is stopping.
    pub(super) async fn may_bind(&self) -> bool {
        self.closing
            .run_until_cancelled(self.adoption.settled())
            .await
            .is_some()
    }
}
