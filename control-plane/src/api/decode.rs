//! Undoes Content-Encoding (RFC 9110 §8.4) of a captured body, within limits that hold against decompression bombs.
//!
//! Bodies come from origins that may be hostile: what is decoded is at most 16 MiB, beyond 512 KiB at most a hundred times
//! what was captured, and at most three codings deep.

use std::io::{self, Read};

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use proxyplane_spec::reasons;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::status::Refusal;

/// Most bytes of a decoded body.
pub(super) const DECODED_MAX: usize = 16 * 1024 * 1024;
/// Most bytes out for each byte in.
const RATIO_MAX: usize = 100;
/// Up to here the ratio is not looked at: a page of blanks is no bomb.
const RATIO_FROM: usize = 512 * 1024;
/// Codings applied one over the other.
const CODINGS_MAX: usize = 3;

/// A content coding that we can undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// The codings in the order in which they are to be undone: the last that was applied first.
pub(super) fn codings(content_encoding: &str) -> Result<Vec<Coding>, Refusal> {
    let names = content_encoding.split(',').map(|name| name.trim().to_ascii_lowercase());
    let mut codings = Vec::new();
    for name in names.filter(|name| !name.is_empty() && name != "identity") {
        codings.push(match name.as_str() {
            "gzip" | "x-gzip" => Coding::Gzip,
            "deflate" => Coding::Deflate,
            "br" => Coding::Brotli,
            "zstd" => Coding::Zstd,
            _ => return Err(undecodable("its content encoding is unknown").with("content_encoding", content_encoding)),
        });
    }
    if codings.len() > CODINGS_MAX {
        return Err(undecodable("it was encoded more than three times").with("content_encoding", content_encoding));
    }
    codings.reverse();
    Ok(codings)
}

/// Decodes `body`. Of a body that was cut when it was captured, as much as can be decoded.
pub(super) fn decode(body: &[u8], codings: &[Coding], cut: bool) -> Result<Vec<u8>, Refusal> {
    let limit = body.len().saturating_mul(RATIO_MAX).clamp(RATIO_FROM, DECODED_MAX);
    let mut decoded = body.to_vec();
    for coding in codings {
        decoded = undo(*coding, &decoded, limit, cut)?;
    }
    Ok(decoded)
}

fn undo(coding: Coding, input: &[u8], limit: usize, cut: bool) -> Result<Vec<u8>, Refusal> {
    if input.is_empty() {
        // An empty body is sent without any coding, whatever the head says (HEAD, 304, cut to nothing).
        return Ok(Vec::new());
    }
    match coding {
        Coding::Gzip => read_all(MultiGzDecoder::new(input), limit, cut),
        // "deflate" is zlib (RFC 9110 §8.4.1.2), but some servers send the bare stream.
        Coding::Deflate if is_zlib(input) => read_all(ZlibDecoder::new(input), limit, cut),
        Coding::Deflate => read_all(DeflateDecoder::new(input), limit, cut),
        Coding::Brotli => read_all(brotli_decompressor::Decompressor::new(input, 16 * 1024), limit, cut),
        Coding::Zstd => read_all(Zstd { input, frame: None }, limit, cut),
    }
}

/// CMF and FLG (RFC 1950 §2.2): method 8, and a multiple of 31.
fn is_zlib(input: &[u8]) -> bool {
    matches!(input, [cmf, flg, ..] if cmf & 0x0f == 8 && (u16::from(*cmf) << 8 | u16::from(*flg)) % 31 == 0)
}

fn read_all(mut decoder: impl Read, limit: usize, cut: bool) -> Result<Vec<u8>, Refusal> {
    let mut output = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => return Ok(output),
            Ok(count) if output.len() + count > limit => return Err(too_large()),
            Ok(count) => output.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if cut => return Ok(output),
            Err(_) => return Err(undecodable("it is damaged or ends early")),
        }
    }
}

/// All frames of a zstd body, one after the other (RFC 8878 §3).
struct Zstd<'a> {
    input: &'a [u8],
    frame: Option<StreamingDecoder<&'a [u8], FrameDecoder>>,
}

impl Read for Zstd<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(frame) = &mut self.frame else {
                if self.input.is_empty() {
                    return Ok(0);
                }
                if let Some(rest) = after_skippable(self.input)? {
                    self.input = rest;
                    continue;
                }
                check_window(self.input)?;
                self.frame = Some(StreamingDecoder::new(self.input).map_err(io::Error::other)?);
                continue;
            };
            let count = frame.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            if let Some(frame) = self.frame.take() {
                let rest = frame.into_inner();
                if rest.len() == self.input.len() {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                self.input = rest;
            }
        }
    }
}

/// What follows a skippable frame (RFC 8878 §3.1.2); `None` if another kind of frame comes next.
fn after_skippable(input: &[u8]) -> io::Result<Option<&[u8]>> {
    match input {
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, a, b, c, d, rest @ ..] => {
            let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
            rest.get(length..)
                .map(Some)
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        }
        _ => Ok(None),
    }
}

/// Refuses a frame whose window is over 8 MiB, the most that RFC 9659 §3 lets a content coding ask for: a few bytes
/// could otherwise make the decoder reserve a hundred megabytes.
fn check_window(input: &[u8]) -> io::Result<()> {
    let window = match input {
        [0x28, 0xb5, 0x2f, 0xfd, descriptor, rest @ ..] => {
            if descriptor & 0x20 == 0 {
                // Window_Descriptor: exponent in the upper five bits, mantissa in the lower three.
                let byte = rest.first().copied().unwrap_or_default();
                let base = 1_u64 << (10 + (byte >> 3));
                base + base / 8 * u64::from(byte & 7)
            } else {
                single_segment_size(*descriptor, rest)
            }
        }
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    // A single segment needs a window of its content's size, which may be all that is allowed out.
    if window <= DECODED_MAX as u64 {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Frame_Content_Size of a frame without window descriptor (RFC 8878 §3.1.1.1.4).
fn single_segment_size(descriptor: u8, rest: &[u8]) -> u64 {
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let width = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let bytes = rest.get(dictionary..dictionary + width).unwrap_or_default();
    let value = bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    if width == 2 { value + 256 } else { value }
}

fn undecodable(why: &str) -> Refusal {
    Refusal::new(
        reasons::BODY_NOT_DECODABLE,
        format!("the body cannot be decoded: {why}; ask for the raw bytes"),
    )
}

/// The body is over the limits when decoded.
pub(super) fn too_large() -> Refusal {
    let message = "decoded, the body is over 16 MiB, or over 512 KiB and 100 times its size; ask for the raw bytes";
    Refusal::new(reasons::BODY_TOO_LARGE_TO_DECODE, message)
}

#[cfg(test)]
mod tests;
