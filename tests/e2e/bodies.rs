//! Heads and bodies of every framing, and what goes wrong on the way.

mod answers;
mod capture;
mod connections;
mod cut_off;
mod heads;
mod pieces;

use proxyplane_tests::{Exchange, Proxy, RawClient, RawOrigin};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

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

/// The last field of a head, and its end.
fn write_length(head: &mut Vec<u8>, length: usize) {
    head.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
}

#[track_caller]
fn expect_failed(row: &Exchange, code: &str, words: &str) {
    assert_eq!(
        (&row["state"], &row["error"]),
        (&"failed".into(), &code.into()),
        "{row:#?}"
    );
    let detail = row["error_detail"].as_str().unwrap();
    assert!(detail.contains(words), "{row:#?}");
    // Neither the system's words nor a library's.
    assert!(!detail.contains("os error") && !detail.contains("://"), "{row:#?}");
}

fn text(bytes: impl AsRef<[u8]>) -> String {
    String::from_utf8_lossy(bytes.as_ref()).into_owned()
}
