//! Health of each part, for `/health`, `/ready`, `grpc.health.v1` and `proxyctl system status`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use proxyplane_spec::limits;
use time::OffsetDateTime;

use crate::{
    ingest::{self, IngestHandle},
    pki::Pki,
    store::{self, Db, StoreError, services::ServiceRow},
    supervisor::{ServiceState, ServiceStatus, Supervisor},
};

/// Health of everything, at one moment.
#[derive(Clone, Debug)]
pub struct Report {
    /// Every part is ready.
    pub ready: bool,
    /// The parts.
    pub parts: Vec<Part>,
}

/// One part.
#[derive(Clone, Debug)]
pub struct Part {
    /// `start`, `database`, `ingest`, `certificates`, `proxy <workspace>/<name>`.
    pub name: String,
    /// Does it work?
    pub ready: bool,
    /// What it does, or why it does not work.
    pub detail: String,
}

/// Looks at the parts when asked. Cloning shares it.
#[derive(Clone)]
pub struct Health(Arc<Parts>);

struct Parts {
    db: Db,
    ingest: IngestHandle,
    pki: Arc<Pki>,
    supervisor: Supervisor,
    started: AtomicBool,
}

impl Health {
    /// Of these parts; not ready before [`Self::started`].
    pub fn new(db: Db, ingest: IngestHandle, pki: Arc<Pki>, supervisor: Supervisor) -> Self {
        Self(Arc::new(Parts {
            db,
            ingest,
            pki,
            supervisor,
            started: AtomicBool::new(false),
        }))
    }

    /// From now on: the services that are to run were started.
    pub fn started(&self) {
        self.0.started.store(true, Ordering::Release);
    }

    /// Were the services that are to run started?
    pub fn has_started(&self) -> bool {
        self.0.started.load(Ordering::Acquire)
    }

    /// Is the database there?
    pub async fn storage(&self) -> Result<(), StoreError> {
        store::ping(&self.0.db).await
    }

    /// How each part does now.
    pub async fn report(&self) -> Report {
        let enabled = store::services::enabled(&self.0.db).await;
        let database = match &enabled {
            Ok(_) => part("database", true, "answers"),
            Err(error) => part("database", false, error.to_string()),
        };
        let ingest = self.0.ingest.health().borrow().clone();
        let ingest = part("ingest", ingest == ingest::Health::Ready, ingest.to_string());
        let mut parts = vec![database, ingest, self.certificates()];
        if !self.has_started() {
            parts.insert(0, part("start", false, "proxies are being started"));
        }
        let proxies = enabled.unwrap_or_default().into_iter().map(|row| self.proxy(row));
        parts.extend(futures_util::future::join_all(proxies).await);
        Report {
            ready: parts.iter().all(|part| part.ready),
            parts,
        }
    }

    fn certificates(&self) -> Part {
        let end = self.0.pki.not_after();
        part(
            "certificates",
            OffsetDateTime::now_utc() < end,
            format!("the CA certificate is valid until {}", end.date()),
        )
    }

    async fn proxy(&self, row: ServiceRow) -> Part {
        let status = self.0.supervisor.status(row.id).await;
        let name = format!("proxy {}/{}", row.workspace_code, row.name);
        let ready = status.state == ServiceState::Running && !spool_is_nearly_full(&status);
        part(&name, ready, proxy_detail(&status))
    }
}

fn proxy_detail(status: &ServiceStatus) -> String {
    let state = match status.state {
        ServiceState::Stopped => "stopped",
        ServiceState::Starting => "starting",
        ServiceState::Running => "running",
        ServiceState::Draining => "draining",
        ServiceState::Stopping => "stopping",
        ServiceState::Crashed => "crashed",
        ServiceState::Failed => "failed",
    };
    if !status.last_error.is_empty() {
        return format!("{state}: {}", status.last_error);
    }
    if spool_is_nearly_full(status) {
        let percent = status.spool_bytes.saturating_mul(100) / status.spool_limit;
        return format!("{state}, its spool is {percent} % full");
    }
    match status.applied_at {
        Some(at) => format!(
            "{state}, revision {} applied {} {}",
            status.applied_revision,
            at.date(),
            clock(at)
        ),
        None => state.to_owned(),
    }
}

/// Bodies are not kept any more, and records may soon be dropped.
fn spool_is_nearly_full(status: &ServiceStatus) -> bool {
    limits::spool_is_nearly_full(status.spool_bytes, status.spool_limit)
}

fn clock(at: OffsetDateTime) -> String {
    format!("{:02}:{:02}:{:02} UTC", at.hour(), at.minute(), at.second())
}

fn part(name: &str, ready: bool, detail: impl Into<String>) -> Part {
    Part {
        name: name.to_owned(),
        ready,
        detail: detail.into(),
    }
}
