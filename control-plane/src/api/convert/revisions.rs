//! Revisions of ProxyServices.

use proxyplane_proto::v1;
use proxyplane_spec::{ServiceId, Violation};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::parse_x509_certificate;

use super::{Fields, id, page, proxies, timestamp};
use crate::{
    api::status::Refusal,
    pki,
    services::RollbackProxy,
    store::{
        page::Page,
        revisions::{Cause, Configuration, RevisionRow},
    },
};

/// A revision without its configuration.
pub(in crate::api) fn summary(row: RevisionRow) -> v1::ProxyServiceRevision {
    let (cause, from_revision) = match row.cause {
        Cause::Create => (v1::RevisionCause::Create, 0),
        Cause::Update => (v1::RevisionCause::Update, 0),
        Cause::Rollback { from } => (v1::RevisionCause::Rollback, from),
    };
    v1::ProxyServiceRevision {
        revision: row.revision,
        created_at: Some(timestamp(row.made_at)),
        cause: cause.into(),
        from_revision,
        changed: row.changed,
        configuration: None,
    }
}

/// A revision with its configuration.
pub(in crate::api) fn whole(row: RevisionRow, held: Configuration) -> v1::ProxyServiceRevision {
    let configuration = v1::ProxyConfiguration {
        name: held.name.as_str().to_owned(),
        host: held.host.to_string(),
        port: held.port.into(),
        on_port_conflict: proxies::on_port_conflict(held.on_port_conflict).into(),
        verbose: held.verbose,
        log_out_of_scope: held.log_out_of_scope,
        extra_ca: certificates(&held.spec.extra_ca_pem),
        capture: Some(proxies::capture(held.spec)),
    };
    v1::ProxyServiceRevision {
        configuration: Some(configuration),
        ..summary(row)
    }
}

/// What people know these by. All of them were usable when they were stored.
fn certificates(pem: &str) -> Vec<v1::CertificateSummary> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok);
    let summaries = certificates.map(|der| v1::CertificateSummary {
        subject: parse_x509_certificate(&der)
            .map_or_else(|_| String::new(), |(_, parsed)| parsed.subject().to_string()),
        fingerprint_sha256: pki::fingerprint(&der),
    });
    summaries.collect()
}

/// Whose revisions, and which page of them.
pub(in crate::api) fn list(request: &v1::ListProxyServiceRevisionsRequest) -> Result<(ServiceId, Page), Refusal> {
    let mut fields = Fields::default();
    let id = fields.take(id("id", &request.id));
    let page = fields.take(page(request.page_size, &request.page_token));
    fields.finish(id.zip(page))
}

/// Which revision of which service.
pub(in crate::api) fn get(request: &v1::GetProxyServiceRevisionRequest) -> Result<(ServiceId, i64), Refusal> {
    let mut fields = Fields::default();
    let id = fields.take(id("id", &request.id));
    let revision = fields.take(revision(request.revision));
    fields.finish(id.zip(revision))
}

/// A return to an earlier configuration.
pub(in crate::api) fn rollback(request: v1::RollbackProxyServiceRequest) -> Result<RollbackProxy, Refusal> {
    let mut fields = Fields::default();
    let id = fields.take(id("id", &request.id));
    let revision = fields.take(revision(request.revision));
    fields.finish(id.zip(revision).map(|(id, revision)| RollbackProxy {
        id,
        revision,
        etag: request.etag,
        validate_only: request.validate_only,
    }))
}

fn revision(number: i64) -> Result<i64, Violation> {
    if number > 0 {
        Ok(number)
    } else {
        Err(Violation::new("revision", "must be 1 or more"))
    }
}
