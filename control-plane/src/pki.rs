//! The installation's certificate authority.
//!
//! One root, made at the first start and kept in the secrets directory; its key never leaves this process. Each worker
//! makes a key of its own and gets it signed as an intermediate that cannot sign further authorities, holds for seven
//! days and names the worker's epoch. What clients trust is the root alone.

mod files;
mod root;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use proxyplane_spec::Epoch;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};

/// How long an intermediate holds. Workers ask for the next one long before.
const INTERMEDIATE_VALIDITY: Duration = Duration::days(7);
/// Certificates begin this much before they are made, for clients whose clock is behind.
const BACKDATED: Duration = Duration::days(1);

/// Why the root cannot be loaded or made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file of the authority cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file of the authority has contents that cannot be used.
    #[error("{path}: {reason}")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The library refused to make a key or a certificate.
    #[error("the certificate authority cannot be made: {0}")]
    Crypto(#[from] rcgen::Error),
}

/// Why an intermediate was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The request is malformed, not signed by its own key, or not for a P-256 key.
    #[error("the signing request is not valid: {0}")]
    Request(String),
    /// The root has no time left to give.
    #[error("the CA certificate expired on {0}")]
    RootExpired(OffsetDateTime),
    /// The library refused to sign.
    #[error("the certificate cannot be signed: {0}")]
    Crypto(#[from] rcgen::Error),
}

/// The root with its key.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    not_after: OffsetDateTime,
    der: CertificateDer<'static>,
    pem: String,
    fingerprint: String,
}

impl Pki {
    /// Loads `ca.key` and `ca.crt` from `secrets`, which must exist; makes both if neither is there.
    ///
    /// A key without certificate gets a new certificate, which clients have to be told to trust; a certificate without
    /// its key is an error, as is anything malformed: nothing is ever overwritten.
    pub fn load_or_create(secrets: &Path) -> Result<Self, PkiError> {
        root::load_or_create(secrets, OffsetDateTime::now_utc())
    }

    /// The root certificate, PEM.
    pub fn root_pem(&self) -> &str {
        &self.pem
    }

    /// The root certificate, DER.
    pub fn root_der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of the root certificate, as browsers show it: `AB:CD:…`.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// When the root ends.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Signs the key of a worker's PKCS#10 request as the intermediate of `epoch` and returns it as DER.
    ///
    /// Only the key is taken from the request, whose signature proves that the worker has it.
    pub fn sign_intermediate(&self, csr_der: &[u8], epoch: Epoch) -> Result<Vec<u8>, SignError> {
        self.sign_intermediate_at(csr_der, epoch, OffsetDateTime::now_utc())
    }

    fn sign_intermediate_at(&self, csr_der: &[u8], epoch: Epoch, now: OffsetDateTime) -> Result<Vec<u8>, SignError> {
        if now >= self.not_after {
            return Err(SignError::RootExpired(self.not_after));
        }
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))
            .map_err(|error| SignError::Request(error.to_string()))?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(SignError::Request("the key is not ECDSA P-256".to_owned()));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Proxyplane");
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Proxyplane worker {epoch}"));
        params.not_before = now - BACKDATED;
        params.not_after = (now + INTERMEDIATE_VALIDITY).min(self.not_after);
        params.serial_number = Some(serial());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(&request.public_key, &self.issuer)?.der().to_vec())
    }
}

impl fmt::Debug for Pki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pki")
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// Random, positive and of constant length: clients keep issuer and serial number as the name of a certificate.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// SHA-256 as pairs of hex digits with colons between.
pub(crate) fn fingerprint(der: &[u8]) -> String {
    let pairs: Vec<_> = Sha256::digest(der).iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}
