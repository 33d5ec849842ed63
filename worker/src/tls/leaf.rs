//! One leaf: the certificate shown for one name.

use std::sync::{Arc, OnceLock};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber, string::Ia5String,
};
use rustls::{
    ServerConfig,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, ServerName};
use time::{Duration, OffsetDateTime};

use super::Alpn;

/// Longest validity: macOS and iOS refuse longer ones for roots that a user installed.
const VALIDITY: Duration = Duration::days(197);
/// Clients whose clock is behind by less take the certificate.
const BACKDATED: Duration = Duration::days(1);
/// Upper bound of a common name (RFC 5280, ub-common-name).
const COMMON_NAME_MAX: usize = 64;

/// When a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: OffsetDateTime,
    pub(super) not_after: OffsetDateTime,
}

impl Validity {
    /// Of a leaf made `now` by an issuer that holds as `self` says: never outside of the issuer's.
    pub(super) fn of_leaf(self, now: OffsetDateTime) -> Self {
        Self {
            not_before: self.not_before.max(now - BACKDATED),
            not_after: self.not_after.min(now + VALIDITY),
        }
    }
}

/// A certificate with its chain, and the server configurations that show it: one for each protocol that may be
/// answered, made when first needed.
#[derive(Debug)]
pub(super) struct Leaf {
    certified: Arc<CertifiedKey>,
    pub(super) validity: Validity,
    configs: [OnceLock<Arc<ServerConfig>>; 3],
}

impl Leaf {
    pub(super) fn new(certified: CertifiedKey, validity: Validity) -> Self {
        Self {
            certified: Arc::new(certified),
            validity,
            configs: Default::default(),
        }
    }

    /// `base` with this certificate and this one protocol.
    pub(super) fn config(&self, base: &ServerConfig, alpn: Alpn) -> Arc<ServerConfig> {
        let [none, http11, h2] = &self.configs;
        let slot = match alpn {
            Alpn::None => none,
            Alpn::Http11 => http11,
            Alpn::H2 => h2,
        };
        let made = slot.get_or_init(|| {
            let mut config = base.clone();
            config.cert_resolver = Arc::new(SingleCertAndKey::from(Arc::clone(&self.certified)));
            config.alpn_protocols = alpn.protocols();
            Arc::new(config)
        });
        Arc::clone(made)
    }
}

/// Makes the certificate for `name`.
pub(super) fn sign(
    name: &ServerName<'_>,
    validity: Validity,
    key: &KeyPair,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<CertificateDer<'static>, rcgen::Error> {
    let text = name.to_str();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if text.len() <= COMMON_NAME_MAX {
        params.distinguished_name.push(DnType::CommonName, text.as_ref());
    } else {
        // An empty subject would make the subjectAltName critical, which old clients stumble over.
        params.distinguished_name.push(DnType::OrganizationName, "Proxyplane");
    }
    params.subject_alt_names = vec![match name {
        ServerName::IpAddress(ip) => SanType::IpAddress((*ip).into()),
        _ => SanType::DnsName(Ia5String::try_from(text.as_ref())?),
    }];
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    params.serial_number = Some(serial());
    params.is_ca = IsCa::NoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params.signed_by(key, issuer)?.into())
}

/// Random, positive and of constant length: clients keep issuer and serial number as the name of a certificate.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}
