//! Which roots origins' certificates are verified with.

use std::sync::{Arc, OnceLock};

use proxyplane_spec::Violation;
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

/// The system's roots, loaded when first asked for and shared by the whole process. `SSL_CERT_FILE` and `SSL_CERT_DIR`
/// are honoured. Certificates that cannot be used are skipped, as every TLS library does.
pub(super) fn system() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let load = || {
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::warn!(%error, "a system root could not be read");
        }
        let mut store = RootCertStore::empty();
        let (taken, _) = store.add_parsable_certificates(loaded.certs);
        if taken == 0 {
            tracing::warn!("no system roots found; install ca-certificates or set SSL_CERT_FILE");
        }
        store.roots.shrink_to_fit();
        Arc::new(store)
    };
    Arc::clone(ROOTS.get_or_init(load))
}

/// Parses a service's extra roots; `pem` may be empty.
pub(super) fn extra(pem: &str) -> Result<Vec<CertificateDer<'static>>, Violation> {
    let refuse = |index: usize, why: String| {
        Violation::new(
            "capture.extra_ca_pem",
            format!("certificate {} cannot be used: {why}", index + 1),
        )
    };
    let mut certificates = Vec::new();
    let mut probe = RootCertStore::empty();
    for (index, item) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
        let certificate = item.map_err(|error| refuse(index, error.to_string()))?;
        probe
            .add(certificate.clone())
            .map_err(|error| refuse(index, error.to_string()))?;
        certificates.push(certificate);
    }
    if certificates.is_empty() && !pem.trim().is_empty() {
        return Err(Violation::new("capture.extra_ca_pem", "has no PEM certificate"));
    }
    Ok(certificates)
}

/// The system's roots and `extra`.
pub(super) fn with(extra: &[CertificateDer<'static>]) -> Arc<RootCertStore> {
    let system = system();
    if extra.is_empty() {
        return system;
    }
    let mut store = RootCertStore::clone(&system);
    store.add_parsable_certificates(extra.iter().cloned());
    Arc::new(store)
}
