//! What is kept of a body, and that keeping it changes nothing.

use std::{fs, process::Command};

use proxyplane_tests::{RawOrigin, Side, World, pattern};
use serde_json::Value;

use super::{text, write_length};

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
