//! Why a handshake failed, in words for the row and the error page.

use std::{error::Error as _, io, time::Duration};

use proxyplane_record::error_code;
use proxyplane_spec::limits;
use rustls::{AlertDescription, CertificateError, Error};
use rustls_pki_types::{ServerName, UnixTime};
use time::{OffsetDateTime, macros::format_description};

use super::verify::Untrusted;
use crate::disconnect::{self, Peer};

/// A handshake that did not come about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct TlsFailure {
    /// `error_code::CLIENT_TLS_FAILED`, `UPSTREAM_TLS_FAILED`, `PROXY_TLS_EXPIRED` or `INTERNAL`.
    pub code: &'static str,
    /// Cause, for people.
    pub detail: String,
}

impl TlsFailure {
    /// A read error on a connection to an origin with its cause in words, if that has to do with TLS. With TLS 1.3 an
    /// origin that wants a client certificate says so only after the handshake.
    pub fn in_words(error: io::Error) -> io::Error {
        let failure = tls(&error).map(|cause| Self::upstream(origin_cause(cause)));
        failure.map_or(error, |failure| io::Error::new(io::ErrorKind::InvalidData, failure))
    }

    /// What such an error has to do with TLS, if anything.
    pub fn after_handshake(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().cloned()
    }

    pub(super) fn internal(detail: String) -> Self {
        Self {
            code: error_code::INTERNAL,
            detail,
        }
    }

    /// The authority's own certificate is over since `not_after`.
    pub(super) fn expired(not_after: OffsetDateTime) -> Self {
        let since = UnixTime::since_unix_epoch(Duration::from_secs(not_after.unix_timestamp().unsigned_abs()));
        Self {
            code: error_code::PROXY_TLS_EXPIRED,
            detail: format!(
                "the proxy's intermediate certificate expired on {} while the control plane was away; it is renewed as \
                 soon as that is back",
                date(since)
            ),
        }
    }

    pub(super) fn origin_name(host: &str) -> Self {
        Self::upstream(format!("{host:?} is not a name that TLS can verify"))
    }

    pub(super) fn client_name(name: &str) -> Self {
        Self {
            code: error_code::CLIENT_TLS_FAILED,
            detail: format!("no certificate can be made for {name:?}"),
        }
    }

    /// Of a handshake with the origin `name`.
    pub(super) fn origin(error: &io::Error, name: &ServerName<'_>) -> Self {
        let cause = match tls(error) {
            Some(cause) => origin_cause(cause),
            None => transport(Peer::Origin, error),
        };
        Self::upstream(format!("TLS with {} failed: {cause}", name.to_str()))
    }

    /// Of a handshake with a client that sent the server name `sni`.
    pub(super) fn client(error: &io::Error, sni: Option<&str>) -> Self {
        let cause = match tls(error) {
            Some(cause) => client_cause(cause),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                "the client closed the connection during the handshake; it may not trust our certificate".to_owned()
            }
            None => transport(Peer::Client, error),
        };
        let sni = sni.map_or_else(|| "none".to_owned(), |name| name.escape_debug().to_string());
        Self {
            code: error_code::CLIENT_TLS_FAILED,
            detail: format!("{cause}; SNI: {sni}"),
        }
    }

    fn upstream(detail: String) -> Self {
        Self {
            code: error_code::UPSTREAM_TLS_FAILED,
            detail,
        }
    }
}

fn tls(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// What `error`, of a connection with `peer`, has to do with TLS, if anything.
pub(crate) fn cause_in_words(peer: Peer, error: &io::Error) -> Option<String> {
    if let Some(told) = TlsFailure::after_handshake(error) {
        return Some(told.detail);
    }
    let cause = tls(error)?;
    Some(match peer {
        Peer::Client => client_cause(cause),
        Peer::Origin => origin_cause(cause),
    })
}

fn transport(peer: Peer, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => {
            format!("no handshake within {} seconds", limits::TLS_TIMEOUT.as_secs())
        }
        _ => format!("{} during the handshake", disconnect::in_words(peer, error)),
    }
}

fn client_cause(error: &Error) -> String {
    match error {
        Error::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::AccessDenied),
        ) => format!(
            "the client rejected our certificate (alert {}); install the proxy's CA there, or pass the host through",
            alert_name(*alert)
        ),
        Error::AlertReceived(alert) => format!("the client gave up (alert {})", alert_name(*alert)),
        Error::PeerIncompatible(why) => format!("the client supports nothing that we do ({why:?})"),
        Error::NoApplicationProtocol => "the client does not offer the protocol that the origin chose".to_owned(),
        other => format!("the client's TLS is not valid: {other}"),
    }
}

fn origin_cause(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(cause) => certificate_cause(cause),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the origin wants a client certificate (alert certificate_required)".to_owned()
        }
        Error::AlertReceived(alert) => format!("the origin refused the handshake (alert {})", alert_name(*alert)),
        Error::PeerIncompatible(why) => format!("the origin supports nothing that we do ({why:?})"),
        Error::InvalidMessage(_) => format!("the origin does not speak TLS, or not correctly ({error})"),
        other => other.to_string(),
    }
}

fn certificate_cause(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired => "certificate expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => format!("certificate expired on {}", date(*not_after)),
        CertificateError::NotValidYet => "certificate not valid yet".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("certificate not valid before {}", date(*not_before))
        }
        CertificateError::NotValidForName => "name mismatch: the certificate is for another name".to_owned(),
        CertificateError::NotValidForNameContext { presented, .. } => presented_names(presented),
        CertificateError::UnknownIssuer => "certificate of an unknown issuer".to_owned(),
        CertificateError::BadSignature => "certificate not signed by the authority that it names".to_owned(),
        CertificateError::Revoked => "certificate revoked".to_owned(),
        CertificateError::BadEncoding => "certificate malformed".to_owned(),
        CertificateError::Other(other) => match other.source().and_then(|source| source.downcast_ref::<Untrusted>()) {
            Some(untrusted) => untrusted.to_string(),
            None => format!("certificate not acceptable: {other}"),
        },
        other => format!("certificate not acceptable: {other}"),
    }
}

/// webpki gives names as `DnsName("a.example")` and `IpAddress(127.0.0.1)`.
fn presented_names(presented: &[String]) -> String {
    const SHOWN: usize = 5;
    if presented.is_empty() {
        return "name mismatch: the certificate has no subject alternative name".to_owned();
    }
    let bare = |name: &String| {
        let inner = name
            .split_once('(')
            .map_or(name.as_str(), |(_, rest)| rest.trim_end_matches(')'));
        inner.trim_matches('"').to_owned()
    };
    let names = presented.iter().take(SHOWN).map(bare).collect::<Vec<_>>().join(", ");
    let more = match presented.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("name mismatch: the certificate is for {names}{more}")
}

fn date(at: UnixTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    i64::try_from(at.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|moment| moment.format(format).ok())
        .unwrap_or_else(|| at.as_secs().to_string())
}

/// The name of RFC 8446 §6, such as `unknown_ca`.
fn alert_name(alert: AlertDescription) -> String {
    if let AlertDescription::Unknown(code) = alert {
        return code.to_string();
    }
    let mut name = String::new();
    let text = format!("{alert:?}");
    let mut previous_lower = false;
    for letter in text.chars() {
        if letter.is_ascii_uppercase() && previous_lower {
            name.push('_');
        }
        previous_lower = letter.is_ascii_lowercase();
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_have_their_rfc_names() {
        for (alert, name) in [
            (AlertDescription::UnknownCA, "unknown_ca"),
            (AlertDescription::BadCertificate, "bad_certificate"),
            (AlertDescription::CertificateRequired, "certificate_required"),
            (AlertDescription::NoApplicationProtocol, "no_application_protocol"),
            (AlertDescription::HandshakeFailure, "handshake_failure"),
        ] {
            assert_eq!(alert_name(alert), name);
        }
    }

    #[test]
    fn long_lists_of_names_are_cut() {
        let names: Vec<_> = (0..9).map(|n| format!("DnsName(\"h{n}.example\")")).collect();
        let text = presented_names(&names);
        assert!(
            text.contains("h0.example, h1.example") && text.ends_with("h4.example and 4 more"),
            "{text}"
        );
    }
}
