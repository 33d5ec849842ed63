use std::io::Write as _;

use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};

use super::*;

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zstd(data: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest)
}

fn text() -> Vec<u8> {
    (0..2_000_u32)
        .flat_map(|n| format!("line {}\n", n.wrapping_mul(2_654_435_761)).into_bytes())
        .collect()
}

fn decoded(content_encoding: &str, body: &[u8]) -> Result<Vec<u8>, &'static str> {
    codings(content_encoding)
        .and_then(|codings| decode(body, &codings, false))
        .map_err(|error| error.reason().name)
}

#[test]
fn every_coding_is_undone() {
    let text = text();
    assert_eq!(decoded("gzip", &gzip(&text)), Ok(text.clone()));
    assert_eq!(decoded(" X-GZip , identity", &gzip(&text)), Ok(text.clone()));
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(&text).unwrap();
    assert_eq!(decoded("deflate", &zlib.finish().unwrap()), Ok(text.clone()));
    let mut bare = DeflateEncoder::new(Vec::new(), Compression::default());
    bare.write_all(&text).unwrap();
    assert_eq!(decoded("deflate", &bare.finish().unwrap()), Ok(text.clone()));
    assert_eq!(decoded("zstd", &zstd(&text)), Ok(text.clone()));
    // Made by Node's zlib.
    let brotli = [
        0x1b, 0x17, 0x00, 0xf8, 0x8d, 0x94, 0x6e, 0xde, 0x44, 0x55, 0x86, 0xd6, 0x0a, 0x20, 0x6c, 0x6f, 0x4a, 0x11,
        0x79, 0xe2, 0x80, 0xae, 0x16,
    ];
    assert_eq!(decoded("br", &brotli), Ok(b"hello hello hello hello\n".to_vec()));
    assert_eq!(decoded("", &text), Ok(text.clone()));
    assert_eq!(decoded("gzip", b""), Ok(Vec::new()));
}

#[test]
fn codings_are_undone_last_first_and_frames_follow_each_other() {
    let text = text();
    assert_eq!(decoded("zstd, gzip", &gzip(&zstd(&text))), Ok(text.clone()));
    let two = [gzip(b"one "), gzip(b"two")].concat();
    assert_eq!(decoded("gzip", &two), Ok(b"one two".to_vec()));
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
    let frames = [zstd(b"one "), skippable.to_vec(), zstd(b"two")].concat();
    assert_eq!(decoded("zstd", &frames), Ok(b"one two".to_vec()));
}

#[test]
fn a_bomb_is_refused() {
    for size in [1 << 20, 32 << 20] {
        assert_eq!(
            decoded("gzip", &gzip(&vec![0; size])),
            Err("BODY_TOO_LARGE_TO_DECODE"),
            "{size}"
        );
    }
    let nested = gzip(&gzip(&vec![0; 64 << 20]));
    assert_eq!(decoded("gzip, gzip", &nested), Err("BODY_TOO_LARGE_TO_DECODE"));
    assert_eq!(
        decoded("gzip", &gzip(&vec![b' '; 500_000])).map(|body| body.len()),
        Ok(500_000)
    );
}

#[test]
fn a_zstd_frame_that_asks_for_a_huge_window_is_refused() {
    let asks_for_gigabytes = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00];
    assert_eq!(decoded("zstd", &asks_for_gigabytes), Err("BODY_NOT_DECODABLE"));
    let claims_exabytes = [
        0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x01, 0x00, 0x00,
    ];
    assert_eq!(decoded("zstd", &claims_exabytes), Err("BODY_NOT_DECODABLE"));
}

#[test]
fn what_cannot_be_decoded_says_so() {
    assert_eq!(decoded("sdch", b"x"), Err("BODY_NOT_DECODABLE"));
    assert_eq!(decoded("gzip, gzip, gzip, gzip", b"x"), Err("BODY_NOT_DECODABLE"));
    for coding in ["gzip", "deflate", "br", "zstd"] {
        assert_eq!(
            decoded(coding, b"\xffthis is none of them at all"),
            Err("BODY_NOT_DECODABLE"),
            "{coding}"
        );
    }
}

#[test]
fn a_body_that_was_cut_is_decoded_as_far_as_it_goes() {
    let (text, codings) = (text(), codings("gzip").unwrap());
    let whole = gzip(&text);
    let half = &whole[..whole.len() / 2];
    assert!(decode(half, &codings, false).is_err());
    let part = decode(half, &codings, true).unwrap();
    assert!(!part.is_empty() && text.starts_with(&part));
}
