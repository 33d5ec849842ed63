//! Why a service does not do as asked.

use std::net::SocketAddr;

use proxyplane_spec::Violation;

use super::{BinaryError, holder::PortHolder};
use crate::store::StoreError;

/// Why a start, stop, restart, update or removal did not happen.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// There is no such service.
    #[error("no such service")]
    NotFound,
    /// A start is under way.
    #[error("a start is under way")]
    AlreadyStarting,
    /// A stop is under way.
    #[error("a stop is under way")]
    AlreadyStopping,
    /// Its worker is being replaced.
    #[error("its worker is being replaced")]
    AlreadyUpgrading,
    /// As many workers that were replaced as may still drain.
    #[error("{0} replaced workers still drain")]
    TooManyDraining(usize),
    /// The worker binary is none that can be run.
    #[error(transparent)]
    BinaryRefused(BinaryError),
    /// Somebody listens on its port.
    #[error("port {port} is already in use by {holder}")]
    PortInUse {
        /// The port.
        port: u16,
        /// Who.
        holder: PortHolder,
    },
    /// Its host is no address of this machine, or may not be bound.
    #[error("cannot listen on {address}: {detail}")]
    AddressNotAvailable {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        detail: String,
        /// Which setting is to blame, and what is wrong with it; `None` if it is neither.
        blamed: Option<Violation>,
    },
    /// The worker did not become ready, or did not put a configuration in force.
    #[error("{detail}")]
    WorkerFailed {
        /// What it did instead.
        detail: String,
        /// Its last log lines.
        log: Vec<String>,
    },
    /// The worker did not say whether it can use a configuration; nothing changed.
    #[error("{0}")]
    Unresponsive(&'static str),
    /// The configuration cannot be put in force, by the judgement that a worker would give if there were one.
    #[error("the configuration is refused")]
    Invalid(Vec<Violation>),
    /// The worker refuses the configuration; nothing changed.
    #[error("the worker refused the configuration")]
    Rejected(Vec<Violation>),
    /// The worker is of a build that cannot listen elsewhere.
    #[error("the worker is of an older build, which cannot listen elsewhere")]
    RestartRequired,
    /// The control plane is stopping.
    #[error("the server is stopping")]
    ShuttingDown,
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for LifecycleError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
