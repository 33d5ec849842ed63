//! ProxyServices.

use std::time::Duration;

use proxyplane_proto::v1;
use proxyplane_spec::{CaptureSpec, OnPortConflict, RawCapture, ServiceId, SpoolFull, Violation, WorkspaceId};
use uuid::Uuid;

use super::{Fields, id, optional_id, page, timestamp};
use crate::{
    api::status::Refusal,
    services::{NewProxy, Proxy, ProxyEvent, UpdateProxy, WatchScope},
    store::{
        page::Page,
        services::{ServiceFilter, ServiceKind},
    },
    supervisor::{DrainingWorker, OpenCounts, ServiceState, ServiceStatus},
};

/// A service with its observed status and the number of its committed exchanges.
pub(in crate::api) fn proxy(Proxy { row, status, stored }: Proxy) -> v1::ProxyService {
    v1::ProxyService {
        etag: row.etag(),
        id: row.id.to_string(),
        workspace_id: row.workspace_id.to_string(),
        workspace_code: row.workspace_code,
        name: row.name,
        kind: kind(row.kind).into(),
        host: row.host.to_string(),
        port: row.port.into(),
        on_port_conflict: on_port_conflict(row.on_port_conflict).into(),
        verbose: row.verbose,
        log_out_of_scope: row.log_out_of_scope,
        enabled: row.enabled,
        capture: Some(capture(row.spec)),
        revision: row.revision,
        created_at: Some(timestamp(row.created_at)),
        updated_at: Some(timestamp(row.updated_at)),
        status: Some(proxy_status(status, stored)),
    }
}

fn kind(kind: ServiceKind) -> v1::ProxyKind {
    match kind {
        ServiceKind::Capture => v1::ProxyKind::Capture,
    }
}

/// What happens when a port stays taken.
pub(super) fn on_port_conflict(value: OnPortConflict) -> v1::OnPortConflict {
    match value {
        OnPortConflict::Disable => v1::OnPortConflict::Disable,
        OnPortConflict::Retry => v1::OnPortConflict::Retry,
    }
}

fn parse_on_port_conflict(value: v1::OnPortConflict) -> OnPortConflict {
    match value {
        v1::OnPortConflict::Retry => OnPortConflict::Retry,
        v1::OnPortConflict::Unspecified | v1::OnPortConflict::Disable => OnPortConflict::Disable,
    }
}

/// What a service does with what passes.
pub(super) fn capture(spec: CaptureSpec) -> v1::CaptureSpec {
    v1::CaptureSpec {
        insecure_upstream: spec.insecure_upstream,
        extra_ca_pem: spec.extra_ca_pem,
        passthrough_hosts: spec.passthrough_hosts.iter().map(ToString::to_string).collect(),
        capture_limit: Some(spec.capture_limit),
        spool_limit_bytes: Some(spec.spool_limit),
        spool_full: match spec.spool_full {
            SpoolFull::DropOldest => v1::SpoolFull::DropOldest.into(),
            SpoolFull::Block => v1::SpoolFull::Block.into(),
        },
        durable_before_end: spec.durable_before_end,
    }
}

fn proxy_status(status: ServiceStatus, stored: u64) -> v1::ProxyStatus {
    v1::ProxyStatus {
        state: state(status.state).into(),
        pid: status.pid.unwrap_or_default(),
        started_at: status.started_at.map(timestamp),
        uptime: status.uptime.and_then(|uptime| uptime.try_into().ok()),
        requests: status.requests,
        websockets: status.websockets,
        open_connections: status.open_connections,
        bytes_in: status.bytes_in,
        bytes_out: status.bytes_out,
        stored,
        backlog: status.backlog,
        spool_bytes: status.spool_bytes,
        spool_limit_bytes: status.spool_limit,
        applied_revision: status.applied_revision,
        applied_at: status.applied_at.map(timestamp),
        rejected_at: status.rejected_at.map(timestamp),
        last_error: status.last_error,
        last_exit: status.last_exit,
        restarts: status.restarts,
        worker_version: status.worker_version,
        sandbox: status.sandbox.as_ref().map(ToString::to_string).unwrap_or_default(),
        panics: status.panics,
        listening: status.listening.iter().map(ToString::to_string).collect(),
        open: status.open.map(open),
        drain_deadline: status.drain_deadline.map(timestamp),
        draining: status.draining.into_iter().map(draining).collect(),
    }
}

fn open(open: OpenCounts) -> v1::OpenCounts {
    let OpenCounts {
        connections,
        requests,
        websockets,
        tunnels,
    } = open;
    v1::OpenCounts {
        connections,
        requests,
        websockets,
        tunnels,
    }
}

fn draining(worker: DrainingWorker) -> v1::DrainingWorker {
    v1::DrainingWorker {
        pid: worker.pid,
        worker_version: worker.version,
        open: Some(open(worker.open)),
        deadline: Some(timestamp(worker.deadline)),
    }
}

fn state(state: ServiceState) -> v1::ProxyState {
    match state {
        ServiceState::Stopped => v1::ProxyState::Stopped,
        ServiceState::Starting => v1::ProxyState::Starting,
        ServiceState::Running => v1::ProxyState::Running,
        ServiceState::Draining => v1::ProxyState::Draining,
        ServiceState::Stopping => v1::ProxyState::Stopping,
        ServiceState::Crashed => v1::ProxyState::Crashed,
        ServiceState::Failed => v1::ProxyState::Failed,
    }
}

/// What a watcher is told.
pub(in crate::api) fn event(event: ProxyEvent) -> v1::WatchProxyServicesResponse {
    use v1::watch_proxy_services_response::Event as Wire;
    let event = match event {
        ProxyEvent::Changed(proxy) => Wire::Changed(self::proxy(*proxy)),
        ProxyEvent::Deleted(id) => Wire::DeletedId(id.to_string()),
    };
    v1::WatchProxyServicesResponse { event: Some(event) }
}

/// How long a drain may take; unset means the server's own time-out.
pub(in crate::api) fn drain_timeout(duration: Option<prost_types::Duration>) -> Result<Option<Duration>, Violation> {
    let duration = duration.map(Duration::try_from).transpose();
    duration.map_err(|_| Violation::new("drain_timeout", "must not be negative"))
}

/// Raw values of a new service.
pub(in crate::api) fn new(request: v1::CreateProxyServiceRequest) -> Result<NewProxy, Refusal> {
    let mut fields = Fields::default();
    let workspace_id = fields.take(id("workspace_id", &request.workspace_id));
    // Unspecified means capture, the only kind that there is.
    if v1::ProxyKind::try_from(request.kind).is_err() {
        fields.wrong("kind", "must be CAPTURE");
    }
    let new = NewProxy {
        workspace_id: workspace_id.unwrap_or(WorkspaceId(Uuid::nil())),
        on_port_conflict: parse_on_port_conflict(request.on_port_conflict()),
        name: request.name,
        host: request.host,
        port: request.port,
        verbose: request.verbose,
        log_out_of_scope: request.log_out_of_scope,
        capture: raw(request.capture),
        start: request.start,
        validate_only: request.validate_only,
    };
    fields.finish_values(new, NewProxy::violations)
}

/// Raw values of a change.
pub(in crate::api) fn update(request: v1::UpdateProxyServiceRequest) -> Result<UpdateProxy, Refusal> {
    let proxy = request
        .proxy_service
        .ok_or_else(|| Refusal::field("proxy_service", "must be given"))?;
    let mut fields = Fields::default();
    let id = fields.take(id("proxy_service.id", &proxy.id));
    let update = UpdateProxy {
        id: id.unwrap_or(ServiceId(Uuid::nil())),
        on_port_conflict: parse_on_port_conflict(proxy.on_port_conflict()),
        name: proxy.name,
        host: proxy.host,
        port: proxy.port,
        verbose: proxy.verbose,
        log_out_of_scope: proxy.log_out_of_scope,
        capture: raw(proxy.capture),
        mask: request.update_mask.unwrap_or_default().paths,
        etag: request.etag,
        validate_only: request.validate_only,
    };
    fields.finish_values(update, UpdateProxy::violations)
}

fn raw(capture: Option<v1::CaptureSpec>) -> RawCapture {
    let capture = capture.unwrap_or_default();
    let spool_full = match capture.spool_full() {
        v1::SpoolFull::Block => SpoolFull::Block,
        v1::SpoolFull::Unspecified | v1::SpoolFull::DropOldest => SpoolFull::DropOldest,
    };
    RawCapture {
        insecure_upstream: capture.insecure_upstream,
        extra_ca_pem: capture.extra_ca_pem,
        passthrough_hosts: capture.passthrough_hosts,
        capture_limit: capture.capture_limit,
        spool_limit: capture.spool_limit_bytes,
        spool_full,
        durable_before_end: capture.durable_before_end,
    }
}

/// Which services, and which page of them.
pub(in crate::api) fn list(request: v1::ListProxyServicesRequest) -> Result<(ServiceFilter, Page), Refusal> {
    let mut fields = Fields::default();
    let workspace_id = fields.take(optional_id("workspace_id", &request.workspace_id));
    let page = fields.take(page(request.page_size, &request.page_token));
    if request.name.contains('\0') {
        fields.wrong("name", "must not contain NUL");
    }
    let name = (!request.name.is_empty()).then_some(request.name);
    fields.finish(
        workspace_id
            .map(|workspace_id| ServiceFilter { workspace_id, name })
            .zip(page),
    )
}

/// Which services are to be watched.
pub(in crate::api) fn scope(request: &v1::WatchProxyServicesRequest) -> Result<WatchScope, Refusal> {
    let mut fields = Fields::default();
    let id = fields.take(optional_id("id", &request.id));
    let workspace_id = fields.take(optional_id("workspace_id", &request.workspace_id));
    fields.finish(
        id.zip(workspace_id)
            .map(|(id, workspace_id)| WatchScope { id, workspace_id }),
    )
}
