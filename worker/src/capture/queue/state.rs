//! What the queue holds, and the rules by which it moves. No waiting here.
//!
//! In the order of their numbers: batches that are on their way, what was read `ahead`, what is `stored` on disk only,
//! batches that are closed, the open one.

use std::{collections::VecDeque, ops::Range};

use proxyplane_record::{
    Record, frame,
    segment::{Counts, Run},
};
use proxyplane_spec::limits;
use tokio::time::Instant;

use super::{
    Take,
    batch::{Batch, Saved},
    pace::Pace,
    pressure::Pressure,
};
use crate::capture::block::{Block, Blocks};

/// With this many batches unacknowledged, one is being committed and one is waiting for it: the next gathers records
/// until an acknowledgement comes, it has [`WORTH_SENDING`], or the sender's patience is over.
const BATCHES_IN_FLIGHT: usize = 2;
/// A batch of this size is sent whatever is in flight (the window permitting). Each one wakes threads on both sides of the
/// link; `bench/run.py capture` prints what an exchange costs them.
pub(super) const WORTH_SENDING: usize = 256 * 1024;
/// Records in memory that are on disk and not yet sent, in bytes; above it they are read back in time.
const KEPT: usize = 8 * 1024 * 1024;

/// An acknowledgement that does not fit what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("acknowledged up to {acked}, but the queue holds {oldest} to {newest}")]
pub(crate) struct AckError {
    pub(super) acked: u64,
    pub(super) oldest: u64,
    pub(super) newest: u64,
}

/// The connection that sends now; an earlier one that lingers gets nothing more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sender(pub(super) u64);

/// Whether records are written before they are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// There is no writer.
    #[default]
    Memory,
    /// They are.
    Spooling,
    /// They cannot be: they are sent from memory.
    Failing,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, about the sender, the writer or the queue"
)]
pub(super) struct State {
    pub(super) sender: Sender,
    pub(super) next_seq: u64,
    /// Below this everything is committed.
    pub(super) acked: u64,
    blocks: Blocks,
    open: Option<Block>,
    open_first: u64,
    open_bulk: usize,
    open_counts: Counts,
    open_saved: Saved,
    /// Closed batches; the first `sent` of them are on their way.
    batches: VecDeque<Batch>,
    bytes: usize,
    sent: usize,
    sent_bytes: usize,
    ahead: VecDeque<Batch>,
    pub(super) stored: Option<Range<u64>>,
    /// The sender sleeps until there are this many bytes for it.
    pub(super) wake_at: Option<usize>,
    /// The sender waits for the open batch, whatever it has.
    wanted: bool,
    pub(super) mode: Mode,
    /// Sequence number after the last record that was written.
    saved_to: u64,
    pub(super) writer_waits: bool,
    pub(super) closing: bool,
    /// Bytes on their way, and bytes kept beside what is on disk.
    window: usize,
    kept: usize,
    /// Of what was read back.
    pace: Pace,
    /// What another instance left: the database may know of records that never came to disk.
    recovered: bool,
}

/// What the sender is to do next.
pub(super) enum Next {
    Send(Batch),
    /// Wait to be woken.
    Wait,
    /// Wait to be woken, but not for long.
    Gather,
    /// Wait until then: what waited on disk is not urgent.
    Rest(Instant),
    /// Have these records read back from disk.
    Read {
        from: u64,
        to: u64,
    },
    /// Another connection sends.
    Replaced,
}

impl Default for State {
    fn default() -> Self {
        Self {
            sender: Sender::default(),
            next_seq: 0,
            acked: 0,
            blocks: Blocks::default(),
            open: None,
            open_first: 0,
            open_bulk: 0,
            open_counts: Counts::default(),
            open_saved: Saved::default(),
            batches: VecDeque::new(),
            bytes: 0,
            sent: 0,
            sent_bytes: 0,
            ahead: VecDeque::new(),
            stored: None,
            wake_at: None,
            wanted: false,
            mode: Mode::default(),
            saved_to: 0,
            writer_waits: false,
            closing: false,
            window: limits::RECORD_WINDOW_BYTES,
            kept: KEPT,
            pace: Pace::default(),
            recovered: false,
        }
    }
}

impl State {
    pub(super) fn spooling(limit: u64, pressure: Pressure) -> Self {
        let mut state = Self {
            mode: Mode::Spooling,
            pace: Pace::spooling(pressure),
            ..Self::default()
        };
        state.fit(limit);
        state
    }

    /// Everything is on disk, and nothing is added.
    pub(super) fn recovered(first: u64, next: u64) -> Self {
        Self {
            next_seq: next,
            acked: first.min(next),
            stored: (first < next).then_some(first..next),
            recovered: true,
            pace: Pace::recovered(),
            ..Self::default()
        }
    }

    /// What is on its way or kept in memory cannot be dropped from disk: it is a part of what may be there.
    pub(super) fn fit(&mut self, limit: u64) {
        let quarter = usize::try_from(limit / 4).unwrap_or(usize::MAX);
        self.window = limits::RECORD_WINDOW_BYTES.min(quarter);
        self.kept = KEPT.min(quarter);
    }

    pub(super) fn append(&mut self, record: &Record, size: usize, is_bulk: bool) {
        if self.open.as_ref().is_some_and(|open| open.room() < size) {
            self.close();
        }
        if self.open.is_none() {
            self.open_first = self.next_seq;
            self.open_saved = Saved {
                bytes: 0,
                next: self.next_seq,
            };
        }
        let open = self.open.get_or_insert_with(|| self.blocks.block(size));
        frame::write(open.extend(size), self.next_seq, record);
        self.next_seq += 1;
        self.open_counts.add(record);
        if is_bulk {
            self.open_bulk += size;
        }
    }

    /// Closes the open batch, if there is one.
    fn close(&mut self) {
        self.wanted = false;
        if let Some(open) = self.open.take() {
            let frames = open.freeze(&self.blocks);
            self.bytes += frames.len();
            self.batches.push_back(Batch {
                first: self.open_first,
                next: self.next_seq,
                frames,
                bulk: std::mem::take(&mut self.open_bulk),
                counts: std::mem::take(&mut self.open_counts),
                saved: self.open_saved,
            });
        }
    }

    /// Bytes of the open batch that the sender may have.
    fn gathered(&self) -> usize {
        match self.mode {
            Mode::Spooling => self.open.as_ref().map_or(0, |_| self.open_saved.bytes),
            Mode::Memory | Mode::Failing => self.open.as_ref().map_or(0, Block::len),
        }
    }

    /// Is all of the open batch what the sender may have?
    fn is_settled(&self) -> bool {
        self.gathered() == self.open.as_ref().map_or(0, Block::len)
    }

    /// Is a closed batch not on disk yet?
    pub(super) fn has_closed_unsaved(&self) -> bool {
        self.batches.back().is_some_and(|batch| batch.unsaved() > 0)
    }

    /// Is every record before `seq` written or committed?
    pub(super) fn is_settled_to(&self, seq: u64) -> bool {
        self.saved_to.max(self.acked) >= seq
    }

    fn may_send(&self, batch: &Batch) -> bool {
        self.mode != Mode::Spooling || batch.unsaved() == 0
    }

    /// Is the sender to be woken? If so, it is taken to be.
    pub(super) fn wakes_sender(&mut self) -> bool {
        let Some(at) = self.wake_at else { return false };
        if self.wanted && self.is_settled() {
            self.close();
        }
        let unsent = match self.batches.get(self.sent) {
            Some(batch) if self.may_send(batch) => usize::MAX,
            Some(_) => 0,
            None => self.gathered(),
        };
        let wakes = unsent >= at;
        if wakes {
            self.wake_at = None;
        }
        wakes
    }

    pub(super) fn next(&mut self, sender: Sender, hurry: bool) -> Next {
        if sender != self.sender {
            return Next::Replaced;
        }
        self.wake_at = None;
        if self.ahead.is_empty()
            && let Some(stored) = &self.stored
        {
            if self.sent_bytes >= self.window {
                self.wake_at = Some(usize::MAX);
                return Next::Wait;
            }
            let (from, to) = (stored.start, stored.end);
            return Next::Read { from, to };
        }
        if let Some(batch) = self.ahead.front().cloned() {
            if let Some(until) = self.pace.rest(Instant::now()) {
                return Next::Rest(until);
            }
            return self.send(batch, true);
        }
        let closed = self.sent < self.batches.len();
        let few_in_flight = self.sent < BATCHES_IN_FLIGHT;
        if !closed && (hurry || few_in_flight || self.gathered() >= WORTH_SENDING) {
            if self.is_settled() {
                self.close();
            } else {
                self.wanted = true;
            }
        }
        match self.batches.get(self.sent) {
            Some(batch) if self.may_send(batch) => {
                let batch = batch.clone();
                self.send(batch, false)
            }
            // The writer is at it.
            Some(_) => {
                self.wake_at = Some(usize::MAX);
                Next::Wait
            }
            None if self.wanted => {
                self.wake_at = Some(usize::MAX);
                Next::Wait
            }
            None => {
                let gathering = self.open.is_some();
                self.wake_at = Some(if gathering { WORTH_SENDING } else { 1 });
                if gathering { Next::Gather } else { Next::Wait }
            }
        }
    }

    /// Sends `batch`, the next one, if there is room for it on the way.
    fn send(&mut self, batch: Batch, ahead: bool) -> Next {
        if self.sent_bytes > 0 && self.sent_bytes + batch.frames.len() > self.window {
            // Only an acknowledgement makes room.
            self.wake_at = Some(usize::MAX);
            return Next::Wait;
        }
        if ahead {
            self.ahead.pop_front();
            let records = batch.next - batch.first;
            self.pace
                .sent(Instant::now(), records, batch.frames.len(), self.next_seq);
            self.bytes += batch.frames.len();
            self.batches.insert(self.sent, batch.clone());
        }
        self.sent += 1;
        self.sent_bytes += batch.frames.len();
        Next::Send(batch)
    }

    /// Records were read back, those that [`Next::Read`] asked for or the first of them.
    pub(super) fn read_back(&mut self, sender: Sender, runs: Vec<Run>) {
        let Some(stored) = self.stored.take_if(|_| sender == self.sender) else {
            return;
        };
        self.ahead = runs.into_iter().map(Batch::from).collect();
        let next = self.ahead.back().map_or(stored.end, |last| last.next);
        self.stored = (next < stored.end).then_some(next..stored.end);
    }

    pub(super) fn check(&self, acked: u64) -> Result<(), AckError> {
        let (oldest, newest) = (self.acked, self.open_start());
        if (oldest..=newest).contains(&acked) {
            Ok(())
        } else {
            Err(AckError { acked, oldest, newest })
        }
    }

    /// Where to resume, of what there is. What another instance left ends where its disk does, whatever came of its last
    /// records; what the database lacks and the disk too is a gap.
    pub(super) fn within(&mut self, next_seq: u64) -> u64 {
        if !self.recovered {
            return next_seq;
        }
        let next_seq = next_seq.min(self.next_seq);
        self.acked = self.acked.min(next_seq);
        next_seq
    }

    /// Bytes of closed batches.
    #[cfg(test)]
    pub(super) fn resident(&self) -> usize {
        self.bytes
    }

    /// Sequence number after the last closed batch.
    fn open_start(&self) -> u64 {
        if self.open.is_some() {
            self.open_first
        } else {
            self.next_seq
        }
    }

    /// Nothing is on its way any more. If some of what comes next is on disk only, all before it is read from there.
    pub(super) fn put_back(&mut self, next_seq: u64) {
        let end = self.stored.as_ref().map(|stored| stored.end);
        let end = end.or_else(|| self.ahead.back().map(|last| last.next));
        let end = end.or_else(|| self.recovered.then_some(self.next_seq));
        if let Some(end) = end {
            self.ahead.clear();
            for batch in self.batches.drain(..self.sent) {
                self.bytes -= batch.frames.len();
            }
            self.stored = (next_seq < end).then_some(next_seq..end);
        }
        self.sent = 0;
        self.sent_bytes = 0;
    }

    /// Takes the first batch out if it ends at or before `next_seq`.
    pub(super) fn pop_below(&mut self, next_seq: u64) -> Option<Batch> {
        if self.batches.front().is_none_or(|batch| batch.next > next_seq) {
            if self.batches.is_empty() {
                self.batches.shrink_to(64);
            }
            return None;
        }
        let batch = self.batches.pop_front()?;
        self.bytes -= batch.frames.len();
        if self.sent > 0 {
            self.sent -= 1;
            self.sent_bytes = self.sent_bytes.saturating_sub(batch.frames.len());
        }
        Some(batch)
    }

    /// Cuts frames that are committed off the first batch and answers how many bytes that were of those only here. One
    /// that is being written stays whole: the control plane skips what it has.
    pub(super) fn cut_front(&mut self, next_seq: u64) -> usize {
        let in_memory = self.mode == Mode::Memory;
        let Some(front) = self.batches.front_mut() else {
            return 0;
        };
        if !in_memory && front.unsaved() > 0 {
            return 0;
        }
        let cut = front.cut_below(next_seq);
        self.bytes -= cut;
        if in_memory { cut } else { 0 }
    }

    /// What is to be written next. The open batch is closed for it if the sender waits for it.
    pub(super) fn take_unsaved(&mut self, copy: &mut Vec<u8>) -> Option<Take> {
        let at = self.batches.partition_point(|batch| batch.unsaved() == 0);
        if at == self.batches.len() && self.open.is_some() && self.is_worth_closing() {
            self.close();
        }
        if let Some(batch) = self.batches.get_mut(at) {
            return Some(Take {
                first: batch.saved.next,
                next: batch.next,
                bulk: std::mem::take(&mut batch.bulk),
                counts: std::mem::take(&mut batch.counts),
                closed: Some(batch.frames.slice(batch.saved.bytes..)),
            });
        }
        let open = self.open.as_ref().filter(|open| open.len() > self.open_saved.bytes)?;
        copy.clear();
        copy.extend_from_slice(open.since(self.open_saved.bytes));
        Some(Take {
            first: self.open_saved.next,
            next: self.next_seq,
            bulk: std::mem::take(&mut self.open_bulk),
            counts: std::mem::take(&mut self.open_counts),
            closed: None,
        })
    }

    /// Would the sender close it now, were it written?
    fn is_worth_closing(&self) -> bool {
        let unsaved = self
            .open
            .as_ref()
            .is_some_and(|open| open.len() > self.open_saved.bytes);
        let next = self.sent == self.batches.len() && self.stored.is_none() && self.ahead.is_empty();
        let due =
            self.wanted || self.sent < BATCHES_IN_FLIGHT || self.open.as_ref().map_or(0, Block::len) >= WORTH_SENDING;
        unsaved && next && due
    }

    /// What was taken is on disk: how many bytes are not only here any more.
    pub(super) fn saved(&mut self, take: &Take, len: usize) -> usize {
        let mut freed = 0;
        self.saved_to = take.next;
        if self.open.is_some() && self.open_first <= take.first {
            self.open_saved.bytes += len;
            self.open_saved.next = take.next;
            freed = len;
        } else if let Some(batch) = self.holder(take.first) {
            batch.saved.bytes += len;
            batch.saved.next = take.next;
            freed = len;
        }
        self.evict();
        freed
    }

    /// What was taken could not be written. How much of bulk is gone because it was committed meanwhile.
    pub(super) fn give_back(&mut self, take: &Take) -> usize {
        if self.open.is_some() && self.open_first <= take.first {
            self.open_counts.merge(&take.counts);
            self.open_bulk += take.bulk;
        } else if let Some(batch) = self.holder(take.first) {
            batch.counts.merge(&take.counts);
            batch.bulk += take.bulk;
        } else {
            return take.bulk;
        }
        0
    }

    /// The closed batch that holds record `seq`; none if that is committed and gone.
    fn holder(&mut self, seq: u64) -> Option<&mut Batch> {
        let at = self.batches.partition_point(|batch| batch.next <= seq);
        self.batches.get_mut(at).filter(|batch| batch.first <= seq)
    }

    /// Keeps no more in memory of what is on disk than will soon be sent.
    fn evict(&mut self) {
        let reads = self.stored.is_some() || !self.ahead.is_empty();
        if !reads && self.bytes - self.sent_bytes <= self.kept {
            return;
        }
        let saved = self
            .batches
            .iter()
            .skip(self.sent)
            .take_while(|batch| batch.unsaved() == 0)
            .count();
        let mut evicted = None;
        for batch in self.batches.drain(self.sent..self.sent + saved) {
            self.bytes -= batch.frames.len();
            let start = evicted.map_or(batch.first, |range: (u64, u64)| range.0);
            evicted = Some((start, batch.next));
        }
        if let Some((start, end)) = evicted {
            self.stored = Some(self.stored.as_ref().map_or(start, |stored| stored.start)..end);
        }
    }
}
