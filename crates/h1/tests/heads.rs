//! What goes in and what comes out: parsing and serialising whole heads.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use bytes::Bytes;
use proptest::prelude::*;
use proxyplane_h1::{Form, Framing, Hop, Known, Limits, Refusal, RequestHead, ResponseHead, Scanner, Scheme};

fn request(text: &str) -> RequestHead {
    RequestHead::parse(Bytes::copy_from_slice(text.as_bytes()), Limits::CAPTURE).unwrap()
}

fn response(text: &str) -> ResponseHead {
    ResponseHead::parse(Bytes::copy_from_slice(text.as_bytes()), Limits::CAPTURE).unwrap()
}

fn forwarded(text: &str) -> String {
    let mut out = Vec::new();
    request(text).write_to(&mut out, Hop::Proxy);
    String::from_utf8(out).unwrap()
}

fn answered(text: &str, closing: bool) -> String {
    let mut out = Vec::new();
    response(text).write_to(&mut out, Hop::Proxy, closing);
    String::from_utf8(out).unwrap()
}

#[test]
fn an_absolute_target_becomes_origin_form_byte_for_byte() {
    for (target, origin) in [
        ("http://h/a%20<b>?q=<c>", "/a%20<b>?q=<c>"),
        ("http://h", "/"),
        ("http://h?x", "/?x"),
        ("HTTP://h/", "/"),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(forwarded(&head), format!("GET {origin} HTTP/1.1\r\nHost: h\r\n\r\n"));
    }
    assert_eq!(
        forwarded("OPTIONS http://h HTTP/1.1\r\nHost: h\r\n\r\n"),
        "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"
    );
}

#[test]
fn targets_are_taken_apart() {
    let head = request("GET https://h:8443/p?q?r HTTP/1.1\r\nHost: h:8443\r\n\r\n");
    assert!(matches!(
        head.form(),
        Form::Absolute {
            scheme: Scheme::Https,
            ..
        }
    ));
    assert_eq!(head.authority().unwrap().port, Some(8443));
    assert_eq!(head.path_and_query(), (Bytes::from("/p"), Some(Bytes::from("q?r"))));
    let bare = request("GET http://h?q HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(bare.path_and_query(), (Bytes::from("/"), Some(Bytes::from("q"))));
    let connect = request("CONNECT [::1]:443 HTTP/1.1\r\n\r\n");
    assert_eq!(
        (connect.authority().unwrap().host, connect.form()),
        (&b"::1"[..], &Form::Authority)
    );
}

#[test]
fn hop_by_hop_fields_stay_on_their_hop() {
    let head = "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, X-Hop, Host, X-Forwarded-For, Authorization\r\n\
        X-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\n\
        TE: trailers, deflate\r\nX-Forwarded-For: 1.2.3.4\r\nAuthorization: y\r\nUpgrade: websocket\r\nx-END: 2\r\n\r\n";
    let expected =
        "GET / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nX-Forwarded-For: 1.2.3.4\r\nAuthorization: y\r\nx-END: 2\r\n\r\n";
    assert_eq!(forwarded(head), expected);
}

#[test]
fn in_a_tunnel_what_is_said_to_proxies_passes() {
    let asking = "HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n";
    let told = "GET / HTTP/1.1\r\nHost: h\r\nProxy-Authorization: Basic x\r\n\r\n";
    let mut out = Vec::new();
    response(asking).write_to(&mut out, Hop::Tunnel, false);
    request(told).write_to(&mut out, Hop::Tunnel);
    assert_eq!(String::from_utf8(out).unwrap(), [asking, told].concat());
    assert!(!answered(asking, false).contains("Proxy-Auth"));
}

#[test]
fn what_is_no_http_is_refused_as_that() {
    for text in ["SSH-2.0-x\r\n\r\n", "220 mail\r\nno field\r\n\r\n", "\x16\x03\r\n\r\n"] {
        let refused = ResponseHead::parse(Bytes::from(text), Limits::CAPTURE).unwrap_err();
        assert_eq!(refused, Refusal::InvalidStatusLine, "{text:?}");
    }
}

#[test]
fn an_upgrade_is_carried_and_h2c_is_not() {
    let websocket = "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, upgrade\r\nUpgrade: WebSocket\r\n\r\n";
    assert_eq!(
        forwarded(websocket),
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
    );
    let h2c = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\r\n";
    assert_eq!(forwarded(h2c), "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let switched = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    assert_eq!(answered(switched, false), switched);
    // There is nothing of HTTP left to close.
    assert_eq!(answered(switched, true), switched);
}

#[test]
fn chunked_is_made_anew() {
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTRANSFER-encoding:\t Chunked\r\n\r\n";
    assert_eq!(
        forwarded(head),
        "POST / HTTP/1.1\r\nHost: h\r\nTRANSFER-encoding: chunked\r\n\r\n"
    );
}

#[test]
fn a_closing_response_says_so_once() {
    assert_eq!(
        answered("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", true),
        "HTTP/1.1 200 OK\r\nA: b\r\nConnection: close\r\n\r\n"
    );
    let closing = "HTTP/1.1 200 OK\r\nconnection: close\r\nA: b\r\n\r\n";
    assert_eq!(answered(closing, true), closing);
    assert_eq!(answered(closing, false), "HTTP/1.1 200 OK\r\nA: b\r\n\r\n");
    let alive = "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nconnection: x\r\nX: 1\r\n\r\n";
    assert_eq!(answered(alive, true), "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
}

#[test]
fn status_lines_come_out_as_they_came() {
    for line in [
        "HTTP/1.1 200 OK",
        "HTTP/1.0 404 ",
        "HTTP/1.1 204",
        "HTTP/1.1 999 Odd  reason\t\u{fc}",
    ] {
        let head = format!("{line}\r\n\r\n");
        assert_eq!(answered(&head, false), head);
    }
    for line in [
        "HTTP/1.1  200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000",
        "HTTP/1.1 099 x",
        "ICY 200 OK",
        "HTTP/2 200",
        "HTTP/1.1 200OK",
    ] {
        assert!(
            ResponseHead::parse(Bytes::from(format!("{line}\r\n\r\n")), Limits::CAPTURE).is_err(),
            "{line}"
        );
    }
}

#[test]
fn response_bodies_are_framed_by_method_and_status() {
    for (head, method, framing) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", "GET", Framing::Length(5)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", "HEAD", Framing::None),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n",
            "GET",
            Framing::None,
        ),
        (
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n",
            "GET",
            Framing::None,
        ),
        ("HTTP/1.1 103 Early Hints\r\n", "GET", Framing::None),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n",
            "GET",
            Framing::Chunked,
        ),
        ("HTTP/1.1 200 OK\r\n", "GET", Framing::UntilClose),
        ("HTTP/1.0 200 OK\r\n", "POST", Framing::UntilClose),
    ] {
        assert_eq!(
            response(&format!("{head}\r\n")).framing(method.as_bytes()),
            framing,
            "{head:?} {method}"
        );
    }
}

fn field() -> impl Strategy<Value = String> {
    "[A-Za-z!#$%&'*+.^_`|~0-9-]{1,12}:[ \t]{0,2}([!-~\u{a0}-\u{ff}][ -~]{0,20})?[ \t]{0,2}\r\n"
}

proptest! {
    #[test]
    fn end_to_end_fields_come_out_as_they_went_in(fields in proptest::collection::vec(field(), 0..12), path in "/[!-~]{0,30}") {
        let head = format!("GET {path} HTTP/1.1\r\nHost: h\r\n{}\r\n", fields.concat());
        let parsed = request(&head);
        prop_assume!(parsed.head().fields().all(|f| matches!(f.known, Known::Other | Known::Host)));
        prop_assert_eq!(forwarded(&head), head);
        let status = format!("HTTP/1.1 200 OK\r\n{}\r\n", fields.concat());
        prop_assert_eq!(answered(&status, false), status);
    }

    #[test]
    fn what_is_forwarded_parses_to_itself(text in "(GET|POST) (/|http://h/)[!-~]{0,9} HTTP/1\\.[01]\r\nHost: h\r\n((Connection|Upgrade|TE|X-A|Content-Length|Transfer-Encoding): ?[a-zA-Z0-9, ]{0,12}\r\n){0,4}\r\n") {
        if let Ok(parsed) = RequestHead::parse(Bytes::from(text), Limits::CAPTURE) {
            let mut once = Vec::new();
            parsed.write_to(&mut once, Hop::Proxy);
            let again = RequestHead::parse(Bytes::from(once.clone()), Limits::CAPTURE).unwrap();
            prop_assert_eq!(again.framing(), parsed.framing());
            let mut twice = Vec::new();
            again.write_to(&mut twice, Hop::Proxy);
            prop_assert_eq!(once, twice);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_taken_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Scanner::request(Limits::CAPTURE).find(&bytes);
        let _ = RequestHead::parse(Bytes::from(bytes.clone()), Limits::CAPTURE);
        let _ = ResponseHead::parse(Bytes::from(bytes), Limits::CAPTURE);
    }

    #[test]
    fn likely_bytes_are_refused_or_taken_without_panic(text in "(GET|CONNECT|HTTP/1\\.1|\\*|/| |200|h|:|\r\n|\r|\n|Host: h|[a-z]:|\\PC){0,16}(\r\n\r\n)?") {
        let _ = Scanner::request(Limits::CAPTURE).find(text.as_bytes());
        let _ = RequestHead::parse(Bytes::from(text.clone()), Limits::CAPTURE);
        let _ = ResponseHead::parse(Bytes::from(text), Limits::CAPTURE);
    }
}
