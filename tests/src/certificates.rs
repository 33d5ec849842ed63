//! Certificates for origins: a private CA and leaves of it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

/// A certificate authority that only the tests know.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    directory: PathBuf,
}

/// A certificate and its key, also as files.
pub struct Leaf {
    /// PEM.
    pub certificate: String,
    /// PEM, PKCS#8.
    pub key: String,
    /// The certificate in a file.
    pub certificate_file: PathBuf,
    /// The key in a file.
    pub key_file: PathBuf,
}

impl Authority {
    /// A new one that keeps its files in `directory`.
    pub fn new(directory: &Path) -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(
            DnType::CommonName,
            format!("Proxyplane test origins {}", uuid::Uuid::now_v7()),
        );
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).expect("the CA can be signed").pem();
        fs::create_dir_all(directory).expect("the directory can be made");
        fs::write(directory.join("ca.pem"), &pem).expect("the CA can be written");
        Self {
            issuer: Issuer::new(params, key),
            pem,
            directory: directory.to_owned(),
        }
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its certificate, DER.
    pub fn certificate_der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("it is PEM")
    }

    /// Its certificate in a file.
    pub fn file(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// A server certificate for `names`, host names or addresses.
    pub fn leaf(&self, names: &[&str]) -> Leaf {
        self.leaf_with(names, |_| {})
    }

    /// The same, changed before it is signed: expired, say.
    pub fn leaf_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = server(names);
        change(&mut params);
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer);
        self.keep(names, &certificate.expect("the leaf can be signed"), &key)
    }

    /// A server certificate that nobody vouches for; only its files are kept here.
    pub fn self_signed(&self, names: &[&str]) -> Leaf {
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = server(names).self_signed(&key);
        self.keep(names, &certificate.expect("it can be signed"), &key)
    }

    fn keep(&self, names: &[&str], certificate: &Certificate, key: &KeyPair) -> Leaf {
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        let stem = format!("{}-{}", names.join("-").replace(['*', ':'], "_"), uuid::Uuid::now_v7());
        let certificate_file = self.directory.join(format!("{stem}.pem"));
        let key_file = self.directory.join(format!("{stem}.key"));
        fs::write(&certificate_file, &certificate).expect("the certificate can be written");
        fs::write(&key_file, &key).expect("the key can be written");
        Leaf {
            certificate,
            key,
            certificate_file,
            key_file,
        }
    }
}

fn server(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("the names are names");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

impl Leaf {
    /// The certificate, DER.
    pub fn certificate_der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("it is PEM")
    }

    /// The key, DER.
    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("it is PEM")
    }
}
