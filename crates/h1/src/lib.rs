//! HTTP/1 wire codec (RFC 9112): heads, framing and chunked bodies, without I/O.
//!
//! A [`Scanner`] finds where a head ends, whatever pieces it comes in; [`RequestHead::parse`] and
//! [`ResponseHead::parse`] take the whole head, keep its exact bytes and remember where each field lies. What they
//! accept has one meaning only: everything ambiguous is a [`Refusal`]. `write_to` serialises a head for the next hop in
//! the same order and case, without what belongs to this hop; bodies go through [`chunked::Decoder`] and are framed
//! again.
//!
//! httparse is not used: it takes bare line feeds for line ends and refuses target bytes that origins accept.

mod authority;
pub mod chunked;
mod field;
mod framing;
mod refusal;
mod request;
mod response;
mod scan;
mod serialize;

pub use authority::Authority;
pub use field::{FieldRef, Head, Known};
pub use framing::Framing;
pub use refusal::Refusal;
pub use request::{Form, RequestHead, Scheme};
pub use response::ResponseHead;
pub use scan::Scanner;
pub use serialize::Hop;

/// How large a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, from the start line to the empty line.
    pub bytes: usize,
    /// Field lines.
    pub fields: usize,
}

impl Limits {
    /// Of capture services: real cookie jars fit.
    pub const CAPTURE: Self = Self {
        bytes: 256 * 1024,
        fields: 1_000,
    };
}

/// Protocol version of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0: one exchange per connection, no chunked coding, no 1xx.
    Http10,
    /// HTTP/1.1.
    Http11,
}

impl Version {
    /// As it stands in a start line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }

    /// Reads a version as it stands in a start line.
    fn parse(text: &[u8]) -> Result<Self, Refusal> {
        match text {
            b"HTTP/1.1" => Ok(Self::Http11),
            b"HTTP/1.0" => Ok(Self::Http10),
            _ => Err(Refusal::UnsupportedVersion),
        }
    }
}
