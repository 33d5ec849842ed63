//! HTTP/2 from end to end.

use std::future::poll_fn;

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use proxyplane_tests::{Authority, Http2Origin, Proxy, Side, Workspace, World, eventually, nginx, pattern};
use serde_json::{Value, json};

const LARGE: usize = 20 * 1024 * 1024;

#[test]
fn an_answer_that_comes_before_the_request_was_read_arrives() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("early").trusting_nginx().start();
    let curl = proxy.curl().with(["--http2", "--data", "hello=world"]);
    for _ in 0..50 {
        let answer = curl.get(&nginx().https("/hello"));
        assert_eq!((answer.status, answer.version.as_str()), (200, "2"));
        assert_eq!(answer.text(), "hello from nginx\n");
    }
    assert!(proxy.exchanges(50).iter().all(|row| row["error"].is_null()));
}

#[test]
fn large_bodies_pass_both_ways_unchanged() {
    let workspace = World::shared().workspace();
    let proxy = workspace
        .proxy("large")
        .trusting_nginx()
        .with(["--capture-limit", "30MiB"])
        .start();
    let body = pattern(LARGE);
    nginx().put_file("http2.bin", &body);
    let curl = proxy.curl().with(["--http2"]);
    let down = curl.get(&nginx().https("/files/http2.bin"));
    assert_eq!((down.status, down.version.as_str()), (200, "2"));
    assert!(down.body == body, "the body differs");

    let file = workspace.world().directory().join("http2.bin");
    std::fs::write(&file, &body).unwrap();
    let up = curl
        .with(["--upload-file", file.to_str().unwrap()])
        .get(&nginx().https("/upload/http2.bin"));
    assert_eq!((up.status, up.version.as_str()), (201, "2"));
    assert!(nginx().uploaded("http2.bin") == body, "the upload differs");

    let rows = proxy.exchanges(2);
    for (row, size, side) in [
        (&rows[0], "response_size", Side::Response),
        (&rows[1], "request_size", Side::Request),
    ] {
        assert_eq!(
            (&row[size], &row["http_version"]),
            (&LARGE.into(), &"HTTP/2".into()),
            "{row:?}"
        );
        assert_eq!(
            (&row["error"], &row["truncated"]),
            (&Value::Null, &false.into()),
            "{row:?}"
        );
        assert!(proxy.raw_body(row, side) == body, "the stored {size} differs");
    }
}

#[test]
fn odd_targets_pass_as_they_are() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("odd").trusting_nginx().start();
    let curl = proxy.curl().with(["--http2", "--globoff", "--path-as-is"]);
    let targets = [
        "/query?q=<b>",
        "/query?a=\"{}|^`",
        "/query?%zz&&=",
        "/query?",
        "/query?é",
    ];
    for target in targets {
        let got = curl.get(&nginx().https(target));
        assert_eq!((got.version.as_str(), got.text()), ("2", format!("{target}\n")));
    }
    let rows = proxy.exchanges(targets.len());
    for (row, target) in rows.iter().zip(targets) {
        assert_eq!(row["path"], "/query");
        if target.is_ascii() {
            assert_eq!(row["query"], target["/query?".len()..], "{row:?}");
        }
    }
}

#[test]
fn repeated_fields_and_trailers_pass_and_are_stored() {
    let workspace = World::shared().workspace();
    let (proxy, origin) = pair(&workspace, |request, mut respond| async move {
        let mut response = Response::new(());
        let fields = response.headers_mut();
        for value in request.headers().get_all("x-asked") {
            fields.append("x-answered", value.clone());
        }
        fields.insert("content-type", HeaderValue::from_static("application/grpc"));
        let mut stream = respond.send_response(response, false)?;
        stream.send_data(Bytes::from_static(b"\0\0\0\0\x02ok"), false)?;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        trailers.append("grpc-detail", HeaderValue::from_static("a"));
        trailers.append("grpc-detail", HeaderValue::from_static("b"));
        stream.send_trailers(trailers)
    });
    let curl = proxy.curl().with(["--http2", "-H", "TE: trailers", "-d", "ask"]);
    let got = curl
        .with(["-H", "X-Asked: one", "-H", "X-Asked: two"])
        .get(&origin.https("/pkg.Service/Method"));
    assert_eq!((got.status, &got.body[..]), (200, &b"\0\0\0\0\x02ok"[..]));
    let answered: Vec<_> = got.head.lines().filter(|line| line.starts_with("x-answered")).collect();
    assert_eq!(answered, ["x-answered: one", "x-answered: two"]);
    assert!(got.head.contains("grpc-status: 0"), "{}", got.head);

    let row = proxy.exchange();
    assert_eq!((row.summary().as_str(), &row["error"]), ("POST 200", &Value::Null));
    let detail = proxy.detail(&row);
    let field = |name: &str, value: &str| json!({"name": name, "value": value});
    let trailers = [
        field("grpc-status", "0"),
        field("grpc-detail", "a"),
        field("grpc-detail", "b"),
    ];
    assert_eq!(detail["response_trailers"], json!(trailers));
    let asked = detail["request_headers"].as_array().unwrap();
    for wanted in [
        field("x-asked", "one"),
        field("x-asked", "two"),
        field("te", "trailers"),
    ] {
        assert!(asked.contains(&wanted), "{asked:?}");
    }
}

#[test]
fn a_stream_both_ways_passes_message_by_message_is_a_row_while_open_and_lives_through_an_update() {
    let workspace = World::shared().workspace();
    let (proxy, origin) = pair(&workspace, |request, mut respond| async move {
        let mut stream = respond.send_response(Response::new(()), false)?;
        let mut body = request.into_body();
        while let Some(data) = body.data().await.transpose()? {
            body.flow_control().release_capacity(data.len())?;
            stream.send_data(data, false)?;
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        stream.send_trailers(trailers)
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let mut call = runtime.block_on(origin.call_through(&proxy, "/pkg.Service/Chat"));
    for message in ["one", "two"] {
        assert_eq!(runtime.block_on(call.say(message)), message);
    }
    let open = eventually("the open stream is a row", || proxy.stored().pop());
    assert_eq!((&open["state"], &open["status"]), (&"open".into(), &200.into()));
    proxy.update(["--capture-limit", "1000"]);
    assert_eq!(runtime.block_on(call.say("three")), "three");
    let trailers = runtime.block_on(call.finish());
    assert_eq!(trailers["grpc-status"], "0");
    let row = proxy.exchange();
    assert_eq!((row.id(), row.summary().as_str()), (open.id(), "POST 200"));
    assert_eq!((&row["request_size"], &row["response_size"]), (&11.into(), &11.into()));
    assert_eq!(proxy.body(&row, Side::Response), b"onetwothree");
}

#[test]
fn a_stream_that_the_origin_resets_is_reset_for_the_client_and_a_failed_row() {
    let workspace = World::shared().workspace();
    let (proxy, origin) = pair(&workspace, |request, mut respond| async move {
        if request.headers().contains_key("x-at-once") {
            respond.send_reset(Reason::ENHANCE_YOUR_CALM);
            return Ok(());
        }
        let mut stream = respond.send_response(Response::new(()), false)?;
        // More than a window: some of it has arrived when the rest may be sent.
        let mut rest = Bytes::from(pattern(2 * 1024 * 1024));
        while !rest.is_empty() {
            stream.reserve_capacity(rest.len());
            let Some(capacity) = poll_fn(|cx| stream.poll_capacity(cx)).await.transpose()? else {
                return Ok(());
            };
            stream.send_data(rest.split_to(capacity), false)?;
        }
        stream.send_reset(Reason::INTERNAL_ERROR);
        Ok(())
    });
    let curl = proxy.curl().with(["--http2"]);
    let at_once = curl
        .clone()
        .with(["-H", "X-At-Once: yes"])
        .fetch(&origin.https("/at-once"));
    assert_eq!(at_once.code, 92, "{at_once:?}");
    let midway = curl.fetch(&origin.https("/midway"));
    assert_eq!((midway.code, midway.status), (92, 200));
    let rows = proxy.exchanges(2);
    for (row, code) in rows.iter().zip(["ENHANCE_YOUR_CALM", "INTERNAL_ERROR"]) {
        assert_eq!(
            (&row["state"], &row["error"]),
            (&"failed".into(), &"stream_reset".into()),
            "{row:?}"
        );
        assert!(row["error_detail"].as_str().unwrap().contains(code), "{row:?}");
    }
    assert!(rows[1]["response_size"].as_u64().unwrap() >= midway.body.len() as u64);
}

#[test]
fn an_origin_that_speaks_only_http1_gets_http1_from_a_client_that_prefers_http2() {
    let workspace = World::shared().workspace();
    let authority = Authority::new(&workspace.world().directory().join("http1-only"));
    for alpn in [&["http/1.1"][..], &[]] {
        let origin = proxyplane_tests::RawOrigin::serving_tls(&authority.leaf(&["localhost"]), alpn, |peer| {
            peer.read_head()?;
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        });
        let proxy = workspace
            .proxy(&format!("alpn-{}", alpn.len()))
            .trusting(&authority)
            .start();
        let got = proxy.curl().with(["--http2"]).get(&origin.https("/"));
        assert_eq!((got.version.as_str(), got.text().as_str()), ("1.1", "ok"));
        assert_eq!(proxy.exchange()["http_version"], "HTTP/1.1");
    }
}

#[test]
fn http2_without_tls_passes_through_a_tunnel() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("prior").start();
    let origin = Http2Origin::serving(echo);
    let curl = proxy
        .curl()
        .with(["--proxytunnel", "--http2-prior-knowledge", "-d", "knowing"]);
    let got = curl.get(&origin.http("/prior"));
    assert_eq!((got.version.as_str(), got.text().as_str()), ("2", "knowing"));
    let row = proxy.exchange();
    assert_eq!(
        (&row["url"], &row["http_version"]),
        (&origin.http("/prior").into(), &"HTTP/2".into())
    );
    assert_eq!(proxy.body(&row, Side::Request), b"knowing");
}

#[test]
fn repeated_fields_between_others_keep_their_places() {
    const LINES: [&str; 4] = ["x-b: 1", "x-a: 2", "x-b: 3", "x-c: 4"];
    let of = |head: &str| -> Vec<String> {
        let lines = head.lines().filter(|line| line.starts_with("x-"));
        lines.map(str::to_owned).collect()
    };
    let workspace = World::shared().workspace();
    let (proxy, origin) = pair(&workspace, mirror);
    let curl = proxy
        .curl()
        .with(["--http2"])
        .with(LINES.iter().flat_map(|line| ["-H", line]));
    assert_eq!(of(&curl.get(&origin.https("/")).head), LINES);
    let row = proxy.exchange();
    for side in [Side::Request, Side::Response] {
        assert_eq!(of(&String::from_utf8(proxy.head(&row, side)).unwrap()), LINES);
    }
}

/// Answers with the request's fields, in their order.
async fn mirror(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let (parts, _) = request.into_parts();
    let mut response = Response::new(());
    *response.headers_mut() = parts.headers;
    *response.extensions_mut() = parts.extensions;
    respond.send_response(response, true).map(drop)
}

/// Sends a request's body back as it comes.
async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut stream = respond.send_response(Response::new(()), false)?;
    let mut body = request.into_body();
    while let Some(data) = body.data().await.transpose()? {
        body.flow_control().release_capacity(data.len())?;
        stream.send_data(data, false)?;
    }
    stream.send_data(Bytes::new(), true)
}

/// An origin over TLS and a proxy that trusts it.
fn pair<'w, F>(
    workspace: &'w Workspace<'w>,
    serve: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + 'static,
) -> (Proxy<'w>, Http2Origin)
where
    F: Future<Output = Result<(), h2::Error>> + Send + 'static,
{
    let authority = Authority::new(&workspace.world().directory().join(workspace.code()));
    let origin = Http2Origin::serving_tls(&authority.leaf(&["localhost"]), serve);
    (workspace.proxy("two").trusting(&authority).start(), origin)
}
