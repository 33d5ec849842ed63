//! TLS in a tunnel: intercepted, passed through, or failing on either side.

use proxyplane_record::{ExchangeKind, error_code};
use rustls_pki_types::ServerName;
use time::OffsetDateTime;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::*;
use crate::tls::testing::TestOrigin;

const NAME: &str = "origin.test";

/// A proxy that trusts `ca` for origins and signs with it.
async fn scene(ca: &TestCa, passthrough: bool) -> Scene {
    let hosts = if passthrough {
        vec!["127.0.0.1".to_owned()]
    } else {
        Vec::new()
    };
    let raw = proxyplane_spec::RawCapture {
        extra_ca_pem: ca.pem.clone(),
        passthrough_hosts: hosts,
        ..proxyplane_spec::RawCapture::default()
    };
    Scene::certified_by(ca, CaptureSpec::parse(&raw).unwrap()).await
}

/// Opens a tunnel and makes TLS in it, from both ends; an origin that fails is left out.
async fn meet(
    scene: &mut Scene,
    trusted: &TestCa,
    origin: &TestOrigin,
) -> (
    std::io::Result<client::TlsStream<TcpStream>>,
    std::io::Result<server::TlsStream<TcpStream>>,
) {
    scene.ask("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").await;
    let at_origin = scene.accept().await;
    scene.client.hear("HTTP/1.1 200 Connection established\r\n\r\n").await;
    let next = Peer(TcpStream::connect(scene.proxy).await.unwrap());
    let client = std::mem::replace(&mut scene.client, next);
    let connector = TlsConnector::from(Arc::new(trusted.client(&["http/1.1"])));
    let client = connector.connect(ServerName::try_from(NAME).unwrap(), client.0);
    let acceptor = TlsAcceptor::from(origin.config());
    timeout(PATIENCE, async { tokio::join!(client, acceptor.accept(at_origin.0)) })
        .await
        .expect("handshakes end")
}

#[tokio::test]
async fn an_intercepted_connection_carries_exchanges_and_is_described() {
    let ca = TestCa::new("Test root");
    let mut scene = scene(&ca, false).await;
    let (client, origin) = meet(&mut scene, &ca, &ca.origin(&[NAME]).alpn(&["http/1.1"])).await;
    let (mut client, mut origin) = (client.unwrap(), origin.unwrap());
    for number in 0..3 {
        let head = format!("GET /{number} HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let mut asked = vec![0; head.len()];
        origin.read_exact(&mut asked).await.unwrap();
        assert_eq!(text(&asked), head);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        origin.write_all(answer).await.unwrap();
        let mut told = vec![0; answer.len()];
        client.read_exact(&mut told).await.unwrap();
        assert_eq!(told, answer);
    }
    let rows = scene.rows(3).await;
    let (first, second) = (&rows[0].exchange, &rows[1].exchange);
    assert_complete(first);
    assert_eq!((text(&first.scheme), text(&first.host)), ("https".into(), NAME.into()));
    assert_eq!(u32::from(scene.origin.local_addr().unwrap().port()), first.port);
    assert!(has(first, Flags::INTERCEPTED) && !has(first, Flags::REUSED_UPSTREAM));
    assert!(first.timings.tls_us.is_some() && first.timings.connect_us.is_some());
    let (of_client, of_origin) = (first.client_tls.as_ref().unwrap(), first.origin_tls.as_ref().unwrap());
    assert_eq!((text(&of_client.sni), text(&of_origin.sni)), (NAME.into(), NAME.into()));
    assert!(has(second, Flags::REUSED_UPSTREAM) && second.timings.tls_us.is_none());
}

#[tokio::test]
async fn an_origin_that_cannot_be_trusted_is_explained_in_an_answer() {
    let ca = TestCa::new("Test root");
    let mut scene = scene(&ca, false).await;
    let (client, _) = meet(&mut scene, &ca, &TestCa::new("Unknown").origin(&[NAME])).await;
    let mut client = client.unwrap();
    client
        .write_all(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut told = Vec::new();
    client.read_to_end(&mut told).await.unwrap();
    assert!(
        told.starts_with(b"HTTP/1.1 502 ") && text(&told).contains("unknown issuer"),
        "{}",
        text(&told)
    );
    let row = scene.row().await;
    assert_eq!(
        (error(&row.exchange), row.exchange.status),
        (error_code::UPSTREAM_TLS_FAILED, 502)
    );
}

#[tokio::test]
async fn a_client_that_rejects_us_is_a_row_with_its_name() {
    let ca = TestCa::new("Test root");
    let mut scene = scene(&ca, false).await;
    let (client, _) = meet(&mut scene, &TestCa::new("Another"), &ca.origin(&[NAME])).await;
    assert!(client.is_err());
    let exchange = scene.row().await.exchange;
    assert_eq!(
        (error(&exchange), exchange.kind),
        (error_code::CLIENT_TLS_FAILED, ExchangeKind::Connect.into())
    );
    assert_eq!(text(&exchange.client_tls.unwrap().sni), NAME);
}

#[tokio::test]
async fn a_host_that_passes_through_meets_its_client() {
    let ca = TestCa::new("Test root");
    let mut scene = scene(&ca, true).await;
    let own = TestCa::new("Not the proxy's");
    let (client, origin) = meet(&mut scene, &own, &own.origin(&[NAME]).alpn(&["http/1.1"])).await;
    let (mut client, mut origin) = (client.unwrap(), origin.unwrap());
    client.write_all(b"private").await.unwrap();
    let mut heard = [0; 7];
    origin.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"private");
    client.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();
    drop((client, origin));
    let exchange = scene.rows(2).await.remove(0).exchange;
    assert_eq!(exchange.kind, i32::from(ExchangeKind::Tunnel));
    assert!(has(&exchange, Flags::PASSTHROUGH) && exchange.response_size > 500);
}

#[tokio::test]
async fn an_expired_intermediate_refuses_tunnels_until_it_is_renewed() {
    let ca = TestCa::new("Test root");
    let mut scene = scene(&ca, false).await;
    let now = OffsetDateTime::now_utc();
    let tls = Arc::clone(&scene.service.config().tls);
    tls.replace_authority(ca.authority_valid(now - time::Duration::days(8), now - time::Duration::HOUR));

    scene.ask("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").await;
    let mut told = Vec::new();
    scene.client.0.read_to_end(&mut told).await.unwrap();
    let told = text(&told);
    assert!(told.starts_with("HTTP/1.1 502 ") && told.contains("expired"), "{told}");

    // HTTP without TLS has nothing to do with it.
    scene.client = Peer(TcpStream::connect(scene.proxy).await.unwrap());
    let mut origin = scene.get().await;
    origin.say("HTTP/1.1 204 No Content\r\n\r\n").await;
    scene.client.hear("HTTP/1.1 204 No Content\r\n\r\n").await;

    tls.replace_authority(ca.authority());
    scene.client = Peer(TcpStream::connect(scene.proxy).await.unwrap());
    let (client, origin) = meet(&mut scene, &ca, &ca.origin(&[NAME])).await;
    assert!(client.is_ok() && origin.is_ok(), "renewed");

    let rows = scene.rows(2).await;
    let refused = &rows[0].exchange;
    assert_eq!((error(refused), refused.status), (error_code::PROXY_TLS_EXPIRED, 502));
    assert_eq!(refused.kind, i32::from(ExchangeKind::Connect));
    assert!(text(&refused.error_detail).contains("while the control plane was away"));
}

#[tokio::test]
async fn a_host_that_passes_through_needs_no_intermediate() {
    let ca = TestCa::new("Test root");
    let mut scene = scene(&ca, true).await;
    let now = OffsetDateTime::now_utc();
    let expired = ca.authority_valid(now - time::Duration::days(8), now - time::Duration::HOUR);
    scene.service.config().tls.replace_authority(expired);
    let own = TestCa::new("Not the proxy's");
    let (client, origin) = meet(&mut scene, &own, &own.origin(&[NAME])).await;
    assert!(client.is_ok() && origin.is_ok());
}
