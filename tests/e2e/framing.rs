//! Messages with more than one meaning: nothing of them goes further, the sender is told, one row says why.

use std::collections::HashMap;

use proxyplane_tests::{Exchange, RawClient, RawOrigin, RawRequest, World, eventually, nginx};

/// A request that is in order, to the origin that the table's requests are for.
const GOOD: &str = "GET /good HTTP/1.1\r\nHost: h\r\n\r\n";
/// What an attacker hides behind a request with two ends.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_refused_request_never_opens_a_connection_to_an_origin() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("front").start();
    let origin = RawOrigin::answering(OK);
    let mut asked = Vec::new();
    for request in RawRequest::refused() {
        let mut client = proxy.connect();
        client.send(request.absolute(&origin.address()));
        asked.push((client.address(), request.name, request.verdict));
        expect_400(&mut client, &request);
    }
    assert_eq!(origin.connections(), 0, "the origin got {:?}", origin.received());
    let about = ["--host", "127.0.0.1", "--proxy", proxy.id()];
    proxy.exchanges(asked.len());
    let found = workspace.proxyctl([&["-o", "json", "traffic", "list", "-n", "0"][..], &about].concat());
    assert!(
        found.json().as_array().unwrap().len() > 40,
        "rows have the host that was asked for"
    );
    let rows = proxy.exchanges(asked.len());
    let rows: HashMap<_, _> = rows.iter().map(|row| (row["client"].as_str().unwrap(), row)).collect();
    for (client, name, code) in asked {
        expect_refused(rows[client.as_str()], name, code);
    }
}

#[test]
fn a_refused_request_sends_nothing_down_a_connection_that_is_open() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("kept").start();
    let origin = RawOrigin::answering(OK);
    let mut asked = Vec::new();
    for request in RawRequest::refused() {
        let mut client = proxy.connect().tunnel(&origin.address());
        client.send(GOOD);
        client.read_until(OK.as_bytes());
        client.send([&request.bytes, SMUGGLED.as_bytes()].concat());
        asked.push((client.address(), request.name, request.verdict));
        expect_400(&mut client, &request);
    }
    let received = origin.received();
    assert_eq!(received.len(), asked.len());
    for (bytes, (_, name, _)) in received.iter().zip(&asked) {
        assert_eq!(String::from_utf8_lossy(bytes), GOOD, "{name}");
    }
    let rows = by_client(proxy.exchanges(2 * asked.len()));
    for (client, name, code) in asked {
        let [good, refused] = &rows[&client][..] else {
            panic!("{name}: {:?}", rows[&client])
        };
        assert_eq!((&good["path"], &good["error"]), (&"/good".into(), &().into()), "{name}");
        expect_refused(refused, name, code);
    }
}

#[test]
fn a_refused_request_inside_of_tls_sends_nothing_either() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("inside").trusting_nginx().start();
    let origin = format!("localhost:{}", nginx().tls_port());
    let ca = std::fs::read_to_string(workspace.world().ca_file()).unwrap();
    let before = nginx().accesses().len();
    let refused = RawRequest::refused();
    for request in &refused {
        let mut client = proxy
            .connect()
            .tunnel(&origin)
            .into_tls("localhost", &ca, &["http/1.1"]);
        client.send(&request.bytes);
        expect_400(&mut client, request);
    }
    let rows = proxy.exchanges(refused.len());
    for request in &refused {
        let why = format!("{}: ", request.verdict);
        let is_it = |row: &&Exchange| {
            row["error_detail"]
                .as_str()
                .is_some_and(|detail| detail.starts_with(&why))
        };
        let row = rows.iter().find(is_it).unwrap_or_else(|| panic!("no row says {why}"));
        assert_eq!(row["scheme"], "https");
    }
    let logged = nginx().accesses().split_off(before);
    assert!(!logged.iter().any(|line| line.contains("smuggled")), "{logged:#?}");
}

#[test]
fn a_body_that_breaks_its_framing_ends_before_the_fault() {
    let long_extension = format!("1;{}\r\na\r\n", "x".repeat(20_000));
    let many_trailers = format!("0\r\n{}\r\n", "T: u\r\n".repeat(1_001));
    let bodies: &[(&str, &str)] = &[
        ("x\r\nabc\r\n", "invalid_chunk_size"),
        ("\r\nabc\r\n", "invalid_chunk_size"),
        ("-3\r\nabc\r\n", "invalid_chunk_size"),
        ("+3\r\nabc\r\n", "invalid_chunk_size"),
        ("0x3\r\nabc\r\n", "invalid_chunk_size"),
        (" 3\r\nabc\r\n", "invalid_chunk_size"),
        ("3\nabc\r\n", "invalid_chunk_size"),
        ("3\r\rabc\r\n", "invalid_chunk_size"),
        ("10000000000000003\r\nabc\r\n", "invalid_chunk_size"),
        ("3;a\nb\r\nabc\r\n", "invalid_chunk_size"),
        ("3;a\rb\r\nabc\r\n", "invalid_chunk_size"),
        ("3\r\nabcd\r\n", "invalid_chunk_end"),
        ("3\r\nabc\n", "invalid_chunk_end"),
        ("3\r\nabc0\r\n\r\n", "invalid_chunk_end"),
        ("0\r\nA: b\nC: d\r\n\r\n", "bare_lf"),
        ("0\r\nA: b\r\n c\r\n\r\n", "obs_fold"),
        ("0\r\nA : b\r\n\r\n", "space_before_colon"),
        ("0\r\nContent-Length: 3\r\n\r\n", "trailer_not_allowed"),
        ("0\r\nTransfer-Encoding: chunked\r\n\r\n", "trailer_not_allowed"),
        ("0\r\nHost: other\r\n\r\n", "trailer_not_allowed"),
        (&many_trailers, "too_many_fields"),
        (&long_extension, "chunk_extensions_too_long"),
    ];
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("chunks").start();
    let origin = RawOrigin::serving(|peer| peer.read_to_end().map(drop));
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut clients = Vec::new();
    for (body, code) in bodies {
        let mut client = proxy.connect().tunnel(&origin.address());
        client.send(format!("{head}2\r\nok\r\n"));
        eventually("the good chunk arrives", || {
            let received = origin.received();
            received.get(clients.len())?.ends_with(b"2\r\nok\r\n").then_some(())
        });
        client.send(format!("{body}0\r\n\r\n{SMUGGLED}"));
        clients.push(client.address());
        let answer = String::from_utf8_lossy(&client.read_to_end()).into_owned();
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.contains(code),
            "{body:?}: {answer}"
        );
    }
    for (bytes, (body, _)) in origin.received().iter().zip(bodies) {
        assert_eq!(String::from_utf8_lossy(bytes), format!("{head}2\r\nok\r\n"), "{body:?}");
    }
    let rows = by_client(proxy.exchanges(bodies.len()));
    for (client, (body, code)) in clients.iter().zip(bodies) {
        let row = &rows[client][0];
        expect_refused(row, body, code);
        assert!(row["request_size"].as_u64() >= Some(2), "{body:?}: {row:?}");
    }
}

#[test]
fn an_answer_with_more_than_one_meaning_is_a_502_and_its_connection_is_not_used_again() {
    let answers: &[(&[u8], &str)] = &[
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            "length_with_transfer_encoding",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
            "several_lengths",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
            "several_lengths",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", "invalid_length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", "invalid_length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok", "invalid_length"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "invalid_transfer_encoding",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
            "invalid_transfer_encoding",
        ),
        (
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "transfer_encoding_in_http_1_0",
        ),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "bare_lf"),
        (b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok", "bare_cr"),
        (b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok", "nul_byte"),
        (
            b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
            "obs_fold",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", "space_before_colon"),
        (b"HTTP/1.1 200 OK\r\nContent-Length\r\n\r\n", "invalid_field_name"),
        (b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", "invalid_status_line"),
        (b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok", "invalid_status_line"),
        (b"HTTP/1.1 200OK\r\nContent-Length: 2\r\n\r\nok", "invalid_status_line"),
        (b"ICY 200 OK\r\nContent-Length: 2\r\n\r\nok", "invalid_status_line"),
        (b"220 mail.test\r\nno field at all\r\n\r\n", "invalid_status_line"),
        (b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok", "unsupported_version"),
        (
            b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "empty_start_line",
        ),
        (
            b"HTTP/1.1 100 Continue\r\nContent-Length : 2\r\n\r\n",
            "space_before_colon",
        ),
    ];
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("answers").start();
    let mut expected = Vec::new();
    for (answer, code) in answers {
        let origin = RawOrigin::answering(*answer);
        let mut client = proxy.connect();
        let ask = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
            origin.http("/"),
            origin.address()
        );
        client.send([ask.as_bytes(), ask.as_bytes()].concat());
        let told = String::from_utf8_lossy(&client.read_to_end()).into_owned();
        let shown = String::from_utf8_lossy(answer);
        assert!(
            told.starts_with("HTTP/1.1 502 ") && told.contains(code),
            "{shown:?}: {told}"
        );
        assert_eq!(told.matches("HTTP/1.1 ").count(), 1, "{shown:?}: {told}");
        assert_eq!(origin.connections(), 1);
        expected.push((client.address(), shown, code));
    }
    let rows = by_client(proxy.exchanges(expected.len()));
    for (client, answer, code) in expected {
        let row = &rows[&client][0];
        assert_eq!(
            (&row["error"], &row["state"]),
            (&"upstream_response_refused".into(), &"failed".into()),
            "{answer}"
        );
        assert_eq!(
            row["error_detail"].as_str().unwrap().split(':').next(),
            Some(*code),
            "{answer}"
        );
    }
}

#[test]
fn an_origin_that_speaks_something_else_is_told_at_once_although_it_waits() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("elsewhere").start();
    let origin = RawOrigin::serving(|peer| {
        peer.send(b"SSH-2.0-OpenSSH_9.2\r\n")?;
        peer.read_to_end().map(drop)
    });
    let got = proxy.curl().get(&origin.http("/"));
    assert_eq!(got.status, 502);
    let said = "invalid_status_line: the origin does not speak HTTP; it says 'SSH-2.0-OpenSSH_9.2'";
    assert!(got.text().contains(said), "{}", got.text());
    let row = proxy.exchange();
    assert_eq!(
        (&row["error"], &row["error_detail"]),
        (&"upstream_response_refused".into(), &said.into())
    );
}

/// Refused by us, taken by nginx 1.22; everything else that we refuse, nginx refuses too.
const STRICTER: &[(&str, &str)] = &[
    (
        "HTTP/1.2",
        "a minor version that does not exist says nothing about framing",
    ),
    ("two spaces", "other servers take the second space for an empty target"),
    (
        "two spaces before version",
        "other servers take the second space for a part of the target",
    ),
    (
        "space at end of line",
        "other servers take it for a part of the version",
    ),
    (
        "two empty lines before",
        "RFC 9112 §2.2 allows one; a second one has no sender but an attacker",
    ),
    ("ftp", "nginx ignores the scheme; a proxy cannot"),
    ("host with userinfo", "nginx takes `u@h` for a name; others take `h`"),
    ("host with bad port", "nginx ignores the port; a proxy cannot"),
    (
        "absolute form with another host",
        "nginx follows the target; others follow Host",
    ),
    (
        "absolute form with another port",
        "nginx ignores the port; others follow Host",
    ),
    (
        "bare LF after request line",
        "others take a bare LF for a part of the line",
    ),
    ("bare LF after field", "others take a bare LF for a part of the line"),
    ("bare LF at the end", "others wait for another empty line"),
    ("bare LFs only", "others take a bare LF for a part of the line"),
    (
        "no colon",
        "nginx leaves the line out; others take it for a name or a folded value",
    ),
    ("name is no token", "nginx leaves the field out; others take it"),
];

/// Carried by us, refused by nginx 1.22, which then says so itself.
const MORE_LENIENT: &[(&str, &str)] = &[
    ("asterisk", "nginx has no use for OPTIONS *; RFC 9112 §3.2.4 has"),
    (
        "white space around value",
        "nginx takes a tab for a part of the host's name; RFC 9110 §5.5 does not",
    ),
];

#[test]
fn what_is_carried_means_the_same_to_nginx() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("same").start();
    let (mut stricter, mut more_lenient) = (Vec::new(), Vec::new());
    for request in RawRequest::all() {
        let direct = meanings(RawClient::connect(&nginx().meaning()), &request);
        let carried = meanings(proxy.connect().tunnel(&nginx().meaning()), &request);
        let nginx_takes_it = direct.get(1).is_some_and(|second| second.starts_with("204 "));
        if request.is_accepted() {
            assert_eq!(carried, direct, "{}", request.name);
        }
        match (request.is_accepted(), nginx_takes_it) {
            (true, false) => more_lenient.push(request.name),
            (false, true) => stricter.push(request.name),
            _ => {}
        }
    }
    let names = |list: &[(&'static str, &str)]| list.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    assert_eq!(stricter, names(STRICTER), "requests that nginx takes and we refuse");
    assert_eq!(
        more_lenient,
        names(MORE_LENIENT),
        "requests that we carry and nginx refuses"
    );
}

/// What nginx took the bytes on a connection for, one line for each request it saw: an ordinary one, the one in
/// question, and another that shows where the one before ended.
fn meanings(mut client: RawClient, request: &RawRequest) -> Vec<String> {
    client.send(GOOD);
    let mut answers = client.read_until(b"\r\n\r\n");
    let after = b"GET /after HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let _ = client.try_send(&[&request.bytes[..], after].concat());
    answers.extend(client.read_to_end());
    let answers = String::from_utf8_lossy(&answers).into_owned();
    let of_one = |answer: &str| {
        let meaning = answer.lines().find_map(|line| line.strip_prefix("X-Meaning: "));
        format!("{} {}", &answer[..3], meaning.unwrap_or_default())
    };
    answers.split("HTTP/1.1 ").skip(1).map(of_one).collect()
}

/// One answer of 400, which names the fault, and the end of the connection.
#[track_caller]
fn expect_400(client: &mut RawClient, request: &RawRequest) {
    let answer = String::from_utf8_lossy(&client.read_to_end()).into_owned();
    let (name, code) = (request.name, request.verdict);
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains(code),
        "{name}: {answer:?}"
    );
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{name}: {answer:?}");
}

#[track_caller]
fn expect_refused(row: &Exchange, name: &str, code: &str) {
    assert_eq!(row["state"], "failed", "{name}: {row:?}");
    assert_eq!(row["error"], "request_refused", "{name}: {row:?}");
    assert_eq!(row["status"], 400, "{name}: {row:?}");
    assert_eq!(
        row["error_detail"].as_str().unwrap().split(':').next(),
        Some(code),
        "{name}"
    );
}

/// Rows by the client's address, oldest first.
fn by_client(rows: Vec<Exchange>) -> HashMap<String, Vec<Exchange>> {
    let mut by_client = HashMap::<_, Vec<_>>::new();
    for row in rows {
        by_client
            .entry(row["client"].as_str().unwrap().to_owned())
            .or_default()
            .push(row);
    }
    by_client
}
