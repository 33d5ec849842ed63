//! Ingest: what workers record becomes committed rows, then acknowledgements.
//!
//! One transaction is committed at a time. It takes what all sessions sent meanwhile, so batches grow with the load;
//! under load small ones are gathered for some milliseconds, after a pause nothing waits (see `queue`), and while more
//! waits than one takes the rows of two are written at once (see `pipeline`). A record is acknowledged only after its
//! commit; where a worker resumes is the database's cursor, never the worker's. While the database is away, sessions wait
//! and nothing is dropped.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, atomic::AtomicBool},
};

use bytes::Bytes;
use proxyplane_record::frame::{self, FrameError};
use proxyplane_spec::{Epoch, ServiceId, WorkspaceId};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{events::Events, lifecycle::Lifecycle, live::Hub, store::Db};

mod batch;
mod committer;
mod connection;
mod copy;
mod keeper;
mod pipeline;
mod queue;
mod room;
mod rows;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod throughput;
mod transaction;

use committer::{BACKOFF_FIRST, Committer};
use queue::{Queue, Ticket};
pub use room::Room;
use transaction::{Target, Writers};

/// Whose records these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The worker instance.
    pub epoch: Epoch,
    /// The service it runs.
    pub service_id: ServiceId,
    /// The service's workspace.
    pub workspace_id: WorkspaceId,
}

/// Does ingest work?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Commits, or has nothing to commit.
    Ready,
    /// The database is away, hangs or has no room. Sessions wait; it is tried again by itself.
    Stalled(String),
    /// Another control plane has the lease: nothing is committed any more.
    Fenced,
}

/// Why records were not taken.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// A frame is damaged.
    #[error("damaged frame: {0}")]
    Frame(#[from] FrameError),
    /// A record is missing: the worker is to redial and resume from the cursor.
    #[error("record {expected} is missing; {got} came")]
    Gap {
        /// What was to come next.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// The worker opened another session, or ingest ended.
    #[error("the session is over")]
    Over,
}

/// Starts ingest.
pub struct Ingest;

impl Ingest {
    /// Spawns the committer. `lease` is this control plane's boot id in the installation's lease; every transaction
    /// checks it. Without one, nothing is checked. `room` is looked at before every transaction.
    ///
    /// It ends by [`IngestHandle::shutdown`], or at the hard token: not at the soft one, as workers drain after that.
    pub fn start(
        db: Db,
        hub: Hub,
        events: Events,
        lease: Option<Uuid>,
        room: Room,
        lifecycle: &Lifecycle,
    ) -> IngestHandle {
        let queue = Arc::new(Queue::default());
        let health = watch::Sender::new(Health::Ready);
        let handle = IngestHandle {
            queue: queue.clone(),
            hub: hub.clone(),
            health: health.subscribe(),
        };
        let soft = lifecycle.soft().clone();
        let kept_ahead = Arc::new(AtomicBool::new(false));
        lifecycle.spawn(soft.run_until_cancelled_owned(keeper::keep(db.clone(), kept_ahead.clone())));
        let committer = Committer {
            hub,
            events,
            queue,
            health,
            target: Target {
                db,
                lease,
                room,
                kept_ahead,
                days: BTreeSet::new(),
            },
            writers: Writers::default(),
            backoff: BACKOFF_FIRST,
        };
        let hard = lifecycle.hard().clone();
        lifecycle.spawn(hard.run_until_cancelled_owned(committer.run()));
        handle
    }
}

/// Ingest, for those who feed it. Cloning shares it.
#[derive(Clone)]
pub struct IngestHandle {
    queue: Arc<Queue>,
    hub: Hub,
    health: watch::Receiver<Health>,
}

impl IngestHandle {
    /// Opens the session of a worker instance, once the database says where it is to resume. Waits while that is away.
    ///
    /// Ends the instance's former session, if it has one; what that had not committed is to be sent again.
    pub async fn open(&self, source: Source) -> Result<IngestSession, IngestError> {
        let answer = self.queue.open(source)?;
        let ticket = answer.await.map_err(|_| IngestError::Over)?;
        Ok(IngestSession {
            source,
            ticket,
            queue: self.queue.clone(),
            hub: self.hub.clone(),
        })
    }

    /// Closes what a dead instance left open as `worker_lost`, after its last record is committed. Returns at once.
    #[expect(
        clippy::unused_async,
        reason = "callers await it: whether closing waits is ingest's affair"
    )]
    pub async fn close_epoch(&self, epoch: Epoch) {
        self.queue.close(epoch);
    }

    /// Until everything that was pushed is committed and every epoch that was to be closed is.
    pub async fn drained(&self) {
        self.queue.drained().await;
    }

    /// Commits what is left, then ends the committer. Later calls fail with `Over`.
    pub async fn shutdown(&self) {
        self.queue.drained().await;
        self.queue.end();
    }

    /// Does it work? For `/ready`.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }
}

/// The records of one worker instance. Dropping it ends the session; what was pushed is committed all the same.
pub struct IngestSession {
    source: Source,
    ticket: Ticket,
    queue: Arc<Queue>,
    hub: Hub,
}

impl IngestSession {
    /// Takes a run of frames. Waits while ingest has enough; those that are committed already are skipped.
    pub async fn push(&self, mut frames: Bytes) -> Result<(), IngestError> {
        let mut taken = Vec::new();
        while let Some(frame) = frame::take(&mut frames)? {
            if self.hub.is_watched_closely()
                && let Ok(record) = frame.record()
            {
                self.hub.arrived(self.source, &record);
            }
            taken.push(frame);
        }
        self.queue.push(self.source.epoch, &self.ticket, taken).await
    }

    /// Sequence number below which everything is committed; first, where the worker is to resume.
    pub fn acked(&self) -> watch::Receiver<u64> {
        self.ticket.acked()
    }

    /// Where the worker is to resume, or how far it got.
    pub fn next_seq(&self) -> u64 {
        *self.ticket.acked().borrow()
    }
}

impl Drop for IngestSession {
    fn drop(&mut self) {
        self.queue.leave(self.source.epoch, &self.ticket);
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("commits"),
            Self::Stalled(why) => write!(f, "waits for the database: {why}"),
            Self::Fenced => f.write_str("another control plane holds the installation"),
        }
    }
}
