//! A response that is taken is passed on as one that means the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use proxyplane_h1::{Hop, Limits, ResponseHead};

fuzz_target!(|bytes: &[u8]| {
    let Ok(head) = ResponseHead::parse(Bytes::copy_from_slice(bytes), Limits::CAPTURE) else { return };
    for closing in [false, true] {
        let mut out = Vec::new();
        head.write_to(&mut out, Hop::Proxy, closing);
        let limits = Limits { bytes: usize::MAX, fields: usize::MAX };
        let again = ResponseHead::parse(Bytes::from(out.clone()), limits).expect("own output");
        assert_eq!((again.status(), again.framing(b"GET")), (head.status(), head.framing(b"GET")));
        assert!(!closing || head.status() == 101 || !again.keeps_alive());
        let mut twice = Vec::new();
        again.write_to(&mut twice, Hop::Proxy, closing);
        assert_eq!(twice, out);
    }
});
