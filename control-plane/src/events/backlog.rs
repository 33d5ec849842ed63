//! Events that are to be stored. Bounded: while the database is away, the newest are kept.

use std::{collections::VecDeque, sync::Arc};

use crate::store::events::EventRow;

/// Most events that wait: more than a full queue gives at once. Beyond, the oldest is dropped and counted.
pub(super) const KEPT: usize = 1_200;

#[derive(Default)]
pub(super) struct Backlog {
    rows: VecDeque<Arc<EventRow>>,
    /// So many of the oldest are being stored.
    taken: usize,
    dropped: u64,
}

impl Backlog {
    pub(super) fn push(&mut self, row: Arc<EventRow>) {
        if self.rows.len() >= KEPT {
            // Not one that may just have been stored.
            self.rows.remove(self.taken);
            self.dropped += 1;
        }
        self.rows.push_back(row);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The oldest, at most `limit`. What becomes of them is to be told before the next are taken.
    pub(super) fn take(&mut self, limit: usize) -> Vec<Arc<EventRow>> {
        self.taken = limit.min(self.rows.len());
        self.rows.iter().take(self.taken).cloned().collect()
    }

    /// What was taken is stored.
    pub(super) fn stored(&mut self) {
        self.rows.drain(..std::mem::take(&mut self.taken));
    }

    /// What was taken is not stored.
    pub(super) fn kept(&mut self) {
        self.taken = 0;
    }

    /// What was taken cannot be stored.
    pub(super) fn refused(&mut self) {
        self.dropped += self.taken as u64;
        self.stored();
    }

    /// How many were dropped since this was last asked.
    pub(super) fn dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}
