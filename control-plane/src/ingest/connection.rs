//! The committer's own connections, and what its errors mean.

use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

use super::room::NoRoom;
use crate::store::{Db, StoreError};

/// Limits on the server's side: a connection that was lost without notice must not hold the cursors for ever.
const OPTIONS: [(&str, &str); 5] = [
    ("statement_timeout", "60s"),
    ("lock_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("synchronous_commit", "on"),
    // The same few statements for ever: planning them each time costs more than a plan made for the values saves.
    ("plan_cache_mode", "force_generic_plan"),
];
/// Most that is handed to the connection's write buffer at once, which keeps its size.
const SEND: usize = 256 * 1024;

/// Why a transaction came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// Postgres refuses a row: SQLSTATE class 22 (data), 23 (integrity) or 54 (limits).
    Refused(String),
    /// A partition is missing that was there.
    NoPartition(String),
    /// The cursors are not where they were expected.
    CursorsMoved,
    /// Another control plane has the lease.
    LeaseLost,
    /// The batch before it did not come to be committed.
    NotItsTurn,
    /// The database is away or the outcome is unknown: read the cursors and try again.
    Again(String),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let Some(database) = error.as_database_error() else {
            return Self::Again(error.to_string());
        };
        let code = database.code().unwrap_or_default();
        // A row that fits no partition is a check violation without a constraint.
        if code == "23514" && database.constraint().is_none() {
            return Self::NoPartition(database.message().to_owned());
        }
        match code.get(..2) {
            Some("22" | "23" | "54") => Self::Refused(format!("{code}: {}", database.message())),
            _ => Self::Again(error.to_string()),
        }
    }
}

impl From<NoRoom> for Failure {
    fn from(error: NoRoom) -> Self {
        Self::Again(error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Fault(error) | StoreError::Unavailable(error) => error.into(),
            other => Self::Again(other.to_string()),
        }
    }
}

pub(super) async fn connect(db: &Db) -> Result<PgConnection, Failure> {
    let options = db
        .connect_options()
        .as_ref()
        .clone()
        .options(OPTIONS)
        .application_name("proxyplane ingest");
    Ok(PgConnection::connect_with(&options.disable_statement_logging()).await?)
}

/// Copies encoded rows into a table.
pub(super) async fn copy(db: &mut PgConnection, statement: &str, data: &[u8]) -> Result<(), Failure> {
    let mut copy = db.copy_in_raw(statement).await?;
    for piece in data.chunks(SEND) {
        copy.send(piece).await?;
    }
    copy.finish().await?;
    Ok(())
}
