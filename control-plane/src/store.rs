//! The store: every SQL statement of the control plane, a file per table.
//!
//! Reads take any executor, writes take a connection, so that the caller decides what one transaction is. Queries are
//! checked against the schema when they are compiled; `scripts/sqlx` renews the offline data after a change.

pub mod bodies;
pub mod display;
pub mod error;
pub mod events;
pub mod exchanges;
pub mod heads;
pub mod ingest;
pub mod installation;
pub mod page;
pub mod partitions;
pub mod purge;
pub mod revisions;
pub mod services;
pub mod websockets;
pub mod workspaces;

use std::time::Duration;

pub use error::StoreError;
use sqlx::{PgPool, migrate::Migrator};
use tokio::time::{Instant, sleep};

/// The database, for everybody but ingest, which has a connection of its own.
pub type Db = PgPool;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Brings the schema up to date, under an advisory lock, so that two processes do not do it at once.
///
/// Fails if the database was migrated by a newer build.
pub async fn migrate(db: &Db) -> Result<(), StoreError> {
    MIGRATIONS.run(db).await.map_err(StoreError::from_migration)
}

/// How long a start waits for a database that is away: a server that recovers replays at most `max_wal_size`.
pub const START_PATIENCE: Duration = Duration::from_mins(2);
/// Between attempts.
const AGAIN: Duration = Duration::from_millis(50);

/// Does what a start needs of the database, again while that is away. Callers of the API are told at once instead.
pub async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(act: impl Fn() -> F) -> Result<T, StoreError> {
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        match act().await {
            Err(StoreError::Unavailable(error)) if Instant::now() < deadline => {
                tracing::debug!(%error, "the database is away; trying again");
                sleep(AGAIN).await;
            }
            done => return done,
        }
    }
}

/// Is the database there?
pub async fn ping(db: &Db) -> Result<(), StoreError> {
    sqlx::query!("SELECT 1 AS one").fetch_one(db).await?;
    Ok(())
}
