//! Why the control plane does not start, or ends by itself.

use std::{io, net::SocketAddr};

use crate::{data_dir::DataDirError, postgres::PostgresError, store::StoreError, supervisor::PortHolder};

/// `EX_USAGE` of sysexits.h: a setting is wrong.
const USAGE: u8 = 64;
/// `EX_UNAVAILABLE`: something is in use by somebody else.
const UNAVAILABLE: u8 = 69;
/// `EX_CANTCREAT`: a directory cannot be used.
const CANNOT_CREATE: u8 = 73;

/// Why the control plane does not start, or ends by itself.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory is in use or unusable.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Somebody listens on our address.
    #[error("--listen: {address} is already in use by {holder}")]
    AddressInUse {
        /// The address.
        address: SocketAddr,
        /// Who.
        holder: PortHolder,
    },
    /// Our address cannot be listened on.
    #[error("--listen: cannot listen on {address}: {error}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// There is no private Postgres.
    #[error("{0}")]
    Postgres(#[from] PostgresError),
    /// The database of --database-url does not answer.
    #[error("--database-url: {url}: {error}")]
    Database {
        /// Without its password.
        url: String,
        /// Why.
        error: sqlx::Error,
    },
    /// Another control plane has the installation.
    #[error("the database is in use by another control plane: {holder}")]
    Held {
        /// Host, process and data directory of it.
        holder: String,
    },
    /// The store refused.
    #[error("database: {}", causes(.0))]
    Store(StoreError),
    /// A part does not start.
    #[error("{part}: {error}")]
    Part {
        /// Which.
        part: &'static str,
        /// Why.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StartError {
    /// For `map_err`: the part of that name does not start.
    pub(super) fn of<E: Into<Box<dyn std::error::Error + Send + Sync>>>(part: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Part {
            part,
            error: error.into(),
        }
    }

    /// Exit status, after sysexits.h.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::DataDir(DataDirError::InUse { .. }) | Self::AddressInUse { .. } | Self::Held { .. } => UNAVAILABLE,
            Self::DataDir(DataDirError::Unusable { .. } | DataDirError::Unreachable { .. }) => CANNOT_CREATE,
            Self::Address { .. } => USAGE,
            Self::Part { part, .. } if part.starts_with("--") => USAGE,
            _ => 1,
        }
    }
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Held { holder } => Self::Held { holder },
            other => Self::Store(other),
        }
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |cause| cause.source());
    sources.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
