//! The chunked transfer coding (RFC 9112 §7.1).

use memchr::memchr;

use crate::{Limits, Refusal, field};

/// Most bytes of chunk extensions in one body: they are read, never kept, so a body of nothing else is an attack.
const EXTENSIONS_MAX: usize = 16 * 1024;
/// Longest end of a body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Takes a chunked body apart without copying its data.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    extensions: usize,
    trailers: Vec<u8>,
    limits: Limits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { digits: u8, size: u64 },
    Extension { size: u64 },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    EndLf,
    Trailer { line: usize },
    Done,
}

/// What the next bytes of a chunked body are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// `input[skip..skip + len]` is data, at least one byte; all of `skip + len` is consumed.
    Data {
        /// Bytes of framing before the data.
        skip: usize,
        /// Bytes of data.
        len: usize,
    },
    /// All of the input was framing; more has to come.
    More,
    /// The body ended after this many bytes of the input.
    End {
        /// Bytes that belonged to the body.
        consumed: usize,
    },
}

impl Decoder {
    /// For a body whose trailers are limited like a head.
    pub const fn new(limits: Limits) -> Self {
        Self {
            state: State::Size { digits: 0, size: 0 },
            extensions: 0,
            trailers: Vec::new(),
            limits,
        }
    }

    /// The trailer lines, without the empty line; complete after [`Piece::End`].
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Looks at the next bytes, which follow those consumed before.
    pub fn decode(&mut self, input: &[u8]) -> Result<Piece, Refusal> {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            match self.state {
                State::Data { left } => {
                    let len = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                    let left = left - len as u64;
                    self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                    return Ok(Piece::Data { skip: at, len });
                }
                State::Trailer { line } => at += self.trailer(line, &input[at..])?,
                State::Done => break,
                framing => {
                    self.state = self.step(framing, byte)?;
                    at += 1;
                }
            }
            if self.state == State::Done {
                break;
            }
        }
        Ok(if self.state == State::Done {
            Piece::End { consumed: at }
        } else {
            Piece::More
        })
    }

    /// One byte of framing.
    fn step(&mut self, state: State, byte: u8) -> Result<State, Refusal> {
        match (state, byte) {
            (State::Size { digits: 16, .. }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => Err(Refusal::InvalidChunkSize),
            (State::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                Ok(State::Size {
                    digits: digits + 1,
                    size: size << 4 | digit,
                })
            }
            (State::Size { digits: 1.., size } | State::Extension { size }, b'\r') => Ok(State::SizeLf { size }),
            (State::Size { digits: 1.., size }, b';' | b' ' | b'\t')
            | (State::Extension { size }, b'\t' | b' '..=0x7e | 0x80..) => {
                self.extensions += 1;
                if self.extensions > EXTENSIONS_MAX {
                    Err(Refusal::ChunkExtensionsTooLong)
                } else {
                    Ok(State::Extension { size })
                }
            }
            (State::SizeLf { size: 0 }, b'\n') => Ok(State::TrailerStart),
            (State::SizeLf { size }, b'\n') if i64::try_from(size).is_ok() => Ok(State::Data { left: size }),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { digits: 0, size: 0 }),
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart, _) => {
                self.trailers.push(byte);
                Ok(State::Trailer { line: 0 })
            }
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::DataCr | State::DataLf, _) => Err(Refusal::InvalidChunkEnd),
            (State::EndLf, _) => Err(Refusal::BareCr),
            _ => Err(Refusal::InvalidChunkSize),
        }
    }

    /// Takes up to one line of trailers and returns how many bytes it took. `line` is where the line began.
    fn trailer(&mut self, line: usize, input: &[u8]) -> Result<usize, Refusal> {
        let len = memchr(b'\n', input).map_or(input.len(), |end| end + 1);
        if self.trailers.len() + len > self.limits.bytes {
            return Err(Refusal::HeadTooLarge);
        }
        self.trailers.extend_from_slice(&input[..len]);
        if self.trailers.ends_with(b"\n") {
            if &self.trailers[line..] == b"\r\n" {
                field::check_trailers(&self.trailers, self.limits)?;
                self.trailers.truncate(line);
                self.state = State::Done;
            } else {
                self.state = State::Trailer {
                    line: self.trailers.len(),
                };
            }
        }
        Ok(len)
    }
}

/// Appends what goes before a chunk of `len` bytes, which must not be 0; after it goes CRLF.
pub fn write_size(out: &mut Vec<u8>, len: usize) {
    debug_assert_ne!(len, 0, "an empty chunk would end the body");
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(len >> (digit * 4)) & 0xf]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the end of a body, with trailer lines as [`Decoder::trailers`] gives them.
pub fn write_end(out: &mut Vec<u8>, trailers: &[u8]) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Data, trailers and how much was consumed, or `None` if the body had no end; fed in pieces of `step` bytes.
    type Decoded = Result<Option<(Vec<u8>, Vec<u8>, usize)>, Refusal>;

    fn decode(input: &[u8], step: usize) -> Decoded {
        let mut decoder = Decoder::new(Limits { bytes: 64, fields: 4 });
        let mut data = Vec::new();
        for (index, piece) in input.chunks(step.max(1)).enumerate() {
            let mut at = 0;
            loop {
                match decoder.decode(&piece[at..])? {
                    Piece::Data { skip, len } => {
                        data.extend_from_slice(&piece[at + skip..at + skip + len]);
                        at += skip + len;
                    }
                    Piece::More => break,
                    Piece::End { consumed } => {
                        return Ok(Some((
                            data,
                            decoder.trailers().to_vec(),
                            index * step.max(1) + at + consumed,
                        )));
                    }
                }
            }
        }
        Ok(None)
    }

    #[test]
    fn a_body_comes_out_whole_at_every_piece_size() {
        let body = b"5;a=\"b\"\r\nhello\r\n1  \r\n \r\n00005\r\nworld\r\n0;z\r\nA: b\r\nC: d\r\n\r\nGET";
        let expected = (b"hello world".to_vec(), b"A: b\r\nC: d\r\n".to_vec(), body.len() - 3);
        for step in 1..=body.len() {
            assert_eq!(decode(body, step).unwrap().unwrap(), expected, "pieces of {step}");
        }
    }

    #[test]
    fn malformed_bodies_are_refused() {
        for (body, refusal) in [
            ("\r\n", Refusal::InvalidChunkSize),
            ("g\r\n", Refusal::InvalidChunkSize),
            ("+5\r\n", Refusal::InvalidChunkSize),
            ("0x5\r\n", Refusal::InvalidChunkSize),
            ("5\n", Refusal::InvalidChunkSize),
            ("5\rx", Refusal::InvalidChunkSize),
            ("5;a\n", Refusal::InvalidChunkSize),
            ("5;\x01\r\n", Refusal::InvalidChunkSize),
            ("ffffffffffffffff\r\n", Refusal::InvalidChunkSize),
            ("00000000000000001\r\n", Refusal::InvalidChunkSize),
            ("1\r\nab", Refusal::InvalidChunkEnd),
            ("1\r\na\n", Refusal::InvalidChunkEnd),
            ("1\r\na\rb", Refusal::InvalidChunkEnd),
            ("0\r\n\rx", Refusal::BareCr),
            ("0\r\na b\r\n\r\n", Refusal::SpaceBeforeColon),
            ("0\r\n x: y\r\n\r\n", Refusal::ObsFold),
            ("0\r\nContent-Length: 3\r\n\r\n", Refusal::TrailerNotAllowed),
            ("0\r\nx: y\n\r\n", Refusal::BareLf),
            (
                "0\r\na: 1\r\nb: 1\r\nc: 1\r\nd: 1\r\ne: 1\r\n\r\n",
                Refusal::TooManyFields,
            ),
        ] {
            assert_eq!(decode(body.as_bytes(), 1).unwrap_err(), refusal, "{body:?}");
            assert_eq!(decode(body.as_bytes(), 99).unwrap_err(), refusal, "{body:?}");
        }
        assert_eq!(
            decode(format!("0\r\nx: {}", "y".repeat(64)).as_bytes(), 9).unwrap_err(),
            Refusal::HeadTooLarge
        );
        let extended = format!("1;{}\r\n", "e".repeat(EXTENSIONS_MAX));
        assert_eq!(
            decode(extended.as_bytes(), 999).unwrap_err(),
            Refusal::ChunkExtensionsTooLong
        );
    }

    #[test]
    fn a_body_without_end_is_not_over() {
        for body in [
            "",
            "5",
            "5\r\n",
            "5\r\nhello",
            "5\r\nhello\r\n",
            "0\r\n",
            "0\r\n\r",
            "0\r\na: b\r\n",
        ] {
            assert_eq!(decode(body.as_bytes(), 1).unwrap(), None, "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..6), step in 1..400usize) {
            let mut body = Vec::new();
            for chunk in &chunks {
                write_size(&mut body, chunk.len());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            write_end(&mut body, b"A: b\r\n");
            let expected = (chunks.concat(), b"A: b\r\n".to_vec(), body.len());
            prop_assert_eq!(decode(&body, step).unwrap().unwrap(), expected);
        }

        #[test]
        fn any_bytes_decode_alike_in_any_pieces(body in "([0-3a;\r\n: \\PC]|\r\n|0\r\n|2\r\nab\r\n){0,20}", step in 1..20usize) {
            prop_assert_eq!(decode(body.as_bytes(), step), decode(body.as_bytes(), usize::MAX));
        }
    }
}
