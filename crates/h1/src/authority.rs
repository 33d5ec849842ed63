//! Host and port, as in Host, in absolute targets and in CONNECT.

use std::net::Ipv6Addr;

/// `host [":" port]` (RFC 3986 §3.2, without userinfo).
#[derive(Clone, Copy, Debug)]
pub struct Authority<'a> {
    /// As it came, an IPv6 address without its brackets.
    pub host: &'a [u8],
    /// `None` when there is none or it is empty.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Parses it strictly; `None` is malformed.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let (host, port) = if let Some(rest) = text.strip_prefix(b"[") {
            let end = rest.iter().position(|&b| b == b']')?;
            std::str::from_utf8(&rest[..end]).ok()?.parse::<Ipv6Addr>().ok()?;
            (&rest[..end], &rest[end + 1..])
        } else {
            let end = text.iter().position(|&b| b == b':').unwrap_or(text.len());
            if end == 0 || !text[..end].iter().all(|&b| is_host_byte(b)) {
                return None;
            }
            text.split_at(end)
        };
        Some(Self {
            host,
            port: parse_port(port).ok()?,
        })
    }

    /// Do both name the same endpoint of a scheme with this default port?
    pub fn agrees(&self, other: &Authority<'_>, default_port: u16) -> bool {
        self.host.eq_ignore_ascii_case(other.host)
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

/// reg-name (RFC 3986 §3.2.2) without the comma, which is how merged Host fields look.
const fn is_host_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\''
        | b'(' | b')' | b'*' | b'+' | b';' | b'=')
}

/// Reads what follows a host: nothing, or a colon and perhaps a port. `Err` is malformed.
fn parse_port(text: &[u8]) -> Result<Option<u16>, ()> {
    match text {
        [] | [b':'] => Ok(None),
        [b':', digits @ ..] if digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| digits.parse().ok())
                .map(Some)
                .ok_or(())
        }
        _ => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_told_apart() {
        for (text, host, port) in [
            ("a.example", "a.example", None),
            ("A:80", "A", Some(80)),
            ("a:", "a", None),
            ("[::1]:8443", "::1", Some(8443)),
            ("[::1]", "::1", None),
            ("my_host", "my_host", None),
        ] {
            let authority = Authority::parse(text.as_bytes()).unwrap();
            assert_eq!((authority.host, authority.port), (host.as_bytes(), port), "{text}");
        }
    }

    #[test]
    fn malformed_ones_are_refused() {
        for text in [
            "", ":80", "a:b", "a:65536", "a:+1", "u@a", "a/b", "a b", "a,b", "::1", "[::1", "[x]", "[::1]x", "a:1:2",
            "ü",
        ] {
            assert!(Authority::parse(text.as_bytes()).is_none(), "{text:?}");
        }
    }

    #[test]
    fn the_default_port_may_be_left_out() {
        let (a, b) = (Authority::parse(b"A.x").unwrap(), Authority::parse(b"a.X:80").unwrap());
        assert!(a.agrees(&b, 80) && !a.agrees(&b, 443));
    }
}
