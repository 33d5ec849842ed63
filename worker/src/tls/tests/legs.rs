//! Both legs: what is agreed, and what is said when it cannot be.

use std::time::Duration;

use proxyplane_record::error_code;
use proxyplane_spec::limits;
use rustls::{
    HandshakeKind,
    version::{TLS12, TLS13},
};
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt as _;

use super::{super::testing::trusting_client, *};

#[tokio::test]
async fn the_client_gets_what_the_origin_chose() {
    let (ca, origin_ca) = (TestCa::new("proxy"), TestCa::new("origin"));
    let tls = tls(&ca, &trusting(&origin_ca.pem));
    for (offered, origins, chosen) in [
        (&["h2", "http/1.1"][..], &["h2", "http/1.1"][..], Some("h2")),
        (&["h2", "http/1.1"], &["http/1.1"], Some("http/1.1")),
        (&["http/1.1"], &["h2", "http/1.1"], Some("http/1.1")),
        (&["h2", "http/1.1"], &[], None),
        (&["something-else"], &["h2", "http/1.1"], None),
        (&[], &["h2", "http/1.1"], None),
    ] {
        let (io, handshake) = client(ca.client(offered), "a.example");
        let (hello, io) = sniffed(io).await;
        let origin = origin_ca.origin(&["a.example"]).alpn(origins).config();
        let (near, far) = duplex(64 * 1024);
        tokio::spawn(async move { TlsAcceptor::from(origin).accept(far).await });
        let (_upstream, info) = tls
            .connect_upstream(near, "a.example", hello.sni.as_deref(), &hello.alpn)
            .await
            .unwrap();
        let (_downstream, own) = tls
            .accept_client(io, "a.example", &hello, Alpn::agreed(&info))
            .await
            .unwrap();
        let client = handshake.await.unwrap().unwrap();
        assert_eq!(
            client.get_ref().1.alpn_protocol(),
            chosen.map(str::as_bytes),
            "{offered:?} with {origins:?}"
        );
        assert_eq!(
            (&*own.alpn, &*info.alpn),
            (
                chosen.unwrap_or_default().as_bytes(),
                chosen.unwrap_or_default().as_bytes()
            )
        );
        assert_eq!(
            (&*own.version, &*own.sni, &*info.sni),
            (&b"TLSv1.3"[..], &b"a.example"[..], &b"a.example"[..])
        );
    }
}

#[tokio::test]
async fn the_name_sent_is_the_clients_then_the_hosts_and_never_an_address() {
    let ca = TestCa::new("origin");
    let tls = tls(&ca, &trusting(&ca.pem));
    for (host, sni, sent) in [
        ("127.0.0.1", Some("a.example"), Some("a.example")),
        ("b.example", Some("A.Example"), Some("a.example")),
        ("b.example.", None, Some("b.example")),
        ("127.0.0.1", None, None),
        ("[::1]", None, None),
        ("b.example", Some("127.0.0.1"), None),
    ] {
        let origin = ca.origin(&["a.example", "b.example", "127.0.0.1", "::1"]).config();
        let (met, origin) = meet(&tls, origin, host, sni, &[]).await;
        assert_eq!(
            met.unwrap().1.sni,
            sent.unwrap_or_default().as_bytes(),
            "{host} {sni:?}"
        );
        assert_eq!(origin.unwrap().get_ref().1.server_name(), sent, "{host} {sni:?}");
    }
}

#[tokio::test]
async fn bad_origins_are_refused_with_the_cause() {
    let (ca, now) = (TestCa::new("Good CA"), OffsetDateTime::now_utc());
    let day = time::Duration::DAY;
    let tls = tls(&ca, &trusting(&ca.pem));
    for (origin, host, cause) in [
        (
            ca.origin_valid(&["a.example"], now - 9 * day, now - 2 * day),
            "a.example",
            "certificate expired on 2",
        ),
        (
            ca.origin_valid(&["a.example"], now + day, now + 2 * day),
            "a.example",
            "not valid before 2",
        ),
        (
            ca.origin(&["b.example", "10.0.0.1"]),
            "a.example",
            "name mismatch: the certificate is for b.example",
        ),
        (
            ca.origin(&["b.example"]),
            "127.0.0.1",
            "name mismatch: the certificate is for b.example",
        ),
        (
            TestCa::new("Bad CA").origin(&["a.example"]),
            "a.example",
            "unknown issuer (Bad CA)",
        ),
        (
            TestOrigin::self_signed(&["a.example"]),
            "a.example",
            "self-signed certificate",
        ),
    ] {
        let detail = refusal(&tls, &origin, host).await;
        assert!(
            detail.contains(cause) && detail.contains(host),
            "{detail:?} for {cause:?}"
        );
    }
}

#[tokio::test]
async fn an_insecure_service_takes_all_of_them() {
    let (ca, now) = (TestCa::new("ca"), OffsetDateTime::now_utc());
    let tls = tls(
        &ca,
        &CaptureSpec {
            insecure_upstream: true,
            ..CaptureSpec::default()
        },
    );
    for origin in [
        ca.origin_valid(&["a.example"], now - time::Duration::WEEK, now - time::Duration::DAY),
        ca.origin(&["b.example"]),
        TestOrigin::self_signed(&["a.example"]).only(&TLS12),
    ] {
        assert!(meet(&tls, origin.config(), "a.example", None, &[]).await.0.is_ok());
    }
    assert!(tls.insecure_upstream());
}

#[tokio::test]
async fn a_self_signed_certificate_can_be_given_as_an_extra_root() {
    let origin = TestOrigin::self_signed(&["a.example"]);
    let tls = tls(&TestCa::new("ca"), &trusting(&origin.pem()));
    assert!(meet(&tls, origin.config(), "a.example", None, &[]).await.0.is_ok());
    assert!(
        refusal(&tls, &origin, "b.example")
            .await
            .contains("name mismatch: the certificate is for a.example")
    );
    assert!(
        refusal(&tls, &TestOrigin::self_signed(&["a.example"]), "a.example")
            .await
            .contains("self-signed")
    );
}

#[test]
fn extra_roots_that_cannot_be_used_are_violations() {
    let authority = TestCa::new("ca").authority();
    for pem in [
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\n@",
        "x",
    ] {
        let violations = Tls::build(&trusting(pem), Arc::clone(&authority)).unwrap_err();
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].field, "capture.extra_ca_pem", "{violations:?}");
    }
}

#[tokio::test]
async fn an_origin_that_wants_a_client_certificate_is_named() {
    let ca = TestCa::new("ca");
    let tls = tls(&ca, &trusting(&ca.pem));
    let origin = ca.origin(&["a.example"]).wanting_client_certificates(&ca);
    let (met, served) = meet(&tls, origin.only(&TLS13).config(), "a.example", None, &[]).await;
    assert!(served.is_err());
    let error = met.unwrap().0.read_u8().await.unwrap_err();
    let failure = TlsFailure::after_handshake(&TlsFailure::in_words(error)).unwrap();
    assert!(failure.detail.contains("wants a client certificate"), "{failure}");
    assert_eq!(failure.code, error_code::UPSTREAM_TLS_FAILED);

    let origin = ca.origin(&["a.example"]).wanting_client_certificates(&ca).only(&TLS12);
    let detail = refusal(&tls, &origin, "a.example").await;
    assert!(
        detail.contains("alert certificate_required") || detail.contains("alert handshake_failure"),
        "{detail}"
    );
}

#[tokio::test]
async fn an_origin_without_tls_is_named() {
    let tls = tls(&TestCa::new("ca"), &CaptureSpec::default());
    let (near, mut far) = duplex(4_096);
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let failure = tls.connect_upstream(near, "a.example", None, &[]).await.unwrap_err();
    assert!(failure.detail.contains("does not speak TLS"), "{failure}");

    let (near, far) = duplex(4_096);
    drop(far);
    let failure = tls.connect_upstream(near, "a.example", None, &[]).await.unwrap_err();
    assert!(failure.detail.contains("during the handshake"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn peers_that_say_nothing_are_given_up() {
    let tls = tls(
        &TestCa::new("ca"),
        &CaptureSpec {
            insecure_upstream: true,
            ..CaptureSpec::default()
        },
    );
    let start = tokio::time::Instant::now();
    let (near, _far) = duplex(4_096);
    let failure = tls.connect_upstream(near, "a.example", None, &[]).await.unwrap_err();
    assert!(failure.detail.contains("no handshake within 10 seconds"), "{failure}");
    let (near, _far) = duplex(4_096);
    let hello = ClientHello {
        sni: Some("a.example".to_owned()),
        alpn: Vec::new(),
    };
    let failure = tls
        .accept_client(near, "a.example", &hello, Alpn::None)
        .await
        .unwrap_err();
    assert_eq!(failure.code, error_code::CLIENT_TLS_FAILED);
    assert!(start.elapsed() < 2 * limits::TLS_TIMEOUT + Duration::from_secs(1));
}

#[tokio::test]
async fn a_client_that_rejects_our_certificate_is_recorded_with_its_name() {
    let tls = tls(&TestCa::new("proxy"), &CaptureSpec::default());
    let (io, handshake) = client(TestCa::new("another").client(&[]), "a.example");
    let (hello, io) = sniffed(io).await;
    let failure = tls
        .accept_client(io, "a.example", &hello, Alpn::None)
        .await
        .err()
        .unwrap();
    assert!(handshake.await.unwrap().is_err());
    assert_eq!(failure.code, error_code::CLIENT_TLS_FAILED);
    for part in ["rejected our certificate", "alert unknown_ca", "SNI: a.example"] {
        assert!(failure.detail.contains(part), "{failure}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_is_recorded() {
    let tls = tls(&TestCa::new("proxy"), &CaptureSpec::default());
    let (io, handshake) = client(trusting_client(), "a.example");
    let (hello, io) = sniffed(io).await;
    handshake.abort();
    let failure = tls
        .accept_client(io, "a.example", &hello, Alpn::None)
        .await
        .err()
        .unwrap();
    assert!(failure.detail.contains("SNI: a.example"), "{failure}");
}

#[tokio::test]
async fn sessions_with_origins_are_resumed() {
    let ca = TestCa::new("ca");
    for version in [&TLS13, &TLS12] {
        let tls = tls(&ca, &trusting(&ca.pem));
        let origin = ca.origin(&["a.example"]).only(version).config();
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let (met, served) = meet(&tls, Arc::clone(&origin), "a.example", None, &[]).await;
            let (mut upstream, mut served) = (met.unwrap().0, served.unwrap());
            served.write_all(b"x").await.unwrap();
            upstream.read_u8().await.unwrap();
            kinds.push(upstream.get_ref().1.handshake_kind().unwrap());
        }
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed], "{version:?}");
    }
}

#[tokio::test]
async fn sessions_of_clients_are_resumed() {
    let ca = TestCa::new("ca");
    let (tls, config) = (tls(&ca, &CaptureSpec::default()), ca.client(&[]));
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let (io, handshake) = client(config.clone(), "a.example");
        let (hello, io) = sniffed(io).await;
        let (mut downstream, _) = tls.accept_client(io, "a.example", &hello, Alpn::None).await.unwrap();
        downstream.write_all(b"x").await.unwrap();
        downstream.flush().await.unwrap();
        let mut client = handshake.await.unwrap().unwrap();
        client.read_u8().await.unwrap();
        kinds.push(client.get_ref().1.handshake_kind().unwrap());
    }
    assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
}

#[tokio::test]
async fn a_new_authority_is_used_at_once() {
    let ca = TestCa::new("ca");
    let now = OffsetDateTime::now_utc();
    let old = ca.authority_valid(now - 9 * time::Duration::DAY, now - time::Duration::DAY);
    let tls = Tls::build(&CaptureSpec::default(), old).unwrap();
    let hello = ClientHello {
        sni: Some("a.example".to_owned()),
        alpn: Vec::new(),
    };
    let failure = tls
        .accept_client(duplex(64).0, "a.example", &hello, Alpn::None)
        .await
        .unwrap_err();
    assert_eq!(failure.code, error_code::PROXY_TLS_EXPIRED);
    assert!(failure.detail.contains("expired"), "{failure}");

    tls.replace_authority(ca.authority());
    let (io, handshake) = client(ca.client(&[]), "a.example");
    let (hello, io) = sniffed(io).await;
    assert!(tls.accept_client(io, "a.example", &hello, Alpn::None).await.is_ok());
    assert!(handshake.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_renewal_disturbs_no_connection() {
    let ca = TestCa::new("ca");
    let tls = tls(&ca, &CaptureSpec::default());
    let mut met = Vec::new();
    for _ in 0..2 {
        let (io, handshake) = client(ca.client(&[]), "a.example");
        let (hello, io) = sniffed(io).await;
        // The second handshake is under way when the authority changes.
        let renewed = async {
            if met.len() == 1 {
                tls.replace_authority(ca.authority());
            }
        };
        let (accepted, ()) = tokio::join!(tls.accept_client(io, "a.example", &hello, Alpn::None), renewed);
        met.push((accepted.unwrap().0, handshake.await.unwrap().unwrap()));
    }
    for (served, client) in &mut met {
        served.write_all(b"x").await.unwrap();
        served.flush().await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'x');
    }
}
