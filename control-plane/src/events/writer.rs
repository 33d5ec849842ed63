//! The one task that owns the log: repeats, ids, watchers, the store.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use proxyplane_spec::{EventId, ServiceId, WorkspaceId};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    Events,
    backlog::Backlog,
    event::{NewEvent, Subject, TARGET},
    feed::Feed,
    raised::events_dropped,
    repeats::Repeats,
};
use crate::store::{
    Db, StoreError,
    events::{self, EventRow},
};

/// Events of one statement.
const BATCH: usize = 200;
/// A statement that takes longer is given up: the connection is lost without notice, or the server hangs.
const LOST: Duration = Duration::from_mins(1);
/// Between attempts: from this,
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// doubled up to this.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Proxies whose names are remembered for events that only have an id.
const NAMES: usize = 4_096;

type Writing = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

/// The far end of a log, before the database is known.
#[derive(Debug)]
pub struct Writer {
    events: Events,
    inbox: mpsc::Receiver<NewEvent>,
}

/// A log that is being written.
pub struct EventLog {
    events: Events,
    feed: Feed,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Writer {
    pub(super) fn new(events: Events, inbox: mpsc::Receiver<NewEvent>) -> Self {
        Self { events, inbox }
    }

    /// For raising events, which wait until they can be stored.
    pub fn events(&self) -> Events {
        self.events.clone()
    }

    /// Stores what was raised so far and what will be.
    pub fn start(self, db: Db) -> EventLog {
        let (feed, stop) = (Feed::new(db.clone()), CancellationToken::new());
        let task = Task {
            events: self.events.clone(),
            inbox: self.inbox,
            db,
            feed: feed.clone(),
            repeats: Repeats::default(),
            names: HashMap::new(),
            backlog: Backlog::default(),
            batch: BATCH,
            away: None,
        };
        let task = tokio::spawn(task.run(stop.clone()));
        EventLog {
            events: self.events,
            feed,
            stop,
            task,
        }
    }
}

impl EventLog {
    /// For raising events.
    pub fn events(&self) -> Events {
        self.events.clone()
    }

    /// For watchers.
    pub fn feed(&self) -> Feed {
        self.feed.clone()
    }

    /// Stores what was raised so far, if the database takes it within `patience`, and ends. What is raised later is only
    /// logged.
    pub async fn finish(self, patience: Duration) {
        self.stop.cancel();
        let mut task = self.task;
        match timeout(patience, &mut task).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => error!(target: TARGET, %failure, "the event log ended early"),
            Err(_) => {
                task.abort();
                warn!(target: TARGET, "the database did not take the last events; they are lost");
            }
        }
    }
}

/// The database does not take events.
struct Away {
    retry_at: Instant,
    backoff: Duration,
}

struct Task {
    events: Events,
    inbox: mpsc::Receiver<NewEvent>,
    db: Db,
    feed: Feed,
    repeats: Repeats,
    names: HashMap<ServiceId, (String, WorkspaceId)>,
    backlog: Backlog,
    /// Most events of the next statement.
    batch: usize,
    away: Option<Away>,
}

impl Task {
    async fn run(mut self, stop: CancellationToken) {
        let mut writing: Option<Writing> = None;
        loop {
            let retry_at = self.away.as_ref().map(|away| away.retry_at);
            if writing.is_none() && !self.backlog.is_empty() && retry_at.is_none_or(|at| at <= Instant::now()) {
                writing = Some(self.write());
            }
            let due = self.repeats.due().map(Instant::from_std);
            let retry = retry_at.filter(|_| writing.is_none() && !self.backlog.is_empty());
            let wake = [due, retry].into_iter().flatten().min();
            tokio::select! {
                biased;
                Some(done) = over(&mut writing) => {
                    writing = None;
                    self.written(done);
                }
                Some(event) = self.inbox.recv() => self.take(event),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => self.tell_repeats(),
                () = stop.cancelled() => break,
            }
        }
        self.finish(writing).await;
    }

    fn take(&mut self, event: NewEvent) {
        if let Some(event) = self.repeats.admit(event, Instant::now().into_std()) {
            self.tell(event, 1);
        }
        let overflowed = self.events.overflowed.swap(0, Ordering::Relaxed);
        if overflowed > 0 {
            self.dropped(overflowed, "more came at once than could be taken");
        }
    }

    fn tell_repeats(&mut self) {
        let now = Instant::now().into_std();
        while let Some(repeat) = self.repeats.ended(now) {
            self.tell(repeat.latest, repeat.count);
        }
    }

    fn dropped(&mut self, count: u64, why: &str) {
        let event = events_dropped(count, why);
        event.log();
        self.tell(event, 1);
    }

    /// Gives it its id, tells watchers, and has it stored.
    fn tell(&mut self, event: NewEvent, occurrences: u32) {
        let subject = self.known(event.subject.clone());
        let subject_type = subject.subject_type();
        let message = event.message();
        let (subject_id, subject_name, workspace_id) = match subject {
            Subject::System => (None, String::new(), None),
            Subject::Proxy { id, name, workspace_id } => (Some(id.0), name, workspace_id),
        };
        let row = Arc::new(EventRow {
            id: EventId::new(),
            at: event.at,
            severity: event.severity,
            source: event.source.to_owned(),
            kind: event.kind.code().to_owned(),
            subject_type,
            subject_id,
            subject_name,
            workspace_id,
            message,
            details: event.details,
            occurrences,
        });
        self.feed.tell(row.clone());
        self.backlog.push(row);
    }

    /// The subject with the name that its last event with a name had. Watchers choose by workspace, and see names.
    fn known(&mut self, subject: Subject) -> Subject {
        let Subject::Proxy { id, name, workspace_id } = subject else {
            return subject;
        };
        if let (false, Some(workspace_id)) = (name.is_empty(), workspace_id) {
            if self.names.len() >= NAMES {
                self.names.clear();
            }
            self.names.insert(id, (name.clone(), workspace_id));
            return Subject::Proxy {
                id,
                name,
                workspace_id: Some(workspace_id),
            };
        }
        let known = self.names.get(&id).cloned();
        let (name, workspace_id) = known.map_or((name, workspace_id), |(name, workspace)| (name, Some(workspace)));
        Subject::Proxy { id, name, workspace_id }
    }

    /// Stores the oldest that wait.
    fn write(&mut self) -> Writing {
        let (db, rows) = (self.db.clone(), self.backlog.take(self.batch));
        Box::pin(async move {
            let stored = timeout(LOST, events::insert(&db, &rows)).await;
            stored.unwrap_or(Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)))
        })
    }

    fn written(&mut self, done: Result<(), StoreError>) {
        match done {
            Ok(()) => {
                self.backlog.stored();
                self.batch = BATCH;
                if self.away.take().is_some() {
                    info!(target: TARGET, "events are stored again");
                }
                let dropped = if self.backlog.is_empty() {
                    self.backlog.dropped()
                } else {
                    0
                };
                if dropped > 0 {
                    self.dropped(dropped, "they could not be stored");
                }
            }
            // One of them is to blame, so one after the other; who is to blame alone is dropped.
            Err(StoreError::Fault(failure)) if is_refusal(&failure) => {
                if self.batch == 1 {
                    error!(target: TARGET, %failure, "an event was refused by the database and is dropped");
                    self.backlog.refused();
                } else {
                    self.backlog.kept();
                    self.batch = 1;
                }
            }
            Err(failure) => {
                self.backlog.kept();
                let before = self.away.take();
                if before.is_none() {
                    warn!(target: TARGET, %failure, "events cannot be stored; the newest are kept until they can");
                }
                let backoff = before.map_or(BACKOFF_FIRST, |away| (away.backoff * 2).min(BACKOFF_MAX));
                let retry_at = Instant::now() + backoff;
                self.away = Some(Away { retry_at, backoff });
            }
        }
    }

    async fn finish(mut self, mut writing: Option<Writing>) {
        while let Ok(event) = self.inbox.try_recv() {
            self.take(event);
        }
        for repeat in self.repeats.finish() {
            self.tell(repeat.latest, repeat.count);
        }
        loop {
            if let Some(done) = over(&mut writing).await {
                self.written(done);
            }
            if self.backlog.is_empty() || self.away.is_some() {
                break;
            }
            writing = Some(self.write());
        }
        if !self.backlog.is_empty() {
            let count = self.backlog.len();
            warn!(target: TARGET, count, "the database does not take the last events; they are lost");
        }
    }
}

/// The end of what is being written, if anything is.
async fn over(writing: &mut Option<Writing>) -> Option<Result<(), StoreError>> {
    match writing {
        Some(writing) => Some(writing.await),
        None => None,
    }
}

/// SQLSTATE class 22 (data), 23 (integrity) or 54 (limits): trying again does not help.
fn is_refusal(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)))
}
