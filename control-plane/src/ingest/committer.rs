//! The committer: one task, which commits one transaction after the other.

use std::{future::Future, sync::Arc, time::Duration};

use proxyplane_record::error_code::WORKER_LOST;
use proxyplane_spec::Epoch;
use sqlx::Connection as _;
use tokio::{
    sync::{oneshot, watch},
    time::{sleep, timeout},
};
use tracing::{debug, error, info};
use uuid::Uuid;

use super::{
    Health, Source,
    batch::Batch,
    connection::Failure,
    queue::{Item, Queue, Ticket, Work},
    transaction::{self, Target, Writers},
};
use crate::{
    clock,
    events::{Events, Subject},
    live::Hub,
    store::{self, ingest, partitions::Day},
};

/// A transaction that takes longer is shown as a stall.
const SLOW: Duration = Duration::from_secs(2);
/// A transaction that takes longer is given up: the connection is lost without notice, or the server hangs.
const LOST: Duration = Duration::from_secs(90);
/// Between attempts: from this,
pub(super) const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// doubled up to this.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

pub(super) struct Committer {
    pub(super) hub: Hub,
    pub(super) events: Events,
    pub(super) queue: Arc<Queue>,
    pub(super) health: watch::Sender<Health>,
    pub(super) target: Target,
    pub(super) writers: Writers,
    pub(super) backoff: Duration,
}

/// Records that are committed together.
struct Part {
    items: Vec<Item>,
    /// Postgres refused the one item that is left: keep it among the rejects.
    refused: Option<String>,
    /// Partitions were looked for anew.
    partitions_checked: bool,
}

impl Committer {
    pub(super) async fn run(mut self) {
        loop {
            let queue = self.queue.clone();
            match queue.next().await {
                Work::Open(source, answer) => self.open(source, answer).await,
                Work::Batch(items) => match queue.more() {
                    Some(later) => self.commit_in_turn(items, later).await,
                    None => self.commit(items).await,
                },
                Work::Close(epoch) => self.close(epoch).await,
                Work::End => return,
            }
        }
    }

    async fn open(&mut self, source: Source, answer: oneshot::Sender<Ticket>) {
        while !answer.is_closed() {
            match watched(&self.health.clone(), self.try_open(source)).await {
                Ok((next_seq, name, code)) => {
                    self.well();
                    self.hub.name(source.service_id, &name);
                    self.hub.workspace(source.workspace_id, &code);
                    // A receiver that is gone was a worker that is gone; its lane is empty and is left with it.
                    let ticket = self.queue.opened(source, next_seq);
                    if let Err(ticket) = answer.send(ticket) {
                        self.queue.leave(source.epoch, &ticket);
                    }
                    return;
                }
                Err(failure) => self.wait_after(&failure).await,
            }
        }
    }

    /// Where it is to resume; its service's name and its workspace's code.
    async fn try_open(&mut self, source: Source) -> Result<(u64, String, String), Failure> {
        let (db, _) = self.target.connect(self.writers.first()).await?;
        let next_seq = ingest::open(db, source.epoch, source.service_id, source.workspace_id).await?;
        let name = store::services::name(&mut *db, source.service_id).await?;
        let workspace = store::workspaces::get(db, source.workspace_id).await?;
        let code = workspace.map(|workspace| workspace.code);
        Ok((next_seq, name.unwrap_or_default(), code.unwrap_or_default()))
    }

    /// Commits all of it, whatever it takes; halves what Postgres refuses until one record is left.
    pub(super) async fn commit(&mut self, items: Vec<Item>) {
        let mut parts = vec![Part {
            items,
            refused: None,
            partitions_checked: false,
        }];
        while let Some(mut part) = parts.pop() {
            if part.items.is_empty() {
                continue;
            }
            match watched(&self.health.clone(), self.attempt(&part)).await {
                Ok(()) => {
                    self.well();
                    tell(&self.queue, &self.events, &self.hub, &mut self.writers.first().batch);
                }
                Err(Failure::Refused(why)) => {
                    self.well();
                    if part.items.len() == 1 {
                        part.refused = Some(why);
                        parts.push(part);
                        continue;
                    }
                    let later = part.items.split_off(part.items.len() / 2);
                    parts.push(Part {
                        items: later,
                        refused: None,
                        partitions_checked: false,
                    });
                    parts.push(part);
                }
                Err(Failure::NoPartition(_)) if !part.partitions_checked => {
                    self.target.days.clear();
                    part.partitions_checked = true;
                    parts.push(part);
                }
                Err(failure) => {
                    self.wait_after(&failure).await;
                    parts.push(part);
                    self.resume(&mut parts).await;
                }
            }
        }
    }

    async fn attempt(&mut self, part: &Part) -> Result<(), Failure> {
        let today = Day::of(clock::now());
        let batch = &mut self.writers.first().batch;
        match &part.refused {
            None => batch.fill(&part.items, today, &self.hub),
            Some(_) => batch.fill_refused(&part.items),
        }
        let (mut transaction, batch, last) = self.target.begin(self.writers.first(), today).await?;
        let refused = part.refused.as_deref();
        transaction::write(&mut transaction, batch, last, &part.items, refused, &self.events).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Learns from the database what is committed, and drops that from what is still to be done.
    async fn resume(&mut self, parts: &mut [Part]) {
        let mut epochs: Vec<Uuid> = parts
            .iter()
            .flat_map(|part| &part.items)
            .map(|item| item.source.epoch.0)
            .collect();
        epochs.dedup();
        let cursors = loop {
            let cursors = async {
                let (db, _) = self.target.connect(self.writers.first()).await?;
                Ok(ingest::cursors(db, &epochs).await?)
            };
            match watched(&self.health.clone(), cursors).await {
                Ok(cursors) => break cursors,
                Err(failure) => self.wait_after(&failure).await,
            }
        };
        epochs.sort_unstable();
        epochs.dedup();
        for epoch in epochs {
            let Some(cursor) = cursors.get(&epoch).copied() else {
                self.give_up(Epoch(epoch), parts, "its cursor is gone");
                continue;
            };
            let of_epoch = |item: &Item| item.source.epoch.0 == epoch;
            for part in parts.iter_mut() {
                part.items.retain(|item| !of_epoch(item) || item.frame.seq >= cursor);
            }
            self.queue.acknowledge(Epoch(epoch), cursor);
            let first = parts
                .iter()
                .flat_map(|part| &part.items)
                .filter(|item| of_epoch(item))
                .map(|i| i.frame.seq)
                .min();
            if first.is_some_and(|first| first > cursor) {
                self.give_up(Epoch(epoch), parts, "its cursor went back");
            }
        }
    }

    /// The session has to begin anew where the database says; the worker still has the records.
    fn give_up(&self, epoch: Epoch, parts: &mut [Part], why: &str) {
        error!(%epoch, why, "records of a worker do not follow on what is committed; its session ends");
        for part in parts {
            part.items.retain(|item| item.source.epoch != epoch);
        }
        self.queue.fail(epoch);
    }

    async fn close(&mut self, epoch: Epoch) {
        loop {
            match watched(&self.health.clone(), self.try_close(epoch)).await {
                Ok(None) => break self.well(),
                Ok(Some((lost, position))) => {
                    self.well();
                    info!(%epoch, lost, "closed what a worker left open");
                    self.hub.stored(position, Vec::new());
                    break;
                }
                Err(failure) => self.wait_after(&failure).await,
            }
        }
    }

    async fn try_close(&mut self, epoch: Epoch) -> Result<Option<(u64, i64)>, Failure> {
        let (db, _) = self.target.connect(self.writers.first()).await?;
        let mut transaction = db.begin().await?;
        let lost = ingest::close(
            &mut transaction,
            epoch,
            WORKER_LOST,
            "the worker ended before the exchange did",
        )
        .await?;
        let position = ingest::position(&mut *transaction).await?;
        transaction.commit().await?;
        Ok((lost > 0).then_some((lost, position)))
    }

    /// Shows and logs a failure, gives the connection up, and waits before the next attempt.
    async fn wait_after(&mut self, failure: &Failure) {
        self.writers.disconnect();
        let health = match failure {
            Failure::LeaseLost => Health::Fenced,
            Failure::CursorsMoved | Failure::NotItsTurn => Health::Ready,
            Failure::Again(why) | Failure::Refused(why) | Failure::NoPartition(why) => Health::Stalled(why.clone()),
        };
        let news = self.health.send_if_modified(|known| {
            let news = std::mem::discriminant(known) != std::mem::discriminant(&health);
            *known = health;
            news
        });
        if news {
            debug!(?failure, "ingest waits");
        }
        sleep(self.backoff).await;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }

    pub(super) fn well(&mut self) {
        self.backoff = BACKOFF_FIRST;
        let was_ill = self
            .health
            .send_if_modified(|health| std::mem::replace(health, Health::Ready) != Health::Ready);
        if was_ill {
            info!("ingest commits again");
        }
    }
}

/// Tells those who wait for it that the batch is committed.
pub(super) fn tell(queue: &Queue, events: &Events, hub: &Hub, batch: &mut Batch) {
    let advance = &batch.advance;
    for (epoch, next_seq) in advance.epochs.iter().zip(&advance.next_seq) {
        queue.acknowledge(Epoch(*epoch), next_seq.cast_unsigned());
    }
    for (source, gap) in &batch.lost {
        let proxy = Subject::proxy_in(source.service_id, source.workspace_id);
        events.gap(proxy, gap.records, gap.exchanges);
    }
    if let Some(position) = batch.position() {
        hub.stored(position, batch.take_live());
    }
}

/// Waits for the database, says so when it takes long, and gives up when it takes too long.
pub(super) async fn watched<T>(
    health: &watch::Sender<Health>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut work = std::pin::pin!(work);
    if let Ok(done) = timeout(SLOW, &mut work).await {
        return done;
    }
    debug!("the database does not answer");
    health.send_replace(Health::Stalled("it does not answer".to_owned()));
    let done = timeout(LOST, work).await;
    done.unwrap_or_else(|_| Err(Failure::Again("it did not answer for too long".to_owned())))
}
