//! What a service's task publishes, and how a status is made of it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use proxyplane_spec::Epoch;
use time::OffsetDateTime;

use super::status::{DrainingWorker, OpenCounts, ServiceState, ServiceStatus};
use crate::link::{Counters, WorkerLink};

/// For a worker to answer with its counters; the latest known are shown if it does not.
const COUNTERS_PATIENCE: Duration = Duration::from_millis(100);

/// All that is seen of a service but its worker's counters.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    pub(super) state: ServiceState,
    pub(super) pid: Option<i32>,
    pub(super) ready: Option<(Instant, OffsetDateTime)>,
    pub(super) applied: Option<(i64, OffsetDateTime)>,
    pub(super) rejected_at: Option<OffsetDateTime>,
    pub(super) last_error: String,
    pub(super) last_exit: String,
    pub(super) restarts: u32,
    pub(super) listening: Vec<SocketAddr>,
    /// Of the workers that came before since the last start.
    pub(super) before: Counters,
    pub(super) worker: Option<WorkerLink>,
    /// While it drains.
    pub(super) drain_deadline: Option<OffsetDateTime>,
    /// Workers that were replaced.
    pub(super) draining: Vec<ObservedGeneration>,
}

/// A worker that was replaced.
#[derive(Clone, Debug)]
pub(super) struct ObservedGeneration {
    pub(super) pid: i32,
    pub(super) deadline: OffsetDateTime,
    pub(super) worker: WorkerLink,
}

impl ObservedGeneration {
    async fn status(&self) -> (DrainingWorker, Counters) {
        let counters = self.worker.fresh_counters(COUNTERS_PATIENCE).await;
        let shown = DrainingWorker {
            pid: self.pid,
            version: self.worker.build(),
            open: open(counters),
            deadline: self.deadline,
        };
        (shown, counters)
    }
}

impl Observed {
    /// Workers that tell how much is in their spools. One that has not said anything yet has no limit either.
    pub(super) fn telling(&self) -> Vec<Epoch> {
        let replaced = self.draining.iter().map(|one| &one.worker);
        let workers = self.worker.iter().chain(replaced);
        let telling = workers.filter(|worker| worker.counters().spool_limit > 0);
        telling.map(|worker| worker.source().epoch).collect()
    }

    /// The status with counters that the worker was asked for now.
    pub(super) async fn status(&self) -> ServiceStatus {
        let current = async {
            match &self.worker {
                Some(worker) if matches!(self.state, ServiceState::Running | ServiceState::Draining) => {
                    worker.fresh_counters(COUNTERS_PATIENCE).await
                }
                Some(worker) => worker.counters(),
                None => Counters::default(),
            }
        };
        let draining = join_all(self.draining.iter().map(ObservedGeneration::status));
        let (counters, draining) = tokio::join!(current, draining);
        let (draining, theirs): (Vec<_>, Vec<_>) = draining.into_iter().unzip();
        let total = theirs
            .iter()
            .fold(add(self.before, counters), |sum, one| add(sum, *one));
        let of_all = |count: fn(&Counters) -> u64| count(&counters) + theirs.iter().map(count).sum::<u64>();
        ServiceStatus {
            state: self.state,
            pid: self.pid,
            started_at: self.ready.map(|(_, at)| at),
            uptime: self.ready.map(|(since, _)| since.elapsed()),
            requests: total.requests,
            websockets: total.websockets,
            open_connections: of_all(|one| one.open_connections),
            bytes_in: total.bytes_in,
            bytes_out: total.bytes_out,
            backlog: of_all(|one| one.backlog),
            spool_bytes: of_all(|one| one.spool_bytes),
            spool_limit: counters.spool_limit,
            applied_revision: self.applied.map_or(0, |(revision, _)| revision),
            applied_at: self.applied.map(|(_, at)| at),
            rejected_at: self.rejected_at,
            last_error: self.last_error.clone(),
            last_exit: self.last_exit.clone(),
            restarts: self.restarts,
            worker_version: self.worker.as_ref().map(WorkerLink::build).unwrap_or_default(),
            sandbox: self.worker.as_ref().and_then(WorkerLink::sandbox),
            panics: total.panics,
            listening: self.listening.clone(),
            open: self.worker.as_ref().map(|_| open(counters)),
            drain_deadline: self.drain_deadline,
            draining,
        }
    }
}

fn open(counters: Counters) -> OpenCounts {
    OpenCounts {
        connections: counters.open_connections,
        requests: counters.open.map(|open| open.requests),
        websockets: counters.open.map(|open| open.websockets),
        tunnels: counters.open.map(|open| open.tunnels),
    }
}

/// What passed through both; what is open now is not a sum.
pub(super) fn add(before: Counters, now: Counters) -> Counters {
    Counters {
        requests: before.requests + now.requests,
        websockets: before.websockets + now.websockets,
        bytes_in: before.bytes_in + now.bytes_in,
        bytes_out: before.bytes_out + now.bytes_out,
        panics: before.panics + now.panics,
        ..Counters::default()
    }
}
