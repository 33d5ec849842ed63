//! Extensions specific to the HTTP/2 protocol.

use crate::hpack::BytesStr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::{collections::HashMap, fmt};

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

/// The names of a head's fields in the order of its lines, one a line.
///
/// `HeaderMap` keeps the values of a name together: where that is another order, this is in the extensions of requests
/// that a server and of responses that a client received, and a client and a server send fields in this order if they
/// find it there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FieldOrder(Vec<HeaderName>);

impl FieldOrder {
    pub(crate) fn push(&mut self, name: HeaderName) {
        self.0.push(name);
    }

    /// Is it the order in which the map gives them as well?
    pub(crate) fn is_of(&self, fields: &HeaderMap) -> bool {
        self.0.iter().eq(fields.iter().map(|(name, _)| name))
    }

    /// The fields in this order; those that were added since come last.
    pub fn lines<'a>(&self, fields: &'a HeaderMap) -> Vec<(&'a HeaderName, &'a HeaderValue)> {
        let mut left: HashMap<_, _> = fields
            .keys()
            .map(|name| (name, fields.get_all(name).iter().map(move |value| (name, value))))
            .collect();
        let mut lines = Vec::with_capacity(fields.len());
        for name in &self.0 {
            lines.extend(left.get_mut(name).and_then(Iterator::next));
        }
        for name in fields.keys() {
            lines.extend(left.remove(name).into_iter().flatten());
        }
        lines
    }

    pub(crate) fn into_lines(self, fields: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
        let lines = self.lines(fields).into_iter();
        lines.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}
