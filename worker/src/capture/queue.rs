//! Records between the recorders and the control plane: encoded once, in order, kept until they are committed.
//!
//! `put` appends a frame to the open batch under a short lock. With a spool, its writer takes what is new to disk, and
//! the link's sender takes batches that are there; without one, or while the disk takes nothing, batches go straight
//! to the sender. They stay here until the control plane acknowledges them, and are sent again on a new connection.
//! What is on disk and too far from being sent is not kept in memory: the sender has it read back when its turn comes.

mod batch;
mod pace;
mod pressure;
mod state;

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use proxyplane_record::{Kind, Record, frame, segment::Counts};
use proxyplane_spec::{SpoolFull, limits};
use tokio::sync::Notify;

use self::state::{Mode, Next, State};
pub(crate) use self::{
    batch::Batch,
    pressure::{FILE as PRESSURE_FILE, Pressure},
    state::{AckError, Sender},
};
use super::{lock, spool::Spool};
use crate::service::QueueStats;

/// Captured bodies and messages in the queue, in bytes; above it their exchanges wait, so that one large transfer
/// does not take the whole queue from the small ones.
const BULK_MAX: usize = 12 * 1024 * 1024;
/// Keeps live views fresh while commits are slow.
const PATIENCE: Duration = Duration::from_millis(20);

/// The queue of one worker.
pub(crate) struct Queue {
    state: Mutex<State>,
    limit: usize,
    spool: Option<Arc<Spool>>,
    /// Bytes of all frames that are only here, and of those that are bulk; written under the lock, read without.
    bytes: AtomicUsize,
    bulk: AtomicUsize,
    /// The disk takes nothing.
    failing: AtomicBool,
    /// Answers wait for their records to be written.
    eager: AtomicBool,
    /// Something was acknowledged, written or deleted.
    freed: Notify,
    /// There may be something to send.
    ready: Notify,
    /// There is something to write.
    unsaved: Condvar,
}

/// Consecutive frames for the spool's writer, without those that were written before.
#[derive(Debug)]
pub(super) struct Take {
    /// Sequence number of the first frame.
    pub(super) first: u64,
    /// Sequence number after the last.
    pub(super) next: u64,
    /// Bytes of captured bodies and messages among them.
    pub(super) bulk: usize,
    /// What the records come to.
    pub(super) counts: Counts,
    /// The frames, if they are of a batch that is closed; those of the open one were copied.
    pub(super) closed: Option<bytes::Bytes>,
}

impl Default for Queue {
    fn default() -> Self {
        Self::new(limits::RECORD_QUEUE_BYTES, State::default(), None)
    }
}

impl Queue {
    fn new(limit: usize, state: State, spool: Option<Arc<Spool>>) -> Self {
        Self {
            state: Mutex::new(state),
            limit,
            spool,
            bytes: AtomicUsize::new(0),
            bulk: AtomicUsize::new(0),
            failing: AtomicBool::new(false),
            eager: AtomicBool::new(false),
            freed: Notify::new(),
            ready: Notify::new(),
            unsaved: Condvar::new(),
        }
    }

    /// A queue whose records are in `spool` before they are sent; `pressure` is on the machine's CPUs.
    pub(super) fn spooling(spool: Arc<Spool>, pressure: Pressure) -> Self {
        let state = State::spooling(spool.limit(), pressure);
        Self::new(limits::RECORD_QUEUE_BYTES, state, Some(spool))
    }

    /// A queue of what an instance that is gone has left in `spool`: records `first` to (not with) `next`.
    pub(crate) fn recovered(spool: Arc<Spool>, first: u64, next: u64) -> Self {
        Self::new(limits::RECORD_QUEUE_BYTES, State::recovered(first, next), Some(spool))
    }

    /// What the service's configuration says of the spool.
    pub(super) fn configure(&self, limit: u64, full: SpoolFull) {
        if let Some(spool) = &self.spool {
            spool.configure(limit, full);
            lock(&self.state).fit(limit);
            self.freed.notify_waiters();
        }
    }

    pub(crate) fn spool(&self) -> Option<&Arc<Spool>> {
        self.spool.as_ref()
    }

    /// Says whether answers wait for their records to be written.
    pub(super) fn set_eager(&self, eager: bool) {
        self.eager.store(eager, Relaxed);
    }

    /// Is a batch to be written that does not grow any more?
    pub(super) fn has_closed_unsaved(&self) -> bool {
        lock(&self.state).has_closed_unsaved()
    }

    /// Is every record to be written at once?
    pub(super) fn is_eager(&self) -> bool {
        self.eager.load(Relaxed)
    }

    /// Appends `record`. Never waits: who makes records waits for [`Queue::room`] first.
    pub(crate) fn put(&self, record: &Record) {
        let is_bulk = matches!(record.kind, Some(Kind::BodyChunk(_) | Kind::WsMessage(_)));
        let taken = frame::size(record);
        let mut state = lock(&self.state);
        state.append(record, taken, is_bulk);
        self.bytes.fetch_add(taken, Relaxed);
        if is_bulk {
            self.bulk.fetch_add(taken, Relaxed);
        }
        let writes = std::mem::take(&mut state.writer_waits);
        let sends = state.wakes_sender();
        drop(state);
        if writes {
            self.unsaved.notify_one();
        }
        if sends {
            self.ready.notify_one();
        }
    }

    /// Sequence number that the next record gets.
    pub(crate) fn next_seq(&self) -> u64 {
        lock(&self.state).next_seq
    }

    /// What is reported of it.
    pub(crate) fn stats(&self) -> QueueStats {
        QueueStats {
            next_seq: self.next_seq(),
            spool_bytes: self.spool.as_ref().map_or(0, |spool| spool.bytes()),
            spool_limit: self.spool.as_ref().map_or(0, |spool| spool.limit()),
        }
    }

    /// Below this everything is committed.
    pub(super) fn acked(&self) -> u64 {
        lock(&self.state).acked
    }

    /// May another exchange begin?
    pub(crate) fn has_room(&self) -> bool {
        let blocked = self
            .spool
            .as_ref()
            .is_some_and(|spool| spool.blocks_when_full() && spool.is_full());
        self.bytes.load(Relaxed) < self.limit && !blocked
    }

    /// Is there so little room on disk that new bodies are not to be kept?
    pub(crate) fn is_scarce(&self) -> bool {
        let Some(spool) = &self.spool else { return false };
        spool.is_scarce() || self.failing.load(Relaxed)
    }

    /// Waits until another exchange may begin.
    pub(crate) async fn room(&self) {
        self.wait_until(Self::has_room).await;
    }

    /// Waits until more of a body or another message may come.
    pub(crate) async fn room_for_bulk(&self) {
        self.wait_until(|queue| queue.has_room() && queue.bulk.load(Relaxed) < BULK_MAX.min(queue.limit))
            .await;
    }

    /// Waits until everything is acknowledged.
    pub(crate) async fn empty(&self) {
        self.wait_until(Self::is_empty).await;
    }

    /// Is everything acknowledged?
    pub(crate) fn is_empty(&self) -> bool {
        let state = lock(&self.state);
        state.acked >= state.next_seq
    }

    /// Waits until everything that was put so far is on disk, or committed.
    pub(crate) async fn settled(&self) {
        let next_seq = self.next_seq();
        self.wait_until(|queue| lock(&queue.state).is_settled_to(next_seq))
            .await;
    }

    async fn wait_until(&self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Registered before the second look, so that what is freed in between is not missed.
            freed.as_mut().enable();
            if done(self) {
                return;
            }
            freed.await;
        }
    }

    /// Whoever waits for room looks again.
    pub(super) fn freed(&self) {
        self.freed.notify_waiters();
    }

    /// Waits for the next batch to send. It stays here until [`Queue::ack`]. `None` once a newer connection sends.
    pub(crate) async fn next(&self, sender: Sender) -> Option<Batch> {
        let mut hurry = false;
        loop {
            // In a statement of its own: the lock must be gone before the await.
            let next = lock(&self.state).next(sender, hurry);
            match next {
                Next::Send(batch) => return Some(batch),
                Next::Wait => self.ready.notified().await,
                Next::Gather => hurry = tokio::time::timeout(PATIENCE, self.ready.notified()).await.is_err(),
                Next::Rest(until) => {
                    // Whoever takes its place wakes it.
                    let _ = tokio::time::timeout_at(until, self.ready.notified()).await;
                }
                Next::Read { from, to } => self.read_back(sender, from, to).await,
                Next::Replaced => {
                    // It may have taken the wake-up that was meant for its successor.
                    self.ready.notify_one();
                    return None;
                }
            }
        }
    }

    async fn read_back(&self, sender: Sender, from: u64, to: u64) {
        let Some(spool) = self.spool.clone() else { return };
        let read = tokio::task::spawn_blocking(move || spool.read(from, to)).await;
        // It does not panic, and is not cancelled while the runtime lives.
        let runs = read.unwrap_or_default();
        lock(&self.state).read_back(sender, runs);
    }

    /// Everything below `next_seq` is committed.
    pub(crate) fn ack(&self, next_seq: u64) -> Result<(), AckError> {
        let mut state = lock(&self.state);
        state.check(next_seq)?;
        let committed = self.take_below(&mut state, next_seq);
        if state.wake_at.take().is_some() {
            self.ready.notify_one();
        }
        drop(state);
        drop(committed);
        self.committed(next_seq);
        Ok(())
    }

    /// A new connection was told to resume at `next_seq`: what is not committed is sent again, by it alone.
    pub(crate) fn resume(&self, next_seq: u64) -> Result<Sender, AckError> {
        let mut state = lock(&self.state);
        let next_seq = state.within(next_seq);
        state.check(next_seq)?;
        state.put_back(next_seq);
        let committed = self.take_below(&mut state, next_seq);
        let cut = state.cut_front(next_seq);
        self.bytes.fetch_sub(cut, Relaxed);
        state.sender.0 += 1;
        let sender = state.sender;
        drop(state);
        drop(committed);
        self.ready.notify_waiters();
        self.committed(next_seq);
        Ok(sender)
    }

    fn committed(&self, next_seq: u64) {
        if let Some(spool) = &self.spool {
            spool.committed(next_seq);
        }
        self.freed.notify_waiters();
    }

    /// Takes out what is committed. To be let go without the lock: it may be the last of a whole segment that was read
    /// back, and recorders wait for the lock.
    fn take_below(&self, state: &mut MutexGuard<'_, State>, next_seq: u64) -> Vec<Batch> {
        let mut committed = Vec::new();
        while let Some(batch) = state.pop_below(next_seq) {
            self.bytes.fetch_sub(batch.unsaved(), Relaxed);
            self.bulk.fetch_sub(batch.bulk, Relaxed);
            committed.push(batch);
        }
        state.acked = next_seq;
        committed
    }

    /// Waits for frames to write; those of the open batch are copied into `copy`. `None` once the queue is closed and
    /// everything is written.
    pub(super) fn take_unsaved(&self, copy: &mut Vec<u8>) -> Option<Take> {
        let mut state = lock(&self.state);
        loop {
            if let Some(take) = state.take_unsaved(copy) {
                return Some(take);
            }
            if state.closing {
                return None;
            }
            state.writer_waits = true;
            state = self.unsaved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What was taken, `len` bytes, is written.
    pub(super) fn saved(&self, take: &Take, len: usize) {
        let mut state = lock(&self.state);
        let was_failing = state.mode == Mode::Failing;
        state.mode = Mode::Spooling;
        let bytes = state.saved(take, len);
        self.bytes.fetch_sub(bytes, Relaxed);
        self.bulk.fetch_sub(take.bulk, Relaxed);
        let sends = state.wakes_sender();
        drop(state);
        if sends {
            self.ready.notify_one();
        }
        if was_failing {
            self.failing.store(false, Relaxed);
        }
        self.freed.notify_waiters();
    }

    /// What was taken cannot be written: until something can, records are sent from memory. Waits before the next
    /// attempt; false if the queue was closed meanwhile.
    pub(super) fn not_saved(&self, take: &Take, pause: Duration) -> bool {
        let mut state = lock(&self.state);
        state.mode = Mode::Failing;
        let gone = state.give_back(take);
        self.bulk.fetch_sub(gone, Relaxed);
        self.failing.store(true, Relaxed);
        let sends = state.wakes_sender();
        if sends {
            self.ready.notify_one();
        }
        if !state.closing {
            let waited = self.unsaved.wait_timeout_while(state, pause, |state| !state.closing);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        !state.closing
    }

    /// Asks `choose` with the first and the last record (not with it) of those that are on disk only and not about to be
    /// sent; nothing of that changes meanwhile.
    pub(super) fn with_waiting<T>(&self, choose: impl FnOnce(u64, u64) -> Option<T>) -> Option<T> {
        let state = lock(&self.state);
        let stored = state.stored.as_ref()?;
        choose(stored.start, stored.end)
    }

    /// No more records come: the spool's threads end once everything is written.
    pub(super) fn close(&self) {
        lock(&self.state).closing = true;
        self.unsaved.notify_one();
    }
}

#[cfg(test)]
mod tests;
