//! The rows that were committed last.

use std::{collections::VecDeque, sync::Arc};

use crate::store::exchanges::ExchangeRow;

/// Rows that are kept. Who lags further behind reads from the database.
const ROWS: usize = 4_096;
/// Bytes of their texts, roughly: a few long URLs must not make the ring large.
const BYTES: usize = 8 * 1024 * 1024;

/// Rows with consecutive positions from `floor` (exclusive) on.
#[derive(Default)]
pub(super) struct Ring {
    floor: i64,
    rows: VecDeque<Arc<ExchangeRow>>,
    bytes: usize,
}

/// What the ring has for somebody.
pub(super) enum After {
    /// These rows come next.
    Rows(Vec<Arc<ExchangeRow>>),
    /// What comes next is gone from the ring; it has only what is above this position.
    Gone(i64),
}

impl Ring {
    /// Adds what a transaction that ended at `position` committed. Without rows, or after a gap, it begins anew.
    pub(super) fn push(&mut self, position: i64, rows: Vec<ExchangeRow>) {
        let first = position - rows.len() as i64;
        if rows.is_empty() || self.rows.back().is_some_and(|last| last.position != first) {
            self.rows.clear();
            self.bytes = 0;
        }
        if self.rows.is_empty() {
            self.floor = first;
        }
        for row in rows {
            self.bytes += weight(&row);
            self.rows.push_back(Arc::new(row));
        }
        while self.rows.len() > ROWS || self.bytes > BYTES {
            let Some(row) = self.rows.pop_front() else { break };
            self.bytes -= weight(&row);
            self.floor = row.position;
        }
    }

    /// At most `limit` rows above `position`.
    pub(super) fn after(&self, position: i64, limit: usize) -> After {
        if position < self.floor {
            return After::Gone(self.floor);
        }
        let skip = self.rows.partition_point(|row| row.position <= position);
        After::Rows(self.rows.iter().skip(skip).take(limit).cloned().collect())
    }
}

fn weight(row: &ExchangeRow) -> usize {
    size_of::<ExchangeRow>() + row.path.len() + row.query.as_ref().map_or(0, String::len) + row.error_detail.len()
}
