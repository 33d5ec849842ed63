//! Exchanges that time has to do something for, and the sweeper that does it: a `Head` for those that are open for
//! two seconds, a chunk for bytes that an open one holds. One ticker for all of them, and none while there are none.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use proxyplane_record::OPEN_ROW_AFTER_MS;
use slab::Slab;
use tokio::sync::Notify;

use super::{Capture, cell::Cell, lock};

/// Between two looks at the open exchanges.
const TICK: Duration = Duration::from_millis(500);

/// The exchanges that the sweeper looks after.
#[derive(Default)]
pub(crate) struct OpenExchanges {
    entries: Mutex<Entries>,
    wake: Notify,
}

#[derive(Default)]
struct Entries {
    slab: Slab<Entry>,
    /// The sweeper ticks; it need not be woken.
    ticking: bool,
}

struct Entry {
    cell: Arc<Cell>,
    due: Instant,
}

impl OpenExchanges {
    /// Looks after `cell` once it has been open for two seconds.
    pub(super) fn insert_new(&self, cell: Arc<Cell>) -> usize {
        let due = cell.began + Duration::from_millis(OPEN_ROW_AFTER_MS);
        self.insert(Entry { cell, due })
    }

    /// Looks after `cell` at the next tick.
    pub(super) fn insert_holding(&self, cell: Arc<Cell>) -> usize {
        let due = cell.began;
        self.insert(Entry { cell, due })
    }

    fn insert(&self, entry: Entry) -> usize {
        let mut entries = lock(&self.entries);
        let slot = entries.slab.insert(entry);
        if !std::mem::replace(&mut entries.ticking, true) {
            drop(entries);
            self.wake.notify_one();
        }
        slot
    }

    /// Forgets `cell`, unless the sweeper has just taken it out of its slot.
    pub(super) fn remove(&self, slot: usize, cell: &Cell) {
        let mut entries = lock(&self.entries);
        if entries
            .slab
            .get(slot)
            .is_some_and(|entry| std::ptr::eq(Arc::as_ptr(&entry.cell), cell))
        {
            entries.slab.remove(slot);
        }
    }

    fn take_due(&self, now: Instant) -> Vec<Arc<Cell>> {
        let slab = &mut lock(&self.entries).slab;
        let due: Vec<usize> = slab
            .iter()
            .filter(|(_, entry)| entry.due <= now)
            .map(|(slot, _)| slot)
            .collect();
        due.into_iter()
            .filter_map(|slot| slab.try_remove(slot))
            .map(|entry| entry.cell)
            .collect()
    }

    /// Stops the ticking if nothing is open.
    fn rest(&self) -> bool {
        let mut entries = lock(&self.entries);
        if !entries.slab.is_empty() {
            return false;
        }
        entries.slab = Slab::new();
        entries.ticking = false;
        true
    }
}

/// Runs until it is dropped.
pub(crate) async fn sweep(capture: Arc<Capture>) {
    loop {
        capture.open.wake.notified().await;
        loop {
            tokio::time::sleep(TICK).await;
            // Everything waits while the queue is full, the sweeper for its next tick.
            if capture.queue.has_room() {
                for cell in capture.open.take_due(Instant::now()) {
                    cell.sweep();
                }
            }
            if capture.open.rest() {
                break;
            }
        }
    }
}
