//! Table `installation`: its id, and the lease that lets one control plane write.

use std::time::Duration;

use sqlx::PgExecutor;
use uuid::Uuid;

use super::{Db, StoreError};

/// How long a lease lasts without renewal. Another machine takes over after that; the same data directory at once.
pub const LEASE: Duration = Duration::from_secs(15);
/// Between renewals.
pub const RENEWAL: Duration = Duration::from_secs(5);

/// Who asks for the lease.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The data directory, by an id kept in it. Its lock proves that a former process of the same directory is gone.
    pub instance: Uuid,
    /// This run of the control plane.
    pub boot: Uuid,
    /// For people: host, process and data directory.
    pub name: String,
}

/// The installation's id.
pub async fn id(db: impl PgExecutor<'_>) -> Result<Uuid, StoreError> {
    Ok(sqlx::query_scalar!("SELECT id FROM installation").fetch_one(db).await?)
}

/// Takes the lease, or fails with `Held` if another control plane has it.
pub async fn acquire(db: &Db, holder: &Holder) -> Result<(), StoreError> {
    let taken = sqlx::query!(
        "UPDATE installation
         SET lease_instance = $1, lease_boot = $2, lease_holder = $3, lease_expires_at = now() + make_interval(secs => $4)
         WHERE lease_instance IS NULL OR lease_instance = $1 OR lease_expires_at < now()",
        holder.instance,
        holder.boot,
        holder.name,
        LEASE.as_secs_f64(),
    )
    .execute(db)
    .await?;
    if taken.rows_affected() == 1 {
        return Ok(());
    }
    Err(held(db).await?)
}

/// Renews the lease, or fails with `Held` if somebody else took it meanwhile.
pub async fn renew(db: &Db, boot: Uuid) -> Result<(), StoreError> {
    let renewed = sqlx::query!(
        "UPDATE installation SET lease_expires_at = now() + make_interval(secs => $2) WHERE lease_boot = $1",
        boot,
        LEASE.as_secs_f64(),
    )
    .execute(db)
    .await?;
    if renewed.rows_affected() == 1 {
        return Ok(());
    }
    Err(held(db).await?)
}

/// Gives the lease back at a planned end.
pub async fn release(db: &Db, boot: Uuid) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE installation SET lease_instance = NULL, lease_boot = NULL, lease_holder = NULL, lease_expires_at = NULL
         WHERE lease_boot = $1",
        boot,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The refusal that names who has the lease.
async fn held(db: &Db) -> Result<StoreError, StoreError> {
    let name = sqlx::query_scalar!("SELECT lease_holder FROM installation")
        .fetch_one(db)
        .await?;
    Ok(StoreError::Held {
        holder: name.unwrap_or_default(),
    })
}
