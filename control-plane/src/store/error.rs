//! What can go wrong in the store.

use std::io;

use sqlx::{error::ErrorKind, migrate::MigrateError};

/// Why a call to the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another row has this name or code.
    #[error("the name {name:?} is taken")]
    NameTaken {
        /// The name that was asked for.
        name: String,
    },
    /// Another service has this port.
    #[error("port {port} is taken by another service")]
    PortTaken {
        /// The port that was asked for.
        port: u16,
    },
    /// There is no such row.
    #[error("not found")]
    NotFound,
    /// Somebody changed the row first.
    #[error("the etag does not match")]
    EtagMismatch,
    /// The workspace still has services.
    #[error("the workspace still has services")]
    WorkspaceNotEmpty,
    /// The page token is damaged or belongs to another query.
    #[error("the page token is not one of this query's")]
    InvalidPageToken,
    /// Another control plane holds the installation.
    #[error("the installation is held by {holder}")]
    Held {
        /// Host, process and data directory of the holder.
        holder: String,
    },
    /// The database cannot be reached, or is starting or stopping.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// A fault of ours or of the database's contents.
    #[error("database fault")]
    Fault(#[source] sqlx::Error),
}

impl StoreError {
    /// Does the error say that the database is away, not that something is wrong?
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// The server is at its start and waits for the database.
    pub(crate) fn awaited() -> Self {
        Self::Unavailable(sqlx::Error::PoolTimedOut)
    }

    pub(crate) fn from_migration(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
            other => Self::Fault(sqlx::Error::Migrate(Box::new(other))),
        }
    }

    /// A stored value that this build cannot read.
    pub(crate) fn corrupt(column: &str, why: impl std::fmt::Display) -> Self {
        Self::Fault(sqlx::Error::ColumnDecode {
            index: column.to_owned(),
            source: why.to_string().into(),
        })
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if is_away(&error) {
            Self::Unavailable(error)
        } else {
            Self::Fault(error)
        }
    }
}

/// Is the server out of reach, starting, stopping or out of room? Such an error may be tried again.
pub(crate) fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Tls(_) => true,
        // 08: connection, 53: out of disk, memory or connections, 57: shutdown, start-up or cancelled by the operator.
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| ["08", "53", "57"].iter().any(|class| code.starts_with(class))),
        _ => false,
    }
}

/// Does it pass by itself that nobody answers: the server is not reached, not listening yet, starting up, or full? A wrong
/// password, an unknown host or a certificate stay wrong.
pub(crate) fn may_answer_later(error: &sqlx::Error) -> bool {
    use io::ErrorKind as Kind;
    match error {
        sqlx::Error::Io(error) => matches!(
            error.kind(),
            Kind::NotFound
                | Kind::ConnectionRefused
                | Kind::ConnectionReset
                | Kind::ConnectionAborted
                | Kind::BrokenPipe
                | Kind::UnexpectedEof
                | Kind::TimedOut
                | Kind::WouldBlock
                | Kind::HostUnreachable
                | Kind::NetworkUnreachable
                | Kind::NetworkDown
        ),
        sqlx::Error::Database(_) => is_away(error),
        _ => false,
    }
}

/// Name of the constraint that refused the statement, with the kind of refusal.
pub(crate) fn violated(error: &sqlx::Error) -> Option<(&str, ErrorKind)> {
    let error = error.as_database_error()?;
    Some((error.constraint()?, error.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_there_passes_by_itself_and_a_wrong_setting_does_not() {
        let io = |kind: io::ErrorKind| sqlx::Error::Io(kind.into());
        for passes in [
            io(io::ErrorKind::ConnectionRefused),
            io(io::ErrorKind::NotFound),
            io(io::ErrorKind::TimedOut),
        ] {
            assert!(may_answer_later(&passes), "{passes}");
        }
        let unknown_host = io::Error::other("failed to lookup address information");
        for stays in [
            sqlx::Error::Io(unknown_host),
            io(io::ErrorKind::PermissionDenied),
            sqlx::Error::Tls("certificate".into()),
            sqlx::Error::Configuration("url".into()),
        ] {
            assert!(!may_answer_later(&stays), "{stays}");
        }
    }
}
