//! Makes the days' partitions ahead, and tidies what ingest no longer needs.

use std::time::Duration;

use tokio::time::sleep;
use tracing::warn;

use crate::{
    clock,
    store::{
        self, Db, StoreError, events,
        partitions::{self, Day},
    },
};

/// Days before and after today that always have partitions.
const DAYS: std::ops::RangeInclusive<i32> = -1..=3;
/// Between rounds: three days ahead leave room for many that fail.
const ROUND: Duration = Duration::from_hours(1);
/// After a round that failed.
const AGAIN: Duration = Duration::from_secs(30);

/// Keeps for ever.
pub(super) async fn keep(db: Db) {
    loop {
        let pause = match round(&db).await {
            Ok(()) => ROUND,
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "could not make partitions ahead"
                );
                AGAIN
            }
        };
        sleep(pause).await;
    }
}

async fn round(db: &Db) -> Result<(), StoreError> {
    let today = Day::of(clock::now());
    for offset in DAYS {
        let mut transaction = db.begin().await?;
        partitions::ensure(&mut transaction, today.plus(offset)).await?;
        transaction.commit().await?;
    }
    events::prune(db, clock::now() - events::KEPT_FOR, events::KEPT).await?;
    store::ingest::forget_cursors(db).await
}
