//! Extra roots are checked here as a worker would check them, for services that have no worker to ask.

use proxyplane_spec::Violation;
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

/// Every certificate of `pem` must be usable as a trust anchor.
pub(crate) fn check(field: &str, pem: &str) -> Result<(), Vec<Violation>> {
    let mut roots = RootCertStore::empty();
    let mut violations = Vec::new();
    for (index, certificate) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
        let added = certificate.map_err(|error| error.to_string());
        let added = added.and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
        if let Err(error) = added {
            let description = format!("certificate {} cannot be used: {error}", index + 1);
            violations.push(Violation::new(field, description));
        }
    }
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> String {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn roots_are_taken_and_the_one_that_is_damaged_is_named() {
        let (first, second) = (root(), root());
        assert_eq!(check("extra", &format!("{first}{second}")), Ok(()));
        assert_eq!(check("extra", ""), Ok(()));
        let damaged = "-----BEGIN CERTIFICATE-----\nMIIBAAAA\n-----END CERTIFICATE-----\n";
        let violations = check("extra", &format!("{first}{damaged}")).unwrap_err();
        assert!(
            violations[0].description.starts_with("certificate 2 "),
            "{violations:?}"
        );
    }
}
