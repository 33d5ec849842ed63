//! What can go wrong, what is said about it, and the exit code.
//!
//! The exit code follows the reason in the server's answer ([`proxyplane_spec::reasons`]), not the transport.

use std::{collections::HashMap, io};

use proxyplane_spec::reasons;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{escape, flags, output};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An argument is wrong; found here, not by clap.
    #[error("{0}")]
    Usage(String),
    /// A name fits several things.
    #[error("'{name}' is ambiguous; say which: {}", candidates.join(", "))]
    Ambiguous { name: String, candidates: Vec<String> },
    /// A name fits nothing.
    #[error("{what} '{name}' was not found")]
    NotFound {
        what: &'static str,
        name: String,
        hint: Option<String>,
    },
    /// Nobody answers.
    #[error("cannot reach {server}: {cause}")]
    Unreachable { server: String, cause: String },
    /// The connection broke.
    #[error("the connection to the server broke: {0}")]
    Broken(String),
    /// Somebody answers, but not in HTTP/2.
    #[error("what the server answers is no gRPC: {0}")]
    NotGrpc(String),
    /// The server answered with an error.
    #[error("{}", .0.message)]
    Api(Box<ApiError>),
    /// Not everything is ready.
    #[error("not ready: {}", .0.join(", "))]
    NotReady(Vec<String>),
    /// A file or standard output.
    #[error("{context}: {source}")]
    File { context: String, source: io::Error },
    /// Standard output or the runtime.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// An error that the server answered with.
#[derive(Debug)]
pub(crate) struct ApiError {
    code: Code,
    reason: String,
    message: String,
    metadata: HashMap<String, String>,
    /// What is wrong, each with the flag or else the field at fault.
    violations: Vec<(String, String)>,
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let info = status.get_details_error_info();
        // With a cause it was found here, and is none of the server's answers.
        if info.is_none() && std::error::Error::source(&status).is_some() {
            match status.code() {
                Code::Unavailable | Code::Unknown | Code::Cancelled => return Self::Broken(root_cause(&status)),
                Code::Internal => return Self::NotGrpc(root_cause(&status)),
                _ => {}
            }
        }
        let (reason, metadata) = info.map(|info| (info.reason, info.metadata)).unwrap_or_default();
        let violations = status
            .get_details_bad_request()
            .map(|bad| bad.field_violations)
            .unwrap_or_default();
        let mut message = status.message().to_owned();
        let violations = violations.into_iter().map(|violation| {
            let Some(flag) = flags::of(&violation.field) else {
                return (violation.field, violation.description);
            };
            let said = |name: &str| format!("{name}: {}", violation.description);
            message = message.replace(&said(&violation.field), &said(&flag));
            (flag, violation.description)
        });
        let violations = violations.collect();
        Self::Api(Box::new(ApiError {
            code: status.code(),
            reason,
            message,
            metadata,
            violations,
        }))
    }
}

impl Error {
    /// Exit code of the program.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::Usage(_) | Self::Ambiguous { .. } => 2,
            Self::NotFound { .. } => 4,
            Self::Unreachable { .. } | Self::Broken(_) | Self::NotGrpc(_) => 3,
            Self::Api(api) => api.exit_code(),
            // A reader that has seen enough, such as `head`, is no failure.
            Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::NotReady(_) | Self::File { .. } | Self::Io(_) => 1,
        }
    }

    /// Is it worth trying again, because the server went away rather than refused?
    pub(crate) fn is_lost_connection(&self) -> bool {
        !matches!(self, Self::NotGrpc(_)) && self.exit_code() == 3
    }

    /// Tells the user, on standard error.
    pub(crate) fn report(&self) {
        if self.exit_code() == 0 {
            return;
        }
        output::talk_error(&self.to_string());
        if let Self::Api(api) = self {
            for (field, description) in api.unsaid_violations() {
                output::talk(&format!("  {}: {}", escape::line(field), escape::line(description)));
            }
        }
        if let Self::Api(api) = self
            && let Some(holder) = api.holding_proxy()
        {
            output::talk(&format!("  held by {}", escape::line(&holder)));
        }
        if let Some(hint) = self.hint() {
            output::talk(&format!("hint: {}", escape::text(&hint)));
        }
    }

    /// The next step, where one is known.
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { hint, .. } => hint.clone(),
            Self::Unreachable { .. } => {
                Some("is it running? `make run` or `proxyplane serve` starts it; --server says where it is".into())
            }
            Self::Broken(_) | Self::NotGrpc(_) => Some(
                "is it still running? If so, what listens there may not be Proxyplane: --server says where to look"
                    .into(),
            ),
            Self::Api(api) => api.hint(),
            _ => None,
        }
    }
}

impl ApiError {
    /// The proxy that has what was asked for, wherever it is.
    fn holding_proxy(&self) -> Option<String> {
        let of = |key| self.metadata.get(key);
        let (workspace, name) = (of("holder_workspace")?, of("holder_name")?);
        Some(format!("proxy {workspace}/{name}, id {}", of("holder_id")?))
    }

    /// The violations that the message does not tell already, as it does of a single one.
    fn unsaid_violations(&self) -> impl Iterator<Item = &(String, String)> {
        let said = |(_, description): &(String, String)| self.message.contains(description.as_str());
        self.violations.iter().filter(move |violation| !said(violation))
    }

    fn exit_code(&self) -> i32 {
        if let Some(reason) = reasons::by_name(&self.reason) {
            return i32::from(reason.exit);
        }
        // A server that is newer than this program may have reasons that are not known here.
        match self.code {
            Code::InvalidArgument | Code::OutOfRange => 2,
            Code::Unavailable => 3,
            Code::NotFound => 4,
            Code::AlreadyExists | Code::Aborted => 5,
            _ => 1,
        }
    }

    fn hint(&self) -> Option<String> {
        let known = reasons::by_name(&self.reason)?;
        if known == &reasons::PORT_IN_USE {
            let holder = self.metadata.get("holder_name").or_else(|| self.metadata.get("holder"));
            return holder
                .filter(|holder| !self.message.contains(holder.as_str()))
                .map(|holder| format!("held by {holder}"))
                .or_else(|| {
                    Some("`proxy update --port` takes another; `proxy create` without --port picks a free one".into())
                });
        }
        match known.name {
            "WORKSPACE_NOT_EMPTY" => Some("--force stops and removes its proxies with it; their traffic stays".into()),
            "BODY_NOT_DECODABLE" | "BODY_TOO_LARGE_TO_DECODE" => Some("--raw gives the bytes as they were sent".into()),
            "UNAUTHENTICATED" => {
                Some("the token comes from --token, PROXYCTL_TOKEN or the account that runs `proxyplane serve`".into())
            }
            "WORKER_UNRESPONSIVE" => {
                let proxy = self.metadata.get("id").map_or("NAME", String::as_str);
                let restart = format!("`proxyctl proxy restart --drain-timeout 1s {proxy}` replaces the worker");
                Some(format!("{restart}; what it has open is cut off"))
            }
            "INTERNAL" => Some(known.meaning.to_owned()),
            _ => None,
        }
    }
}

/// The innermost cause: what the operating system said.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn api(code: Code, reason: &str) -> Error {
        Status::with_error_details(
            code,
            "no",
            ErrorDetails::with_error_info(reason, "proxyplane", HashMap::new()),
        )
        .into()
    }

    #[test]
    fn the_exit_code_follows_the_reason_not_the_transport() {
        assert_eq!(api(Code::FailedPrecondition, "WORKSPACE_NOT_EMPTY").exit_code(), 5);
        assert_eq!(api(Code::FailedPrecondition, "WORKER_REJECTED_CONFIG").exit_code(), 2);
        assert_eq!(api(Code::Unavailable, "WORKER_FAILED").exit_code(), 1);
        assert_eq!(api(Code::Unavailable, "STORAGE_UNAVAILABLE").exit_code(), 3);
    }

    #[test]
    fn a_reason_from_a_newer_server_falls_back_to_the_code() {
        assert_eq!(api(Code::NotFound, "NEVER_HEARD").exit_code(), 4);
        assert_eq!(api(Code::Aborted, "NEVER_HEARD").exit_code(), 5);
        assert_eq!(api(Code::Internal, "NEVER_HEARD").exit_code(), 1);
    }

    #[test]
    fn a_violation_is_told_once() {
        let answer = |message: &str| {
            let mut details = ErrorDetails::new();
            details
                .add_bad_request_violation("port", "must be free")
                .add_bad_request_violation("name", "must be short");
            Error::from(Status::with_error_details(Code::InvalidArgument, message, details))
        };
        let unsaid = |error: &Error| match error {
            Error::Api(api) => api.unsaid_violations().count(),
            _ => panic!("{error:?}"),
        };
        assert_eq!(unsaid(&answer("2 fields are wrong")), 2);
        assert_eq!(unsaid(&answer("port: must be free")), 1);
    }

    #[test]
    fn a_violation_names_the_flag_where_there_is_one() {
        let mut details = ErrorDetails::new();
        details
            .add_bad_request_violation("proxy_service.host", "is none")
            .add_bad_request_violation("update_mask", "is empty");
        let message = "proxy_service.host: is none; update_mask: is empty";
        let error = Error::from(Status::with_error_details(Code::InvalidArgument, message, details));
        assert_eq!(error.to_string(), "--host: is none; update_mask: is empty");
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        assert_eq!(Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit_code(), 0);
    }
}
