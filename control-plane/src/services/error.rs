//! Why a use-case failed, closed: each has one reason of the published table.

use std::net::SocketAddr;

use proxyplane_spec::{
    ServiceId, Violation,
    reasons::{self, Reason},
};

use crate::{
    store::StoreError,
    supervisor::{LifecycleError, PortHolder},
};

/// Why a use-case failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields are wrong.
    #[error("{}", joined(.0))]
    Invalid(Vec<Violation>),
    /// The page token is damaged or belongs to another query.
    #[error("the page token is damaged or belongs to another query")]
    InvalidPageToken,
    /// There is no such resource.
    #[error("there is no {kind} {id}")]
    NotFound {
        /// `workspace`, `proxy` or `revision`.
        kind: &'static str,
        /// What was asked for.
        id: String,
    },
    /// Another resource has this name.
    #[error("the name '{name}' is taken")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it, if it was still there when looked up.
        holder: Option<String>,
    },
    /// The port is taken.
    #[error("Port {port} is already in use by {holder}")]
    PortInUse {
        /// The port.
        port: u16,
        /// Who.
        holder: PortHolder,
    },
    /// The host is no address of this machine, or may not be bound.
    #[error("cannot listen on {address}: {detail}")]
    AddressNotAvailable {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        detail: String,
        /// Fields of the call that are wrong, if it has any.
        violations: Vec<Violation>,
    },
    /// No port was found for port 0.
    #[error("no free port was found")]
    NoFreePort,
    /// A start is under way.
    #[error("the proxy is starting; wait for it")]
    AlreadyStarting {
        /// The service.
        id: ServiceId,
    },
    /// A stop is under way.
    #[error("the proxy is stopping; wait for it")]
    AlreadyStopping {
        /// The service.
        id: ServiceId,
    },
    /// The worker is being replaced.
    #[error("the proxy's worker is being replaced; wait for it")]
    AlreadyUpgrading {
        /// The service.
        id: ServiceId,
    },
    /// As many replaced workers as may still drain.
    #[error("{draining} replaced workers are still finishing what they have open; wait for one of them")]
    TooManyDraining {
        /// How many.
        draining: usize,
    },
    /// The worker binary is none that can be run.
    #[error("{0}")]
    BinaryRefused(String),
    /// Somebody changed the resource first.
    #[error("it was changed meanwhile; read it again")]
    EtagMismatch,
    /// The workspace still has services.
    #[error("the workspace is not empty (proxies: {proxies}); force removes them with it")]
    WorkspaceNotEmpty {
        /// How many.
        proxies: i64,
    },
    /// The change needs a worker of this build.
    #[error("the proxy's worker is of an older build, which cannot listen elsewhere: restart the proxy first")]
    RestartRequired,
    /// The worker refused the configuration.
    #[error("the worker refused the configuration: {}", joined(.0))]
    Rejected(Vec<Violation>),
    /// The worker did not become ready, or did not put a configuration in force.
    #[error("{detail}{}", last_lines(log))]
    WorkerFailed {
        /// What it did instead.
        detail: String,
        /// Its last log lines.
        log: Vec<String>,
    },
    /// The worker does not answer; nothing changed.
    #[error("{detail}; nothing changed")]
    WorkerUnresponsive {
        /// The service.
        id: ServiceId,
        /// What it does not do.
        detail: &'static str,
    },
    /// The server is stopping.
    #[error("the server is stopping")]
    ShuttingDown,
    /// Postgres cannot be reached.
    #[error("the database is not available; try again")]
    StorageUnavailable(#[source] StoreError),
    /// A fault of ours.
    #[error("internal error")]
    Internal(#[source] StoreError),
}

impl Error {
    /// Its entry in the published table.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Invalid(_) => reasons::INVALID_ARGUMENT,
            Self::InvalidPageToken => reasons::INVALID_PAGE_TOKEN,
            Self::NotFound { .. } => reasons::NOT_FOUND,
            Self::NameTaken { .. } => reasons::NAME_TAKEN,
            Self::PortInUse { .. } => reasons::PORT_IN_USE,
            Self::AddressNotAvailable { .. } => reasons::ADDRESS_NOT_AVAILABLE,
            Self::NoFreePort => reasons::NO_FREE_PORT,
            Self::AlreadyStarting { .. } => reasons::ALREADY_STARTING,
            Self::AlreadyStopping { .. } => reasons::ALREADY_STOPPING,
            Self::AlreadyUpgrading { .. } => reasons::ALREADY_UPGRADING,
            Self::TooManyDraining { .. } => reasons::TOO_MANY_DRAINING,
            Self::BinaryRefused(_) => reasons::WORKER_BINARY_REFUSED,
            Self::EtagMismatch => reasons::ETAG_MISMATCH,
            Self::WorkspaceNotEmpty { .. } => reasons::WORKSPACE_NOT_EMPTY,
            Self::RestartRequired => reasons::RESTART_REQUIRED,
            Self::Rejected(_) => reasons::WORKER_REJECTED_CONFIG,
            Self::WorkerFailed { .. } => reasons::WORKER_FAILED,
            Self::WorkerUnresponsive { .. } => reasons::WORKER_UNRESPONSIVE,
            Self::ShuttingDown => reasons::SHUTTING_DOWN,
            Self::StorageUnavailable(_) => reasons::STORAGE_UNAVAILABLE,
            Self::Internal(_) => reasons::INTERNAL,
        }
    }

    /// The fields at fault.
    pub fn violations(&self) -> &[Violation] {
        match self {
            Self::Invalid(violations) | Self::Rejected(violations) | Self::AddressNotAvailable { violations, .. } => {
                violations
            }
            _ => &[],
        }
    }

    /// What a program needs of the message: `port`, `holder_*`, `transition`, `id`, `name`, `proxies`, `draining`.
    pub fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::NotFound { kind, id } => vec![("kind", (*kind).to_owned()), ("id", id.clone())],
            Self::NameTaken { name, holder } => {
                let mut metadata = vec![("name", name.clone())];
                metadata.extend(holder.iter().map(|id| ("holder_id", id.clone())));
                metadata
            }
            Self::PortInUse { port, holder } => port_metadata(*port, holder),
            Self::AddressNotAvailable { address, .. } => vec![("address", address.to_string())],
            Self::AlreadyStarting { id } => vec![("id", id.to_string()), ("transition", "starting".to_owned())],
            Self::AlreadyStopping { id } => vec![("id", id.to_string()), ("transition", "stopping".to_owned())],
            Self::AlreadyUpgrading { id } => vec![("id", id.to_string()), ("transition", "upgrading".to_owned())],
            Self::WorkerUnresponsive { id, .. } => vec![("id", id.to_string())],
            Self::TooManyDraining { draining } => vec![("draining", draining.to_string())],
            Self::WorkspaceNotEmpty { proxies } => vec![("proxies", proxies.to_string())],
            _ => Vec::new(),
        }
    }

    /// What a lifecycle error of the service `id` is here.
    pub(super) fn of(id: ServiceId, error: LifecycleError) -> Self {
        match error {
            LifecycleError::NotFound | LifecycleError::Store(StoreError::NotFound) => Self::proxy_not_found(id),
            LifecycleError::AlreadyStarting => Self::AlreadyStarting { id },
            LifecycleError::AlreadyStopping => Self::AlreadyStopping { id },
            LifecycleError::AlreadyUpgrading => Self::AlreadyUpgrading { id },
            LifecycleError::TooManyDraining(draining) => Self::TooManyDraining { draining },
            LifecycleError::BinaryRefused(error) => Self::BinaryRefused(error.to_string()),
            LifecycleError::PortInUse { port, holder } => Self::PortInUse { port, holder },
            // The call need not be one that says where to listen.
            LifecycleError::AddressNotAvailable { address, detail, .. } => Self::AddressNotAvailable {
                address,
                detail,
                violations: Vec::new(),
            },
            LifecycleError::WorkerFailed { detail, log } => Self::WorkerFailed { detail, log },
            LifecycleError::Unresponsive(detail) => Self::WorkerUnresponsive { id, detail },
            LifecycleError::Invalid(violations) => Self::Invalid(violations),
            LifecycleError::Rejected(violations) => Self::Rejected(violations),
            LifecycleError::RestartRequired => Self::RestartRequired,
            LifecycleError::ShuttingDown => Self::ShuttingDown,
            LifecycleError::Store(error) => error.into(),
        }
    }

    /// The same of a call whose fields are a service's.
    pub(super) fn of_fields(id: ServiceId, error: LifecycleError) -> Self {
        let blamed = match &error {
            LifecycleError::AddressNotAvailable { blamed, .. } => blamed.clone(),
            _ => None,
        };
        let mut error = Self::of(id, error);
        if let Self::AddressNotAvailable { violations, .. } = &mut error {
            violations.extend(blamed);
        }
        error
    }

    pub(super) fn proxy_not_found(id: ServiceId) -> Self {
        Self::NotFound {
            kind: "proxy",
            id: id.to_string(),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NameTaken { name } => Self::NameTaken { name, holder: None },
            StoreError::PortTaken { port } => Self::PortInUse {
                port,
                holder: PortHolder::Unknown,
            },
            StoreError::EtagMismatch => Self::EtagMismatch,
            StoreError::InvalidPageToken => Self::InvalidPageToken,
            StoreError::WorkspaceNotEmpty => Self::WorkspaceNotEmpty { proxies: 1 },
            error if error.is_unavailable() => Self::StorageUnavailable(error),
            error => Self::Internal(error),
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

impl From<Vec<Violation>> for Error {
    fn from(violations: Vec<Violation>) -> Self {
        Self::Invalid(violations)
    }
}

fn port_metadata(port: u16, holder: &PortHolder) -> Vec<(&'static str, String)> {
    let mut metadata = vec![("port", port.to_string())];
    match holder {
        PortHolder::Service { id, name, workspace } => metadata.extend([
            ("holder_kind", "proxy".to_owned()),
            ("holder_id", id.to_string()),
            ("holder_name", name.clone()),
            ("holder_workspace", workspace.clone()),
        ]),
        PortHolder::Process { pid, name } => metadata.extend([
            ("holder_kind", "process".to_owned()),
            ("holder_pid", pid.to_string()),
            ("holder_name", name.clone()),
        ]),
        PortHolder::Unknown => metadata.push(("holder_kind", "unknown".to_owned())),
    }
    metadata
}

fn joined(violations: &[Violation]) -> String {
    violations
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Most bytes of a worker's log in an error: of more the newest are said, for they say why.
const LOG_MAX: usize = 1_200;

fn last_lines(log: &[String]) -> String {
    if log.is_empty() {
        return String::new();
    }
    let text = log.join("\n");
    match text.len().checked_sub(LOG_MAX) {
        None | Some(0) => format!("; its last log lines:\n{text}"),
        Some(more) => format!("; its last log lines:\n…{}", &text[text.ceil_char_boundary(more)..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_log_the_newest_lines_are_told() {
        let failed = |log: Vec<String>| {
            let detail = "it ended".to_owned();
            Error::WorkerFailed { detail, log }.to_string()
        };
        assert_eq!(failed(vec![]), "it ended");
        assert_eq!(
            failed(vec!["a".into(), "b".into()]),
            "it ended; its last log lines:\na\nb"
        );
        let long = failed((0..200).map(|n| format!("line ä {n}")).collect());
        assert!(long.len() < LOG_MAX + 50 && long.contains('…'), "{long}");
        assert!(long.ends_with("line ä 198\nline ä 199"), "{long}");
    }

    #[test]
    fn a_port_conflict_names_the_proxy_that_holds_it() {
        let id = ServiceId::new();
        let holder = PortHolder::Service {
            id,
            name: "Testing Proxy".into(),
            workspace: "default".into(),
        };
        let error = Error::PortInUse { port: 8008, holder };
        assert_eq!(
            error.to_string(),
            "Port 8008 is already in use by proxy 'Testing Proxy'"
        );
        assert!(error.metadata().contains(&("holder_id", id.to_string())));
        assert!(error.metadata().contains(&("holder_workspace", "default".to_owned())));
        assert_eq!(error.reason().exit, 5);
    }

    #[test]
    fn conflicts_carry_the_transition_that_is_under_way() {
        let error = Error::of(ServiceId::new(), LifecycleError::AlreadyStopping);
        assert!(error.metadata().contains(&("transition", "stopping".to_owned())));
    }
}
