//! What went wrong on one of an exchange's two streams.

use std::{
    io::{self, ErrorKind},
    task::Poll,
};

use h2::{Error, Reason};
use proxyplane_record::error_code;

use crate::disconnect::{self, Peer};

/// What ended a stream early.
#[derive(Debug)]
pub(super) enum Cause {
    /// The peer sent RST_STREAM.
    Reset(Reason),
    /// The peer broke the protocol or its own Content-Length; h2 has reset the stream.
    Malformed(String),
    /// The peer is going away and has not looked at the stream (GOAWAY with a lower id): it may be sent again.
    Unprocessed,
    /// The head is over our limits.
    TooLarge(&'static str),
    /// The connection is gone.
    Lost(io::Error),
    /// The same, because of its TLS.
    Tls(String),
}

/// Who was at fault.
#[derive(Debug)]
pub(super) enum Fault {
    Client(Cause),
    Origin(Cause),
    /// The client sent nothing of its request's body for too long.
    Stalled,
}

impl From<Error> for Cause {
    fn from(error: Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() && error.is_remote() => Self::Reset(reason),
            _ if error.is_reset() => Self::Malformed(error.to_string()),
            _ if error.is_go_away() && error.is_remote() => Self::Unprocessed,
            // h2 keeps an error's kind and words, but not its type.
            _ if error.get_io().is_some_and(|io| io.kind() == ErrorKind::InvalidData) => Self::Tls(error.to_string()),
            _ => {
                let words = error.to_string();
                Self::Lost(error.into_io().unwrap_or_else(|| io::Error::other(words)))
            }
        }
    }
}

impl Cause {
    /// A stream takes no more, and does not say why.
    pub(super) fn stream_closed() -> Self {
        Self::Lost(io::Error::other("the stream is closed"))
    }

    /// Why a stream takes no more, by what its `poll_reset` says.
    pub(super) fn of_closed(reset: Poll<Result<Reason, Error>>) -> Self {
        match reset {
            Poll::Ready(Ok(reason)) => Self::Reset(reason),
            Poll::Ready(Err(error)) => error.into(),
            Poll::Pending => Self::stream_closed(),
        }
    }

    /// Does a peer that wants nothing more end like this?
    pub(super) fn is_leaving(&self) -> bool {
        match self {
            Self::Reset(reason) => matches!(*reason, Reason::NO_ERROR | Reason::CANCEL),
            Self::Unprocessed | Self::Lost(_) => true,
            Self::Malformed(_) | Self::TooLarge(_) | Self::Tls(_) => false,
        }
    }

    /// As a failure of the origin's it is recorded with this error code and these words.
    pub(super) fn of_origin(&self) -> (&'static str, String) {
        match self {
            Self::Reset(reason) => (
                error_code::STREAM_RESET,
                format!("the origin reset the stream: {}", name(*reason)),
            ),
            Self::Malformed(detail) => (error_code::UPSTREAM_RESPONSE_REFUSED, detail.clone()),
            Self::TooLarge(detail) => (error_code::UPSTREAM_HEAD_TOO_LARGE, (*detail).to_owned()),
            Self::Unprocessed => (error_code::UPSTREAM_ABORTED, "the origin is going away".to_owned()),
            Self::Lost(error) => (error_code::UPSTREAM_ABORTED, disconnect::in_words(Peer::Origin, error)),
            Self::Tls(detail) => (error_code::UPSTREAM_TLS_FAILED, detail.clone()),
        }
    }
}

/// Names of RFC 9113 §7.
pub(super) fn name(reason: Reason) -> String {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    let code = u32::from(reason);
    NAMES
        .get(code as usize)
        .map_or_else(|| format!("{code:#x}"), |name| (*name).to_owned())
}
