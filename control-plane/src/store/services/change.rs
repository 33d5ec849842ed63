//! What is to change of a service.

use proxyplane_spec::{CaptureSpec, HostPattern, ListenHost, OnPortConflict, ServiceName, SpoolFull};

use super::ServiceRow;

/// What is to change; `None` leaves as it is.
#[derive(Clone, Debug, Default)]
pub struct ServiceChange {
    /// New name.
    pub name: Option<ServiceName>,
    /// New host.
    pub host: Option<ListenHost>,
    /// New port.
    pub port: Option<u16>,
    /// New value.
    pub on_port_conflict: Option<OnPortConflict>,
    /// New value.
    pub verbose: Option<bool>,
    /// New value.
    pub log_out_of_scope: Option<bool>,
    /// Parts of the specification.
    pub capture: CaptureChange,
    /// The revision that all of this is taken from, if it is a rollback.
    pub rollback_of: Option<i64>,
}

/// What is to change of a capture specification; `None` leaves as it is. Its fields are those of [`CaptureSpec`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureChange {
    /// New value.
    pub insecure_upstream: Option<bool>,
    /// New certificates.
    pub extra_ca_pem: Option<String>,
    /// New hosts, all of them.
    pub passthrough_hosts: Option<Vec<HostPattern>>,
    /// New limit.
    pub capture_limit: Option<u64>,
    /// New limit.
    pub spool_limit: Option<u64>,
    /// New value.
    pub spool_full: Option<SpoolFull>,
    /// New value.
    pub durable_before_end: Option<bool>,
}

impl ServiceChange {
    /// Would `row` be another after it? A rollback is a revision in any case: somebody wanted it.
    pub(super) fn changes(&self, row: &ServiceRow) -> bool {
        if self.rollback_of.is_some() {
            return true;
        }
        let changed = self.applied_to(row);
        let unchanged = ServiceRow {
            revision: changed.revision,
            ..row.clone()
        };
        changed != unchanged
    }

    /// `row` after this change.
    pub(super) fn applied_to(&self, row: &ServiceRow) -> ServiceRow {
        ServiceRow {
            name: self
                .name
                .as_ref()
                .map_or(row.name.as_str(), ServiceName::as_str)
                .to_owned(),
            host: self.host.unwrap_or(row.host),
            port: self.port.unwrap_or(row.port),
            on_port_conflict: self.on_port_conflict.unwrap_or(row.on_port_conflict),
            verbose: self.verbose.unwrap_or(row.verbose),
            log_out_of_scope: self.log_out_of_scope.unwrap_or(row.log_out_of_scope),
            spec: self.capture.applied_to(&row.spec),
            revision: row.revision + 1,
            ..row.clone()
        }
    }
}

impl CaptureChange {
    fn applied_to(&self, spec: &CaptureSpec) -> CaptureSpec {
        CaptureSpec {
            insecure_upstream: self.insecure_upstream.unwrap_or(spec.insecure_upstream),
            extra_ca_pem: self.extra_ca_pem.as_ref().unwrap_or(&spec.extra_ca_pem).clone(),
            passthrough_hosts: self
                .passthrough_hosts
                .as_ref()
                .unwrap_or(&spec.passthrough_hosts)
                .clone(),
            capture_limit: self.capture_limit.unwrap_or(spec.capture_limit),
            spool_limit: self.spool_limit.unwrap_or(spec.spool_limit),
            spool_full: self.spool_full.unwrap_or(spec.spool_full),
            durable_before_end: self.durable_before_end.unwrap_or(spec.durable_before_end),
        }
    }
}

/// Of everything.
impl From<CaptureSpec> for CaptureChange {
    fn from(spec: CaptureSpec) -> Self {
        Self {
            insecure_upstream: Some(spec.insecure_upstream),
            extra_ca_pem: Some(spec.extra_ca_pem),
            passthrough_hosts: Some(spec.passthrough_hosts),
            capture_limit: Some(spec.capture_limit),
            spool_limit: Some(spec.spool_limit),
            spool_full: Some(spec.spool_full),
            durable_before_end: Some(spec.durable_before_end),
        }
    }
}
