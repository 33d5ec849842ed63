//! Heads at their limits, bodies of every framing, odd bytes, and what goes wrong on the way.

use std::{
    fmt::Write as _,
    fs, io,
    process::Command,
    sync::{Arc, Barrier},
};

use proxyplane_tests::{
    Authority, Curl, DeafOrigin, Exchange, Peer, Proxy, RawClient, RawOrigin, Side, World, eventually,
};
use serde_json::Value;

/// Of a head, from start line to empty line.
const HEAD_BYTES: usize = 256 * 1024;
/// Of a head.
const HEAD_FIELDS: usize = 1_000;
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

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
fn a_compression_bomb_passes_unmodified_and_is_not_unpacked() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("bomb").start();
    let bomb = gzip(&vec![0; 64 * 1024 * 1024]);
    let once = origin_of("gzip", &bomb);
    let nested = origin_of("gzip, gzip, gzip, gzip", &gzip(&gzip(&gzip(&gzip(b"small")))));
    for (count, (origin, why)) in (1..).zip([(&once, "over 16 MiB"), (&nested, "three times")]) {
        let got = proxy.curl().get(&origin.http("/"));
        assert_eq!(got.status, 200);
        let row = proxy.exchanges(count).pop().unwrap();
        assert_eq!(proxy.raw_body(&row, Side::Response), got.body);
        let shown = workspace.proxyctl(["traffic", "body", row.id(), "response"]);
        assert_ne!(shown.code, 0);
        assert!(shown.stdout.is_empty());
        assert!(shown.stderr.contains(why), "{}", shown.stderr);
    }
    assert_eq!(proxy.raw_body(&proxy.exchanges(2)[0], Side::Response), bomb);
}

/// How an origin's answer ends short, and curl's exit code for it.
const CUT_OFF: [(&str, i32, &str); 5] = [
    ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", 18, "body"),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        18,
        "body",
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nshort",
        18,
        "body",
    ),
    ("HTTP/1.1 200 OK\r\nContent-Le", 0, "head"),
    ("", 0, "before"),
];

#[test]
fn an_answer_that_is_cut_off_is_an_error_to_the_client_and_a_failed_row() {
    let workspace = World::shared().workspace();
    let authority = Authority::new(&workspace.world().directory().join("cut-off"));
    let proxy = workspace.proxy("short").trusting(&authority).start();
    let leaf = authority.leaf(&["localhost"]);
    let mut count = 0;
    for (answer, code, place) in CUT_OFF {
        let plain = RawOrigin::answering_once(answer);
        let tls = RawOrigin::serving_tls(&leaf, &["http/1.1"], move |peer| {
            peer.read_head()?;
            peer.send(answer)
        });
        for url in [plain.http("/"), tls.https("/")] {
            count += 1;
            let got = proxy.curl().fetch(&url);
            assert_eq!(got.code, code, "{answer:?}: {}", got.stderr);
            assert_eq!(got.status, if code == 0 { 502 } else { 200 }, "{answer:?}");
            let row = proxy.exchanges(count).pop().unwrap();
            expect_failed(&row, "upstream_aborted", place);
            if code != 0 {
                assert_eq!(row["response_size"], 5, "{answer:?}");
                assert_eq!(proxy.raw_body(&row, Side::Response), b"short");
            }
        }
    }
}

#[test]
fn a_body_until_close_that_is_reset_is_reset_for_the_client() {
    let workspace = World::shared().workspace();
    let authority = Authority::new(&workspace.world().directory().join("reset"));
    let proxy = workspace.proxy("reset").trusting(&authority).start();
    let break_off = |peer: &mut Peer| {
        peer.read_head()?;
        peer.send("HTTP/1.1 200 OK\r\n\r\npart")?;
        // Once the client has it: a reset overtakes what is on its way.
        peer.read_exactly(1)?;
        peer.reset()
    };
    let plain = RawOrigin::serving(break_off);
    let tls = RawOrigin::serving_tls(&authority.leaf(&["localhost"]), &["http/1.1"], break_off);
    let ca = fs::read_to_string(workspace.world().ca_file()).unwrap();
    let clients = [
        proxy.connect().tunnel(&plain.address()),
        proxy
            .connect()
            .tunnel(&format!("localhost:{}", tls.port()))
            .into_tls("localhost", &ca, &["http/1.1"]),
    ];
    for mut client in clients {
        client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n");
        client.read_until(b"part");
        client.send("x");
        assert!(client.is_reset(), "a close in order is the end of such a body");
    }
    for row in proxy.exchanges(2) {
        expect_failed(&row, "upstream_aborted", "");
        assert_eq!(row["response_size"], 4);
    }
}

#[test]
fn tls_that_ends_without_close_notify_ends_so_for_the_client() {
    let workspace = World::shared().workspace();
    let authority = Authority::new(&workspace.world().directory().join("hung-up"));
    let proxy = workspace.proxy("hung-up").trusting(&authority).start();
    let origin = RawOrigin::serving_tls(&authority.leaf(&["localhost"]), &["http/1.1"], |peer| {
        peer.read_head()?;
        peer.send("HTTP/1.1 200 OK\r\n\r\npart")?;
        peer.hang_up()
    });
    // Some clients make do with it; what they do must not depend on us.
    let direct = Curl::direct().trusting(&authority.file()).fetch(&origin.https("/"));
    let carried = proxy.curl().fetch(&origin.https("/"));
    assert_eq!(
        (carried.code, carried.body),
        (direct.code, direct.body),
        "{}",
        carried.stderr
    );
    let ca = fs::read_to_string(workspace.world().ca_file()).unwrap();
    let mut client = proxy
        .connect()
        .tunnel(&format!("localhost:{}", origin.port()))
        .into_tls("localhost", &ca, &["http/1.1"]);
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.read_until(b"part");
    assert!(!client.ends_in_order(), "close_notify says that this was all");
    for row in proxy.exchanges(2) {
        expect_failed(&row, "upstream_aborted", "");
    }
}

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

#[test]
fn a_request_that_is_cut_off_never_ends_for_the_origin() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("uploads").start();
    let origin = RawOrigin::serving(|peer| peer.read_to_end().map(drop));
    let bodies = [
        "Content-Length: 9\r\n\r\nshort",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
    ];
    for (count, body) in (1..).zip(bodies) {
        let mut client = proxy.connect();
        client.send(format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\n{body}",
            origin.http("/"),
            origin.address()
        ));
        eventually("the origin gets what there is", || {
            origin
                .received()
                .get(count - 1)?
                .windows(5)
                .any(|window| window == b"short")
                .then_some(())
        });
        client.finish();
        let row = proxy.exchanges(count).pop().unwrap();
        expect_failed(&row, "client_aborted", "body");
        assert_eq!(row["request_size"], 5);
        let got = text(origin.received().remove(count - 1));
        assert!(got.ends_with(body), "{got:?}");
    }
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

#[test]
fn a_name_that_nobody_knows_is_a_502_and_a_row() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("unknown").start();
    assert_eq!(proxy.curl().get("http://no-such-host.invalid/").status, 502);
    assert_ne!(proxy.curl().fetch("https://no-such-host.invalid/").code, 0);
    for row in proxy.exchanges(2) {
        expect_failed(&row, "dns_failed", "resolved");
        assert_eq!(row["host"], "no-such-host.invalid");
    }
}

#[test]
fn a_client_that_vanishes_is_a_row_wherever_it_was() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("vanishing").start();
    let silent = RawOrigin::serving(|peer| peer.read_to_end().map(drop));
    let talking = RawOrigin::serving(|peer| {
        peer.read_head()?;
        peer.send("HTTP/1.1 200 OK\r\n\r\n")?;
        loop {
            peer.send("x".repeat(64 * 1024))?;
        }
    });
    let mut count = 0;
    let mut expect_row = |place: &str, check: fn(&Exchange) -> bool| {
        count += 1;
        let row = proxy.exchanges(count).pop().unwrap();
        expect_failed(&row, "client_aborted", "");
        assert!(check(&row), "{place}: {row:?}");
    };

    let mut client = proxy.connect();
    client.send("GET http://h/ HTTP/1.1\r\nHo");
    client.vanish();
    expect_row("inside of the head", |row| row["status"].is_null());

    let client = ask(&proxy, &silent, "POST", "Content-Length: 10\r\n");
    silent.gets(b"Content-Length: 10\r\n\r\n");
    client.vanish();
    expect_row("before the body", |row| row["status"].is_null());

    let client = ask(&proxy, &silent, "GET", "X-Waiting: yes\r\n");
    silent.gets(b"X-Waiting: yes\r\n\r\n");
    client.vanish();
    expect_row("before the answer", |row| row["status"].is_null());

    let mut client = ask(&proxy, &talking, "GET", "");
    client.read_exactly(100_000);
    client.vanish();
    expect_row("inside of the answer", |row| {
        row["status"] == 200 && row["response_size"].as_u64() >= Some(99_000)
    });
    silent.has_served_all();
    talking.has_served_all();
}

#[test]
fn a_client_that_vanishes_while_its_origin_is_dialled_is_noticed() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("dialling").start();
    let deaf = DeafOrigin::start();
    let asks = [
        format!("GET http://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", deaf.address()),
        format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", deaf.address()),
    ];
    for (count, ask) in (1..).zip(asks) {
        let mut client = proxy.connect();
        client.send(ask);
        deaf.is_dialled();
        client.vanish();
        let row = proxy.exchanges(count).pop().unwrap();
        expect_failed(&row, "client_aborted", "");
        assert!(row["duration_us"].as_u64() < Some(5_000_000), "{row:?}");
    }
}

#[test]
fn a_connection_that_its_origin_closes_is_not_used_again() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("closing").start();
    let said = RawOrigin::answering_once("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let unsaid = RawOrigin::answering_once(OK);
    let old = RawOrigin::answering_once("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut client = proxy.connect();
    for origin in [&said, &unsaid] {
        for _ in 0..2 {
            client.send(request("GET", origin, ""));
            assert_eq!(text(client.read_until(b"\r\n\r\nok")), OK);
        }
        assert_eq!(origin.connections(), 2);
    }
    client.send(request("GET", &old, ""));
    client.read_until(b"\r\n\r\nok");
    assert!(client.is_closed(), "HTTP/1.0 ends its connections");
    assert!(proxy.exchanges(5).iter().all(|row| row["error"].is_null()));
}

#[test]
fn requests_sent_together_by_a_client_that_then_ends_are_all_answered() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("pipelined").start();
    let origin = RawOrigin::serving(|peer| {
        while !peer.read_head()?.is_empty() {
            peer.send(OK)?;
        }
        Ok(())
    });
    let mut client = proxy.connect();
    client.send(request("GET", &origin, "").repeat(3)).finish();
    assert_eq!(text(client.read_to_end()), OK.repeat(3));
    assert_eq!(proxy.exchanges(3).len(), 3);
}

#[test]
fn a_request_that_leads_back_is_a_508_in_every_spelling() {
    let workspace = World::shared().workspace();
    let narrow = workspace.proxy("narrow").start();
    let wide = workspace.proxy("wide").with(["--host", "0.0.0.0"]).start();
    let api: u16 = workspace.world().listen().rsplit(':').next().unwrap().parse().unwrap();
    let usual = [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0.0.0.0",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
    ];
    let every_way_in = [&usual[..], &["127.0.0.2", "127.255.255.254"]].concat();
    for (proxy, port, hosts) in [
        (&narrow, narrow.port(), &usual[..]),
        (&wide, wide.port(), &every_way_in),
        (&narrow, api, &usual),
    ] {
        let before = proxy.drained()["stored"].as_u64().unwrap() as usize;
        for host in hosts {
            let target = format!("{host}:{port}");
            let mut client = proxy.connect();
            client.send(format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n"));
            assert!(client.read_head().starts_with("HTTP/1.1 508 "), "{target}");
            let mut client = proxy.connect();
            client.send(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"));
            assert!(client.read_head().starts_with("HTTP/1.1 508 "), "CONNECT {target}");
        }
        let rows = proxy.exchanges(before + 2 * hosts.len()).split_off(before);
        assert!(
            rows.iter()
                .all(|row| row["error"] == "loop_detected" && row["status"] == 508),
            "{rows:#?}"
        );
    }
}

#[test]
fn bodies_are_captured_up_to_the_limit_and_counted_to_their_end() {
    let workspace = World::shared().workspace();
    for (name, limit) in [("limited", 100_000_usize), ("uncaptured", 0)] {
        let proxy = workspace
            .proxy(name)
            .with(["--capture-limit", &limit.to_string()])
            .start();
        let sizes = [0, limit.saturating_sub(1), limit, limit + 1, 3 * limit + 70_000];
        for (count, size) in (1..).zip(sizes) {
            let body = pattern(size);
            let origin = echo();
            let file = workspace.world().directory().join(format!("{name}-{size}"));
            fs::write(&file, &body).unwrap();
            let upload = ["--data-binary", &format!("@{}", file.display()), "-H", "Expect:"];
            assert_eq!(proxy.curl().with(upload).get(&origin.http("/")).body, body);
            let row = proxy.exchanges(count).pop().unwrap();
            let kept = size.min(limit);
            for (side, word) in [(Side::Request, "request"), (Side::Response, "response")] {
                let field = |field: &str| row[format!("{word}_{field}")].clone();
                assert_eq!(
                    (field("size"), field("captured")),
                    (size.into(), kept.into()),
                    "{word} of {size}"
                );
                assert_eq!(field("truncated"), Value::from(kept < size), "{word} of {size}");
                assert_eq!(proxy.raw_body(&row, side), body[..kept], "{word} of {size}");
            }
            assert_eq!(row["truncated"], kept < size);
        }
    }
}

#[test]
fn a_chunked_body_larger_than_a_record_is_stored_without_its_framing() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("chunked").start();
    let body = pattern(1_000_000);
    let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for (number, piece) in body.chunks(7_777).enumerate() {
        let extension = if number % 2 == 0 { "" } else { ";n=1" };
        answer.extend_from_slice(format!("{:x}{extension}\r\n", piece.len()).as_bytes());
        answer.extend_from_slice(piece);
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"0\r\n\r\n");
    let origin = RawOrigin::answering(answer);
    assert_eq!(proxy.curl().get(&origin.http("/")).body, body);
    let row = proxy.exchange();
    assert_eq!(
        (&row["response_size"], &row["truncated"]),
        (&1_000_000.into(), &false.into())
    );
    assert_eq!(proxy.raw_body(&row, Side::Response), body);
}

#[test]
fn an_answer_that_does_not_wait_for_the_request_reaches_the_client() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("early").start();
    let origin = RawOrigin::serving(|peer| {
        peer.read_head()?;
        peer.read_exactly(100_000)?;
        peer.send("HTTP/1.1 413 Payload Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno\n")
    });
    let file = workspace.world().directory().join("early");
    fs::write(&file, pattern(20_000_000)).unwrap();
    let upload = ["--upload-file", file.to_str().unwrap(), "-H", "Expect:"];
    let got = proxy.curl().with(upload).fetch(&origin.http("/"));
    assert_eq!((got.status, got.text().as_str()), (413, "no\n"), "{}", got.stderr);
    let row = proxy.exchange();
    assert_eq!(row["status"], 413);
    assert_eq!(row["flags"], serde_json::json!(["early_response"]));
}

#[test]
fn it_does_not_matter_into_which_pieces_a_message_is_cut() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("pieces").start();
    let origin = RawOrigin::serving(|peer| {
        let mut dice = Dice(0x5eed);
        while let Some((chunked, body)) = read_message(peer)? {
            let answer = message("HTTP/1.1 200 OK\r\n", !chunked, &body, &mut dice);
            for piece in dice.pieces(&answer) {
                peer.send(piece)?;
            }
        }
        Ok(())
    });
    let mut dice = Dice(0xd1ce);
    let mut client = proxy.connect();
    let mut sent = Vec::new();
    for number in 0..60 {
        let body = pattern(dice.up_to([10, 1_000, 20_000, 300_000][number % 4]));
        let chunked = dice.up_to(2) == 0;
        let start = format!("POST {} HTTP/1.1\r\nHost: {}\r\n", origin.http("/"), origin.address());
        for piece in dice.pieces(&message(&start, chunked, &body, &mut Dice(number as u64 + 1))) {
            client.send(piece);
        }
        let head = client.read_head();
        let got = if chunked {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            client.read_exactly(length.unwrap().parse().unwrap())
        } else {
            read_chunks(|mark| Ok(client.read_until(mark))).unwrap()
        };
        assert!(
            got == body,
            "request {number} of {} bytes came back as {}",
            body.len(),
            got.len()
        );
        sent.push(body);
    }
    let rows = proxy.exchanges(sent.len());
    for (row, body) in rows.iter().zip(&sent) {
        assert_eq!(
            (&row["request_size"], &row["response_size"]),
            (&body.len().into(), &body.len().into())
        );
    }
    for at in [2, 3, 30, 31] {
        assert!(proxy.raw_body(&rows[at], Side::Request) == sent[at]);
        assert!(proxy.raw_body(&rows[at], Side::Response) == sent[at]);
    }
}

/// A message with this body, in chunks of any size if it is `chunked`.
fn message(start: &str, chunked: bool, body: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut message = start.as_bytes().to_vec();
    if !chunked {
        write_length(&mut message, body.len());
        message.extend_from_slice(body);
        return message;
    }
    message.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    for chunk in dice.pieces(body) {
        message.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        message.extend_from_slice(chunk);
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b"0\r\n\r\n");
    message
}

/// The next message that an origin gets: was its body in chunks, and the body.
fn read_message(peer: &mut Peer) -> io::Result<Option<(bool, Vec<u8>)>> {
    let head = text(peer.read_head()?);
    if head.is_empty() {
        return Ok(None);
    }
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    match length.and_then(|length| length.parse().ok()) {
        Some(length) => Ok(Some((false, peer.read_exactly(length)?))),
        None => Ok(Some((true, read_chunks(|mark| peer.read_until(mark))?))),
    }
}

/// A chunked body, of which every chunk is read up to the CRLF behind it.
fn read_chunks(mut read_until: impl FnMut(&[u8]) -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = text(read_until(b"\r\n")?);
        let size = usize::from_str_radix(size.trim_end(), 16).map_err(io::Error::other)?;
        let mut chunk = Vec::new();
        while chunk.len() < size + 2 {
            chunk.extend(read_until(b"\r\n")?);
        }
        chunk.truncate(size);
        body.extend(chunk);
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Numbers that are the same in every run (xorshift64).
struct Dice(u64);

impl Dice {
    fn up_to(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    /// Cuts `bytes` into at most some dozens of pieces, small ones among them.
    fn pieces<'b>(&mut self, bytes: &'b [u8]) -> Vec<&'b [u8]> {
        let mut rest = bytes;
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let most = [3, 200, 9_000, bytes.len()][self.up_to(4)];
            let (piece, after) = rest.split_at((1 + self.up_to(most)).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces
    }
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

/// A request to the proxy.
fn request(method: &str, origin: &RawOrigin, fields: &str) -> String {
    format!(
        "{method} {} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n",
        origin.http("/"),
        origin.address()
    )
}

/// A client that sent one.
fn ask(proxy: &Proxy<'_>, origin: &RawOrigin, method: &str, fields: &str) -> RawClient {
    let mut client = proxy.connect();
    client.send(request(method, origin, fields));
    client
}

/// Answers every request with a body in this encoding.
fn origin_of(encoding: &str, body: &[u8]) -> RawOrigin {
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\n").into_bytes();
    write_length(&mut answer, body.len());
    answer.extend_from_slice(body);
    RawOrigin::answering(answer)
}

/// Answers with the body it got.
fn echo() -> RawOrigin {
    RawOrigin::serving(|peer| {
        let head = text(peer.read_head()?);
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let body = peer.read_exactly(length.and_then(|length| length.parse().ok()).unwrap_or_default())?;
        let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
        write_length(&mut answer, body.len());
        peer.send([answer, body].concat())
    })
}

/// The last field of a head, and its end.
fn write_length(head: &mut Vec<u8>, length: usize) {
    head.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
}

/// Through gzip, as hard as it can.
fn gzip(data: &[u8]) -> Vec<u8> {
    use std::{
        io::{Read as _, Write as _},
        process::Stdio,
    };
    let mut gzip = Command::new("gzip")
        .args(["-9", "--no-name", "--stdout"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("gzip can be started");
    let (mut input, mut output) = (gzip.stdin.take().unwrap(), gzip.stdout.take().unwrap());
    let mut packed = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(data).unwrap());
        output.read_to_end(&mut packed).unwrap();
    });
    assert!(gzip.wait().unwrap().success());
    packed
}

#[track_caller]
fn expect_failed(row: &Exchange, code: &str, words: &str) {
    assert_eq!(
        (&row["state"], &row["error"]),
        (&"failed".into(), &code.into()),
        "{row:#?}"
    );
    assert!(row["error_detail"].as_str().unwrap().contains(words), "{row:#?}");
}

fn text(bytes: impl AsRef<[u8]>) -> String {
    String::from_utf8_lossy(bytes.as_ref()).into_owned()
}

/// Bytes that no part of the way can confuse with a repetition.
fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}
