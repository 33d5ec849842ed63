//! Extensions specific to the HTTP/2 protocol.

use crate::hpack::BytesStr;

use bytes::Bytes;
use std::fmt;

/// The target of a request that is not CONNECT, byte by byte as the client sent it.
///
/// The server puts it into the extensions of every such request (whose `Uri` is just `/`); the client sends it in place
/// of the `Uri` if it finds one there. `http::Uri` refuses bytes that clients do send and origins do accept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RawTarget {
    /// `:scheme`
    pub scheme: Bytes,
    /// `:authority`, if there was one.
    pub authority: Option<Bytes>,
    /// `:path`
    pub path: Bytes,
}

impl RawTarget {
    /// Neither empty nor with bytes that no field value may have (RFC 9113 §8.2.1).
    pub(crate) fn is_well_formed(&self) -> bool {
        let clean = |bytes: &Bytes| !bytes.iter().any(|byte| byte.is_ascii_control());
        let authority = self.authority.as_ref().map_or(true, clean);
        !self.scheme.is_empty() && !self.path.is_empty() && clean(&self.scheme) && clean(&self.path) && authority
    }
}

/// Represents the `:protocol` pseudo-header used by
/// the [Extended CONNECT Protocol].
///
/// [Extended CONNECT Protocol]: https://datatracker.ietf.org/doc/html/rfc8441#section-4
#[derive(Clone, Eq, PartialEq)]
pub struct Protocol {
    value: BytesStr,
}

impl Protocol {
    /// Converts a static string to a protocol name.
    pub const fn from_static(value: &'static str) -> Self {
        Self {
            value: BytesStr::from_static(value),
        }
    }

    /// Returns a str representation of the header.
    pub fn as_str(&self) -> &str {
        self.value.as_str()
    }

    pub(crate) fn try_from(bytes: Bytes) -> Result<Self, std::str::Utf8Error> {
        Ok(Self {
            value: BytesStr::try_from(bytes)?,
        })
    }
}

impl<'a> From<&'a str> for Protocol {
    fn from(value: &'a str) -> Self {
        Self {
            value: BytesStr::from(value),
        }
    }
}

impl AsRef<[u8]> for Protocol {
    fn as_ref(&self) -> &[u8] {
        self.value.as_ref()
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.value.fmt(f)
    }
}
