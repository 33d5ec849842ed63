//! Every kind of answer, and that none is taken for the answer to another request.

use std::sync::{Arc, Barrier};

use proxyplane_tests::{RawOrigin, Side, World};

use super::{OK, ask, expect_failed, request, text};

/// An answer that nobody asked for.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

#[test]
fn an_answer_longer_than_its_content_length_is_refused() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("long").start();
    let origin = RawOrigin::answering(format!("{OK}{POISON}"));
    let told = text(ask(&proxy, &origin, "GET", "").read_to_end());
    assert!(told.starts_with("HTTP/1.1 502 ") && !told.contains("poison"), "{told}");
    expect_failed(&proxy.exchange(), "upstream_response_refused", "Content-Length");
}

#[test]
fn what_an_origin_says_unasked_is_no_answer_to_the_next_request() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("unasked").start();
    let turn = Arc::new(Barrier::new(2));
    let turns = Arc::clone(&turn);
    let origin = RawOrigin::serving(move |peer| {
        peer.read_head()?;
        peer.send(OK)?;
        if peer.number == 0 {
            turns.wait();
            peer.send(POISON)?;
            turns.wait();
        }
        peer.read_to_end().map(drop)
    });
    let mut client = ask(&proxy, &origin, "GET", "");
    assert_eq!(text(client.read_exactly(OK.len())), OK);
    turn.wait();
    turn.wait();
    client.send(request("GET", &origin, ""));
    assert_eq!(text(client.read_exactly(OK.len())), OK);
    assert_eq!(origin.connections(), 2);
    assert!(proxy.exchanges(2).iter().all(|row| row["error"].is_null()));
}

/// What an origin answers to which request, and what a client gets; `-` where it is the same.
const ANSWERS: &[(&str, &str, &str, &str)] = &[
    (
        "GET",
        "",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        "-",
    ),
    ("GET", "", "HTTP/1.1 204 No Content\r\n\r\n", "-"),
    (
        "GET",
        "",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\nETag: \"a\"\r\n\r\n",
        "-",
    ),
    ("HEAD", "", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", "-"),
    ("HEAD", "", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "-"),
    (
        "GET",
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
        "-",
    ),
    (
        "GET",
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        "-",
    ),
    (
        "GET",
        "TE: trailers\r\nConnection: TE\r\n",
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n",
        "-",
    ),
    (
        "GET",
        "",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n1;a=b\r\na\r\n02\r\nbc\r\n000\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "GET",
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    ("GET", "", "HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", "-"),
    ("PURGE", "", "HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n", "-"),
    (
        "GET",
        "",
        "HTTP/1.1 999 \u{fc}\r\nX-Empty:\r\nx_y~|!: \ta b\t \r\nX-Empty: \r\nContent-Length: 0\r\n\r\n",
        "-",
    ),
];

#[test]
fn every_kind_of_answer_leaves_the_next_request_on_the_connection_right() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("kinds").start();
    let origin = RawOrigin::serving(|peer| {
        loop {
            let head = text(peer.read_head()?);
            if head.is_empty() {
                return Ok(());
            }
            let number = head
                .split(['/', ' '])
                .nth(2)
                .and_then(|number| number.parse::<usize>().ok());
            peer.send(number.map_or(OK, |number| ANSWERS[number].2))?;
        }
    });
    let mut client = proxy.connect();
    for (number, (method, fields, answer, expected)) in ANSWERS.iter().enumerate() {
        let expected = if *expected == "-" { answer } else { expected };
        client.send(format!(
            "{method} {} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n",
            origin.http(&format!("/{number}")),
            origin.address()
        ));
        assert_eq!(
            text(client.read_exactly(expected.len())),
            *expected,
            "{method} {answer:?}"
        );
        client.send(request("GET", &origin, ""));
        assert_eq!(text(client.read_exactly(OK.len())), OK, "after {method} {answer:?}");
    }
    assert_eq!(origin.connections(), 1);
    let rows = proxy.exchanges(2 * ANSWERS.len());
    assert!(rows.iter().all(|row| row["state"] == "complete"), "{rows:#?}");
    let detail = proxy.detail(&rows[14]);
    assert_eq!(detail["response_trailers"].as_array().map(Vec::len), Some(2));
    let hints = proxy.detail(&rows[0]);
    assert!(
        hints["informational_heads_base64"]
            .as_str()
            .is_some_and(|heads| !heads.is_empty())
    );
}

#[test]
fn bytes_behind_an_answer_without_body_are_nobodys_answer() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("bodyless").start();
    for (count, (method, head)) in (1..).zip([
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 45\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 45\r\n\r\n"),
    ]) {
        let origin = RawOrigin::serving(move |peer| {
            peer.read_head()?;
            let answer = if peer.number == 0 {
                format!("{head}{POISON}")
            } else {
                OK.to_owned()
            };
            peer.send(answer)?;
            peer.read_to_end().map(drop)
        });
        let mut client = ask(&proxy, &origin, method, "");
        assert_eq!(client.read_head(), head);
        client.send(request("GET", &origin, ""));
        assert_eq!(text(client.read_until(b"ok")), OK, "after {head:?}");
        assert_eq!(origin.connections(), 2);
        proxy.exchanges(2 * count);
    }
}

#[test]
fn expectations_end_in_one_answer_each() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("expecting").start();
    let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    let origin = RawOrigin::serving(move |peer| {
        loop {
            let head = text(peer.read_head()?);
            match head.split(['/', ' ']).nth(2) {
                None => return Ok(()),
                // A late 100: the proxy has said so itself by then.
                Some("late") => {
                    peer.read_exactly(4)?;
                    peer.send(go_on)?;
                }
                Some("now") => {
                    peer.send(go_on)?;
                    peer.read_exactly(4)?;
                }
                _ => {}
            }
            peer.send(OK)?;
        }
    });
    let mut client = proxy.connect();
    for path in ["/late", "/now"] {
        client.send(format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
            origin.http(path),
            origin.address()
        ));
        assert_eq!(client.read_head(), go_on, "{path}");
        client.send("body");
        assert_eq!(text(client.read_exactly(OK.len())), OK, "{path}");
        client.send(request("GET", &origin, ""));
        assert_eq!(text(client.read_exactly(OK.len())), OK, "after {path}");
    }
    let rows = proxy.exchanges(4);
    assert!(rows.iter().all(|row| row["error"].is_null()), "{rows:#?}");
    assert_eq!(proxy.raw_body(&rows[0], Side::Request), b"body");
}
