//! Starts the services that are to run and have no worker yet, once it is settled which of a former control plane's
//! workers were adopted: see `adopt.rs`.

use proxyplane_spec::ServiceId;
use tokio::sync::{Semaphore, oneshot};

use super::{Supervisor, task::Command};
use crate::store::{self, StoreError, services::ServiceRow};

/// Services that are started at once; the others wait for them.
const STARTS_AT_ONCE: usize = 8;

impl Supervisor {
    /// Starts every enabled service that does not run. Returns when each serves, failed, or waits for its address.
    pub async fn boot(&self) -> Result<(), StoreError> {
        if !self.shared.may_bind().await {
            return Ok(());
        }
        let rows = store::services::enabled(&self.shared.db).await?;
        let permits = Semaphore::new(STARTS_AT_ONCE);
        let starts = rows.into_iter().map(|row| async {
            let _permit = permits.acquire().await;
            self.boot_one(row).await;
        });
        futures_util::future::join_all(starts).await;
        Ok(())
    }

    async fn boot_one(&self, row: ServiceRow) {
        let id: ServiceId = row.id;
        let (settled, done) = oneshot::channel();
        let Ok(handle) = self.handle(id) else { return };
        if handle
            .commands
            .send(Command::Boot {
                row: Box::new(row),
                settled,
            })
            .await
            .is_ok()
        {
            // Dropped, not sent: an error says that it settled.
            let _ = done.await;
        }
    }
}
