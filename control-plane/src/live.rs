//! The live hub: what happens, fanned out to watchers.
//!
//! Two kinds of events. *Stored* ones are lossless and in commit order: they come from a ring of what was committed
//! last and, for whoever lags behind it or resumes, from the database; positions join the two without gap or double.
//! The others are lossy: each subscriber has a bounded queue, and what does not fit is counted to it. No subscriber
//! slows ingest, and nobody watching costs an atomic load per batch.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use proxyplane_record::{Exchange, Kind, Record};
use proxyplane_spec::{ServiceId, WorkspaceId};
use tokio::sync::{mpsc, watch};

use crate::{
    ingest::Source,
    store::{
        self, Db, StoreError,
        exchanges::ExchangeRow,
        websockets::{MessageRow, WebSocketRow},
    },
};

mod ended;
mod ring;
mod subscription;

use ended::Ended;
use ring::Ring;
pub use subscription::Subscription;

/// Lossy events that wait for one subscriber. When it is full, more are dropped and counted to it.
const LOSSY_QUEUE: usize = 1_024;

/// Whose traffic, and what of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// That of this service.
    pub service_id: Option<ServiceId>,
    /// That of this workspace.
    pub workspace_id: Option<WorkspaceId>,
    /// Begin with what was stored after this position; `None` for only what comes.
    pub after_position: Option<i64>,
    /// Only stored events.
    pub stored_only: bool,
}

impl Filter {
    fn matches(&self, workspace: WorkspaceId, service: Option<ServiceId>) -> bool {
        self.service_id.is_none_or(|id| service == Some(id)) && self.workspace_id.is_none_or(|id| workspace == id)
    }
}

/// What a subscriber is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// First: the position at which the live part begins.
    Subscribed(i64),
    /// An exchange began. Lossy.
    Begun(Arc<ExchangeRow>),
    /// An exchange ended and arrived, not yet committed. Lossy.
    Completed(Arc<ExchangeRow>),
    /// An exchange was committed: an open one, a whole one, or the end of one that was open.
    Stored(Arc<ExchangeRow>),
    /// A WebSocket was opened. Lossy.
    WebSocketOpened(Arc<WebSocketRow>),
    /// A WebSocket message passed. Lossy.
    WebSocketMessage(Arc<MessageRow>),
    /// A WebSocket was closed. Lossy.
    WebSocketClosed(Arc<WebSocketRow>),
    /// So many lossy events were dropped, because this subscriber was slow.
    Missed(u64),
}

/// The hub. Cloning shares it.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    db: Db,
    /// Position of the last commit of this process; 0 before the first.
    committed: watch::Sender<i64>,
    interest: watch::Sender<bool>,
    /// Subscribers of any kind; those of lossy events are in `lossy`.
    watched: AtomicUsize,
    lossy: Mutex<Vec<Lossy>>,
    /// Held while what begins or completes is told, so that nothing begins after its end.
    ended: Mutex<Ended>,
    ring: Mutex<Ring>,
    names: Mutex<HashMap<ServiceId, Arc<str>>>,
    codes: Mutex<HashMap<WorkspaceId, Arc<str>>>,
}

struct Lossy {
    filter: Filter,
    events: mpsc::Sender<Event>,
    missed: Arc<AtomicU64>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").finish_non_exhaustive()
    }
}

impl Hub {
    /// A hub without subscribers.
    pub fn new(db: Db) -> Self {
        Self(Arc::new(Shared {
            db,
            committed: watch::Sender::new(0),
            interest: watch::Sender::new(false),
            watched: AtomicUsize::new(0),
            lossy: Mutex::default(),
            ended: Mutex::default(),
            ring: Mutex::default(),
            names: Mutex::default(),
            codes: Mutex::default(),
        }))
    }

    /// Watches from now on, or from `filter.after_position` on.
    pub async fn subscribe(&self, filter: Filter) -> Result<Subscription, StoreError> {
        // Registered first: what is committed after the position is read is in the ring or can be read back.
        let mut subscription = Subscription::register(self, filter);
        let position = store::ingest::position(&self.0.db).await?;
        subscription.begin(position);
        Ok(subscription)
    }

    /// Does somebody watch lossy events? Workers send what begins only then.
    pub fn interest(&self) -> watch::Receiver<bool> {
        self.0.interest.subscribe()
    }

    /// The name that live events show for a service: told at every start of one, and when it changes.
    pub fn name(&self, service: ServiceId, name: &str) {
        lock(&self.0.names).insert(service, Arc::from(name));
    }

    /// The code that live events show for a workspace: told when a worker of it comes, and when it changes.
    pub fn workspace(&self, workspace: WorkspaceId, code: &str) {
        lock(&self.0.codes).insert(workspace, Arc::from(code));
    }

    /// An exchange began. One that is known to have completed is not told.
    #[expect(clippy::needless_pass_by_value, reason = "it was decoded for this call alone")]
    pub fn begun(&self, source: Source, exchange: Exchange) {
        if self.is_watched_closely()
            && let Some(row) = self.row(source, &exchange)
        {
            let ended = lock(&self.0.ended);
            if !ended.has(row.id.0) {
                self.tell(source, &Event::Begun(Arc::new(row)));
            }
        }
    }

    /// A record arrived, not yet committed.
    pub(crate) fn arrived(&self, source: Source, record: &Record) {
        match &record.kind {
            Some(Kind::Complete(complete)) => {
                self.socket(source, &complete.exchange, Event::WebSocketOpened);
                self.completed(source, &complete.exchange);
            }
            Some(Kind::Head(exchange)) => self.socket(source, exchange, Event::WebSocketOpened),
            Some(Kind::End(exchange)) => self.completed(source, exchange),
            Some(Kind::WsMessage(message)) => {
                if let Some(row) = MessageRow::of_record(message) {
                    self.tell(source, &Event::WebSocketMessage(Arc::new(row)));
                }
            }
            Some(Kind::BodyChunk(_) | Kind::Gap(_)) | None => {}
        }
    }

    fn completed(&self, source: Source, exchange: &Exchange) {
        self.socket(source, exchange, Event::WebSocketClosed);
        if let Some(row) = self.row(source, exchange) {
            let mut ended = lock(&self.0.ended);
            ended.add(row.id.0);
            self.tell(source, &Event::Completed(Arc::new(row)));
        }
    }

    fn socket(&self, source: Source, exchange: &Exchange, event: fn(Arc<WebSocketRow>) -> Event) {
        if exchange.websocket.is_none() {
            return;
        }
        let row = self
            .row(source, exchange)
            .and_then(|row| WebSocketRow::of_record(exchange, &row));
        if let Some(row) = row {
            self.tell(source, &event(Arc::new(row)));
        }
    }

    /// Is anybody to be told of what is stored? If so, ingest makes rows of it.
    pub(crate) fn is_watched(&self) -> bool {
        self.0.watched.load(Ordering::Acquire) > 0
    }

    /// Is anybody to be told of lossy events?
    pub(crate) fn is_watched_closely(&self) -> bool {
        *self.0.interest.borrow()
    }

    /// The summary row of a record.
    pub(crate) fn row(&self, source: Source, exchange: &Exchange) -> Option<ExchangeRow> {
        let mut row = ExchangeRow::of_record(exchange, source.workspace_id, source.service_id)?;
        row.service_name = lock(&self.0.names)
            .get(&source.service_id)
            .map(|name| name.as_ref().to_owned());
        row.workspace_code = lock(&self.0.codes)
            .get(&source.workspace_id)
            .map(|code| code.as_ref().to_owned());
        Some(row)
    }

    /// A transaction was committed: its rows, with their positions, or none if nobody watched when it was made.
    pub(crate) fn stored(&self, position: i64, rows: Vec<ExchangeRow>) {
        lock(&self.0.ring).push(position, rows);
        self.0.committed.send_replace(position);
    }

    fn tell(&self, source: Source, event: &Event) {
        for subscriber in lock(&self.0.lossy).iter() {
            if subscriber.filter.matches(source.workspace_id, Some(source.service_id))
                && subscriber.events.try_send(event.clone()).is_err()
            {
                subscriber.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// What is behind these locks stays whole when a holder panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
