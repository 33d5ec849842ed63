//! Authorities, origins and clients for tests.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    client::danger::ServerCertVerifier,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use super::{Authority, Identity, provider};

/// A root that signs workers' intermediates and test origins.
pub(crate) struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) der: CertificateDer<'static>,
    pub(crate) pem: String,
}

impl TestCa {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Self {
            issuer: Issuer::new(params, key),
            der,
            pem,
        }
    }

    /// What the control plane does: seven days from now, backdated one.
    pub(crate) fn authority(&self) -> Arc<Authority> {
        let now = OffsetDateTime::now_utc();
        self.authority_valid(now - Duration::days(1), now + Duration::days(7))
    }

    pub(crate) fn authority_valid(&self, not_before: OffsetDateTime, not_after: OffsetDateTime) -> Arc<Authority> {
        let identity = Identity::generate().unwrap();
        let intermediate = self.intermediate(&identity, not_before, not_after);
        Authority::new(&identity, &intermediate, &self.der).unwrap()
    }

    pub(crate) fn intermediate(
        &self,
        identity: &Identity,
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Vec<u8> {
        let request = CertificateSigningRequestParams::from_der(&identity.csr_der().into()).unwrap();
        let mut params = named("Test intermediate");
        (params.not_before, params.not_after) = (not_before, not_after);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.use_authority_key_identifier_extension = true;
        params
            .signed_by(&request.public_key, &self.issuer)
            .unwrap()
            .der()
            .to_vec()
    }

    /// An origin for `names` with a certificate of this root.
    pub(crate) fn origin(&self, names: &[&str]) -> TestOrigin {
        let now = OffsetDateTime::now_utc();
        self.origin_valid(names, now - Duration::days(1), now + Duration::days(1))
    }

    pub(crate) fn origin_valid(
        &self,
        names: &[&str],
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> TestOrigin {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) = (not_before, not_after);
        let der = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        TestOrigin::new(der, key)
    }

    /// A client that trusts this root and nothing else.
    pub(crate) fn client(&self, alpn: &[&str]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols(alpn);
        config
    }
}

/// A server with a certificate, before it is told what else to do.
pub(crate) struct TestOrigin {
    pub(crate) certificate: CertificateDer<'static>,
    key: KeyPair,
    versions: Vec<&'static SupportedProtocolVersion>,
    clients: Arc<dyn ClientCertVerifier>,
    alpn: Vec<Vec<u8>>,
}

impl TestOrigin {
    fn new(certificate: CertificateDer<'static>, key: KeyPair) -> Self {
        let clients = WebPkiClientVerifier::no_client_auth();
        Self {
            certificate,
            key,
            versions: rustls::ALL_VERSIONS.to_vec(),
            clients,
            alpn: Vec::new(),
        }
    }

    /// One that signed its certificate itself, as `openssl req -x509` makes it: marked as an authority.
    pub(crate) fn self_signed(names: &[&str]) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = params.self_signed(&key).unwrap().der().clone();
        Self::new(der, key)
    }

    /// Speaks this version of TLS and no other.
    pub(crate) fn only(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    pub(crate) fn alpn(mut self, alpn: &[&str]) -> Self {
        self.alpn = protocols(alpn);
        self
    }

    /// Wants a certificate that `ca` signed.
    pub(crate) fn wanting_client_certificates(mut self, ca: &TestCa) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(ca.der.clone()).unwrap();
        self.clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .unwrap();
        self
    }

    pub(crate) fn pem(&self) -> String {
        pem(&self.certificate)
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_client_cert_verifier(Arc::clone(&self.clients))
            .with_single_cert(vec![self.certificate.clone()], key)
            .unwrap();
        config.alpn_protocols.clone_from(&self.alpn);
        Arc::new(config)
    }
}

/// A client that takes any certificate.
pub(crate) fn trusting_client() -> ClientConfig {
    let verifier: Arc<dyn ServerCertVerifier> = Arc::new(super::verify::Verifier::Insecure);
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth()
}

pub(crate) fn pem(der: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        STANDARD.encode(der)
    )
}

pub(crate) fn protocols(alpn: &[&str]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect()
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
