//! Health of each part, for `/health`, `/ready`, `grpc.health.v1` and `proxyctl system status`.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use proxyplane_spec::limits;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::{
    clock,
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
pub struct Health(Arc<Inner>);

struct Inner {
    pki: Arc<Pki>,
    /// Why the database is waited for; of no interest once there are `parts`.
    awaited: watch::Sender<String>,
    parts: OnceLock<Parts>,
    started: AtomicBool,
}

/// What there is once the database has answered.
struct Parts {
    db: Db,
    ingest: IngestHandle,
    supervisor: Supervisor,
}

impl Health {
    /// Of a server that begins; not ready before [`Self::started`].
    pub fn new(pki: Arc<Pki>) -> Self {
        Self(Arc::new(Inner {
            pki,
            awaited: watch::Sender::new("is being started".to_owned()),
            parts: OnceLock::new(),
            started: AtomicBool::new(false),
        }))
    }

    /// The start waits for the database: what it does instead of answering.
    pub fn awaits_database(&self, why: impl Into<String>) {
        self.0.awaited.send_replace(why.into());
    }

    /// From now on these are looked at. Only the first call counts.
    pub fn watch(&self, db: Db, ingest: IngestHandle, supervisor: Supervisor) {
        let _ = self.0.parts.set(Parts { db, ingest, supervisor });
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
        match self.0.parts.get() {
            Some(parts) => store::ping(&parts.db).await,
            None => Err(StoreError::awaited()),
        }
    }

    /// How each part does now.
    pub async fn report(&self) -> Report {
        let Some(present) = self.0.parts.get() else {
            return self.report_of_a_start();
        };
        let enabled = store::services::enabled(&present.db).await;
        let database = match &enabled {
            Ok(_) => part("database", true, "answers"),
            Err(error) => part("database", false, error.to_string()),
        };
        let ingest = present.ingest.health().borrow().clone();
        let ingest = part("ingest", ingest == ingest::Health::Ready, ingest.to_string());
        let mut parts = vec![database, ingest, self.certificates()];
        if !self.has_started() {
            parts.insert(0, part("start", false, "proxies are being started"));
        }
        let proxies = enabled.unwrap_or_default().into_iter().map(|row| present.proxy(row));
        parts.extend(futures_util::future::join_all(proxies).await);
        Report {
            ready: parts.iter().all(|part| part.ready),
            parts,
        }
    }

    fn report_of_a_start(&self) -> Report {
        let database = self.0.awaited.borrow().clone();
        Report {
            ready: false,
            parts: vec![
                part("start", false, "waits for the database"),
                part("database", false, database),
                self.certificates(),
            ],
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
}

impl Parts {
    async fn proxy(&self, row: ServiceRow) -> Part {
        let status = self.supervisor.status(row.id).await;
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
            "{state}, revision {} applied {}",
            status.applied_revision,
            clock::shown(at)
        ),
        None => state.to_owned(),
    }
}

/// Bodies are not kept any more, and records may soon be dropped.
fn spool_is_nearly_full(status: &ServiceStatus) -> bool {
    limits::spool_is_nearly_full(status.spool_bytes, status.spool_limit)
}

fn part(name: &str, ready: bool, detail: impl Into<String>) -> Part {
    Part {
        name: name.to_owned(),
        ready,
        detail: detail.into(),
    }
}
