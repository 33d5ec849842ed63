//! The certificates that clients are shown.

use std::{fs, process::Command};

use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};
use x509_parser::{extensions::GeneralName, parse_x509_certificate, prelude::X509Certificate};

use super::{super::testing::pem, *};
use crate::tls::{Authority, AuthorityError, Identity};

/// The chain that a client is shown that asks for `host`.
async fn shown(tls: &Tls, ca: &TestCa, host: &str) -> Vec<CertificateDer<'static>> {
    let (io, handshake) = client(ca.client(&[]), host);
    let (hello, io) = sniffed(io).await;
    let (_downstream, _) = tls.accept_client(io, host, &hello, Alpn::None).await.unwrap();
    let client = handshake
        .await
        .unwrap()
        .expect("the client trusts the chain for the name it asked for");
    client.get_ref().1.peer_certificates().unwrap().to_vec()
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> X509Certificate<'a> {
    parse_x509_certificate(certificate).unwrap().1
}

fn common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    certificate
        .subject()
        .iter_common_name()
        .next()
        .map(|name| name.as_str().unwrap().to_owned())
}

#[tokio::test]
async fn names_addresses_and_long_names_are_certified() {
    let ca = TestCa::new("proxy");
    let tls = tls(&ca, &CaptureSpec::default());
    let long = format!("{}.{}.example", "a".repeat(60), "b".repeat(60));
    for (host, common) in [
        ("a.example", Some("a.example")),
        ("127.0.0.1", Some("127.0.0.1")),
        ("::1", Some("::1")),
        ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
        (long.as_str(), None),
    ] {
        let chain = shown(&tls, &ca, host).await;
        assert_eq!(chain.len(), 2, "leaf and intermediate");
        let leaf = parsed(&chain[0]);
        assert_eq!(common_name(&leaf).as_deref(), common, "{host}");
        let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
        match host.parse::<std::net::IpAddr>() {
            Ok(_) => assert!(matches!(names[..], [GeneralName::IPAddress(_)]), "{names:?}"),
            Err(_) => assert_eq!(names[..], [GeneralName::DNSName(host)]),
        }
    }
}

#[tokio::test]
async fn a_leaf_holds_no_longer_than_its_issuer_nor_than_197_days() {
    let (ca, now) = (TestCa::new("proxy"), OffsetDateTime::now_utc());
    for days in [7, 3_000] {
        let authority = ca.authority_valid(now - Duration::days(1), now + Duration::days(days));
        let tls = Tls::build(&CaptureSpec::default(), authority).unwrap();
        let chain = shown(&tls, &ca, "a.example").await;
        let (leaf, issuer) = (parsed(&chain[0]), parsed(&chain[1]));
        let (held, issuers) = (leaf.validity(), issuer.validity());
        assert!(held.not_after <= issuers.not_after && held.not_before >= issuers.not_before);
        let left = held.not_after.to_datetime() - now;
        assert!(
            (left - Duration::days(days.min(197))).abs() < Duration::MINUTE,
            "{left}"
        );
        assert!(
            leaf.serial.bits() > 64 && leaf.raw_serial()[0] & 0x80 == 0,
            "random and positive"
        );
    }
}

#[tokio::test]
async fn a_leaf_is_made_once_for_all_protocols() {
    let ca = TestCa::new("proxy");
    let tls = tls(&ca, &CaptureSpec::default());
    let first = shown(&tls, &ca, "a.example").await;
    let (io, handshake) = client(ca.client(&["h2"]), "A.EXAMPLE");
    let (hello, io) = sniffed(io).await;
    let (_downstream, _) = tls
        .accept_client(io, "ignored.example", &hello, Alpn::H2)
        .await
        .unwrap();
    let client = handshake.await.unwrap().unwrap();
    assert_eq!(client.get_ref().1.peer_certificates().unwrap(), first);
}

/// Python 3.13 and others verify with X509_V_FLAG_X509_STRICT.
#[tokio::test]
async fn openssl_takes_the_chain_in_its_strict_mode() {
    let ca = TestCa::new("proxy");
    let tls = tls(&ca, &CaptureSpec::default());
    let long = format!("{}.{}.example", "a".repeat(60), "b".repeat(60));
    for (host, check) in [
        ("a.example", "-verify_hostname"),
        ("127.0.0.1", "-verify_ip"),
        (&long, "-verify_hostname"),
    ] {
        let chain = shown(&tls, &ca, host).await;
        let directory = std::env::temp_dir().join(format!("proxyplane-leaf-{}-{}", std::process::id(), host.len()));
        fs::create_dir_all(&directory).unwrap();
        let file = |name: &str, der: &[u8]| {
            let path = directory.join(name);
            fs::write(&path, pem(der)).unwrap();
            path
        };
        let (root, intermediate) = (file("root.pem", &ca.der), file("intermediate.pem", &chain[1]));
        let output = Command::new("openssl")
            .args([
                "verify",
                "-x509_strict",
                "-purpose",
                "sslserver",
                check,
                host,
                "-CAfile",
            ])
            .arg(root)
            .arg("-untrusted")
            .arg(intermediate)
            .arg(file("leaf.pem", &chain[0]))
            .output();
        fs::remove_dir_all(&directory).unwrap();
        let Ok(output) = output else { return };
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn a_certificate_for_another_key_is_refused() {
    let ca = TestCa::new("proxy");
    let now = OffsetDateTime::now_utc();
    let (own, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let intermediate = ca.intermediate(&other, now, now + Duration::DAY);
    assert!(matches!(
        Authority::new(&own, &intermediate, &ca.der),
        Err(AuthorityError::OtherKey)
    ));
    assert!(matches!(
        Authority::new(&own, b"garbage", &ca.der),
        Err(AuthorityError::Malformed)
    ));
}

#[test]
fn a_third_of_its_life_is_when_an_intermediate_is_renewed() {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
    let authority = TestCa::new("proxy").authority_valid(now - Duration::DAY, now + Duration::days(8));
    assert_eq!(OffsetDateTime::from(authority.renew_at()), now + Duration::days(2));
    assert_eq!(OffsetDateTime::from(authority.not_after()), now + Duration::days(8));
}

#[test]
fn secrets_do_not_reach_debug_output() {
    let identity = Identity::generate().unwrap();
    assert_eq!(format!("{identity:?}"), "Identity { .. }");
    let text = format!("{:?}", TestCa::new("proxy").authority());
    assert!(
        text.starts_with("Authority { validity:") && !text.contains("issuer"),
        "{text}"
    );
}
