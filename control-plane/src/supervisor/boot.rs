//! What happens first: the end of a former control plane's workers, then the services that are to run.
//!
//! When workers can be adopted, [`end_former`] is where that comes: before anything is bound.

use std::path::Path;

use proxyplane_spec::ServiceId;
use tokio::sync::{Semaphore, oneshot};

use super::{
    Supervisor, orphans,
    run_record::{self, RunRecord, Stale},
    task::Command,
};
use crate::store::{self, StoreError, services::ServiceRow};

/// Services that are started at once; the others wait for them.
const STARTS_AT_ONCE: usize = 8;

impl Supervisor {
    /// Starts every enabled service. Returns when each serves, failed, or waits for its address.
    ///
    /// What former workers left is settled meanwhile.
    pub async fn boot(&self) -> Result<(), StoreError> {
        orphans::sweep(&self.shared).await;
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

/// Ends every recorded worker: it cannot be talked to and holds its listeners.
pub(super) async fn end_former(run_dir: &Path) {
    let records = RunRecord::all(run_dir).unwrap_or_else(|error| {
        tracing::warn!(%error, "run records of former workers cannot be read");
        Vec::new()
    });
    let ends = records.into_iter().map(|record| async move {
        let (service_id, pid) = (record.service_id, record.pid);
        match tokio::task::spawn_blocking(move || record.kill()).await {
            Ok(Ok(Stale::Killed)) => tracing::info!(service = %service_id, pid, "ended a former worker"),
            Ok(Ok(Stale::Gone)) => {}
            Ok(Err(error)) => tracing::warn!(service = %service_id, pid, %error, "a former worker cannot be ended"),
            Err(error) => tracing::error!(%error, "ending a former worker failed"),
        }
        if let Err(error) = run_record::remove(run_dir, service_id) {
            tracing::warn!(service = %service_id, %error, "a run record could not be removed");
        }
    });
    futures_util::future::join_all(ends).await;
}
