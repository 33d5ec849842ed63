//! One transaction of ingest, step by step, and the connection that it goes through.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use sqlx::{Connection as _, PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::{
    Room, Source,
    batch::Batch,
    connection::{Failure, connect, copy},
    keeper,
    queue::Item,
};
use crate::{
    events::Events,
    store::{
        Db,
        ingest::{self, Advanced, Reject},
        partitions::{self, Day},
    },
};

/// A connection, made when it is needed, and the batch that goes through it.
pub(super) struct Writer {
    connection: Option<PgConnection>,
    pub(super) batch: Batch,
}

impl Writer {
    fn new() -> Self {
        Self {
            connection: None,
            batch: Batch::new(),
        }
    }
}

/// Writers that are not at work.
#[derive(Default)]
pub(super) struct Writers(Vec<Writer>);

impl Writers {
    /// The one that whatever comes alone goes through.
    pub(super) fn first(&mut self) -> &mut Writer {
        if self.0.is_empty() {
            self.0.push(Writer::new());
        }
        &mut self.0[0]
    }

    pub(super) fn take(&mut self) -> Writer {
        self.0.pop().unwrap_or_else(Writer::new)
    }

    pub(super) fn put(&mut self, writer: Writer) {
        self.0.push(writer);
    }

    /// Gives their connections up: what is under way in one comes to nothing.
    pub(super) fn disconnect(&mut self) {
        self.0.clear();
    }
}

/// Where batches go, and what is known of it.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) db: Db,
    pub(super) lease: Option<Uuid>,
    pub(super) room: Room,
    /// The keeper has made the days' partitions ahead: none of them should be missing any more.
    pub(super) kept_ahead: Arc<AtomicBool>,
    /// Days whose partitions are known to be there.
    pub(super) days: BTreeSet<Day>,
}

impl Target {
    /// The connection and the batch of the writer, both to be used at once.
    pub(super) async fn connect<'a>(
        &self,
        writer: &'a mut Writer,
    ) -> Result<(&'a mut PgConnection, &'a mut Batch), Failure> {
        let connection = match &mut writer.connection {
            Some(connection) => connection,
            none => none.insert(connect(&self.db).await?),
        };
        Ok((connection, &mut writer.batch))
    }

    /// Begins the transaction of the writer's batch with the cursors, which are locked and advanced: up to which position
    /// its rows are. Whoever else moved the cursors, or is just doing it, is noticed before a row is written.
    pub(super) async fn begin<'a>(
        &mut self,
        writer: &'a mut Writer,
        today: Day,
    ) -> Result<(Transaction<'a, Postgres>, &'a mut Batch, i64), Failure> {
        self.room.check()?;
        let (connection, batch) = self.connect(writer).await?;
        self.make_days(connection, batch, today).await?;
        let mut transaction = connection.begin().await?;
        ingest::delete_open(&mut transaction, &batch.ended).await?;
        let position = self.advance(&mut transaction, batch).await?;
        Ok((transaction, batch, position))
    }

    /// Advances the cursors of the batch, if they are where it begins, and counts its rows: up to which position.
    pub(super) async fn advance(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        batch: &Batch,
    ) -> Result<i64, Failure> {
        match ingest::advance(transaction, &batch.advance, self.lease).await? {
            Advanced::To(position) => Ok(position),
            Advanced::CursorsMoved => Err(Failure::CursorsMoved),
            Advanced::LeaseLost => Err(Failure::LeaseLost),
        }
    }

    /// Makes the partitions that the batch needs, in a transaction of their own.
    async fn make_days(&mut self, db: &mut PgConnection, batch: &Batch, today: Day) -> Result<(), Failure> {
        for day in &batch.days {
            if self.days.contains(day) {
                continue;
            }
            let mut transaction = db.begin().await?;
            let missing = partitions::ensure(&mut transaction, *day).await?;
            transaction.commit().await?;
            self.days.insert(*day);
            if missing && self.kept_ahead.load(Ordering::Relaxed) {
                keeper::alarm(*day, today);
            }
        }
        Ok(())
    }
}

/// Writes the rows of the batch that `items` became, whose last position is `last`.
pub(super) async fn write(
    transaction: &mut Transaction<'_, Postgres>,
    batch: &mut Batch,
    last: i64,
    items: &[Item],
    refused: Option<&str>,
    events: &Events,
) -> Result<(), Failure> {
    batch.place(last);
    for (statement, pieces) in batch.copies() {
        for rows in pieces {
            copy(transaction, statement, rows).await?;
        }
    }
    let (opened, epochs) = &batch.opened;
    if !opened.is_empty() {
        ingest::insert_open(transaction, opened, epochs).await?;
    }
    for (index, why) in &batch.refused {
        keep_reject(transaction, &items[*index], refused.unwrap_or(why), events).await?;
    }
    Ok(())
}

async fn keep_reject(db: &mut PgConnection, item: &Item, reason: &str, events: &Events) -> Result<(), Failure> {
    let Source {
        epoch,
        service_id,
        workspace_id,
    } = item.source;
    let seq = item.frame.seq;
    events.row_rejected(item.source, seq, reason);
    let payload = &item.frame.payload;
    ingest::insert_reject(
        db,
        Reject {
            epoch,
            service_id,
            workspace_id,
            seq,
            payload,
            reason,
        },
    )
    .await?;
    Ok(())
}
