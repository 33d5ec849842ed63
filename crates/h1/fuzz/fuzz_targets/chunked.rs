//! A chunked body means the same in whatever pieces it comes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyplane_h1::{
    Limits, Refusal,
    chunked::{Decoder, Piece},
};

fn decode(input: &[u8], step: usize) -> Result<Option<(Vec<u8>, Vec<u8>)>, Refusal> {
    let mut decoder = Decoder::new(Limits::CAPTURE);
    let mut data = Vec::new();
    for piece in input.chunks(step) {
        let mut at = 0;
        loop {
            match decoder.decode(&piece[at..])? {
                Piece::Data { skip, len } => {
                    data.extend_from_slice(&piece[at + skip..at + skip + len]);
                    at += skip + len;
                }
                Piece::More => break,
                Piece::End { .. } => return Ok(Some((data, decoder.trailers().to_vec()))),
            }
        }
    }
    Ok(None)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (step, bytes) = (usize::from(input.0).max(1), input.1);
    assert_eq!(decode(bytes, step), decode(bytes, bytes.len().max(1)));
});
