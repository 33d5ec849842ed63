//! The event log: what happened to the installation and its proxies, stored, and told to who watches.
//!
//! Parts of the control plane raise events through [`Events`], a method per [`Kind`]; log lines at warning or error
//! become events by themselves (`layer.rs`). Raising never waits: a bounded queue leads to one task, which makes equal
//! events that follow each other closely into one, gives out ids, tells watchers and stores. While the database is away
//! it keeps the newest and stores them afterwards. What had to be dropped is counted, and the count is an event too.

mod backlog;
mod event;
mod feed;
mod kind;
mod layer;
mod raised;
mod repeats;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use event::NewEvent;
pub use event::Subject;
pub use feed::{Feed, Subscription, Watched};
pub use kind::{Kind, Severity, SubjectType};
pub use layer::layer;
use tokio::sync::mpsc;
pub use writer::{EventLog, Writer};

/// Events that wait for the writer. When it is full, more are dropped and counted; the count becomes an event.
const QUEUE: usize = 1_024;

/// For raising events. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<NewEvent>,
    overflowed: Arc<AtomicU64>,
}

/// The two ends of a log: whoever has the first may raise events, the second stores them once it is started.
pub fn channel() -> (Events, Writer) {
    let (queue, inbox) = mpsc::channel(QUEUE);
    let overflowed = Arc::new(AtomicU64::new(0));
    let events = Events { queue, overflowed };
    (events.clone(), Writer::new(events, inbox))
}

impl Events {
    /// Raises an event and writes its log line. Returns at once.
    fn raise(&self, event: NewEvent) {
        event.log();
        self.put(event);
    }

    /// Raises the event of a log line that is written anyway.
    fn put(&self, event: NewEvent) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(event) {
            self.overflowed.fetch_add(1, Ordering::Relaxed);
        }
    }
}
