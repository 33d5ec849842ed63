//! Configurations from the link, checked and built.

use std::{net::SocketAddr, sync::Arc};

use proxyplane_proto::worker as wire;
use proxyplane_spec::{CaptureSpec, RawCapture, SpoolFull, Violation};

use super::FEATURES;
use crate::{
    service::ServiceConfig,
    tls::{Authority, Tls},
};

/// Builds everything that `config` asks for and puts nothing in force.
pub(super) fn build(config: wire::WorkerConfig, authority: Arc<Authority>) -> Result<ServiceConfig, Vec<Violation>> {
    if let Some(missing) = config
        .required_features
        .iter()
        .find(|name| !FEATURES.contains(&name.as_str()))
    {
        let description = format!("this worker's build lacks '{missing}'; upgrade the worker");
        return Err(vec![Violation::new("required_features", description)]);
    }
    let control_addresses =
        addresses("control_addresses", &config.control_addresses).map_err(|violation| vec![violation])?;
    let capture = config.capture.unwrap_or_default();
    let spool_full = match capture.spool_full() {
        wire::SpoolFull::Block => SpoolFull::Block,
        wire::SpoolFull::Unspecified | wire::SpoolFull::DropOldest => SpoolFull::DropOldest,
    };
    let spec = CaptureSpec::parse(&RawCapture {
        insecure_upstream: capture.insecure_upstream,
        extra_ca_pem: capture.extra_ca_pem,
        passthrough_hosts: capture.passthrough_hosts,
        capture_limit: Some(capture.capture_limit),
        // A control plane of the release before says nothing of a spool.
        spool_limit: (capture.spool_limit_bytes > 0).then_some(capture.spool_limit_bytes),
        spool_full,
        durable_before_end: capture.durable_before_end,
    })?;
    let tls = Tls::build(&spec, authority)?;
    let (revision, name, verbose) = (config.revision, config.service_name, config.verbose);
    Ok(ServiceConfig {
        revision,
        name,
        verbose,
        spec,
        control_addresses,
        tls,
    })
}

/// As the link says them.
pub(super) fn to_wire(violations: Vec<Violation>) -> Vec<wire::FieldViolation> {
    violations
        .into_iter()
        .map(|Violation { field, description }| wire::FieldViolation { field, description })
        .collect()
}

/// `ip:port` each; `field` is whose they are.
pub(super) fn addresses(field: &str, texts: &[String]) -> Result<Vec<SocketAddr>, Violation> {
    texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            text.parse()
                .map_err(|_| Violation::new(format!("{field}[{index}]"), "must be ip:port"))
        })
        .collect()
}
