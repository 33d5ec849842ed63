//! Whatever a segment holds, what is read of it has no holes and ends where it should.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use proxyplane_record::{frame, segment};

fuzz_target!(|input: (u16, Option<u16>, &[u8])| {
    let (first, next, bytes) = (u64::from(input.0), input.1.map(u64::from), Bytes::copy_from_slice(input.2));
    let scan = segment::scan(&bytes, first, next);
    let mut expected = first;
    for run in &scan.runs {
        assert_eq!(run.first, expected);
        let mut frames = run.frames.clone();
        while let Some(frame) = frame::take(&mut frames).expect("only whole frames come out") {
            assert_eq!(frame.seq, expected);
            expected = frame.next_seq();
        }
        assert_eq!(run.next, expected);
    }
    assert_eq!(scan.next, expected);
    assert!(scan.end <= bytes.len() && next.is_none_or(|next| scan.next >= next.max(first)));
});
