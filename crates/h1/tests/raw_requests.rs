//! The table of raw requests, against the codec. The same table is sent to nginx by the end-to-end tests.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use bytes::Bytes;
use proxyplane_h1::{Limits, Refusal, RequestHead, Scanner};

fn verdict(bytes: &[u8]) -> &'static str {
    let parse = || {
        let range = Scanner::request(Limits::CAPTURE)
            .find(bytes)?
            .ok_or(Refusal::IncompleteHead)?;
        RequestHead::parse(Bytes::copy_from_slice(&bytes[range]), Limits::CAPTURE)
    };
    parse().map_or_else(Refusal::code, |_| "accept")
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next().unwrap() {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'x' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            },
            other => other,
        });
    }
    bytes
}

#[test]
fn every_raw_request_gets_the_verdict_of_the_table() {
    let lines = include_str!("raw_requests.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'));
    let mut count = 0;
    for line in lines {
        let [expected, name, bytes] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("not three columns: {line}")
        };
        assert_eq!(verdict(&unescape(bytes)), expected, "{name}");
        count += 1;
    }
    assert!(count > 80, "the table has only {count} rows");
}
