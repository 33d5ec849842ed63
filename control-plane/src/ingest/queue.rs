//! What waits for the committer: frames of each session, sessions to open, epochs to close.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proxyplane_record::frame::Frame;
use proxyplane_spec::Epoch;
use tokio::{
    sync::{Notify, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{IngestError, Source};

/// Bytes that wait of one session; above it, the session waits.
const SESSION_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that wait of all sessions together; above it, all wait that have something waiting already.
const TOTAL_BYTES: usize = 64 * 1024 * 1024;
/// Most records of one transaction.
const BATCH_RECORDS: usize = 1_000;
/// Most bytes of one transaction, unless one record alone is larger.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// After a batch was handed out, the next one is gathered for this long, unless it is [`BATCH_RECORDS`] or
/// [`GATHER_BYTES`] before. What comes after a pause is committed at once.
///
/// A transaction costs about 0.5 ms of CPU whatever its size: `ingest::throughput` prints what an exchange costs.
const GATHER: Duration = Duration::from_millis(50);
/// See [`GATHER`].
const GATHER_BYTES: usize = 2 * 1024 * 1024;

/// A record on its way.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) source: Source,
    pub(super) frame: Frame,
}

/// What the committer does next.
pub(super) enum Work {
    /// Read the cursor and open the session.
    Open(Source, oneshot::Sender<Ticket>),
    /// Commit these, in this order.
    Batch(Vec<Item>),
    /// Nothing of it waits any more: close what it left open.
    Close(Epoch),
    /// No more comes.
    End,
}

/// What a session has of its place in the queue.
pub(super) struct Ticket {
    number: u64,
    acked: watch::Receiver<u64>,
    room: Arc<Notify>,
}

impl Ticket {
    pub(super) fn acked(&self) -> watch::Receiver<u64> {
        self.acked.clone()
    }
}

/// What there is for the committer.
enum Taken {
    Work(Work),
    /// A batch, but not before this.
    Gathering(Instant),
    Nothing,
}

#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// There is work for the committer.
    work: Notify,
    /// Counts tickets, so that a former session of an epoch is known.
    tickets: AtomicU64,
    /// Nothing waits and nothing is in flight.
    idle: watch::Sender<bool>,
}

#[derive(Default)]
struct Inner {
    lanes: BTreeMap<Epoch, Lane>,
    opens: VecDeque<(Source, oneshot::Sender<Ticket>)>,
    closes: Vec<Epoch>,
    bytes: usize,
    records: usize,
    /// Before this, a small batch is not handed out.
    gather_until: Option<Instant>,
    /// Whose turn is first: nobody is always last.
    turn: usize,
    ended: bool,
}

/// Frames of one instance, and its session.
struct Lane {
    source: Source,
    ticket: u64,
    frames: VecDeque<Frame>,
    bytes: usize,
    /// What is to be pushed next.
    expected: u64,
    acked: watch::Sender<u64>,
    room: Arc<Notify>,
    /// The session is over: the lane goes when it is empty.
    left: bool,
}

impl Queue {
    pub(super) fn open(&self, source: Source) -> Result<oneshot::Receiver<Ticket>, IngestError> {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.lock();
        if inner.ended {
            return Err(IngestError::Over);
        }
        inner.opens.push_back((source, sender));
        self.wake();
        Ok(receiver)
    }

    /// Puts a session in the place of the former one of its epoch; called when the cursor is known.
    pub(super) fn opened(&self, source: Source, next_seq: u64) -> Ticket {
        let (acked, receiver) = watch::channel(next_seq);
        let room = Arc::new(Notify::new());
        let number = self.tickets.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.lock();
        let lane = Lane {
            source,
            ticket: number,
            frames: VecDeque::new(),
            bytes: 0,
            expected: next_seq,
            acked,
            room: room.clone(),
            left: false,
        };
        if let Some(former) = inner.lanes.insert(source.epoch, lane) {
            inner.forget(&former);
            former.room.notify_one();
        }
        Ticket {
            number,
            acked: receiver,
            room,
        }
    }

    pub(super) async fn push(&self, epoch: Epoch, ticket: &Ticket, frames: Vec<Frame>) -> Result<(), IngestError> {
        let mut frames = Some(frames);
        loop {
            if self.offer(epoch, ticket, &mut frames)? {
                return Ok(());
            }
            // A permit is kept when there is room before this waits, so no wake-up is lost.
            ticket.room.notified().await;
        }
    }

    /// Takes the frames if there is room.
    fn offer(&self, epoch: Epoch, ticket: &Ticket, frames: &mut Option<Vec<Frame>>) -> Result<bool, IngestError> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        if inner.ended {
            return Err(IngestError::Over);
        }
        let full = inner.bytes >= TOTAL_BYTES;
        let lane = inner.lanes.get_mut(&epoch).filter(|lane| lane.ticket == ticket.number);
        let lane = lane.ok_or(IngestError::Over)?;
        if lane.bytes >= SESSION_BYTES || (full && lane.bytes > 0) {
            return Ok(false);
        }
        let before = lane.bytes;
        for frame in frames.take().unwrap_or_default() {
            if frame.seq < lane.expected {
                continue;
            }
            if frame.seq > lane.expected {
                return Err(IngestError::Gap {
                    expected: lane.expected,
                    got: frame.seq,
                });
            }
            lane.expected = frame.next_seq();
            lane.bytes += frame.payload.len();
            inner.bytes += frame.payload.len();
            inner.records += 1;
            lane.frames.push_back(frame);
        }
        if lane.bytes > before {
            self.wake();
        }
        Ok(true)
    }

    pub(super) fn leave(&self, epoch: Epoch, ticket: &Ticket) {
        let mut inner = self.lock();
        if let Some(lane) = inner.lanes.get_mut(&epoch)
            && lane.ticket == ticket.number
        {
            lane.left = true;
            if lane.frames.is_empty() {
                inner.lanes.remove(&epoch);
            }
        }
    }

    pub(super) fn close(&self, epoch: Epoch) {
        let mut inner = self.lock();
        inner.closes.push(epoch);
        self.wake();
    }

    pub(super) fn end(&self) {
        let mut inner = self.lock();
        inner.ended = true;
        for lane in inner.lanes.values() {
            lane.room.notify_one();
        }
        inner.opens.clear();
        self.wake();
    }

    /// Everything below `next_seq` of this instance is committed.
    pub(super) fn acknowledge(&self, epoch: Epoch, next_seq: u64) {
        let mut inner = self.lock();
        let Some(lane) = inner.lanes.get_mut(&epoch) else {
            return;
        };
        lane.acked.send_if_modified(|acked| {
            let later = next_seq > *acked;
            *acked = next_seq.max(*acked);
            later
        });
    }

    /// The session is over: what the worker sent does not follow on what is committed.
    pub(super) fn fail(&self, epoch: Epoch) {
        let mut inner = self.lock();
        if let Some(lane) = inner.lanes.remove(&epoch) {
            inner.forget(&lane);
            lane.room.notify_one();
        }
    }

    pub(super) async fn drained(&self) {
        let mut idle = self.idle.subscribe();
        // The sender is in `self`.
        let _ = idle.wait_for(|idle| *idle).await;
    }

    /// Waits for work. To be asked only when what was handed out before is done.
    pub(super) async fn next(&self) -> Work {
        loop {
            let until = match self.take() {
                Taken::Work(work) => return work,
                Taken::Gathering(until) => until,
                Taken::Nothing => {
                    self.work.notified().await;
                    continue;
                }
            };
            tokio::select! {
                () = self.work.notified() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    /// What is to be committed after a batch that was handed out, if it is enough for one of its own and nobody waits for
    /// the committer.
    pub(super) fn more(&self) -> Option<Vec<Item>> {
        let mut inner = self.lock();
        let waits = !inner.opens.is_empty() || inner.closable().is_some();
        (!waits && !inner.is_small()).then(|| inner.batch())
    }

    fn take(&self) -> Taken {
        let mut inner = self.lock();
        if let Some((source, answer)) = inner.opens.pop_front() {
            return Taken::Work(Work::Open(source, answer));
        }
        if let Some(at) = inner.closable() {
            return Taken::Work(Work::Close(inner.closes.swap_remove(at)));
        }
        if let Some(until) = inner.gathering() {
            return Taken::Gathering(until);
        }
        let batch = inner.batch();
        if !batch.is_empty() {
            return Taken::Work(Work::Batch(batch));
        }
        self.idle.send_replace(true);
        if inner.ended {
            Taken::Work(Work::End)
        } else {
            Taken::Nothing
        }
    }

    fn wake(&self) {
        self.idle.send_if_modified(|idle| std::mem::replace(idle, false));
        self.work.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Which of `closes` has nothing waiting any more: others may always have something.
    fn closable(&self) -> Option<usize> {
        let is_empty = |epoch: &Epoch| self.lanes.get(epoch).is_none_or(|lane| lane.frames.is_empty());
        self.closes.iter().position(is_empty)
    }

    /// Until when what waits is to be gathered; `None` if it is enough, or nothing.
    fn gathering(&self) -> Option<Instant> {
        self.gather_until
            .filter(|until| self.is_small() && self.records > 0 && !self.ended && *until > Instant::now())
    }

    /// Is what waits too little for a batch that is worth its while?
    fn is_small(&self) -> bool {
        self.records < BATCH_RECORDS && self.bytes < GATHER_BYTES
    }

    /// What waits of a lane that is gone does not wait any more.
    fn forget(&mut self, lane: &Lane) {
        self.bytes -= lane.bytes;
        self.records -= lane.frames.len();
    }

    /// What all sessions have waiting, up to the limits; each gets an equal share of them.
    fn batch(&mut self) -> Vec<Item> {
        let busy = self.lanes.values().filter(|lane| !lane.frames.is_empty()).count();
        if busy == 0 {
            return Vec::new();
        }
        let (records, bytes) = ((BATCH_RECORDS / busy).max(1), BATCH_BYTES / busy);
        let mut items = Vec::with_capacity(BATCH_RECORDS.min(256));
        self.turn = self.turn.wrapping_add(1);
        let start = self.turn % self.lanes.len();
        let order: Vec<Epoch> = self
            .lanes
            .keys()
            .cycle()
            .skip(start)
            .take(self.lanes.len())
            .copied()
            .collect();
        for epoch in order {
            if items.len() >= BATCH_RECORDS {
                break;
            }
            let Some(lane) = self.lanes.get_mut(&epoch) else {
                continue;
            };
            let before = items.len();
            self.bytes -= lane.take(records, bytes, &mut items);
            self.records -= items.len() - before;
            if lane.left && lane.frames.is_empty() {
                self.lanes.remove(&epoch);
            }
        }
        for lane in self.lanes.values() {
            lane.room.notify_one();
        }
        self.gather_until = Some(Instant::now() + GATHER);
        items
    }
}

impl Lane {
    /// Moves frames over, at least one if there is one, and answers how many bytes that were.
    fn take(&mut self, records: usize, bytes: usize, items: &mut Vec<Item>) -> usize {
        let (mut taken, mut size) = (0, 0);
        while taken < records && (taken == 0 || size < bytes) {
            let Some(frame) = self.frames.pop_front() else { break };
            taken += 1;
            size += frame.payload.len();
            items.push(Item {
                source: self.source,
                frame,
            });
        }
        self.bytes -= size;
        size
    }
}
