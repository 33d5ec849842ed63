//! What a service's task publishes, and how a status is made of it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use time::OffsetDateTime;

use super::status::{ServiceState, ServiceStatus};
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
}

impl Observed {
    /// The status with counters that the worker was asked for now.
    pub(super) async fn status(&self) -> ServiceStatus {
        let counters = match &self.worker {
            Some(worker) if self.state == ServiceState::Running => worker.fresh_counters(COUNTERS_PATIENCE).await,
            Some(worker) => worker.counters(),
            None => Counters::default(),
        };
        let total = add(self.before, counters);
        ServiceStatus {
            state: self.state,
            pid: self.pid,
            started_at: self.ready.map(|(_, at)| at),
            uptime: self.ready.map(|(since, _)| since.elapsed()),
            requests: total.requests,
            websockets: total.websockets,
            open_connections: counters.open_connections,
            bytes_in: total.bytes_in,
            bytes_out: total.bytes_out,
            backlog: counters.backlog,
            spool_bytes: counters.spool_bytes,
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
        }
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
