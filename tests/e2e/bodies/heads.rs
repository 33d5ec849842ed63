//! Heads at their limits, and odd bytes in them.

use std::fmt::Write as _;

use proxyplane_tests::{RawOrigin, Side, World};
use serde_json::Value;

use super::{OK, ask, text, write_length};

/// Of a head, from start line to empty line.
const HEAD_BYTES: usize = 256 * 1024;
/// Of a head.
const HEAD_FIELDS: usize = 1_000;

#[test]
fn a_request_head_passes_up_to_the_limits_and_is_431_over_them() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("requests").start();
    let origin = RawOrigin::answering(OK);
    let start = format!("GET {} HTTP/1.1\r\nHost: {}\r\n", origin.http("/"), origin.address());
    let passing = [padded(&start, HEAD_BYTES), with_fields(&start, 1, HEAD_FIELDS)];
    for (count, head) in (1..).zip(&passing) {
        let mut client = proxy.connect();
        client.send(head);
        client.read_until(OK.as_bytes());
        origin.gets(head.replace(&origin.http("/"), "/").as_bytes());
        let row = proxy.exchanges(count).pop().unwrap();
        assert_eq!(row["error"], Value::Null);
        assert_eq!(proxy.head(&row, Side::Request), head.as_bytes());
    }
    let refused = [
        (padded(&start, HEAD_BYTES + 1), "head_too_large"),
        (with_fields(&start, 1, HEAD_FIELDS + 1), "too_many_fields"),
    ];
    for (count, (head, code)) in (3..).zip(&refused) {
        let mut client = proxy.connect();
        client.send(head);
        let answer = text(client.read_to_end());
        assert!(answer.starts_with("HTTP/1.1 431 ") && answer.contains(code), "{answer}");
        let row = proxy.exchanges(count).pop().unwrap();
        assert_eq!(
            (&row["status"], &row["error"]),
            (&431.into(), &"request_head_too_large".into())
        );
        assert!(row["error_detail"].as_str().unwrap().starts_with(code), "{row:?}");
    }
    assert_eq!(origin.connections(), passing.len());
}

#[test]
fn an_answers_head_passes_up_to_the_limits_and_is_502_over_them() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("answers").start();
    let start = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n";
    let passing = [padded(start, HEAD_BYTES), with_fields(start, 1, HEAD_FIELDS)];
    for (count, head) in (1..).zip(&passing) {
        let origin = RawOrigin::answering(format!("{head}ok"));
        let mut client = ask(&proxy, &origin, "GET", "");
        assert_eq!(client.read_exactly(head.len() + 2), format!("{head}ok").as_bytes());
        let row = proxy.exchanges(count).pop().unwrap();
        assert_eq!((&row["status"], &row["error"]), (&200.into(), &Value::Null));
        assert_eq!(proxy.head(&row, Side::Response), head.as_bytes());
    }
    let refused = [
        (padded(start, HEAD_BYTES + 1), "head_too_large"),
        (with_fields(start, 1, HEAD_FIELDS + 1), "too_many_fields"),
    ];
    for (count, (head, code)) in (3..).zip(&refused) {
        let origin = RawOrigin::answering(format!("{head}ok"));
        let answer = text(ask(&proxy, &origin, "GET", "").read_to_end());
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains(code), "{answer}");
        let row = proxy.exchanges(count).pop().unwrap();
        assert_eq!(
            (&row["status"], &row["error"]),
            (&502.into(), &"upstream_head_too_large".into())
        );
    }
}

#[test]
fn odd_bytes_are_stored_as_they_came_and_shown_escaped() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("odd").start();
    let body: Vec<u8> = (0..=255).chain(*b"\0\xff\xfe\r\n\r\n\0").collect();
    let mut answer = b"HTTP/1.1 200 \xff\xfe\r\nX-Odd: \xc3\x28\xe4\x80\r\nContent-Type: text/\xff\r\n".to_vec();
    write_length(&mut answer, body.len());
    let answered_head = answer.clone();
    answer.extend_from_slice(&body);
    let origin = RawOrigin::serving(move |peer| {
        peer.read_until(b"\0\xff\xfe\r\n\r\n\0")?;
        peer.send(&answer)
    });
    let mut head = b"POST http://".to_vec();
    head.extend_from_slice(origin.address().as_bytes());
    head.extend_from_slice(b"/\xff\xfe%00\xc3\x28?\x80=\xff HTTP/1.1\r\nHost: ");
    head.extend_from_slice(origin.address().as_bytes());
    head.extend_from_slice(b"\r\nCookie: \xe4\xf6=\x80\r\n");
    write_length(&mut head, body.len());
    let mut client = proxy.connect();
    client.send([&head[..], &body[..]].concat());
    client.read_until(&body);

    let row = proxy.exchange();
    assert_eq!(proxy.head(&row, Side::Request), head);
    assert_eq!(proxy.head(&row, Side::Response), answered_head);
    assert_eq!(proxy.raw_body(&row, Side::Request), body);
    assert_eq!(proxy.raw_body(&row, Side::Response), body);
    assert_eq!(row["path"], r"/\xff\xfe%00\xc3(");
    let shown = workspace.proxyctl(["traffic", "get", row.id()]).ok();
    assert!(std::str::from_utf8(&shown.stdout).is_ok_and(|text| !text.contains(|c: char| c.is_control() && c != '\n')));
}

#[test]
fn a_refused_head_with_nul_is_stored_as_it_came() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("nul").start();
    let head = b"GET http://h/\0\xff HTTP/1.1\r\nHost: h\0\r\n\r\n";
    let mut client = proxy.connect();
    client.send(head);
    assert!(client.read_head().starts_with("HTTP/1.1 400 "));
    let row = proxy.exchange();
    assert_eq!(row["error"], "request_refused");
    assert_eq!(proxy.head(&row, Side::Request), head);
}

#[test]
fn a_url_of_8_kib_is_carried_and_stored_whole() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("lengthy").start();
    let origin = RawOrigin::answering(OK);
    let (path, query) = (format!("/{}", "p".repeat(4_095)), "q".repeat(4_095));
    let url = origin.http(&format!("{path}?{query}"));
    assert_eq!(proxy.curl().get(&url).text(), "ok");
    origin.gets(format!("GET {path}?{query} HTTP/1.1\r\n").as_bytes());
    let row = proxy.exchange();
    assert_eq!(
        (&row["path"], &row["query"], &row["url"]),
        (&path.into(), &query.into(), &url.into())
    );
}

/// A head of exactly `bytes`.
fn padded(start: &str, bytes: usize) -> String {
    let around = "Cookie: \r\n\r\n".len();
    format!("{start}Cookie: {}\r\n\r\n", "c".repeat(bytes - start.len() - around))
}

/// A head of exactly `fields`, of which `start` has some.
fn with_fields(start: &str, some: usize, fields: usize) -> String {
    let mut head = start.to_owned();
    for number in some..fields {
        let _ = write!(head, "X-{number}: {number}\r\n");
    }
    head + "\r\n"
}
