//! Host names as certificates and handshakes want them.

use rustls_pki_types::ServerName;

/// Brings `host` into the form that is put into certificates, verified and sent: lower case, punycode, no trailing dot,
/// no brackets. `None` if it is neither an IP address nor a DNS name.
pub(super) fn parse(host: &str) -> Option<ServerName<'static>> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    if bare.is_ascii() {
        ServerName::try_from(bare.to_ascii_lowercase()).ok()
    } else {
        ServerName::try_from(idna::domain_to_ascii(bare).ok()?).ok()
    }
}

/// What goes on the wire as the server name: nothing for an IP address.
pub(super) fn sent_as_sni<'a>(name: &'a ServerName<'_>) -> &'a str {
    match name {
        ServerName::DnsName(dns) => dns.as_ref(),
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_brought_into_one_form() {
        for (host, name) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("Bücher.example", "xn--bcher-kva.example"),
            ("under_score.example", "under_score.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "::1"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(parse(host).unwrap().to_str(), name, "{host}");
        }
    }

    #[test]
    fn nonsense_is_no_name() {
        for host in [
            "",
            ".",
            "a b",
            "*.example.com",
            "a..b",
            &"x".repeat(300),
            "[example.com",
            "a/b",
            "a\0b",
        ] {
            assert_eq!(parse(host), None, "{host:?}");
        }
    }

    #[test]
    fn an_ip_address_is_not_sent() {
        assert_eq!(sent_as_sni(&parse("::1").unwrap()), "");
        assert_eq!(sent_as_sni(&parse("a.example").unwrap()), "a.example");
    }
}
