//! Changes of a ProxyService.

use proxyplane_spec::{CaptureSpec, ListenHost, OnPortConflict, RawCapture, ServiceId, ServiceName, Violation};

use super::{
    Error, Proxy, Services,
    check::{self, Checks, below},
};
use crate::{
    store::{
        self, StoreError,
        services::{CaptureChange, ServiceChange},
    },
    supervisor::LifecycleError,
};

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
        let change = checked(&update)?;
        let UpdateProxy {
            id,
            etag,
            validate_only,
            ..
        } = update;
        let changed = self
            .supervisor
            .reconfigure(id, check::etag(etag), change, validate_only)
            .await;
        match changed {
            Err(error) => Err(self.update_error(error, id).await),
            Ok(row) => {
                let mut proxies = self.with_status(vec![row]).await?;
                proxies.pop().ok_or_else(|| Error::proxy_not_found(id))
            }
        }
    }

    async fn update_error(&self, error: LifecycleError, id: ServiceId) -> Error {
        match error {
            LifecycleError::Invalid(violations) => Error::Invalid(below("proxy_service", violations)),
            LifecycleError::Rejected(violations) => Error::Rejected(below("proxy_service", violations)),
            LifecycleError::AddressNotAvailable {
                address,
                detail,
                blamed,
            } => Error::AddressNotAvailable {
                address,
                detail,
                violations: below("proxy_service", blamed.into_iter().collect()),
            },
            error => self.change_error(error, id).await,
        }
    }

    /// What a change that the supervisor refused is to a caller.
    pub(super) async fn change_error(&self, error: LifecycleError, id: ServiceId) -> Error {
        match error {
            LifecycleError::Store(error @ (StoreError::NameTaken { .. } | StoreError::PortTaken { .. })) => {
                match store::services::get(&self.db, id).await {
                    Ok(Some(row)) => self.proxy_error(error, row.workspace_id).await,
                    Ok(None) => Error::proxy_not_found(id),
                    Err(error) => error.into(),
                }
            }
            error => Error::of(id, error),
        }
    }
}

impl UpdateProxy {
    /// What is wrong with its values, whatever service they are for.
    pub fn violations(&self) -> Vec<Violation> {
        check::violations(checked(self))
    }
}

fn checked(update: &UpdateProxy) -> Result<ServiceChange, Error> {
    let mut checks = Checks::default();
    checks.take_all(check::mask(&update.mask, &FIELDS));
    let mut change = ServiceChange::default();
    // Of what the mask does not name there is nothing to check.
    let mut capture = RawCapture::default();
    for path in &update.mask {
        let given = &update.capture;
        match path.as_str() {
            "name" => change.name = checks.take(ServiceName::parse("proxy_service.name", &update.name)),
            "host" => change.host = checks.take(ListenHost::parse("proxy_service.host", &update.host)),
            "port" => change.port = checks.take(check::port("proxy_service.port", update.port, false)),
            "on_port_conflict" => change.on_port_conflict = Some(update.on_port_conflict),
            "verbose" => change.verbose = Some(update.verbose),
            "log_out_of_scope" => change.log_out_of_scope = Some(update.log_out_of_scope),
            "capture" => capture = given.clone(),
            "capture.insecure_upstream" => capture.insecure_upstream = given.insecure_upstream,
            "capture.extra_ca_pem" => capture.extra_ca_pem.clone_from(&given.extra_ca_pem),
            "capture.passthrough_hosts" => capture.passthrough_hosts.clone_from(&given.passthrough_hosts),
            "capture.capture_limit" => capture.capture_limit = given.capture_limit,
            "capture.spool_limit_bytes" => capture.spool_limit = given.spool_limit,
            "capture.spool_full" => capture.spool_full = given.spool_full,
            "capture.durable_before_end" => capture.durable_before_end = given.durable_before_end,
            _ => {}
        }
    }
    // Certificates are judged by the worker, or in its place by the supervisor.
    let spec = checks.take_all(CaptureSpec::parse(&capture).map_err(|violations| below("proxy_service", violations)));
    if let Some(spec) = spec {
        change.capture = named(&update.mask, spec);
    }
    checks.finish(Some(change))
}

/// What the mask names of a specification.
fn named(mask: &[String], spec: CaptureSpec) -> CaptureChange {
    let is_named = |path: &str| mask.iter().any(|named| named == "capture" || named == path);
    CaptureChange {
        insecure_upstream: is_named("capture.insecure_upstream").then_some(spec.insecure_upstream),
        extra_ca_pem: is_named("capture.extra_ca_pem").then_some(spec.extra_ca_pem),
        passthrough_hosts: is_named("capture.passthrough_hosts").then_some(spec.passthrough_hosts),
        capture_limit: is_named("capture.capture_limit").then_some(spec.capture_limit),
        spool_limit: is_named("capture.spool_limit_bytes").then_some(spec.spool_limit),
        spool_full: is_named("capture.spool_full").then_some(spec.spool_full),
        durable_before_end: is_named("capture.durable_before_end").then_some(spec.durable_before_end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let change = checked(&update(&["capture.passthrough_hosts"])).unwrap();
        let hosts = change.capture.passthrough_hosts.clone().unwrap();
        assert!(hosts[0].matches("bank.example"));
        let rest = CaptureChange {
            passthrough_hosts: None,
            ..change.capture
        };
        assert_eq!(
            (rest, change.name, change.verbose),
            (CaptureChange::default(), None, None)
        );
    }

    #[test]
    fn the_whole_specification_is_replaced_with_defaults_for_what_is_not_given() {
        let change = checked(&update(&["capture"])).unwrap().capture;
        assert_eq!(change.insecure_upstream, Some(false));
        assert_eq!(change.capture_limit, Some(CaptureSpec::default().capture_limit));
    }

    #[test]
    fn a_path_beside_the_whole_changes_nothing_more() {
        let both = checked(&update(&["capture.passthrough_hosts", "capture"])).unwrap();
        assert_eq!(both.capture, checked(&update(&["capture"])).unwrap().capture);
    }

    #[test]
    fn an_empty_host_is_none() {
        let mut nowhere = update(&["host"]);
        nowhere.host.clear();
        assert_eq!(
            checked(&nowhere).unwrap_err().violations()[0].field,
            "proxy_service.host"
        );
    }

    #[test]
    fn violations_have_their_full_path() {
        let error = checked(&update(&["name", "host", "port", "enabled"])).unwrap_err();
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
