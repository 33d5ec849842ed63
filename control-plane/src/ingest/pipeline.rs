//! Batches one behind the other, while more waits than one takes: each through a connection of its own, and so by a
//! process of the server of its own. Rows are written beside one another, commits follow one another.
//!
//! Only the first batch has its cursors locked before its rows are written; those behind it begin where the one before
//! them ends. Whatever happens that is not plain success, what is not committed is committed anew, one batch after the
//! other (`committer`).

use std::{
    collections::{HashSet, VecDeque},
    pin::Pin,
    sync::Arc,
};

use futures_util::{StreamExt as _, stream::FuturesOrdered};
use sqlx::Connection as _;
use tokio::sync::oneshot;
use tracing::debug;

use super::{
    committer::{Committer, tell, watched},
    connection::Failure,
    queue::Item,
    transaction::{self, Target, Writer},
};
use crate::{
    clock,
    events::Events,
    live::Hub,
    store::{ingest, partitions::Day},
};

/// Batches under way at once: a batch knows only of the one before it.
const WRITERS: usize = 2;

type Flight = Pin<Box<dyn Future<Output = (Writer, Result<(), Failure>)> + Send>>;

/// What the batch behind has to know of one that is not committed yet.
struct Ahead {
    /// The last of its positions.
    last: i64,
    /// Its exchanges: what else is written of them has to wait until it is committed.
    ids: HashSet<[u8; 16]>,
}

/// For the batch behind, from the one before it.
struct Place {
    ahead: oneshot::Receiver<Ahead>,
    committed: oneshot::Receiver<()>,
}

/// For the batch before, to tell the one behind it.
struct Behind {
    ahead: oneshot::Sender<Ahead>,
    committed: oneshot::Sender<()>,
}

/// What one batch is stored with.
struct Storing {
    target: Target,
    hub: Hub,
    events: Events,
    items: Arc<Vec<Item>>,
    /// None for the first.
    place: Option<Place>,
    behind: Behind,
}

impl Committer {
    /// Commits these, and what more there is as long as it is enough for batches of its own, whatever it takes.
    pub(super) async fn commit_in_turn(&mut self, first: Vec<Item>, second: Vec<Item>) {
        let mut flights = FuturesOrdered::<Flight>::new();
        let mut under_way = VecDeque::new();
        let mut next = [first, second].into_iter();
        let mut place = None;
        loop {
            while flights.len() < WRITERS {
                let Some(items) = next.next().or_else(|| self.queue.more()) else {
                    break;
                };
                let items = Arc::new(items);
                under_way.push_back(items.clone());
                flights.push_back(self.flight(items, &mut place));
            }
            // As long as one of them is committed now and then, nothing has stalled.
            let landed = watched(&self.health, async { Ok(flights.next().await) }).await;
            let mut writer = match landed {
                Ok(None) => return,
                Ok(Some((writer, Ok(())))) => writer,
                Ok(Some((_, Err(failure)))) | Err(failure) => {
                    debug!(?failure, under_way = under_way.len(), "batches in turn came to nothing");
                    break;
                }
            };
            self.well();
            tell(&self.queue, &self.events, &self.hub, &mut writer.batch);
            self.writers.put(writer);
            under_way.pop_front();
        }
        // What they have begun comes to nothing with their connections.
        drop(flights);
        for items in under_way {
            self.commit(Arc::unwrap_or_clone(items)).await;
        }
    }

    fn flight(&mut self, items: Arc<Vec<Item>>, place: &mut Option<Place>) -> Flight {
        let mut writer = self.writers.take();
        let (ahead, is_ahead) = oneshot::channel();
        let (committed, is_committed) = oneshot::channel();
        let place = place.replace(Place {
            ahead: is_ahead,
            committed: is_committed,
        });
        let storing = Storing {
            target: self.target.clone(),
            hub: self.hub.clone(),
            events: self.events.clone(),
            items,
            place,
            behind: Behind { ahead, committed },
        };
        Box::pin(async move {
            let result = storing.store(&mut writer).await;
            (writer, result)
        })
    }
}

impl Storing {
    async fn store(mut self, writer: &mut Writer) -> Result<(), Failure> {
        let today = Day::of(clock::now());
        writer.batch.fill(&self.items, today, &self.hub);
        if !writer.batch.days.is_subset(&self.target.days) {
            return Err(Failure::NoPartition("a day is to be looked for".to_owned()));
        }
        let Some(mut place) = self.place.take() else {
            return self.lead(writer, today).await;
        };
        let ahead = (&mut place.ahead).await.map_err(|_| Failure::NotItsTurn)?;
        if !writer.batch.ids.is_disjoint(&ahead.ids) {
            place.committed.await.map_err(|_| Failure::NotItsTurn)?;
            return self.lead(writer, today).await;
        }
        self.follow(writer, ahead.last, place.committed).await
    }

    /// Nothing is before it that is not committed.
    async fn lead(mut self, writer: &mut Writer, today: Day) -> Result<(), Failure> {
        let (mut transaction, batch, last) = self.target.begin(writer, today).await?;
        let ids = std::mem::take(&mut batch.ids);
        // Nobody may come behind it.
        let _ = self.behind.ahead.send(Ahead { last, ids });
        transaction::write(&mut transaction, batch, last, &self.items, None, &self.events).await?;
        transaction.commit().await?;
        let _ = self.behind.committed.send(());
        Ok(())
    }

    /// What is before it has the positions up to this, and is committed some time.
    async fn follow(self, writer: &mut Writer, last: i64, committed: oneshot::Receiver<()>) -> Result<(), Failure> {
        self.target.room.check()?;
        let (connection, batch) = self.target.connect(writer).await?;
        let last = last + batch.advance.positions;
        let ids = std::mem::take(&mut batch.ids);
        let mut transaction = connection.begin().await?;
        ingest::delete_open(&mut transaction, &batch.ended).await?;
        // Not before: no two may be deleting at once.
        let _ = self.behind.ahead.send(Ahead { last, ids });
        transaction::write(&mut transaction, batch, last, &self.items, None, &self.events).await?;
        committed.await.map_err(|_| Failure::NotItsTurn)?;
        if self.target.advance(&mut transaction, batch).await? != last {
            // Somebody else gave out positions, which only who has the lease may.
            return Err(Failure::CursorsMoved);
        }
        transaction.commit().await?;
        let _ = self.behind.committed.send(());
        Ok(())
    }
}
