//! What became of a connection, in words for the row of the exchange that it ended.

use std::{
    fmt,
    io::{self, ErrorKind},
};

use proxyplane_record::error_code;

use crate::tls;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Client,
    Origin,
}

impl Peer {
    /// The error code of an exchange that this peer ended early.
    pub(crate) fn aborted(self) -> &'static str {
        match self {
            Self::Client => error_code::CLIENT_ABORTED,
            Self::Origin => error_code::UPSTREAM_ABORTED,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "the client",
            Self::Origin => "the origin",
        })
    }
}

/// What `peer` did to its connection, such as "the client reset the connection".
///
/// Neither the system's words nor rustls' say whose connection it was, and both speak to programmers.
pub(crate) fn in_words(peer: Peer, error: &io::Error) -> String {
    if let Some(cause) = tls::cause_in_words(peer, error) {
        return cause;
    }
    match error.kind() {
        // Between two writes, the system tells a close and a reset apart no more than a TLS library that is cut off.
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::NotConnected | ErrorKind::WriteZero => {
            format!("{peer} closed the connection")
        }
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => format!("{peer} reset the connection"),
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            format!("{peer} could not be reached any more")
        }
        _ => format!("the connection with {peer} failed: {}", without_number(error)),
    }
}

/// An error's words without the system's number behind them.
pub(crate) fn without_number(error: &io::Error) -> String {
    let words = error.to_string();
    match words.find(" (os error ") {
        Some(number) if error.raw_os_error().is_some() => words[..number].to_owned(),
        _ => words,
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;
    use rustls::AlertDescription;

    use super::*;

    fn os(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno as i32)
    }

    #[test]
    fn the_systems_errors_say_whose_connection_it_was_and_no_number() {
        for (error, words) in [
            (os(Errno::ECONNRESET), "the client reset the connection"),
            (os(Errno::ECONNABORTED), "the client reset the connection"),
            (os(Errno::EPIPE), "the client closed the connection"),
            (os(Errno::ENOTCONN), "the client closed the connection"),
            (ErrorKind::WriteZero.into(), "the client closed the connection"),
            (os(Errno::ETIMEDOUT), "the client could not be reached any more"),
            (os(Errno::EHOSTUNREACH), "the client could not be reached any more"),
            (
                os(Errno::ENOBUFS),
                "the connection with the client failed: No buffer space available",
            ),
        ] {
            assert_eq!(in_words(Peer::Client, &error), words, "{error}");
        }
        let reset = in_words(Peer::Origin, &os(Errno::ECONNRESET));
        assert_eq!(reset, "the origin reset the connection");
    }

    #[test]
    fn tls_that_is_cut_off_is_a_closed_connection() {
        let error = io::Error::new(
            ErrorKind::UnexpectedEof,
            "peer closed connection without sending TLS close_notify: https://docs.rs/rustls/",
        );
        assert_eq!(in_words(Peer::Client, &error), "the client closed the connection");
    }

    #[test]
    fn an_alert_is_told_by_its_name() {
        let alert = || rustls::Error::AlertReceived(AlertDescription::AccessDenied);
        let error = |cause| io::Error::new(ErrorKind::InvalidData, cause);
        for peer in [Peer::Client, Peer::Origin] {
            let words = in_words(peer, &error(alert()));
            assert!(
                words.starts_with(&peer.to_string()) && words.contains("alert access_denied"),
                "{words}"
            );
        }
    }
}
