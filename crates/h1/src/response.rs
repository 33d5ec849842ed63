//! Response heads.

use bytes::Bytes;

use crate::{Framing, Head, Known, Limits, Refusal, Version, framing};

/// A response head that has one meaning only.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    head: Head,
    version: Version,
    status: u16,
    declared: Option<Framing>,
}

impl ResponseHead {
    /// Parses a whole head, from its status line to its empty line.
    pub fn parse(raw: Bytes, limits: Limits) -> Result<Self, Refusal> {
        // First: of what is no HTTP at all, nothing else is worth saying.
        if !raw.starts_with(b"HTTP/") && !raw.starts_with(b"\r\n") {
            return Err(Refusal::InvalidStatusLine);
        }
        let head = Head::parse(raw, limits)?;
        let (version, status) = status_line(head.start_line())?;
        let declared = framing::declared(&head, version)?;
        Ok(Self {
            head,
            version,
            status,
            declared,
        })
    }

    /// Bytes and fields.
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// Version of the response.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The status code, 100 to 999.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Is it a 1xx other than the final 101?
    pub const fn is_informational(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// How long the body is (RFC 9112 §6.3).
    pub fn framing(&self, request_method: &[u8]) -> Framing {
        if self.status < 200 || matches!(self.status, 204 | 304) || request_method == b"HEAD" {
            return Framing::None;
        }
        self.declared.unwrap_or(Framing::UntilClose)
    }

    /// May another request be sent on the connection, as far as the origin is concerned?
    pub const fn keeps_alive(&self) -> bool {
        matches!(self.version, Version::Http11) && !self.head.connection.close
    }

    /// The protocol of a 101.
    pub fn upgrade(&self) -> Option<&[u8]> {
        self.head.values(Known::Upgrade).next()
    }
}

fn status_line(line: &[u8]) -> Result<(Version, u16), Refusal> {
    let (version, rest) = line.split_at_checked(8).ok_or(Refusal::InvalidStatusLine)?;
    if !version.starts_with(b"HTTP/") {
        return Err(Refusal::InvalidStatusLine);
    }
    let version = Version::parse(version)?;
    match rest {
        // Some origins leave out the space before an empty reason.
        [b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']
        | [b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', ..] => {
            let digit = |byte: &u8| u16::from(byte - b'0');
            Ok((version, digit(a) * 100 + digit(b) * 10 + digit(c)))
        }
        _ => Err(Refusal::InvalidStatusLine),
    }
}
