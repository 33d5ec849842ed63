//! What parts of the control plane raise: a method per kind.

use std::time::{Duration, Instant};

use proxyplane_spec::Violation;
use time::OffsetDateTime;
use tokio::sync::watch;

use super::{
    Events,
    event::{NewEvent, Subject},
    kind::{Kind, Severity},
};
use crate::{
    clock,
    ingest::{Health, Source},
};

impl Events {
    /// A worker serves, after a start.
    pub fn worker_started(&self, proxy: Subject, pid: i32, revision: i64) {
        let event = supervisor(
            Severity::Info,
            Kind::WorkerStarted,
            proxy,
            &format!("worker {pid} serves"),
        );
        self.raise(event.with("pid", &pid).with("revision", &revision));
    }

    /// A worker serves in the place of one that died; the `restarts`-th since the last start.
    pub fn worker_respawned(&self, proxy: Subject, pid: i32, restarts: u32) {
        let what = format!("worker {pid} serves in the place of one that died");
        let event = supervisor(Severity::Info, Kind::WorkerRespawned, proxy, &what);
        self.raise(event.with("pid", &pid).with("restarts", &restarts));
    }

    /// A worker ended as it was asked to.
    pub fn worker_stopped(&self, proxy: Subject, pid: i32, exit: &str) {
        let event = supervisor(
            Severity::Info,
            Kind::WorkerStopped,
            proxy,
            &format!("worker {pid} ended"),
        );
        self.raise(event.because(exit).with("pid", &pid).with("exit", &exit));
    }

    /// A worker died unasked. `why` says how, or what it did not do in time.
    pub fn worker_crashed(&self, proxy: Subject, pid: i32, why: &str, exit: &str) {
        let event = supervisor(Severity::Warning, Kind::WorkerCrashed, proxy, why);
        self.raise(event.with("pid", &pid).with("exit", &exit));
    }

    /// A worker that a former control plane started was taken over.
    pub fn worker_adopted(&self, proxy: Subject, pid: i32) {
        let what = format!("worker {pid} of a former control plane was adopted");
        self.raise(supervisor(Severity::Info, Kind::WorkerAdopted, proxy, &what).with("pid", &pid));
    }

    /// The worker `pid` serves in the place of `former`, which has until its deadline for what it has open.
    pub fn worker_upgraded(&self, proxy: Subject, pid: i32, former: i32, version: &str, former_version: &str) {
        let what = format!("worker {pid} ({version}) serves in the place of worker {former} ({former_version})");
        let event = supervisor(Severity::Info, Kind::WorkerUpgraded, proxy, &what);
        let event = event.with("pid", &pid).with("former_pid", &former);
        self.raise(event.with("version", &version).with("former_version", &former_version));
    }

    /// A worker was to be replaced; why it was not.
    pub fn upgrade_failed(&self, proxy: Subject, why: &str) {
        // With the reason in it: two that fail for other reasons are not equal.
        let what = format!("the worker was not replaced and serves on: {why}");
        self.raise(supervisor(Severity::Warning, Kind::UpgradeFailed, proxy, &what));
    }

    /// A proxy's workers kept dying early: none is started any more. `why` is what the last died of.
    pub fn breaker_opened(&self, proxy: Subject, why: &str) {
        let what = "crash breaker opened; clients get 503";
        self.raise(supervisor(Severity::Error, Kind::BreakerOpened, proxy, what).because(why));
    }

    /// At boot the port of a proxy is taken and is waited for. `why` names the holder.
    pub fn port_conflict(&self, proxy: Subject, why: &str) {
        let what = "waiting for its address";
        self.raise(supervisor(Severity::Warning, Kind::PortConflict, proxy, what).because(why));
    }

    /// At boot the port of a proxy stayed taken: the proxy was disabled. `why` names the holder.
    pub fn port_conflict_lasted(&self, proxy: Subject, why: &str) {
        let what = "proxy disabled: its address stayed taken";
        self.raise(supervisor(Severity::Warning, Kind::PortConflict, proxy, what).because(why));
    }

    /// At boot the port of a proxy stayed taken, and is waited for without an end. `why` names the holder.
    pub fn port_conflict_waited_for(&self, proxy: Subject, why: &str) {
        let what = "proxy failed: its address stayed taken, and is tried until it is free";
        self.raise(supervisor(Severity::Warning, Kind::PortConflict, proxy, what).because(why));
    }

    /// A configuration was refused, by the worker or in its place; what was in force before still is.
    pub fn config_rejected(&self, proxy: Subject, revision: i64, violations: &[Violation]) {
        let why: Vec<String> = violations.iter().map(ToString::to_string).collect();
        // With the reasons in it: two changes that are refused for other reasons are not equal.
        let what = format!("a configuration was refused: {}", why.join("; "));
        let event = NewEvent::new(Severity::Warning, Kind::ConfigRejected, "link", proxy, &what);
        self.raise(event.with("revision", &revision));
    }

    /// A configuration was not changed: the worker did not say whether it can use it. `why` says what it does not do.
    pub fn worker_unresponsive(&self, proxy: Subject, why: &str) {
        let what = "a configuration was not changed";
        self.raise(supervisor(Severity::Warning, Kind::WorkerUnresponsive, proxy, what).because(why));
    }

    /// What a worker logged; `withheld` lines before it were too many.
    pub fn worker_logged(&self, proxy: Subject, severity: Severity, line: &str, withheld: u64) {
        let mut event = NewEvent::new(severity, Kind::Logged, "worker", proxy, line);
        if withheld > 0 {
            event = event.with("lines_withheld", &withheld);
        }
        // The worker's log file has the line.
        self.put(event);
    }

    /// A worker's spool is more than 80 % full. Sizes are in bytes.
    pub fn spool_above_80(&self, proxy: Subject, used: u64, limit: u64) {
        let what = "the spool is more than 80 % full; new bodies are not kept";
        let event = NewEvent::new(Severity::Warning, Kind::SpoolAbove80, "spool", proxy, what);
        self.raise(event.with("used", &used).with("limit", &limit));
    }

    /// Records were dropped because a spool was full, or were damaged in it.
    pub fn gap(&self, proxy: Subject, records: u64, exchanges: u64) {
        let what = format!("a spool lost {records} records of {exchanges} exchanges; the gap is in ingest_gaps");
        let event = NewEvent::new(Severity::Error, Kind::Gap, "spool", proxy, &what);
        self.raise(event.with("records", &records).with("exchanges", &exchanges));
    }

    /// A start waited for the database until now.
    pub fn database_awaited(&self, since: OffsetDateTime) {
        let now = clock::now();
        let what = format!(
            "the start waited for the database from {} to {}",
            clock::shown(since),
            clock::shown(now)
        );
        let event = NewEvent::new(Severity::Warning, Kind::DatabaseAwaited, "app", Subject::System, &what);
        let seconds = format!("{:.1}", (now - since).as_seconds_f64());
        self.raise(event.with("waited_seconds", &seconds));
    }

    /// The database refused a record, which is kept among the rejects.
    pub fn row_rejected(&self, source: Source, seq: u64, why: &str) {
        let proxy = Subject::proxy_in(source.service_id, source.workspace_id);
        let what = "a record was refused; its bytes are in ingest_rejects";
        let event = NewEvent::new(Severity::Error, Kind::RowRejected, "ingest", proxy, what);
        self.raise(event.because(why).with("epoch", &source.epoch).with("seq", &seq));
    }

    /// Raises an event whenever ingest stalls or commits again, until it ends.
    pub async fn follow_ingest(self, mut health: watch::Receiver<Health>) {
        let mut stalled_since: Option<Instant> = None;
        while let Ok(()) = health.changed().await {
            let now = health.borrow_and_update().clone();
            match (now, stalled_since) {
                (Health::Ready, Some(since)) => {
                    stalled_since = None;
                    self.ingest_recovered(since.elapsed());
                }
                (Health::Ready, None) | (Health::Stalled(_), Some(_)) => {}
                (Health::Stalled(why), None) => {
                    stalled_since = Some(Instant::now());
                    self.ingest_stalled(Severity::Warning, &why);
                }
                (fenced @ Health::Fenced, _) => {
                    stalled_since.get_or_insert_with(Instant::now);
                    self.ingest_stalled(Severity::Error, &fenced.to_string());
                }
            }
        }
    }

    fn ingest_stalled(&self, severity: Severity, why: &str) {
        let what = "nothing is committed at present";
        self.raise(ingest(severity, Kind::IngestStalled, what).because(why));
    }

    fn ingest_recovered(&self, after: Duration) {
        let seconds = format!("{:.1}", after.as_secs_f64());
        let what = format!("records are committed again, after {seconds} s");
        self.raise(ingest(Severity::Info, Kind::IngestRecovered, &what).with("stalled_seconds", &seconds));
    }
}

/// Events themselves were dropped.
pub(super) fn events_dropped(count: u64, why: &str) -> NewEvent {
    let what = format!("{count} events were dropped");
    let event = NewEvent::new(Severity::Warning, Kind::EventsDropped, "events", Subject::System, &what);
    event.because(why).with("count", &count)
}

fn supervisor(severity: Severity, kind: Kind, proxy: Subject, what: &str) -> NewEvent {
    NewEvent::new(severity, kind, "supervisor", proxy, what)
}

fn ingest(severity: Severity, kind: Kind, what: &str) -> NewEvent {
    NewEvent::new(severity, kind, "ingest", Subject::System, what)
}
