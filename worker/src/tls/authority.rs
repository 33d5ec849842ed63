//! The worker's authority: makes and keeps the certificates that clients are shown.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::SystemTime,
};

use bytes::Bytes;
use rcgen::{Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    ServerConfig,
    server::{NoServerSessionStorage, ResolvesServerCertUsingSni},
    sign::{CertifiedKey, SigningKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use time::OffsetDateTime;
use x509_parser::parse_x509_certificate;

use super::{
    Alpn, Identity, TlsFailure,
    cache::Cache,
    leaf::{self, Leaf, Validity},
};

/// Leaves that are kept, about 2 KiB each. When it is full, one that is asked for less makes room.
const LEAVES_MAX: usize = 4_096;
/// A kept leaf is made anew when it has less than this to go.
const LEAF_MARGIN: time::Duration = time::Duration::hours(1);

/// Why an intermediate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate cannot be parsed.
    #[error("the intermediate certificate cannot be parsed")]
    Malformed,
    /// The certificate is for another key than the worker's.
    #[error("the intermediate certificate is not for this worker's key")]
    OtherKey,
    /// The library refused to make what is needed to sign.
    #[error("the authority cannot be set up: {0}")]
    Crypto(String),
}

/// An intermediate certificate with its key, and the leaves made so far.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    validity: Validity,
    intermediate: CertificateDer<'static>,
    root_der: Bytes,
    /// One key for all leaves: making one costs as much as a signature and gains nothing.
    leaf_key: KeyPair,
    leaf_signer: Arc<dyn SigningKey>,
    /// What all server configurations share, session tickets included.
    base: ServerConfig,
    leaves: Cache<Result<Arc<Leaf>, String>>,
    /// That it has expired is in the log.
    expiry_told: AtomicBool,
}

impl Authority {
    /// Takes the certificate that the control plane made for `identity`, with the root that signed it.
    pub fn new(identity: &Identity, intermediate_der: &[u8], root_der: &[u8]) -> Result<Arc<Self>, AuthorityError> {
        let crypto = |error: &dyn fmt::Display| AuthorityError::Crypto(error.to_string());
        let intermediate = CertificateDer::from(intermediate_der.to_vec());
        let validity = validity(identity, &intermediate)?;
        let own_key = KeyPair::try_from(identity.key.serialized_der()).map_err(|error| crypto(&error))?;
        let issuer = Issuer::from_ca_cert_der(&intermediate, own_key).map_err(|error| crypto(&error))?;
        let leaf_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| crypto(&error))?;
        let leaf_der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf_key.serialized_der()));
        let leaf_signer = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&leaf_der).map_err(|error| crypto(&error))?;
        Ok(Arc::new(Self {
            issuer,
            validity,
            intermediate,
            root_der: Bytes::copy_from_slice(root_der),
            leaf_key,
            leaf_signer,
            base: base().map_err(|error| crypto(&error))?,
            leaves: Cache::new(LEAVES_MAX),
            expiry_told: AtomicBool::new(false),
        }))
    }

    /// The installation's root, DER: what clients have to trust.
    pub fn root_der(&self) -> &Bytes {
        &self.root_der
    }

    /// When a new intermediate should be asked for: a third of this one's life is over.
    pub fn renew_at(&self) -> SystemTime {
        let life = (self.validity.not_after - self.validity.not_before).unsigned_abs();
        SystemTime::from(self.validity.not_before) + life / 3
    }

    /// When the intermediate ends, and clients refuse everything made with it.
    pub fn not_after(&self) -> SystemTime {
        self.validity.not_after.into()
    }

    /// Why nothing can be certified at `now`, if so. Clients would refuse whatever is made with this intermediate.
    pub fn expired(&self, now: OffsetDateTime) -> Option<TlsFailure> {
        if now < self.validity.not_after {
            return None;
        }
        let failure = TlsFailure::expired(self.validity.not_after);
        if !self.expiry_told.swap(true, Relaxed) {
            tracing::error!("{failure}; until then, TLS is refused but for hosts that are passed through");
        }
        Some(failure)
    }

    /// The configuration that shows a certificate for `name` and answers `alpn`.
    pub(super) fn server_config(
        &self,
        name: &ServerName<'static>,
        alpn: Alpn,
    ) -> Result<Arc<ServerConfig>, TlsFailure> {
        self.leaf(name, OffsetDateTime::now_utc())
            .map(|leaf| leaf.config(&self.base, alpn))
    }

    fn leaf(&self, name: &ServerName<'static>, now: OffsetDateTime) -> Result<Arc<Leaf>, TlsFailure> {
        if let Some(failure) = self.expired(now) {
            return Err(failure);
        }
        let own_end = self.validity.not_after;
        let fresh = |kept: &Result<Arc<Leaf>, String>| {
            kept.as_ref()
                .is_ok_and(|leaf| leaf.validity.not_after >= own_end || now + LEAF_MARGIN < leaf.validity.not_after)
        };
        self.leaves
            .get_or_make(name, fresh, || self.mint(name, now))
            .map_err(TlsFailure::internal)
    }

    fn mint(&self, name: &ServerName<'static>, now: OffsetDateTime) -> Result<Arc<Leaf>, String> {
        let validity = self.validity.of_leaf(now);
        let certificate = leaf::sign(name, validity, &self.leaf_key, &self.issuer)
            .map_err(|error| format!("no certificate could be made for {}: {error}", name.to_str()))?;
        let chain = vec![certificate, self.intermediate.clone()];
        Ok(Arc::new(Leaf::new(
            CertifiedKey::new(chain, Arc::clone(&self.leaf_signer)),
            validity,
        )))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

/// Checks that the certificate is for the worker's key and says how long it holds.
fn validity(identity: &Identity, intermediate: &CertificateDer<'_>) -> Result<Validity, AuthorityError> {
    let (_, parsed) = parse_x509_certificate(intermediate).map_err(|_| AuthorityError::Malformed)?;
    if *parsed.public_key().subject_public_key.data != *identity.key.public_key_raw() {
        return Err(AuthorityError::OtherKey);
    }
    let held = parsed.validity();
    Ok(Validity {
        not_before: held.not_before.to_datetime(),
        not_after: held.not_after.to_datetime(),
    })
}

/// Stateless session tickets, so that a client's further connections cost no signature; no early data.
fn base() -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(super::provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    Ok(config)
}
