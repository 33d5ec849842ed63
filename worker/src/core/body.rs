//! Taking a body out of what was read, whatever its framing.

use std::ops::Range;

use proxyplane_h1::{
    Framing, Limits, Refusal,
    chunked::{Decoder, Piece},
};

use super::buffer::ReadBuffer;

/// How much of a body is still to come.
#[derive(Debug)]
pub(super) enum Body {
    Length(u64),
    Chunked(Decoder),
    UntilClose,
}

/// A piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Where its data lies in the buffer until the next read.
    pub(super) data: Range<usize>,
    /// The body is over after it.
    pub(super) last: bool,
}

impl Body {
    pub(super) fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Decoder::new(Limits::CAPTURE)),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Takes what there is of the body out of the buffer.
    pub(super) fn take(&mut self, buffer: &mut ReadBuffer) -> Result<Taken, Refusal> {
        let held = buffer.filled().len();
        match self {
            Self::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(held);
                *left -= count as u64;
                Ok(Taken {
                    data: buffer.consume(count),
                    last: *left == 0,
                })
            }
            Self::UntilClose => Ok(Taken {
                data: buffer.consume(held),
                last: false,
            }),
            Self::Chunked(decoder) => take_chunks(decoder, buffer),
        }
    }

    /// Trailer lines, after the last piece.
    pub(super) fn trailers(&self) -> &[u8] {
        if let Self::Chunked(decoder) = self {
            decoder.trailers()
        } else {
            &[]
        }
    }

    pub(super) fn is_chunked(&self) -> bool {
        matches!(self, Self::Chunked(_))
    }

    pub(super) fn ends_with_connection(&self) -> bool {
        matches!(self, Self::UntilClose)
    }
}

/// Takes all chunks out of the buffer and joins their data, so that they go out as one: what was read together is
/// written together.
fn take_chunks(decoder: &mut Decoder, buffer: &mut ReadBuffer) -> Result<Taken, Refusal> {
    let mut joined: Option<Range<usize>> = None;
    loop {
        match decoder.decode(buffer.filled())? {
            Piece::Data { skip, len } => {
                buffer.consume(skip);
                let piece = buffer.consume(len);
                match &mut joined {
                    None => joined = Some(piece),
                    Some(data) => {
                        buffer.join(piece, data.end);
                        data.end += len;
                    }
                }
            }
            Piece::More => {
                buffer.consume(buffer.filled().len());
                return Ok(Taken {
                    data: joined.unwrap_or(0..0),
                    last: false,
                });
            }
            Piece::End { consumed } => {
                buffer.consume(consumed);
                return Ok(Taken {
                    data: joined.unwrap_or(0..0),
                    last: true,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_and_what_follows_is_left() {
        let mut buffer = ReadBuffer::holding(b"3\r\nabc\r\n2;x\r\nde\r\n1\r\nf\r\n0\r\nT: u\r\n\r\nnext");
        let mut body = Body::new(Framing::Chunked);
        let taken = body.take(&mut buffer).unwrap();
        assert_eq!((buffer.at(taken.data), taken.last), (&b"abcdef"[..], true));
        assert_eq!((body.trailers(), buffer.filled()), (&b"T: u\r\n"[..], &b"next"[..]));
    }

    #[test]
    fn a_length_ends_where_it_says() {
        let mut buffer = ReadBuffer::holding(b"abcdef");
        let taken = Body::new(Framing::Length(4)).take(&mut buffer).unwrap();
        assert_eq!(
            (buffer.at(taken.data), taken.last, buffer.filled()),
            (&b"abcd"[..], true, &b"ef"[..])
        );
        let taken = Body::new(Framing::Length(4)).take(&mut buffer).unwrap();
        assert_eq!(
            (buffer.at(taken.data), taken.last, buffer.is_empty()),
            (&b"ef"[..], false, true)
        );
    }
}
