//! Hosts: where a service listens, and patterns of hosts.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::Violation;

/// Where a service listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenHost {
    /// One address, or all of a family (`0.0.0.0`, `::`).
    Ip(IpAddr),
    /// Every loopback address that the machine has: 127.0.0.1, and ::1 where IPv6 is on.
    Localhost,
}

impl ListenHost {
    /// What a service listens on when nothing is said.
    pub const DEFAULT: Self = Self::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST));

    /// Checks `text`.
    pub fn parse(field: &str, text: &str) -> Result<Self, Violation> {
        if text.eq_ignore_ascii_case("localhost") {
            return Ok(Self::Localhost);
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        bare.parse()
            .map(Self::Ip)
            .map_err(|_| Violation::new(field, "must be an IP address of this machine or 'localhost'"))
    }

    /// The addresses to bind, most wanted first; all but the first may be missing on a machine.
    pub fn addresses(self) -> Vec<IpAddr> {
        match self {
            Self::Ip(ip) => vec![ip],
            Self::Localhost => vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)],
        }
    }
}

impl fmt::Display for ListenHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Localhost => f.write_str("localhost"),
        }
    }
}

/// A host, or `*.` and a domain for every host below it (at any depth, not the domain itself).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPattern {
    suffix: bool,
    host: String,
}

impl HostPattern {
    /// Checks `text` and brings it into its comparable form: lower case, punycode, no trailing dot, no brackets.
    pub fn parse(field: &str, text: &str) -> Result<Self, Violation> {
        let (suffix, rest) = text.strip_prefix("*.").map_or((false, text), |rest| (true, rest));
        let bare = rest.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(rest);
        if !suffix && let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self {
                suffix,
                host: ip.to_string(),
            });
        }
        let host = idna::domain_to_ascii(rest.trim_end_matches('.')).unwrap_or_default();
        let ok = !host.is_empty()
            && host.len() <= 253
            && host.split('.').all(|label| {
                !label.is_empty()
                    && label.len() <= 63
                    && label
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            });
        if ok {
            Ok(Self { suffix, host })
        } else {
            Err(Violation::new(
                field,
                "must be a host such as 'example.com', '*.example.com' or an IP address",
            ))
        }
    }

    /// Does `host` (any case, no brackets) match?
    pub fn matches(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').as_bytes();
        let own = self.host.as_bytes();
        if self.suffix {
            host.len() > own.len() + 1
                && host[host.len() - own.len()..].eq_ignore_ascii_case(own)
                && host[host.len() - own.len() - 1] == b'.'
        } else {
            host.eq_ignore_ascii_case(own)
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.suffix { "*." } else { "" }, self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_matches_below_its_domain_only() {
        let pattern = HostPattern::parse("h", "*.Example.com").unwrap();
        assert!(pattern.matches("a.example.com") && pattern.matches("A.B.EXAMPLE.COM."));
        assert!(!pattern.matches("example.com") && !pattern.matches("badexample.com"));
    }

    #[test]
    fn hosts_are_compared_without_case_and_in_punycode() {
        assert!(
            HostPattern::parse("h", "Bücher.example")
                .unwrap()
                .matches("xn--bcher-kva.example")
        );
        assert!(HostPattern::parse("h", "[::1]").unwrap().matches("::1"));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "*.", "*", "a..b", "http://x", "a b", "*.*.x", "x:80"] {
            assert!(HostPattern::parse("h", bad).is_err(), "{bad:?}");
        }
        for bad in ["", "example.com", "1.2.3", "*"] {
            assert!(ListenHost::parse("host", bad).is_err(), "{bad:?}");
        }
    }
}
