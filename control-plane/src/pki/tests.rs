//! The authority as workers and clients meet it.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command, sync::Arc};

use rcgen::PublicKeyData;
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::aws_lc_rs::default_provider,
};
use rustls_pki_types::{ServerName, UnixTime};
use x509_parser::{parse_x509_certificate, prelude::X509Certificate};

use super::*;

/// A secrets directory that goes away with the test.
struct Secrets(PathBuf);

impl Secrets {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("proxyplane-pki-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn pki(&self) -> Pki {
        Pki::load_or_create(&self.0).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The complaint about what is there.
    fn refusal(&self) -> String {
        Pki::load_or_create(&self.0).unwrap_err().to_string()
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A worker's key with its request.
fn worker() -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let request = params.serialize_request(&key).unwrap();
    (key, request.der().to_vec())
}

/// What a worker makes of its intermediate: a leaf for `a.example`.
fn leaf(key: KeyPair, intermediate: &[u8]) -> Vec<u8> {
    let issuer = Issuer::from_ca_cert_der(&intermediate.into(), key).unwrap();
    let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
    params.not_after = OffsetDateTime::now_utc() + Duration::DAY;
    params.use_authority_key_identifier_extension = true;
    params
        .signed_by(&KeyPair::generate().unwrap(), &issuer)
        .unwrap()
        .der()
        .to_vec()
}

fn parsed(der: &[u8]) -> X509Certificate<'_> {
    parse_x509_certificate(der).unwrap().1
}

#[test]
fn the_root_stays_the_same_and_its_key_is_private() {
    let secrets = Secrets::new("same");
    let first = secrets.pki();
    assert_eq!(first.root_der(), secrets.pki().root_der());
    assert_eq!(fs::read_to_string(secrets.file("ca.crt")).unwrap(), first.root_pem());
    let mode = |name| fs::metadata(secrets.file(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("ca.key"), 0o600);
    fs::set_permissions(secrets.file("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    secrets.pki();
    assert_eq!(mode("ca.key"), 0o600, "a restored copy is made private again");
    assert_eq!(
        fs::read_dir(&secrets.0).unwrap().count(),
        2,
        "nothing else is left behind"
    );
}

#[test]
fn the_root_is_an_authority_for_ten_years_with_a_name_of_its_own() {
    let (one, other) = (Secrets::new("root-a").pki(), Secrets::new("root-b").pki());
    let (root, others) = (parsed(one.root_der()), parsed(other.root_der()));
    assert_ne!(root.subject().to_string(), others.subject().to_string());
    assert!(root.subject().to_string().contains("CN=Proxyplane CA "));
    let constraints = root.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    let usage = root.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && !usage.digital_signature());
    assert!(root.raw_serial().len() == 16 && root.raw_serial()[0] & 0x80 == 0);
    let left = one.not_after() - OffsetDateTime::now_utc();
    assert!((3_649..=3_650).contains(&left.whole_days()), "{left}");
}

#[test]
fn an_intermediate_names_its_epoch_and_can_sign_leaves_only() {
    let pki = Secrets::new("intermediate").pki();
    let (epoch, now) = (Epoch::new(), OffsetDateTime::now_utc());
    let (key, request) = worker();
    let der = pki.sign_intermediate(&request, epoch).unwrap();
    let (certificate, root) = (parsed(&der), parsed(pki.root_der()));
    assert!(certificate.subject().to_string().contains(&epoch.to_string()));
    assert_eq!(certificate.issuer().as_raw(), root.subject().as_raw());
    assert_eq!(*certificate.public_key().subject_public_key.data, *key.der_bytes());
    let constraints = certificate.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let held = certificate.validity();
    let near = |at: OffsetDateTime, wanted: OffsetDateTime| (at - wanted).abs() < Duration::MINUTE;
    assert!(near(held.not_before.to_datetime(), now - Duration::DAY));
    assert!(near(held.not_after.to_datetime(), now + Duration::days(7)));
    let again = pki.sign_intermediate(&request, epoch).unwrap();
    assert_ne!(certificate.raw_serial(), parsed(&again).raw_serial());
    assert!(certificate.raw_serial()[0] & 0x80 == 0);
}

#[test]
fn nothing_outlives_the_root() {
    let pki = Secrets::new("outlives").pki();
    let (_, request) = worker();
    let eve = pki.not_after() - Duration::DAY;
    let der = pki.sign_intermediate_at(&request, Epoch::new(), eve).unwrap();
    assert_eq!(parsed(&der).validity().not_after.to_datetime(), pki.not_after());
    let late = pki.sign_intermediate_at(&request, Epoch::new(), pki.not_after());
    assert!(matches!(late, Err(SignError::RootExpired(_))));
}

#[test]
fn a_request_that_its_key_did_not_sign_is_refused() {
    let pki = Secrets::new("request").pki();
    let (_, request) = worker();
    for at in [request.len() - 1, request.len() / 2, 0] {
        let mut damaged = request.clone();
        damaged[at] ^= 1;
        assert!(
            matches!(
                pki.sign_intermediate(&damaged, Epoch::new()),
                Err(SignError::Request(_))
            ),
            "byte {at}"
        );
    }
    assert!(matches!(
        pki.sign_intermediate(b"", Epoch::new()),
        Err(SignError::Request(_))
    ));
    let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let request = CertificateParams::default().serialize_request(&other).unwrap();
    assert!(matches!(
        pki.sign_intermediate(request.der(), Epoch::new()),
        Err(SignError::Request(_))
    ));
}

#[test]
fn webpki_takes_the_chain() {
    let pki = Secrets::new("webpki").pki();
    let (key, request) = worker();
    let intermediate = pki.sign_intermediate(&request, Epoch::new()).unwrap();
    let leaf = leaf(key, &intermediate);
    let mut roots = RootCertStore::empty();
    roots.add(pki.root_der().to_vec().into()).unwrap();
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
        .build()
        .unwrap();
    let name = ServerName::try_from("a.example").unwrap();
    verifier
        .verify_server_cert(&leaf.into(), &[intermediate.into()], &name, &[], UnixTime::now())
        .unwrap();
}

/// Python 3.13 and others verify with X509_V_FLAG_X509_STRICT.
#[test]
fn openssl_takes_the_chain_in_its_strict_mode() {
    let secrets = Secrets::new("openssl");
    let pki = secrets.pki();
    let (key, request) = worker();
    let intermediate = pki.sign_intermediate(&request, Epoch::new()).unwrap();
    let file = |name: &str, der: &[u8]| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            STANDARD.encode(der)
        );
        fs::write(secrets.file(name), pem).unwrap();
        secrets.file(name)
    };
    let output = Command::new("openssl")
        .args(["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"])
        .arg(secrets.file("ca.crt"))
        .arg("-untrusted")
        .arg(file("intermediate.pem", &intermediate))
        .arg(file("leaf.pem", &leaf(key, &intermediate)))
        .output();
    let Ok(output) = output else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(secrets.file("ca.crt"))
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&shown.stdout)
            .trim()
            .ends_with(pki.fingerprint())
    );
}

#[test]
fn damaged_files_are_named_and_kept() {
    let secrets = Secrets::new("damaged");
    secrets.pki();
    let (key, certificate) = (secrets.file("ca.key"), secrets.file("ca.crt"));
    let (good_key, good_certificate) = (fs::read(&key).unwrap(), fs::read(&certificate).unwrap());
    let other = Secrets::new("damaged-other");
    other.pki();

    for bad in [&b"garbage"[..], b"\xff\xfe", b""] {
        fs::write(&key, bad).unwrap();
        assert!(secrets.refusal().contains("ca.key: "), "{}", secrets.refusal());
        assert_eq!(fs::read(&key).unwrap(), bad, "nothing is overwritten");
    }
    fs::copy(other.file("ca.key"), &key).unwrap();
    assert!(
        secrets
            .refusal()
            .contains("ca.crt: does not belong to the key in ca.key"),
        "{}",
        secrets.refusal()
    );
    fs::write(&key, &good_key).unwrap();

    for bad in [&b"garbage"[..], b"\xff\xfe", b"", &good_certificate[..200]] {
        fs::write(&certificate, bad).unwrap();
        assert!(secrets.refusal().contains("ca.crt: "), "{}", secrets.refusal());
    }
    fs::write(&certificate, &good_certificate).unwrap();
    secrets.pki();

    fs::remove_file(&key).unwrap();
    assert!(secrets.refusal().contains("ca.key: missing"), "{}", secrets.refusal());
}

#[test]
fn a_certificate_that_cannot_be_the_root_is_refused() {
    let secrets = Secrets::new("unfit");
    let write = |params: &CertificateParams| {
        let key = KeyPair::generate().unwrap();
        fs::write(secrets.file("ca.key"), key.serialize_pem()).unwrap();
        fs::write(secrets.file("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        secrets.refusal()
    };
    let mut params = CertificateParams::default();
    assert!(write(&params).contains("not a CA certificate"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    assert!(write(&params).contains("pathlen 0"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::CrlSign];
    assert!(write(&params).contains("not allowed to sign"));
    params.key_usages.clear();
    params.not_after = OffsetDateTime::now_utc() - Duration::DAY;
    assert!(write(&params).contains("expired on"));
}

#[test]
fn a_start_that_was_cut_short_is_finished_with_the_same_key() {
    let secrets = Secrets::new("cut");
    secrets.pki();
    let key = fs::read(secrets.file("ca.key")).unwrap();
    fs::remove_file(secrets.file("ca.crt")).unwrap();
    fs::write(secrets.file("ca.new"), "half").unwrap();
    secrets.pki();
    assert_eq!(fs::read(secrets.file("ca.key")).unwrap(), key);
}

#[test]
fn the_key_does_not_reach_debug_output() {
    let pki = Secrets::new("debug").pki();
    assert_eq!(
        format!("{pki:?}"),
        format!("Pki {{ fingerprint: {:?}, .. }}", pki.fingerprint())
    );
}
