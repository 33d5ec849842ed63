//! The only place where a `tonic::Status` is built.
//!
//! Every error carries one `google.rpc.ErrorInfo` (reason of [`proxyplane_spec::reasons`], our domain, metadata) and,
//! where fields are at fault, a `google.rpc.BadRequest` with their full paths.

use std::collections::HashMap;

use proxyplane_proto::ERROR_DOMAIN;
use proxyplane_spec::{
    Violation,
    reasons::{self, Reason},
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::{services, store::StoreError, upgrade::UpgradeError};

/// Most bytes of a message: errors travel in HTTP/2 trailers, of which usual clients take 16 KiB (a message once as it is,
/// percent-encoded, and once with the details, in base64).
const MESSAGE: usize = 1_536;
/// Most fields at fault that are listed; the first are enough to go on.
const VIOLATIONS: usize = 10;
/// Most bytes of a field's path, of what is said of it, and of a value of metadata: some repeat what the client sent.
const TEXT: usize = 256;

/// An error on its way to a client. Boxed: most calls succeed, and every one returns a `Result` with this.
#[derive(Clone, Debug)]
pub(crate) struct Refusal(Box<Details>);

#[derive(Clone, Debug)]
struct Details {
    reason: Reason,
    message: String,
    metadata: HashMap<String, String>,
    violations: Vec<Violation>,
}

impl Refusal {
    /// An error with a message for people.
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        let (message, metadata, violations) = (message.into(), HashMap::new(), Vec::new());
        Self(Box::new(Details {
            reason,
            message,
            metadata,
            violations,
        }))
    }

    /// Fields that are wrong.
    pub(crate) fn invalid(violations: Vec<Violation>) -> Self {
        Self::new(reasons::INVALID_ARGUMENT, joined(&violations)).at(violations)
    }

    /// One field that is wrong.
    pub(crate) fn field(field: &str, description: &str) -> Self {
        Self::invalid(vec![Violation::new(field, description)])
    }

    /// A fault of ours: logged here, with nothing of it told to the client.
    pub(crate) fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a call failed by a fault of the server");
        Self::new(reasons::INTERNAL, "internal error; the server's log has the details")
    }

    /// An error that was made without a reason: its code says as much, where a reason has the code's name.
    pub(crate) fn of_code(status: &Status) -> Option<Self> {
        let reason = reasons::ALL
            .iter()
            .find(|reason| reason.name == reason.grpc && code(**reason) == status.code())?;
        let message = match status.message() {
            "" => reason.meaning,
            message => message,
        };
        Some(Self::new(*reason, message))
    }

    /// Adds a machine-readable detail.
    pub(crate) fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.0.metadata.insert(key.to_owned(), value.into());
        self
    }

    /// Adds the fields at fault.
    pub(crate) fn at(mut self, violations: Vec<Violation>) -> Self {
        self.0.violations = violations;
        self
    }

    /// The reason.
    pub(crate) fn reason(&self) -> Reason {
        self.0.reason
    }

    /// The message.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let Details {
            reason,
            message,
            metadata,
            violations,
        } = *refusal.0;
        let mut metadata: HashMap<_, _> = metadata
            .into_iter()
            .map(|(key, value)| (key, shortened(value, TEXT)))
            .collect();
        if let Some(more) = violations.len().checked_sub(VIOLATIONS).filter(|more| *more > 0) {
            metadata.insert("violations_left_off".to_owned(), more.to_string());
        }
        let mut details = ErrorDetails::new();
        details.set_error_info(reason.name, ERROR_DOMAIN, metadata);
        if !violations.is_empty() {
            let violations = violations.into_iter().take(VIOLATIONS);
            details.set_bad_request(
                violations
                    .map(|v| FieldViolation::new(shortened(v.field, TEXT), shortened(v.description, TEXT)))
                    .collect::<Vec<_>>(),
            );
        }
        Status::with_error_details(code(reason), shortened(message, MESSAGE), details)
    }
}

impl From<Violation> for Refusal {
    fn from(violation: Violation) -> Self {
        Self::invalid(vec![violation])
    }
}

impl From<services::Error> for Refusal {
    fn from(error: services::Error) -> Self {
        match &error {
            services::Error::Internal(source) => return Self::internal(&chain(source)),
            services::Error::StorageUnavailable(source) => {
                tracing::warn!(error = chain(source), "a call failed because the database is away");
            }
            _ => {}
        }
        let mut refusal = Self::new(error.reason(), error.to_string()).at(error.violations().to_vec());
        for (key, value) in error.metadata() {
            refusal = refusal.with(key, value);
        }
        refusal
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        services::Error::from(error).into()
    }
}

impl From<UpgradeError> for Refusal {
    fn from(error: UpgradeError) -> Self {
        Self::new(reasons::UPGRADE_REFUSED, error.to_string())
    }
}

/// An error with its causes, for the log.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The gRPC code that the published table gives to a reason.
fn code(reason: Reason) -> Code {
    match reason.grpc {
        "INVALID_ARGUMENT" => Code::InvalidArgument,
        "UNAUTHENTICATED" => Code::Unauthenticated,
        "PERMISSION_DENIED" => Code::PermissionDenied,
        "NOT_FOUND" => Code::NotFound,
        "ALREADY_EXISTS" => Code::AlreadyExists,
        "FAILED_PRECONDITION" => Code::FailedPrecondition,
        "RESOURCE_EXHAUSTED" => Code::ResourceExhausted,
        "ABORTED" => Code::Aborted,
        "UNAVAILABLE" => Code::Unavailable,
        "DEADLINE_EXCEEDED" => Code::DeadlineExceeded,
        "OUT_OF_RANGE" => Code::OutOfRange,
        "UNIMPLEMENTED" => Code::Unimplemented,
        _ => Code::Internal,
    }
}

/// At most so many bytes of `text`, and a sign that there were more.
fn shortened(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most - '…'.len_utf8()));
        text.push('…');
    }
    text
}

fn joined(violations: &[Violation]) -> String {
    violations
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::PortHolder;

    #[test]
    fn every_published_reason_has_the_code_it_names() {
        for reason in reasons::ALL {
            let spelled = format!("{:?}", code(*reason));
            let expected: String = reason
                .grpc
                .split('_')
                .map(|word| word[..1].to_owned() + &word[1..].to_lowercase())
                .collect();
            assert_eq!(spelled, expected, "{}", reason.name);
        }
    }

    #[test]
    fn a_taken_port_names_its_holder() {
        let holder = PortHolder::Process {
            pid: 7,
            name: "nginx".into(),
        };
        let refusal = Refusal::from(services::Error::PortInUse { port: 80, holder });
        assert_eq!(refusal.message(), "Port 80 is already in use by process 7 (nginx)");
        let details = Status::from(refusal).get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.metadata["holder_pid"].as_str()),
            ("PORT_IN_USE", "7")
        );
    }

    #[test]
    fn a_fault_of_the_server_is_not_told() {
        let fault = StoreError::Fault(sqlx::Error::Protocol("secret".into()));
        let refusal = Refusal::from(fault);
        assert_eq!(refusal.reason(), reasons::INTERNAL);
        assert!(!refusal.message().contains("secret"));
    }

    #[test]
    fn an_error_about_very_much_still_fits_what_clients_take() {
        let long = "ä".repeat(5_000);
        let violations = (0..1_000).map(|n| Violation::new(format!("hosts[{n}].{long}"), long.clone()));
        let status = Status::from(Refusal::invalid(violations.collect()).with("name", long.clone()));
        let details = status.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations.len(), VIOLATIONS);
        assert_eq!(details.error_info().unwrap().metadata["violations_left_off"], "990");
        assert!(status.message().ends_with('…'));
        let mut trailers = http::HeaderMap::new();
        status.add_header(&mut trailers).unwrap();
        let bytes: usize = trailers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        assert!(bytes < 16 * 1024, "{bytes}");
    }

    #[test]
    fn details_carry_reason_metadata_and_fields() {
        let refusal = Refusal::invalid(vec![Violation::new("port", "too high")]).with("key", "7");
        let status = Status::from(refusal);
        assert_eq!(
            (status.code(), status.message()),
            (Code::InvalidArgument, "port: too high")
        );
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("INVALID_ARGUMENT", "proxyplane")
        );
        assert_eq!(info.metadata["key"], "7");
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "port");
    }
}
