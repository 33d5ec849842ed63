//! TLS on both legs: odd ClientHellos, origins that cannot be trusted, clients that do not trust us.

use std::{fs, sync::Arc};

use proxyplane_tests::{Authority, Curl, Exchange, Leaf, Peer, Proxy, RawOrigin, Workspace, World, nginx, tls_client};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, server::WebPkiClientVerifier, version};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_client_hello_may_come_byte_by_byte() {
    let workspace = World::shared().workspace();
    let (authority, origin) = tls_origin(&workspace, &["localhost"], &["http/1.1"]);
    let proxy = workspace.proxy("slow").trusting(&authority).start();
    let config = tls_client(&our_ca(), &["h2", "http/1.1"]);
    let client = proxy.connect().tunnel(&at(&origin));
    let mut client = client.try_into_tls_byte_by_byte("localhost", config).unwrap();
    assert_eq!(client.alpn().as_deref(), Some("http/1.1"), "what the origin chose");
    client.send(get(&origin));
    assert!(client.read_head().starts_with("HTTP/1.1 200"));
    assert_eq!(proxy.exchange()["url"], origin.https("/x"));
}

#[test]
fn a_client_hello_may_be_large_and_offer_nothing_that_we_know() {
    let workspace = World::shared().workspace();
    let (authority, origin) = tls_origin(&workspace, &["localhost"], &["h2", "http/1.1"]);
    let proxy = workspace.proxy("large").trusting(&authority).start();
    let names: Vec<_> = (0..250).map(|number| format!("{number:0>250}")).collect();
    for offered in [names.iter().map(String::as_str).collect(), vec!["acme-tls/1"]] {
        let client = proxy.connect().tunnel(&at(&origin));
        let mut client = client.into_tls("localhost", &our_ca(), &offered);
        assert_eq!(client.alpn(), None);
        client.send(get(&origin));
        assert!(client.read_head().starts_with("HTTP/1.1 200"));
    }
    let detail = proxy.detail(&proxy.exchanges(2)[0]);
    assert_eq!(detail["origin_tls"]["alpn"], serde_json::Value::Null);
}

#[test]
fn a_client_without_sni_gets_a_certificate_for_the_address_it_asked_for() {
    let workspace = World::shared().workspace();
    let (authority, origin) = tls_origin(&workspace, &["127.0.0.1"], &[]);
    let proxy = workspace.proxy("nameless").trusting(&authority).start();
    let mut client = proxy
        .connect()
        .tunnel(&origin.address())
        .into_tls("127.0.0.1", &our_ca(), &[]);
    client.send(get(&origin).replace("localhost", "127.0.0.1"));
    assert!(client.read_head().starts_with("HTTP/1.1 200"));
    let detail = proxy.detail(&proxy.exchange());
    assert_eq!(detail["client_tls"]["sni"], serde_json::Value::Null);
    assert_eq!(detail["url"], format!("https://{}/x", origin.address()));
}

#[test]
fn the_name_in_the_client_hello_is_the_one_that_is_verified() {
    let workspace = World::shared().workspace();
    let (authority, origin) = tls_origin(&workspace, &["inner.test"], &[]);
    let proxy = workspace.proxy("named").trusting(&authority).start();
    let mut client = proxy
        .connect()
        .tunnel(&origin.address())
        .into_tls("inner.test", &our_ca(), &[]);
    client.send(get(&origin));
    assert!(client.read_head().starts_with("HTTP/1.1 200"));
    assert_eq!(proxy.detail(&proxy.exchange())["client_tls"]["sni"], "inner.test");
}

#[test]
fn an_origin_that_cannot_be_trusted_is_a_502_that_says_why() {
    let workspace = World::shared().workspace();
    let authority = Authority::new(&workspace.world().directory().join("distrust"));
    let expired = authority.leaf_with(&["localhost"], |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let stranger = Authority::new(&workspace.world().directory().join("stranger"));
    let proxy = workspace.proxy("careful").trusting(&authority).start();
    for (leaf, cause) in [
        (expired, "certificate expired on 2021-01-01"),
        (
            authority.leaf(&["elsewhere.test"]),
            "the certificate is for elsewhere.test",
        ),
        (stranger.leaf(&["localhost"]), "unknown issuer (Proxyplane test origins"),
        (stranger.self_signed(&["localhost"]), "self-signed certificate"),
    ] {
        let origin = RawOrigin::serving_tls(&leaf, &[], |peer| peer.read_head().map(drop));
        refused(&proxy, &origin.https("/"), cause);
    }
    for row in proxy.stored() {
        let timings = &proxy.detail(&row)["timings"];
        assert!(
            timings["tls_us"].as_i64().unwrap() > 0,
            "what the handshake took: {timings}"
        );
        assert!(timings["connect_us"].is_number(), "{timings}");
    }
    let lax = workspace.proxy("lax").with(["--insecure-upstream"]).start();
    let origin = RawOrigin::serving_tls(&stranger.leaf(&["elsewhere.test"]), &[], answer);
    assert_eq!(lax.curl().get(&origin.https("/")).text(), "ok");
    assert!(lax.exchange()["flags"].to_string().contains("insecure_upstream"));
}

#[test]
fn an_origin_that_wants_a_client_certificate_is_a_502_that_says_so() {
    let workspace = World::shared().workspace();
    let authority = Authority::new(&workspace.world().directory().join("mutual"));
    let proxy = workspace.proxy("mutual").trusting(&authority).start();
    for (version, cause) in [
        (&version::TLS13, "the origin wants a client certificate"),
        (&version::TLS12, "the origin wants a client certificate"),
    ] {
        let config = wanting_certificates(&authority, version);
        let origin = RawOrigin::serving_tls_with(config, answer);
        refused(&proxy, &origin.https("/"), cause);
    }
}

#[test]
fn an_http2_origin_that_wants_a_client_certificate_is_a_502_that_says_so() {
    let workspace = World::shared().workspace();
    let authority = Authority::new(&workspace.world().directory().join("mutual-two"));
    let proxy = workspace.proxy("mutual").trusting(&authority).start();
    let mut config = wanting_certificates(&authority, &version::TLS13);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let origin = RawOrigin::serving_tls_with(config, |peer| peer.read_to_end().map(drop));
    let got = proxy.curl().with(["--http2"]).get(&origin.https("/"));
    assert_eq!((got.status, got.version.as_str()), (502, "2"));
    assert!(got.text().contains("wants a client certificate"), "{}", got.text());
    assert_eq!(proxy.exchange()["error"], "upstream_tls_failed");
}

#[test]
fn an_origin_without_tls_is_a_502_that_says_so() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("plain").start();
    let plain = RawOrigin::answering_once("HTTP/1.1 400 Bad Request\r\n\r\n");
    refused(&proxy, &plain.https("/"), "TLS with localhost failed");
    let mute = RawOrigin::serving(|peer| peer.read_exactly(1).map(drop));
    refused(&proxy, &mute.https("/"), "closed the connection during the handshake");
}

#[test]
fn a_client_that_speaks_only_http2_is_told_over_http2_why_its_origin_failed() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("only").start();
    let host = format!("localhost:{}", nginx().tls_port());
    let mut client = proxy.connect().tunnel(&host).into_tls("localhost", &our_ca(), &["h2"]);
    assert_eq!(client.alpn().as_deref(), Some("h2"));
    // GET / over https with this authority, in the static table's words (RFC 7541).
    let fields = [&[0x82, 0x87, 0x84, 0x41, host.len() as u8], host.as_bytes()].concat();
    client
        .send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .send([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    client.send([&[0, 0, fields.len() as u8, 1, 5, 0, 0, 0, 1], &fields[..]].concat());
    client.read_until(b"unknown issuer");
    let row = proxy.exchange();
    assert_eq!(
        (&row["error"], &row["status"]),
        (&"upstream_tls_failed".into(), &502.into())
    );
    assert_eq!(
        (&row["method"], &row["url"]),
        (&"GET".into(), &nginx().https("/").into())
    );
    assert_eq!(row["http_version"], "HTTP/2");
}

#[test]
fn a_client_that_does_not_trust_us_is_a_row_with_the_name_it_asked_for() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("pinned").trusting_nginx().start();
    let pinned = Curl::direct()
        .trusting(&nginx().authority().file())
        .through(&proxy.address());
    assert_eq!(pinned.fetch(&nginx().https("/hello")).code, 60);
    let row = proxy.exchange();
    assert_eq!(
        (&row["method"], &row["error"]),
        (&"CONNECT".into(), &"client_tls_failed".into())
    );
    let detail = row["error_detail"].as_str().unwrap();
    assert!(
        detail.contains("rejected our certificate") && detail.contains("SNI: localhost"),
        "{detail}"
    );
    assert_eq!(proxy.detail(&row)["client_tls"]["sni"], "localhost");

    proxy.update(["--passthrough", "localhost"]);
    let file = vec![7; 100_000];
    nginx().put_file("pinned.bin", &file);
    assert_eq!(pinned.get(&nginx().https("/files/pinned.bin")).body, file);
    let row = proxy.exchanges(2).remove(1);
    assert_eq!(
        (&row["kind"], &row["error"]),
        (&"tunnel".into(), &serde_json::Value::Null)
    );
    assert!(row["response_size"].as_u64().unwrap() > 100_000, "{row:?}");
    assert!(row["request_size"].as_u64().unwrap() > 300, "{row:?}");
    assert!(row["flags"].to_string().contains("passthrough"));
    assert_eq!(proxy.detail(&row)["client_tls"]["sni"], "localhost");
}

#[test]
fn a_handshake_that_is_not_finished_is_a_row() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("unfinished").start();
    let origin = RawOrigin::serving(|peer| peer.read_to_end().map(drop));
    let mut client = proxy.connect().tunnel(&origin.address());
    client.send([0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3]);
    drop(client);
    let row = proxy.exchange();
    assert_eq!(row["error"], "client_tls_failed", "{row:?}");
    let mut client = proxy.connect().tunnel(&origin.address());
    client.send([0x16, 3, 1, 0, 4, 2, 0, 0, 0]);
    origin.gets(&[0x16, 3, 1, 0, 4, 2, 0, 0, 0]);
    drop(client);
    assert_eq!(
        proxy.exchanges(2)[1]["kind"],
        "tunnel",
        "what is not TLS after all is carried as it is"
    );
}

#[test]
fn a_client_that_leaves_after_its_handshake_is_a_row() {
    let workspace = World::shared().workspace();
    let (authority, origin) = tls_origin(&workspace, &["localhost"], &["http/1.1"]);
    let proxy = workspace.proxy("speechless").trusting(&authority).start();
    let client = proxy.connect().tunnel(&at(&origin));
    drop(client.into_tls("localhost", &our_ca(), &["http/1.1"]));
    let row = proxy.exchange();
    assert_eq!(
        (&row["method"], &row["error"]),
        (&"CONNECT".into(), &"client_sent_nothing".into())
    );
    assert_eq!(proxy.detail(&row)["client_tls"]["sni"], "localhost");
}

#[test]
fn unfinished_handshakes_hold_nobody_up() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("flooded").trusting_nginx().start();
    let quiet = RawOrigin::serving(|peer| peer.read_to_end().map(drop));
    let hello = [&[0x16, 3, 1, 0x40, 0, 1, 0, 0x7f, 0, 3, 3][..], &[0; 9_000]].concat();
    let mut unfinished = Vec::new();
    for number in 0..300 {
        let mut client = proxy.connect().tunnel(&quiet.address());
        // Half of them want a large buffer.
        client.send(&hello[..if number % 2 == 0 { 50 } else { hello.len() }]);
        unfinished.push(client);
    }
    assert_eq!(proxy.curl().get(&nginx().https("/hello")).text(), "hello from nginx\n");
    assert_eq!(proxy.state(), "running");
    drop(unfinished);
    let rows = proxy.exchanges(301);
    assert_eq!(
        rows.iter().filter(|row| row["error"] == "client_tls_failed").count(),
        300
    );
}

#[test]
fn a_continue_comes_through_tls_before_the_body_goes() {
    let workspace = World::shared().workspace();
    let authority = Authority::new(&workspace.world().directory().join("continue"));
    let origin = RawOrigin::serving_tls(&authority.leaf(&["localhost"]), &[], |peer| {
        peer.read_head()?;
        peer.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        assert_eq!(peer.read_exactly(5)?, b"hello");
        peer.send(OK)
    });
    let proxy = workspace.proxy("expect").trusting(&authority).start();
    let mut client = proxy
        .connect()
        .tunnel(&at(&origin))
        .into_tls("localhost", &our_ca(), &[]);
    client.send("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert!(client.read_head().starts_with("HTTP/1.1 100 "));
    client.send("hello");
    assert!(client.read_head().starts_with("HTTP/1.1 200 "));
    let curl = proxy
        .curl()
        .with(["-H", "Expect: 100-continue", "-d", "hello"])
        .get(&origin.https("/y"));
    assert!(curl.head.contains("HTTP/1.1 100 Continue"), "{}", curl.head);
    assert_eq!(curl.text(), "ok");
    let rows = proxy.exchanges(2);
    assert_eq!(
        rows.iter().map(Exchange::summary).collect::<Vec<_>>(),
        ["POST 200", "POST 200"]
    );
}

#[test]
fn the_ca_certificate_can_be_fetched_through_the_proxy() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("ca").start();
    let page = proxy.curl().get("http://proxyplane.local/");
    assert!(
        page.head.contains("text/html") && page.text().contains("ca.pem"),
        "{}",
        page.head
    );
    let pem = proxy.curl().get("http://proxyplane.local/ca.pem").text();
    assert_eq!(pem.replace("\r\n", "\n").trim(), our_ca().trim());
    let der_file = workspace.world().directory().join("exported.der");
    let _ = workspace
        .proxyctl(["ca", "export", "--der", "-f", der_file.to_str().unwrap()])
        .ok();
    let der = fs::read(der_file).unwrap();
    for name in ["ca.crt", "ca.der"] {
        assert_eq!(proxy.curl().get(&format!("http://proxyplane.local/{name}")).body, der);
    }
    let head = proxy.curl().with(["--head"]).get("http://proxyplane.local/ca.crt");
    assert!(
        head.head
            .to_ascii_lowercase()
            .contains(&format!("content-length: {}", der.len())),
        "{}",
        head.head
    );
    assert_eq!(proxy.curl().get("http://proxyplane.local/other").status, 404);
    assert_eq!(
        proxy.curl().with(["-d", "x"]).get("http://proxyplane.local/").status,
        405
    );
}

#[test]
fn trust_in_origins_changes_while_the_proxy_runs() {
    let workspace = World::shared().workspace();
    let (authority, origin) = tls_origin(&workspace, &["localhost"], &[]);
    let proxy = workspace.proxy("changing").start();
    let status = || proxy.curl().get(&origin.https("/")).status;
    assert_eq!(status(), 502);
    proxy.update(["--insecure-upstream"]);
    assert_eq!(status(), 200);
    proxy.update(["--no-insecure-upstream"]);
    assert_eq!(status(), 502);
    proxy.update(["--extra-ca", authority.file().to_str().unwrap()]);
    assert_eq!(status(), 200);
}

/// Fetching `url` gives a 502 with `cause`, and a row that says the same.
#[track_caller]
fn refused(proxy: &Proxy<'_>, url: &str, cause: &str) {
    let before = proxy.drained()["stored"].as_u64().unwrap() as usize;
    for version in ["--http1.1", "--http2"] {
        let got = proxy.curl().with([version]).get(url);
        assert_eq!(got.status, 502, "{cause}: {}", got.text());
        assert!(got.text().contains(cause), "{cause}: {}", got.text());
    }
    for row in &proxy.exchanges(before + 2)[before..] {
        assert_eq!(
            (&row["error"], &row["url"]),
            (&"upstream_tls_failed".into(), &url.into()),
            "{row:?}"
        );
        assert!(row["error_detail"].as_str().unwrap().contains(cause), "{row:?}");
        assert_eq!((&row["method"], &row["status"]), (&"GET".into(), &502.into()));
        assert_eq!(proxy.detail(row)["client_tls"]["sni"], "localhost");
    }
}

fn wanting_certificates(authority: &Authority, version: &'static SupportedProtocolVersion) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate_der()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let leaf: Leaf = authority.leaf(&["localhost"]);
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![leaf.certificate_der()], leaf.key_der())
        .unwrap()
}

/// An origin of a new authority that answers everything with `ok`.
fn tls_origin(workspace: &Workspace<'_>, names: &[&str], alpn: &[&str]) -> (Authority, RawOrigin) {
    let authority = Authority::new(&workspace.world().directory().join(workspace.code()));
    let origin = RawOrigin::serving_tls(&authority.leaf(names), alpn, answer);
    (authority, origin)
}

fn answer(peer: &mut Peer) -> std::io::Result<()> {
    while !peer.read_head()?.is_empty() {
        peer.send(OK)?;
    }
    Ok(())
}

fn at(origin: &RawOrigin) -> String {
    format!("localhost:{}", origin.port())
}

fn get(origin: &RawOrigin) -> String {
    format!("GET /x HTTP/1.1\r\nHost: {}\r\n\r\n", at(origin))
}

/// The installation's CA, PEM.
fn our_ca() -> String {
    fs::read_to_string(World::shared().ca_file()).unwrap()
}
