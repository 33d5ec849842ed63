//! The worker's own key, and its request to have it signed.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};

/// A P-256 key that never leaves this process, with a PKCS#10 request (RFC 2986) for an intermediate certificate.
///
/// The control plane takes only the key from the request; what the certificate says is its own decision.
pub struct Identity {
    /// Signs the leaves.
    pub(super) key: KeyPair,
    csr_der: Vec<u8>,
}

impl Identity {
    /// Makes a new key and its request.
    pub fn generate() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Proxyplane worker");
        let csr_der = params.serialize_request(&key)?.der().to_vec();
        Ok(Self { key, csr_der })
    }

    /// The request, DER.
    pub fn csr_der(&self) -> &[u8] {
        &self.csr_der
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}
