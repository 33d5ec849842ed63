//! A ProxyService with what is observed of it.

use proxyplane_proto::v1::{self, ProxyState};
use serde::Serialize;

use super::{
    draining::{Draining, NOTHING, Open, sum},
    some, time, variant,
};
use crate::{
    output::{Row, Text, Tone},
    when,
};

#[derive(Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub(crate) struct Proxy {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) workspace: String,
    workspace_id: String,
    kind: String,
    host: String,
    port: u32,
    on_port_conflict: String,
    verbose: bool,
    log_out_of_scope: bool,
    enabled: bool,
    pub(crate) state: String,
    /// Of the worker; null when there is none.
    pub(crate) pid: Option<i32>,
    started_at: Option<String>,
    uptime_seconds: u64,
    requests: u64,
    websockets: u64,
    open_connections: u64,
    bytes_in: u64,
    bytes_out: u64,
    /// Exchanges committed since creation.
    stored: u64,
    /// Records not yet committed, those of dead workers among them.
    backlog: u64,
    listening: Vec<String>,
    insecure_upstream: bool,
    extra_ca_pem: Option<String>,
    passthrough_hosts: Vec<String>,
    capture_limit: Option<u64>,
    /// Bytes of records that may be on disk, and what happens then.
    spool_limit: Option<u64>,
    spool_full: String,
    durable_before_end: bool,
    /// Bytes of records that are on its workers' disk.
    spool_bytes: u64,
    revision: i64,
    applied_revision: Option<i64>,
    applied_at: Option<String>,
    rejected_at: Option<String>,
    pub(crate) last_error: Option<String>,
    last_exit: Option<String>,
    restarts: u32,
    worker_version: Option<String>,
    /// What the worker has given up.
    sandbox: Option<String>,
    /// Connections that a fault of the worker's ended.
    panics: u64,
    /// Of the worker that serves, or is the last one to drain; null without one, or where its build does not count it.
    open_requests: Option<u64>,
    open_websockets: Option<u64>,
    open_tunnels: Option<u64>,
    /// Until when what is open may finish, while it drains.
    drain_deadline: Option<String>,
    /// Workers that were replaced and finish what they have open.
    draining: Vec<Draining>,
    #[serde(skip)]
    open: Option<Open>,
    etag: String,
    created_at: Option<String>,
    updated_at: Option<String>,
}

impl From<v1::ProxyService> for Proxy {
    fn from(from: v1::ProxyService) -> Self {
        let kind = variant(from.kind().as_str_name(), "PROXY_KIND_");
        let on_port_conflict = variant(from.on_port_conflict().as_str_name(), "ON_PORT_CONFLICT_");
        let status = from.status.unwrap_or_default();
        let capture = from.capture.unwrap_or_default();
        let spool_full = variant(capture.spool_full().as_str_name(), "SPOOL_FULL_");
        // Of all workers, where there are several; without any, nothing is open.
        let all = sum(status.open.unwrap_or(NOTHING), &status.draining);
        let open = status.open.unwrap_or_default();
        Self {
            id: from.id,
            name: from.name,
            workspace: from.workspace_code,
            workspace_id: from.workspace_id,
            kind,
            host: from.host,
            port: from.port,
            on_port_conflict,
            verbose: from.verbose,
            log_out_of_scope: from.log_out_of_scope,
            enabled: from.enabled,
            state: variant(status.state().as_str_name(), "PROXY_STATE_"),
            pid: (status.pid != 0).then_some(status.pid),
            started_at: time(status.started_at.as_ref()),
            uptime_seconds: status
                .uptime
                .map_or(0, |uptime| u64::try_from(uptime.seconds).unwrap_or(0)),
            requests: status.requests,
            websockets: status.websockets,
            open_connections: status.open_connections,
            bytes_in: status.bytes_in,
            bytes_out: status.bytes_out,
            stored: status.stored,
            backlog: status.backlog,
            listening: status.listening,
            insecure_upstream: capture.insecure_upstream,
            extra_ca_pem: some(capture.extra_ca_pem),
            passthrough_hosts: capture.passthrough_hosts,
            capture_limit: capture.capture_limit,
            spool_limit: capture.spool_limit_bytes,
            spool_full,
            durable_before_end: capture.durable_before_end,
            spool_bytes: status.spool_bytes,
            revision: from.revision,
            applied_revision: (status.applied_revision != 0).then_some(status.applied_revision),
            applied_at: time(status.applied_at.as_ref()),
            rejected_at: time(status.rejected_at.as_ref()),
            last_error: some(status.last_error),
            last_exit: some(status.last_exit),
            restarts: status.restarts,
            worker_version: some(status.worker_version),
            sandbox: some(status.sandbox),
            panics: status.panics,
            open_requests: open.requests,
            open_websockets: open.websockets,
            open_tunnels: open.tunnels,
            drain_deadline: time(status.drain_deadline.as_ref()),
            open: status.drain_deadline.map(|deadline| Open::of(&all, Some(&deadline))),
            draining: status.draining.into_iter().map(Draining::from).collect(),
            etag: from.etag,
            created_at: time(from.created_at.as_ref()),
            updated_at: time(from.updated_at.as_ref()),
        }
    }
}

impl Proxy {
    /// `WORKSPACE/NAME`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.workspace, self.name)
    }

    /// `host:port`, as a client needs it.
    pub(crate) fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// What it waits for while it drains.
    pub(crate) fn still_open(&self) -> Option<&Open> {
        self.open.as_ref()
    }

    /// Records that wait in spools, and their bytes, once no worker runs any more.
    pub(crate) fn left_behind(&self) -> Option<(u64, u64)> {
        (self.pid.is_none() && self.backlog > 0).then_some((self.backlog, self.spool_bytes))
    }

    /// The worker that was replaced last, and what it still has open.
    pub(crate) fn draining(&self) -> Option<(i32, &Open)> {
        self.draining.last().map(|worker| (worker.pid, &worker.open))
    }

    /// The state in its colour.
    pub(crate) fn state_text(&self) -> Text {
        let state_of = |state: ProxyState| variant(state.as_str_name(), "PROXY_STATE_");
        let tone = if self.state == state_of(ProxyState::Running) {
            Tone::Good
        } else if self.state == state_of(ProxyState::Stopped) {
            Tone::Faint
        } else if [ProxyState::Crashed, ProxyState::Failed]
            .map(state_of)
            .contains(&self.state)
        {
            Tone::Bad
        } else {
            Tone::Notice
        };
        Text::new(&self.state, tone)
    }

    fn uptime(&self) -> String {
        if self.pid.is_some() {
            when::uptime(self.uptime_seconds)
        } else {
            "-".to_owned()
        }
    }
}

impl Row for Proxy {
    const COLUMNS: &'static [&'static str] = &[
        "*NAME",
        "STATE",
        "LISTENS ON",
        "UPTIME",
        "REQUESTS",
        "STORED",
        "BACKLOG",
        "ID",
    ];

    fn cells(&self) -> Vec<Text> {
        vec![
            Text::plain(self.full_name()),
            self.state_text(),
            Text::plain(self.address()),
            Text::plain(self.uptime()),
            Text::plain(self.requests.to_string()),
            Text::plain(self.stored.to_string()),
            Text::plain(self.backlog.to_string()),
            Text::new(&self.id, Tone::Faint),
        ]
    }
}
