//! Verification of origins' certificates: the web PKI's rules, with errors that say what is wrong.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::{parse_x509_certificate, prelude::X509Certificate};

use super::{provider, roots};

/// The chain does not lead to a trusted root, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Untrusted(String);

/// Verifies against the system's roots and the service's extra ones.
///
/// A certificate that is among the extra ones itself is trusted for its names and its time, as curl's `--cacert` does:
/// self-signed certificates of test servers are usually marked as authorities, which webpki refuses for a server.
#[derive(Debug)]
pub(super) struct Trusted {
    extra: Vec<CertificateDer<'static>>,
    /// `None` if there is no root at all.
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl Trusted {
    /// Loads the system's roots if nobody did before.
    pub(super) fn new(extra: Vec<CertificateDer<'static>>) -> Self {
        let roots = roots::with(&extra);
        let chain = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .ok();
        Self { extra, chain }
    }

    fn verify_pinned(
        end_entity: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (_, parsed) = parse_x509_certificate(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let seconds = |at: i64| UnixTime::since_unix_epoch(std::time::Duration::from_secs(at.try_into().unwrap_or(0)));
        let not_before = seconds(parsed.validity().not_before.timestamp());
        let not_after = seconds(parsed.validity().not_after.timestamp());
        if now < not_before {
            return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
        }
        if now > not_after {
            return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.extra.iter().any(|pinned| pinned == end_entity) {
            return Self::verify_pinned(end_entity, name, now);
        }
        let Some(chain) = &self.chain else {
            return Err(untrusted("no trusted roots are installed on this machine".to_owned()));
        };
        chain
            .verify_server_cert(end_entity, intermediates, name, ocsp, now)
            .map_err(|error| match error {
                // `Other` is how webpki says that the certificate is an authority's own.
                Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_)) => {
                    why_untrusted(end_entity).map_or(error, untrusted)
                }
                other => other,
            })
    }
}

/// What a service asks for.
#[derive(Debug)]
pub(super) enum Verifier {
    /// Certificates of trusted roots.
    Trusted(Trusted),
    /// Any certificate and any signature: what `insecure_upstream` asks for. Old and odd certificates that webpki cannot
    /// even parse pass, too.
    Insecure,
}

impl Verifier {
    fn verify_signature(
        &self,
        verify: impl FnOnce(&WebPkiSupportedAlgorithms) -> Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self {
            Self::Trusted(_) => verify(&provider().signature_verification_algorithms),
            Self::Insecure => Ok(HandshakeSignatureValid::assertion()),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self {
            Self::Trusted(trusted) => trusted.verify(end_entity, intermediates, name, ocsp, now),
            Self::Insecure => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(|supported| verify_tls12_signature(message, cert, dss, supported))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(|supported| verify_tls13_signature(message, cert, dss, supported))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn untrusted(why: String) -> Error {
    CertificateError::Other(OtherError(Arc::new(Untrusted(why)))).into()
}

/// `None` if the certificate cannot be parsed.
fn why_untrusted(end_entity: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = parse_x509_certificate(end_entity).ok()?;
    Some(if parsed.subject().as_raw() == parsed.issuer().as_raw() {
        "self-signed certificate".to_owned()
    } else {
        format!("certificate of an unknown issuer ({})", issuer(&parsed))
    })
}

fn issuer(certificate: &X509Certificate<'_>) -> String {
    let name = certificate.issuer();
    let common_name = name
        .iter_common_name()
        .chain(name.iter_organization())
        .find_map(|part| part.as_str().ok());
    common_name.map_or_else(|| name.to_string(), str::to_owned)
}
