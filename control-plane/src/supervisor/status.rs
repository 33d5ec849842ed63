//! What is observed of a service.

use std::{net::SocketAddr, time::Duration};

use proxyplane_spec::Sandbox;
use time::OffsetDateTime;

/// Observed state of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceState {
    /// No worker, no listeners.
    #[default]
    Stopped,
    /// A worker is coming up, or its address is waited for.
    Starting,
    /// A worker serves.
    Running,
    /// No new connections, open exchanges are finishing.
    Draining,
    /// The worker is on its way out.
    Stopping,
    /// The worker died; a respawn is due.
    Crashed,
    /// Could not be started, or the crash breaker opened.
    Failed,
}

/// What is observed of a service, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Where it is in its life.
    pub state: ServiceState,
    /// Of the worker.
    pub pid: Option<i32>,
    /// When the worker became READY.
    pub started_at: Option<OffsetDateTime>,
    /// How long it has been READY.
    pub uptime: Option<Duration>,
    /// Exchanges begun since the last start.
    pub requests: u64,
    /// WebSockets opened since the last start.
    pub websockets: u64,
    /// Connections open now, in all workers.
    pub open_connections: u64,
    /// Bytes from clients since the last start.
    pub bytes_in: u64,
    /// Bytes to clients since the last start.
    pub bytes_out: u64,
    /// Records the workers have made that are not yet committed.
    pub backlog: u64,
    /// Bytes of them on disk.
    pub spool_bytes: u64,
    /// Bytes that the worker may have there.
    pub spool_limit: u64,
    /// Revision in force in the worker; 0 without one.
    pub applied_revision: i64,
    /// When it came into force.
    pub applied_at: Option<OffsetDateTime>,
    /// When the worker last refused a configuration.
    pub rejected_at: Option<OffsetDateTime>,
    /// Why it is not running as wished; empty otherwise.
    pub last_error: String,
    /// Exit status of the last worker that died unasked; empty if none did.
    pub last_exit: String,
    /// Respawns after a crash since the last start.
    pub restarts: u32,
    /// What the worker says of itself.
    pub worker_version: String,
    /// What the worker has given up; `None` before it dialled.
    pub sandbox: Option<Sandbox>,
    /// Connections that a panic ended since the last start.
    pub panics: u64,
    /// Addresses it listens on.
    pub listening: Vec<SocketAddr>,
    /// What the worker has open; `None` without one.
    pub open: Option<OpenCounts>,
    /// Until then what is open may finish, while the service drains.
    pub drain_deadline: Option<OffsetDateTime>,
    /// Workers that were replaced and still drain, oldest first.
    pub draining: Vec<DrainingWorker>,
}

/// What a worker has open. A build that does not count its exchanges leaves them out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenCounts {
    /// Clients' connections.
    pub connections: u64,
    /// Requests that are not answered to their end.
    pub requests: Option<u64>,
    /// WebSockets.
    pub websockets: Option<u64>,
    /// Tunnels.
    pub tunnels: Option<u64>,
}

/// A worker that was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainingWorker {
    /// Its pid.
    pub pid: i32,
    /// What it says of itself.
    pub version: String,
    /// What it still has open.
    pub open: OpenCounts,
    /// What is open then is closed.
    pub deadline: OffsetDateTime,
}
