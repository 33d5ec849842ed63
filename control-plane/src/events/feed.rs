//! Events for watchers: from a ring of what was told last and, for whoever lags behind it or resumes, from the
//! database. Ids join the two without gap or double.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proxyplane_spec::EventId;
use tokio::sync::watch;

use crate::store::{
    Db, StoreError,
    events::{self, EventFilter, EventRow},
};

/// Events in the ring: those that wait to be stored are among them.
const RING: usize = 2 * super::backlog::KEPT;
/// Events of one read from the database.
const FROM_DATABASE: i64 = 500;

/// What was told. Cloning shares it.
#[derive(Clone)]
pub struct Feed(Arc<Shared>);

struct Shared {
    db: Db,
    ring: Mutex<Ring>,
    /// Changes whenever something was told.
    told: watch::Sender<()>,
}

/// Every event above `floor`, in the order of ids.
struct Ring {
    floor: EventId,
    rows: VecDeque<Arc<EventRow>>,
}

/// What a watcher is told.
#[derive(Clone, Debug)]
pub enum Watched {
    /// First: the id after which the watch begins.
    From(EventId),
    /// It happened.
    Event(Arc<EventRow>),
}

impl Feed {
    pub(super) fn new(db: Db) -> Self {
        let ring = Ring {
            floor: EventId::new(),
            rows: VecDeque::new(),
        };
        Self(Arc::new(Shared {
            db,
            ring: Mutex::new(ring),
            told: watch::Sender::new(()),
        }))
    }

    pub(super) fn tell(&self, row: Arc<EventRow>) {
        {
            let mut ring = self.ring();
            ring.rows.push_back(row);
            if ring.rows.len() > RING
                && let Some(gone) = ring.rows.pop_front()
            {
                ring.floor = gone.id;
            }
        }
        self.0.told.send_replace(());
    }

    /// Watches from now on, or what was told after an id.
    pub fn subscribe(&self, filter: EventFilter, after: Option<EventId>) -> Subscription {
        // A new id is above that of every event that was told so far.
        let from = after.unwrap_or_default();
        Subscription {
            told: self.0.told.subscribe(),
            feed: self.clone(),
            filter,
            seen: from,
            ready: VecDeque::from([Watched::From(from)]),
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // It stays whole when a holder panics.
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One watcher's view. It slows nobody down: what it has not read is read back from the database.
pub struct Subscription {
    feed: Feed,
    filter: EventFilter,
    /// Told up to this id.
    seen: EventId,
    ready: VecDeque<Watched>,
    told: watch::Receiver<()>,
}

impl Subscription {
    /// The next; waits for one. Cancel safe. After an error, subscribe again after the last event's id.
    pub async fn next(&mut self) -> Result<Watched, StoreError> {
        loop {
            if let Some(next) = self.ready.pop_front() {
                return Ok(next);
            }
            self.told.mark_unchanged();
            match self.take_from_ring() {
                Ok(true) => {}
                // The sender lives as long as the feed.
                Ok(false) => drop(self.told.changed().await),
                Err(floor) => self.read_back(floor).await?,
            }
        }
    }

    /// Takes what the ring has: was there anything? If what comes next is gone from it, up to which id that is so.
    fn take_from_ring(&mut self) -> Result<bool, EventId> {
        let ring = self.feed.ring();
        if self.seen < ring.floor {
            return Err(ring.floor);
        }
        let first = ring.rows.partition_point(|row| row.id <= self.seen);
        let Some(last) = ring.rows.back().filter(|last| last.id > self.seen) else {
            return Ok(false);
        };
        let mine = ring.rows.iter().skip(first).filter(|row| self.filter.matches(row));
        self.ready.extend(mine.cloned().map(Watched::Event));
        self.seen = last.id;
        Ok(true)
    }

    async fn read_back(&mut self, to: EventId) -> Result<(), StoreError> {
        let rows = events::between(&self.feed.0.db, &self.filter, self.seen, to, FROM_DATABASE).await?;
        let cut = rows.len() as i64 == FROM_DATABASE;
        self.seen = rows.last().filter(|_| cut).map_or(to, |row| row.id);
        self.ready
            .extend(rows.into_iter().map(|row| Watched::Event(Arc::new(row))));
        Ok(())
    }
}
