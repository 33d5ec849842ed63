//! Changes of a ProxyService.

use proxyplane_spec::{CaptureSpec, ListenHost, OnPortConflict, RawCapture, ServiceId, ServiceName, Violation};

use super::{
    Error, Proxy, Services,
    check::{self, Checks, below},
};
use crate::{
    store::{
        self, StoreError,
        services::{ServiceChange, ServiceRow},
    },
    supervisor::LifecycleError,
};

/// A change that touches a part of the capture specification is based on the whole: it is tried again this often when
/// somebody else changes the service meanwhile.
const MERGE_ATTEMPTS: usize = 4;

const FIELDS: [&str; 14] = [
    "name",
    "host",
    "port",
    "on_port_conflict",
    "verbose",
    "log_out_of_scope",
    "capture",
    "capture.insecure_upstream",
    "capture.extra_ca_pem",
    "capture.passthrough_hosts",
    "capture.capture_limit",
    "capture.spool_limit_bytes",
    "capture.spool_full",
    "capture.durable_before_end",
];

/// A change of a service: of the raw values only what `mask` names is read.
#[derive(Clone, Debug)]
pub struct UpdateProxy {
    /// Which.
    pub id: ServiceId,
    /// New name.
    pub name: String,
    /// New address to listen on.
    pub host: String,
    /// New port.
    pub port: u32,
    /// New value.
    pub on_port_conflict: OnPortConflict,
    /// New value.
    pub verbose: bool,
    /// New value.
    pub log_out_of_scope: bool,
    /// New specification, or the part of it that the mask names.
    pub capture: RawCapture,
    /// Paths such as `name` or `capture.capture_limit`.
    pub mask: Vec<String>,
    /// The etag the change is based on; empty means any.
    pub etag: String,
    /// Check and answer as if done, change nothing.
    pub validate_only: bool,
}

impl Services {
    /// Changes a service; in force when this returns.
    pub async fn update_proxy(&self, update: UpdateProxy) -> Result<Proxy, Error> {
        let merges = update.mask.iter().any(|path| path.starts_with("capture."));
        for attempt in 1.. {
            let row = store::services::get(&self.db, update.id).await?;
            let row = row.ok_or_else(|| Error::proxy_not_found(update.id))?;
            let change = checked(&update, || raw(&row))?;
            let given = check::etag(update.etag.clone());
            let merged_on = if merges && given.is_none() {
                Some(row.etag())
            } else {
                None
            };
            let retry = merged_on.is_some() && attempt < MERGE_ATTEMPTS;
            let etag = given.or(merged_on);
            match self
                .supervisor
                .reconfigure(update.id, etag, change, update.validate_only)
                .await
            {
                Err(LifecycleError::Store(StoreError::EtagMismatch)) if retry => {}
                Err(error) => return Err(self.update_error(error, &row).await),
                Ok(row) => {
                    let mut proxies = self.with_status(vec![row]).await?;
                    return proxies.pop().ok_or_else(|| Error::proxy_not_found(update.id));
                }
            }
        }
        Err(Error::EtagMismatch)
    }

    async fn update_error(&self, error: LifecycleError, row: &ServiceRow) -> Error {
        match error {
            LifecycleError::Invalid(violations) => Error::Invalid(below("proxy_service", violations)),
            LifecycleError::Rejected(violations) => Error::Rejected(below("proxy_service", violations)),
            error => self.change_error(error, row).await,
        }
    }

    /// What a change that the supervisor refused is to a caller.
    pub(super) async fn change_error(&self, error: LifecycleError, row: &ServiceRow) -> Error {
        match error {
            LifecycleError::Store(error @ (StoreError::NameTaken { .. } | StoreError::PortTaken { .. })) => {
                self.proxy_error(error, row.workspace_id).await
            }
            error => Error::of(row.id, error),
        }
    }
}

impl UpdateProxy {
    /// What is wrong with its values, whatever service they are for.
    pub fn violations(&self) -> Vec<Violation> {
        check::violations(checked(self, RawCapture::default))
    }
}

/// `current` is the specification that a part of one is merged into.
fn checked(update: &UpdateProxy, current: impl Fn() -> RawCapture) -> Result<ServiceChange, Error> {
    let mut checks = Checks::default();
    checks.take_all(check::mask(&update.mask, &FIELDS));
    let mut change = ServiceChange::default();
    let mut merged: Option<RawCapture> = None;
    for path in &update.mask {
        match path.as_str() {
            "name" => change.name = checks.take(ServiceName::parse("proxy_service.name", &update.name)),
            "host" => change.host = checks.take(ListenHost::parse("proxy_service.host", &update.host)),
            "port" => change.port = checks.take(check::port("proxy_service.port", update.port, false)),
            "on_port_conflict" => change.on_port_conflict = Some(update.on_port_conflict),
            "verbose" => change.verbose = Some(update.verbose),
            "log_out_of_scope" => change.log_out_of_scope = Some(update.log_out_of_scope),
            "capture" => merged = Some(update.capture.clone()),
            "capture.insecure_upstream" => {
                merged.get_or_insert_with(&current).insecure_upstream = update.capture.insecure_upstream;
            }
            "capture.extra_ca_pem" => {
                merged
                    .get_or_insert_with(&current)
                    .extra_ca_pem
                    .clone_from(&update.capture.extra_ca_pem);
            }
            "capture.passthrough_hosts" => {
                merged
                    .get_or_insert_with(&current)
                    .passthrough_hosts
                    .clone_from(&update.capture.passthrough_hosts);
            }
            "capture.capture_limit" => {
                merged.get_or_insert_with(&current).capture_limit = update.capture.capture_limit;
            }
            "capture.spool_limit_bytes" => {
                merged.get_or_insert_with(&current).spool_limit = update.capture.spool_limit;
            }
            "capture.spool_full" => {
                merged.get_or_insert_with(&current).spool_full = update.capture.spool_full;
            }
            "capture.durable_before_end" => {
                merged.get_or_insert_with(&current).durable_before_end = update.capture.durable_before_end;
            }
            _ => {}
        }
    }
    if let Some(merged) = merged {
        // Certificates are judged by the worker, or in its place by the supervisor.
        change.spec =
            checks.take_all(CaptureSpec::parse(&merged).map_err(|violations| below("proxy_service", violations)));
    }
    checks.finish(Some(change))
}

fn raw(row: &ServiceRow) -> RawCapture {
    RawCapture {
        insecure_upstream: row.spec.insecure_upstream,
        extra_ca_pem: row.spec.extra_ca_pem.clone(),
        passthrough_hosts: row.spec.passthrough_hosts.iter().map(ToString::to_string).collect(),
        capture_limit: Some(row.spec.capture_limit),
        spool_limit: Some(row.spec.spool_limit),
        spool_full: row.spec.spool_full,
        durable_before_end: row.spec.durable_before_end,
    }
}

#[cfg(test)]
mod tests {
    use proxyplane_spec::WorkspaceId;

    use super::*;
    use crate::store::services::ServiceKind;

    fn row() -> ServiceRow {
        let now = crate::clock::now();
        ServiceRow {
            id: ServiceId::new(),
            workspace_id: WorkspaceId::new(),
            workspace_code: "default".into(),
            name: "capture".into(),
            kind: ServiceKind::Capture,
            host: ListenHost::DEFAULT,
            port: 8080,
            on_port_conflict: OnPortConflict::default(),
            verbose: true,
            log_out_of_scope: true,
            enabled: true,
            spec: CaptureSpec {
                insecure_upstream: true,
                capture_limit: 7,
                ..CaptureSpec::default()
            },
            revision: 1,
            created_at: now,
            updated_at: now,
        }
    }

    fn update(mask: &[&str]) -> UpdateProxy {
        UpdateProxy {
            id: ServiceId::new(),
            name: "a/b".into(),
            host: "nowhere.example".into(),
            port: 0,
            on_port_conflict: OnPortConflict::default(),
            verbose: false,
            log_out_of_scope: false,
            capture: RawCapture {
                passthrough_hosts: vec!["bank.example".into()],
                ..RawCapture::default()
            },
            mask: mask.iter().map(|path| (*path).to_owned()).collect(),
            etag: String::new(),
            validate_only: false,
        }
    }

    #[test]
    fn a_part_of_the_capture_specification_leaves_the_rest() {
        let change = checked(&update(&["capture.passthrough_hosts"]), || raw(&row())).unwrap();
        let spec = change.spec.unwrap();
        assert!(spec.insecure_upstream && spec.passes_through("bank.example"));
        assert_eq!(spec.capture_limit, 7);
        assert_eq!((change.name, change.verbose), (None, None));
    }

    #[test]
    fn the_whole_specification_is_replaced_with_defaults_for_what_is_not_given() {
        let spec = checked(&update(&["capture"]), || raw(&row())).unwrap().spec.unwrap();
        assert!(!spec.insecure_upstream);
        assert_eq!(spec.capture_limit, CaptureSpec::default().capture_limit);
    }

    #[test]
    fn violations_have_their_full_path() {
        let error = checked(&update(&["name", "host", "port", "enabled"]), || raw(&row())).unwrap_err();
        let fields: Vec<_> = error
            .violations()
            .iter()
            .map(|violation| violation.field.as_str())
            .collect();
        assert_eq!(
            fields,
            [
                "update_mask",
                "proxy_service.name",
                "proxy_service.host",
                "proxy_service.port"
            ]
        );
    }
}
