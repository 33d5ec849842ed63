//! Makes the days' partitions ahead, and tidies what ingest no longer needs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;
use tracing::{info, warn};

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

/// Keeps for ever; says so in `kept_ahead` once it has made what was missing.
pub(super) async fn keep(db: Db, kept_ahead: Arc<AtomicBool>) {
    loop {
        let pause = match round(&db).await {
            Ok(()) => {
                kept_ahead.store(true, Ordering::Relaxed);
                ROUND
            }
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

/// The partitions of `day` were missing and had to be made for a record. Of a day that should have had them since it was
/// ahead, a warning: somebody removed them, or none could be made.
pub(super) fn alarm(day: Day, today: Day) {
    if DAYS.clone().any(|offset| today.plus(offset) == day) {
        warn!(%day, "partitions of a day were missing; made on demand");
    } else {
        info!(%day, "made the partitions of a day on demand");
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
