//! One watcher's view.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{mpsc, watch};

use super::{Event, Filter, Hub, LOSSY_QUEUE, Lossy, lock, ring::After};
use crate::store::{
    StoreError,
    exchanges::{self, Span},
};

/// Stored rows that are taken from the ring at once.
const FROM_RING: usize = 256;
/// Positions of one read from the database.
const FROM_DATABASE: i64 = 500;

/// One watcher. Dropping it ends the subscription.
pub struct Subscription {
    hub: Hub,
    filter: Filter,
    /// Stored events up to this position were told.
    seen: i64,
    /// Stored events up to this position are known to be committed.
    target: i64,
    ready: VecDeque<Event>,
    events: mpsc::Receiver<Event>,
    missed: Arc<AtomicU64>,
    committed: watch::Receiver<i64>,
}

impl Subscription {
    pub(super) fn register(hub: &Hub, filter: Filter) -> Self {
        let (sender, events) = mpsc::channel(LOSSY_QUEUE);
        let missed = Arc::new(AtomicU64::new(0));
        hub.0.watched.fetch_add(1, Ordering::AcqRel);
        if !filter.stored_only {
            lock(&hub.0.lossy).push(Lossy {
                filter,
                events: sender,
                missed: missed.clone(),
            });
            hub.0
                .interest
                .send_if_modified(|interest| !std::mem::replace(interest, true));
        }
        let committed = hub.0.committed.subscribe();
        let ready = VecDeque::new();
        Self {
            hub: hub.clone(),
            filter,
            seen: 0,
            target: 0,
            ready,
            events,
            missed,
            committed,
        }
    }

    /// The live part begins at `position`; a later `after_position` is of another database and means the same.
    pub(super) fn begin(&mut self, position: i64) {
        self.seen = self
            .filter
            .after_position
            .map_or(position, |after| after.clamp(0, position));
        self.target = position;
        self.ready.push_back(Event::Subscribed(position));
    }

    /// The next event; waits for one. Cancel safe. After an error, subscribe again after the last stored position.
    pub async fn next(&mut self) -> Result<Event, StoreError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let missed = self.missed.swap(0, Ordering::Relaxed);
            if missed > 0 {
                return Ok(Event::Missed(missed));
            }
            // What happened before a commit is told before it.
            while let Ok(event) = self.events.try_recv() {
                self.ready.push_back(event);
            }
            self.target = self.target.max(*self.committed.borrow_and_update());
            if self.seen < self.target {
                self.catch_up().await?;
            }
            if self.ready.is_empty() && self.seen >= self.target {
                self.wait().await;
            }
        }
    }

    /// Until there is an event, or something was committed.
    async fn wait(&mut self) {
        let lossy = !self.filter.stored_only;
        tokio::select! {
            // Neither sender is dropped while this subscription holds the hub.
            _ = self.committed.changed() => {}
            Some(event) = self.events.recv(), if lossy => self.ready.push_back(event),
        }
    }

    async fn catch_up(&mut self) -> Result<(), StoreError> {
        let after = lock(&self.hub.0.ring).after(self.seen, FROM_RING);
        match after {
            After::Rows(rows) if !rows.is_empty() => {
                self.seen = rows.last().map_or(self.seen, |row| row.position);
                let mine = rows
                    .into_iter()
                    .filter(|row| self.filter.matches(row.workspace_id, row.service_id));
                self.ready.extend(mine.map(Event::Stored));
            }
            After::Rows(_) => self.read_back(self.target).await?,
            After::Gone(floor) => self.read_back(floor.min(self.target)).await?,
        }
        Ok(())
    }

    async fn read_back(&mut self, to: i64) -> Result<(), StoreError> {
        let to = to.min(self.seen + FROM_DATABASE);
        let Filter {
            service_id,
            workspace_id,
            ..
        } = self.filter;
        let span = Span {
            after: self.seen,
            to,
            service_id,
            workspace_id,
        };
        let rows = exchanges::committed(&self.hub.0.db, span).await?;
        self.ready
            .extend(rows.into_iter().map(|row| Event::Stored(Arc::new(row))));
        self.seen = to;
        Ok(())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.0.watched.fetch_sub(1, Ordering::AcqRel);
        let mut lossy = lock(&self.hub.0.lossy);
        lossy.retain(|subscriber| !Arc::ptr_eq(&subscriber.missed, &self.missed));
        if lossy.is_empty() {
            self.hub
                .0
                .interest
                .send_if_modified(|interest| std::mem::replace(interest, false));
        }
    }
}
