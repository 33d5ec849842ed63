//! Web origins (RFC 6454).

use std::{fmt, str::FromStr};

/// Scheme, host and port of a web page, in the serialisation that browsers send in `Origin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebOrigin(String);

impl WebOrigin {
    /// Is this what a browser sent?
    pub fn matches(&self, header: &[u8]) -> bool {
        self.0.as_bytes().eq_ignore_ascii_case(header)
    }

    /// Its host, without port or brackets.
    pub fn host(&self) -> String {
        let uri: Option<http::Uri> = self.0.parse().ok();
        uri.as_ref()
            .and_then(http::Uri::host)
            .unwrap_or_default()
            .trim_matches(['[', ']'])
            .to_ascii_lowercase()
    }
}

impl FromStr for WebOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no origin; give scheme, host and port such as http://localhost:5173");
        let uri: http::Uri = text.parse().map_err(|_| wrong())?;
        let scheme = uri
            .scheme_str()
            .filter(|scheme| matches!(*scheme, "http" | "https"))
            .ok_or_else(wrong)?;
        let authority = uri
            .authority()
            .filter(|authority| !authority.as_str().contains('@'))
            .ok_or_else(wrong)?;
        if uri.path() != "/" || uri.query().is_some() || text.ends_with('/') {
            return Err(wrong());
        }
        let usual = if scheme == "http" { 80 } else { 443 };
        let origin = match authority.port_u16() {
            Some(port) if port != usual => format!("{scheme}://{}:{port}", authority.host()),
            _ => format!("{scheme}://{}", authority.host()),
        };
        Ok(Self(origin.to_ascii_lowercase()))
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
