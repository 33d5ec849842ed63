//! Exchanges: carried faithfully, stored whole.

use proxyplane_tests::{Curl, RawOrigin, Side, World, free_port, nginx, pattern};
use serde_json::{Value, json};

#[test]
fn a_plain_exchange_is_carried_and_stored_with_its_bodies() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("plain").start();
    let url = nginx().http("/upload/plain.bin");
    let sent = pattern(200_000);
    let file = workspace.world().directory().join("plain.bin");
    std::fs::write(&file, &sent).unwrap();
    let put = proxy.curl().with(["--upload-file", file.to_str().unwrap()]).get(&url);
    assert_eq!(put.status, 201);
    assert_eq!(nginx().uploaded("plain.bin"), sent);

    let exchange = proxy.exchange();
    let expected = [
        ("proxy", Value::from("plain")),
        ("workspace", workspace.code().into()),
        ("method", "PUT".into()),
        ("url", url.into()),
        ("host", "127.0.0.1".into()),
        ("status", 201.into()),
        ("http_version", "HTTP/1.1".into()),
        ("request_size", 200_000.into()),
        ("truncated", false.into()),
        ("error", Value::Null),
    ];
    for (field, value) in expected {
        assert_eq!(exchange[field], value, "{field}");
    }
    assert!(exchange["duration_us"].as_i64().unwrap() > 0);
    assert!(exchange["started_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(proxy.raw_body(&exchange, Side::Request), sent);
}

#[test]
fn an_https_exchange_is_intercepted_and_stored_with_its_bodies() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("tls").trusting_nginx().start();
    let body = pattern(300_000);
    nginx().put_file("tls.bin", &body);
    let got = proxy.curl().with(["--http1.1"]).get(&nginx().https("/files/tls.bin"));
    assert_eq!((got.status, got.version.as_str()), (200, "1.1"));
    assert_eq!(got.body, body);

    let exchange = proxy.exchange();
    assert_eq!(exchange.summary(), "GET 200");
    assert_eq!(exchange["url"], nginx().https("/files/tls.bin"));
    assert_eq!(exchange["response_size"], 300_000);
    assert_eq!(proxy.body(&exchange, Side::Response), body);
    let detail = proxy.detail(&exchange);
    assert_eq!(detail["origin_tls"]["version"], "TLSv1.3");
    assert_eq!(detail["client_tls"]["sni"], "localhost");
    assert!(detail["timings"]["tls_us"].as_i64().unwrap() > 0);
}

#[test]
fn http2_is_spoken_to_the_origin_when_the_client_speaks_it() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("two").trusting_nginx().start();
    let got = proxy.curl().with(["--http2"]).get(&nginx().https("/hello"));
    assert_eq!((got.version.as_str(), got.text().as_str()), ("2", "hello from nginx\n"));
    let exchange = proxy.exchange();
    assert_eq!(exchange["http_version"], "HTTP/2");
    assert_eq!(proxy.detail(&exchange)["origin_tls"]["alpn"], "h2");
}

#[test]
fn answers_are_the_same_with_and_without_the_proxy() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("faithful").trusting_nginx().start();
    let through = proxy.curl().with(["--globoff", "--path-as-is"]);
    let direct = Curl::direct()
        .trusting(&nginx().authority().file())
        .with(["--globoff", "--path-as-is"]);
    let paths = [
        "/hello",
        "/query?q=<b>&x=\"{}|^`",
        "/query?%zz",
        "/status/404",
        "/status/500",
        "/status/204",
        "/repeated",
        "/gzip",
    ];
    let mut count = 0;
    for path in paths {
        for url in [nginx().http(path), nginx().https(path)] {
            for arguments in [
                vec!["--http1.1"],
                vec!["--http2"],
                vec!["--head"],
                vec!["-H", "Accept-Encoding: gzip"],
            ] {
                let ours = through.clone().with(arguments.clone()).get(&url);
                let theirs = direct.clone().with(arguments.clone()).get(&url);
                let what = format!("{url} {arguments:?}");
                assert_eq!((ours.status, &ours.version), (theirs.status, &theirs.version), "{what}");
                assert_eq!(ours.fields(), theirs.fields(), "{what}");
                assert_eq!(ours.body, theirs.body, "{what}");
                count += 1;
            }
        }
    }
    assert!(
        proxy
            .exchanges(count)
            .iter()
            .all(|exchange| exchange["error"].is_null())
    );
}

#[test]
fn a_compressed_body_is_stored_as_sent_and_shown_decoded() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("gzip").start();
    let got = proxy
        .curl()
        .with(["-H", "Accept-Encoding: gzip"])
        .get(&nginx().http("/gzip"));
    assert_eq!(got.body[..2], [0x1f, 0x8b], "curl got it compressed");
    let exchange = proxy.exchange();
    assert_eq!(exchange["response_content_encoding"], "gzip");
    assert_eq!(proxy.raw_body(&exchange, Side::Response), got.body);
    assert_eq!(
        proxy.body(&exchange, Side::Response),
        "compress me, please. ".repeat(500).as_bytes()
    );
}

#[test]
fn a_body_over_the_limit_passes_whole_and_is_stored_cut_with_its_true_size() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("limited").with(["--capture-limit", "100000"]).start();
    let body = pattern(3_000_000);
    nginx().put_file("large.bin", &body);
    assert_eq!(proxy.curl().get(&nginx().http("/files/large.bin")).body, body);
    let exchange = proxy.exchange();
    assert_eq!(
        (&exchange["response_size"], &exchange["response_captured"]),
        (&3_000_000.into(), &100_000.into())
    );
    assert_eq!(
        (&exchange["truncated"], &exchange["response_truncated"]),
        (&true.into(), &true.into())
    );
    assert_eq!(proxy.raw_body(&exchange, Side::Response), body[..100_000]);
}

#[test]
fn heads_are_stored_byte_for_byte() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("exact").start();
    let origin = RawOrigin::answering("HTTP/1.1 200 Fine\r\nx-A: 1\r\nX-a:  two \r\nContent-Length: 0\r\n\r\n");
    let mut client = proxy.connect();
    client.send(format!(
        "GET {} HTTP/1.1\r\nHOST: {}\r\nx-Odd:\tyes\r\n\r\n",
        origin.http("/a%00?q=<b>"),
        origin.address()
    ));
    assert_eq!(
        client.read_head(),
        "HTTP/1.1 200 Fine\r\nx-A: 1\r\nX-a:  two \r\nContent-Length: 0\r\n\r\n"
    );
    let detail = proxy.detail(&proxy.exchange());
    assert_eq!(detail["path"], "/a%00");
    assert_eq!(detail["query"], "q=<b>");
    let fields = json!([{"name": "x-A", "value": "1"}, {"name": "X-a", "value": "two"}, {"name": "Content-Length", "value": "0"}]);
    assert_eq!(detail["response_headers"], fields);
    origin.gets(b"GET /a%00?q=<b> HTTP/1.1\r\nHOST: ");
    origin.gets(b"\r\nx-Odd:\tyes\r\n");
}

#[test]
fn a_dead_origin_is_a_502_and_a_row() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("nobody").start();
    let dead = free_port();
    let plain = proxy.curl().get(&format!("http://127.0.0.1:{dead}/"));
    assert_eq!(plain.status, 502);
    let tls = proxy.curl().fetch(&format!("https://127.0.0.1:{dead}/"));
    assert_ne!(tls.code, 0);
    let rows = proxy.exchanges(2);
    assert!(
        rows.iter()
            .all(|row| row["state"] == "failed" && row["error"] == "upstream_refused"),
        "{rows:#?}"
    );
}

#[test]
fn an_origin_whose_certificate_nobody_vouches_for_is_refused_unless_told_otherwise() {
    let workspace = World::shared().workspace();
    let strict = workspace.proxy("strict").start();
    let refused = strict.curl().get(&nginx().https("/hello"));
    assert_eq!(
        refused.status, 502,
        "the client's handshake succeeds and the answer says why"
    );
    let row = strict.exchanges(1).remove(0);
    assert!(row["error"].as_str().unwrap().contains("tls"), "{row:?}");

    let lax = workspace.proxy("lax").with(["--insecure-upstream"]).start();
    assert_eq!(lax.curl().get(&nginx().https("/hello")).text(), "hello from nginx\n");
}

#[test]
fn a_passthrough_host_keeps_its_own_certificate_and_is_a_tunnel_row() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("through").with(["--passthrough", "localhost"]).start();
    let own = Curl::direct()
        .trusting(&nginx().authority().file())
        .through(&proxy.address());
    assert_eq!(own.get(&nginx().https("/hello")).text(), "hello from nginx\n");
    let row = proxy.exchange();
    assert_eq!((&row["kind"], &row["host"]), (&"tunnel".into(), &"localhost".into()));
    assert!(row["response_size"].as_u64().unwrap() > 0);
}
