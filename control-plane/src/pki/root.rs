//! Making the root, and checking the one that is there.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use time::{Duration, OffsetDateTime};
use x509_parser::{parse_x509_certificate, prelude::X509Certificate};

use super::{BACKDATED, Pki, PkiError, files};

/// How long a root holds.
const VALIDITY: Duration = Duration::days(3_650);
const KEY_FILE: &str = "ca.key";
const CERTIFICATE_FILE: &str = "ca.crt";

pub(super) fn load_or_create(secrets: &Path, now: OffsetDateTime) -> Result<Pki, PkiError> {
    let (key_path, certificate_path) = (secrets.join(KEY_FILE), secrets.join(CERTIFICATE_FILE));
    let (key, certificate) = (files::read(&key_path)?, files::read(&certificate_path)?);
    let (key, certificate) = match (key, certificate) {
        (Some(key), Some(certificate)) => (parse_key(&key_path, &key)?, certificate),
        (Some(key), None) => {
            let key = parse_key(&key_path, &key)?;
            let certificate = certify(&key, now)?;
            files::write_public(&certificate_path, &certificate)?;
            tracing::warn!(path = %certificate_path.display(), "the CA certificate was missing and has been made anew; clients must trust the new one");
            (key, certificate)
        }
        (None, Some(_)) => {
            let reason =
                "missing, although the CA certificate is there; restore it, or remove ca.crt to get a new authority";
            return Err(unusable(&key_path, reason));
        }
        (None, None) => {
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
            let certificate = certify(&key, now)?;
            // The key first: if this is cut short, the next start finishes it.
            files::write_secret(&key_path, &key.serialize_pem())?;
            files::write_public(&certificate_path, &certificate)?;
            (key, certificate)
        }
    };
    assemble(key, certificate, now, &certificate_path)
}

fn parse_key(path: &Path, pem: &str) -> Result<KeyPair, PkiError> {
    files::tighten(path)?;
    // The library's words are left out: nothing that was near a key goes into a message.
    KeyPair::from_pem(pem).map_err(|_| unusable(path, "not a private key in PEM (PKCS#8) that can sign certificates"))
}

fn certify(key: &KeyPair, now: OffsetDateTime) -> Result<String, PkiError> {
    let suffix: [u8; 3] = rand::random();
    let [a, b, c] = suffix;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Proxyplane");
    // Two installations' roots have to be told apart, by people and by clients that look issuers up by name.
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Proxyplane CA {a:02x}{b:02x}{c:02x}"));
    params.not_before = now - BACKDATED;
    params.not_after = now + VALIDITY;
    params.serial_number = Some(super::serial());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params.self_signed(key)?.pem())
}

/// Checks that the certificate can do what it is for, and that it belongs to the key.
fn assemble(key: KeyPair, pem: String, now: OffsetDateTime, path: &Path) -> Result<Pki, PkiError> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| unusable(path, &format!("not a PEM certificate ({error})")))?;
    let (_, parsed) = parse_x509_certificate(&der).map_err(|_| unusable(path, "not an X.509 certificate"))?;
    check(&parsed, &key, now).map_err(|reason| unusable(path, &reason))?;
    let not_after = parsed.validity().not_after.to_datetime();
    let fingerprint = super::fingerprint(&der);
    let issuer = Issuer::from_ca_cert_der(&der, key)?;
    Ok(Pki {
        issuer,
        not_after,
        der,
        pem,
        fingerprint,
    })
}

fn check(certificate: &X509Certificate<'_>, key: &KeyPair, now: OffsetDateTime) -> Result<(), String> {
    if *certificate.public_key().subject_public_key.data != *key.public_key_raw() {
        return Err("does not belong to the key in ca.key".to_owned());
    }
    if certificate.subject() == certificate.issuer() && certificate.verify_signature(None).is_err() {
        return Err("damaged: its signature does not match its contents".to_owned());
    }
    let constraints = certificate
        .basic_constraints()
        .ok()
        .flatten()
        .map(|extension| extension.value);
    if !constraints.is_some_and(|value| value.ca) {
        return Err("not a CA certificate".to_owned());
    }
    if constraints.and_then(|value| value.path_len_constraint) == Some(0) {
        return Err("does not allow the workers' intermediate certificates (pathlen 0)".to_owned());
    }
    let usage = certificate.key_usage().ok().flatten();
    if usage.is_some_and(|extension| !extension.value.key_cert_sign()) {
        return Err("not allowed to sign certificates (key usage)".to_owned());
    }
    let not_after = certificate.validity().not_after.to_datetime();
    if now >= not_after {
        return Err(format!(
            "expired on {}; remove ca.key and ca.crt to get a new authority",
            not_after.date()
        ));
    }
    Ok(())
}

fn unusable(path: &Path, reason: &str) -> PkiError {
    PkiError::Unusable {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}
