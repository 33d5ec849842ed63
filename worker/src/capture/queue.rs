//! Records between the recorders and the control plane: encoded once, in order, kept until they are committed.
//!
//! `put` appends a frame to the open batch under a short lock. The link's sender takes batches; they stay here until
//! the control plane acknowledges them, and are sent again on a new connection.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use proxyplane_record::{Kind, Record, frame};
use proxyplane_spec::limits;
use tokio::sync::Notify;

use super::{
    block::{Block, Blocks},
    lock,
};

/// Captured bodies and messages in the queue, in bytes; above it their exchanges wait, so that one large transfer
/// does not take the whole queue from the small ones.
const BULK_MAX: usize = 16 * 1024 * 1024;
/// With this many batches unacknowledged, one is being committed and one is waiting for it: the next gathers records
/// until an acknowledgement comes, it has [`WORTH_SENDING`], or [`PATIENCE`] is over.
const BATCHES_IN_FLIGHT: usize = 2;
/// A batch of this size is sent whatever is in flight (the window permitting).
const WORTH_SENDING: usize = 64 * 1024;
/// Keeps live views fresh while commits are slow.
const PATIENCE: Duration = Duration::from_millis(20);

/// Consecutive frames.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// Sequence number of the first frame.
    pub(crate) first: u64,
    /// Sequence number after the last frame.
    pub(crate) next: u64,
    /// The frames, as they go over the link.
    pub(crate) frames: Bytes,
    bulk: usize,
}

/// An acknowledgement that does not fit what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("acknowledged up to {acked}, but the queue holds {oldest} to {newest}")]
pub(crate) struct AckError {
    acked: u64,
    oldest: u64,
    newest: u64,
}

/// The connection that sends now; an earlier one that lingers gets nothing more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sender(u64);

/// The queue of one worker.
pub(crate) struct Queue {
    state: Mutex<State>,
    limit: usize,
    /// Bytes of all frames here, and of those that are bulk; written under the lock, read without.
    bytes: AtomicUsize,
    bulk: AtomicUsize,
    /// Something was acknowledged.
    freed: Notify,
    /// There may be something to send.
    ready: Notify,
}

#[derive(Default)]
struct State {
    sender: Sender,
    next_seq: u64,
    blocks: Blocks,
    open: Option<Block>,
    open_first: u64,
    open_bulk: usize,
    /// Closed batches; the first `sent` of them are on their way.
    batches: VecDeque<Batch>,
    sent: usize,
    sent_bytes: usize,
    /// The sender sleeps until the open batch has this many bytes.
    wake_at: Option<usize>,
}

/// What the sender is to do next.
enum Next {
    Send(Batch),
    /// Wait to be woken.
    Wait,
    /// Wait to be woken, but not for long.
    Gather,
    /// Another connection sends.
    Replaced,
}

impl Default for Queue {
    fn default() -> Self {
        Self::with_limit(limits::RECORD_QUEUE_BYTES)
    }
}

impl Queue {
    fn with_limit(limit: usize) -> Self {
        Self {
            state: Mutex::default(),
            limit,
            bytes: AtomicUsize::new(0),
            bulk: AtomicUsize::new(0),
            freed: Notify::new(),
            ready: Notify::new(),
        }
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
        if state.wake_at.is_some_and(|at| state.unsent() >= at) {
            state.wake_at = None;
            drop(state);
            self.ready.notify_one();
        }
    }

    /// Sequence number that the next record gets.
    pub(crate) fn next_seq(&self) -> u64 {
        lock(&self.state).next_seq
    }

    /// May another exchange begin?
    pub(crate) fn has_room(&self) -> bool {
        self.bytes.load(Relaxed) < self.limit
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
        self.wait_until(|queue| queue.bytes.load(Relaxed) == 0).await;
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
                Next::Replaced => {
                    // It may have taken the wake-up that was meant for its successor.
                    self.ready.notify_one();
                    return None;
                }
            }
        }
    }

    /// Everything below `next_seq` is committed.
    pub(crate) fn ack(&self, next_seq: u64) -> Result<(), AckError> {
        let mut state = lock(&self.state);
        state.check(next_seq)?;
        self.drop_below(&mut state, next_seq);
        if state.wake_at.take().is_some() {
            self.ready.notify_one();
        }
        drop(state);
        self.freed.notify_waiters();
        Ok(())
    }

    /// A new connection was told to resume at `next_seq`: what is not committed is sent again, by it alone.
    pub(crate) fn resume(&self, next_seq: u64) -> Result<Sender, AckError> {
        let mut state = lock(&self.state);
        state.check(next_seq)?;
        self.drop_below(&mut state, next_seq);
        if let Some(front) = state.batches.front_mut() {
            let cut = front.cut_below(next_seq);
            self.bytes.fetch_sub(cut, Relaxed);
        }
        state.sent = 0;
        state.sent_bytes = 0;
        state.sender.0 += 1;
        let sender = state.sender;
        drop(state);
        self.ready.notify_waiters();
        self.freed.notify_waiters();
        Ok(sender)
    }

    fn drop_below(&self, state: &mut MutexGuard<'_, State>, next_seq: u64) {
        while state.batches.front().is_some_and(|batch| batch.next <= next_seq)
            && let Some(batch) = state.batches.pop_front()
        {
            self.bytes.fetch_sub(batch.frames.len(), Relaxed);
            self.bulk.fetch_sub(batch.bulk, Relaxed);
            if state.sent > 0 {
                state.sent -= 1;
                state.sent_bytes = state.sent_bytes.saturating_sub(batch.frames.len());
            }
        }
        if state.batches.is_empty() {
            state.batches.shrink_to(64);
        }
    }
}

impl State {
    fn append(&mut self, record: &Record, size: usize, is_bulk: bool) {
        if self.open.as_ref().is_some_and(|open| open.room() < size) {
            self.close();
        }
        if self.open.is_none() {
            self.open_first = self.next_seq;
        }
        let open = self.open.get_or_insert_with(|| self.blocks.block(size));
        frame::write(open.extend(size), self.next_seq, record);
        self.next_seq += 1;
        if is_bulk {
            self.open_bulk += size;
        }
    }

    /// Closes the open batch, if there is one.
    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            let frames = open.freeze(&self.blocks);
            let bulk = std::mem::take(&mut self.open_bulk);
            self.batches.push_back(Batch {
                first: self.open_first,
                next: self.next_seq,
                frames,
                bulk,
            });
        }
    }

    fn gathered(&self) -> usize {
        self.open.as_ref().map_or(0, Block::len)
    }

    fn unsent(&self) -> usize {
        if self.sent < self.batches.len() {
            usize::MAX
        } else {
            self.gathered()
        }
    }

    fn next(&mut self, sender: Sender, hurry: bool) -> Next {
        if sender != self.sender {
            return Next::Replaced;
        }
        self.wake_at = None;
        let closed = self.sent < self.batches.len();
        let few_in_flight = self.sent < BATCHES_IN_FLIGHT;
        if !closed && (hurry || few_in_flight || self.gathered() >= WORTH_SENDING) {
            self.close();
        }
        let Some(batch) = self.batches.get(self.sent) else {
            let gathering = self.open.is_some();
            self.wake_at = Some(if gathering { WORTH_SENDING } else { 1 });
            return if gathering { Next::Gather } else { Next::Wait };
        };
        if self.sent_bytes > 0 && self.sent_bytes + batch.frames.len() > limits::RECORD_WINDOW_BYTES {
            // Only an acknowledgement makes room.
            self.wake_at = Some(usize::MAX);
            return Next::Wait;
        }
        let batch = batch.clone();
        self.sent += 1;
        self.sent_bytes += batch.frames.len();
        Next::Send(batch)
    }

    fn check(&self, acked: u64) -> Result<(), AckError> {
        let oldest = self.batches.front().map_or(self.open_start(), |batch| batch.first);
        let newest = self.open_start();
        if (oldest..=newest).contains(&acked) {
            Ok(())
        } else {
            Err(AckError { acked, oldest, newest })
        }
    }

    /// Sequence number after the last closed batch.
    fn open_start(&self) -> u64 {
        if self.open.is_some() {
            self.open_first
        } else {
            self.next_seq
        }
    }
}

impl Batch {
    /// Cuts the frames below `next_seq` off and returns how many bytes that were.
    fn cut_below(&mut self, next_seq: u64) -> usize {
        let before = self.frames.len();
        while self.first < next_seq && matches!(frame::take(&mut self.frames), Ok(Some(_))) {
            self.first += 1;
        }
        before - self.frames.len()
    }
}

#[cfg(test)]
mod tests;
