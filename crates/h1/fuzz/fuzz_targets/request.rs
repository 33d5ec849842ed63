//! A request that is taken is forwarded as one that means the same; where it was cut does not matter.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use proxyplane_h1::{Hop, Limits, RequestHead, Scanner};

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = (usize::from(input.0).min(input.1.len()), input.1);
    let mut scanner = Scanner::request(Limits::CAPTURE);
    let found = match scanner.find(&bytes[..cut]) {
        Ok(None) => scanner.find(bytes),
        decided => decided,
    };
    assert_eq!(found, Scanner::request(Limits::CAPTURE).find(bytes));
    let Ok(Some(range)) = found else { return };
    let Ok(head) = RequestHead::parse(Bytes::copy_from_slice(&bytes[range]), Limits::CAPTURE) else { return };
    let mut out = Vec::new();
    head.write_to(&mut out, Hop::Proxy);
    if head.authority().is_some_and(|_| head.method() == b"CONNECT") {
        return;
    }
    let again = RequestHead::parse(Bytes::from(out.clone()), Limits { bytes: usize::MAX, ..Limits::CAPTURE }).expect("own output");
    assert_eq!(again.framing(), head.framing());
    assert_eq!(again.method(), head.method());
    assert_eq!(again.host().map(|host| (host.host, host.port)), head.host().map(|host| (host.host, host.port)));
    // What is left for the next hop is what it passes on: nothing of this one's is in it.
    let mut twice = Vec::new();
    again.write_to(&mut twice, Hop::Proxy);
    assert_eq!(twice, out);
});
