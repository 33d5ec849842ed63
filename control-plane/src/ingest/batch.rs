//! One transaction's records, encoded for COPY.

use std::collections::{BTreeSet, HashMap, HashSet};

use proxyplane_record::{Complete, Exchange, Gap, Kind};
use uuid::Uuid;

use super::{
    Source,
    copy::CopyBuffer,
    queue::Item,
    rows::{self, Bodies},
};
use crate::{
    live::Hub,
    store::{
        exchanges::ExchangeRow,
        ingest::{self, Advance},
        partitions::Day,
    },
};

/// Rows of every table, and what the transaction has to do beside copying them. Used again and again.
pub(super) struct Batch {
    exchanges: CopyBuffer,
    heads: CopyBuffer,
    chunks: CopyBuffer,
    websockets: CopyBuffer,
    messages: CopyBuffer,
    gaps: CopyBuffer,
    /// The exchanges that have a row in it.
    pub(super) ids: HashSet<[u8; 16]>,
    /// Where in `exchanges` each row's position is.
    positions: Vec<usize>,
    /// Exchanges that began in this batch and may end in it.
    begun: HashMap<[u8; 16], Begun>,
    pub(super) advance: Advance,
    /// Exchanges whose row is written while they are open, with their epochs.
    pub(super) opened: (Vec<Uuid>, Vec<Uuid>),
    /// Exchanges whose row was written while they were open and is to be replaced.
    pub(super) ended: Vec<Uuid>,
    /// Days that its rows are of.
    pub(super) days: BTreeSet<Day>,
    /// Items that can be no rows, and why.
    pub(super) refused: Vec<(usize, &'static str)>,
    /// The gaps among its items.
    pub(super) lost: Vec<(Source, Gap)>,
    /// The summary rows, while somebody watches.
    live: Option<Vec<ExchangeRow>>,
    /// The last of its rows' positions, once they are placed.
    last: Option<i64>,
}

struct Begun {
    source: Source,
    exchange: Exchange,
    ended: bool,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            exchanges: CopyBuffer::new(),
            heads: CopyBuffer::new(),
            chunks: CopyBuffer::new(),
            websockets: CopyBuffer::new(),
            messages: CopyBuffer::new(),
            gaps: CopyBuffer::new(),
            ids: HashSet::new(),
            positions: Vec::new(),
            begun: HashMap::new(),
            advance: Advance::default(),
            opened: Default::default(),
            ended: Vec::new(),
            days: BTreeSet::new(),
            refused: Vec::new(),
            lost: Vec::new(),
            live: None,
            last: None,
        }
    }

    /// Encodes `items`, which are in order per epoch.
    pub(super) fn fill(&mut self, items: &[Item], today: Day, hub: &Hub) {
        self.clear();
        self.live = hub.is_watched().then(Vec::new);
        for (index, item) in items.iter().enumerate() {
            self.count(item);
            if let Err(why) = self.add(item, today, hub) {
                self.refused.push((index, why));
            }
        }
        let mut begun: Vec<_> = self.begun.drain().collect();
        begun.sort_unstable_by_key(|(id, _)| *id);
        for (
            id,
            Begun {
                source,
                exchange,
                ended,
            },
        ) in begun
        {
            if !ended {
                self.opened.0.push(Uuid::from_bytes(id));
                self.opened.1.push(source.epoch.0);
            }
            self.exchange(source, &id, &exchange, Bodies::default(), hub);
        }
        self.advance.positions = self.positions.len() as i64;
    }

    /// Only moves the cursors past `items`, which are kept among the rejects.
    pub(super) fn fill_refused(&mut self, items: &[Item]) {
        self.clear();
        for (index, item) in items.iter().enumerate() {
            self.count(item);
            self.refused.push((index, "refused"));
        }
    }

    fn clear(&mut self) {
        self.live = None;
        self.last = None;
        for buffer in [
            &mut self.exchanges,
            &mut self.heads,
            &mut self.chunks,
            &mut self.websockets,
            &mut self.messages,
            &mut self.gaps,
        ] {
            buffer.clear();
        }
        self.ids.clear();
        self.positions.clear();
        self.begun.clear();
        self.advance = Advance::default();
        self.opened.0.clear();
        self.opened.1.clear();
        self.ended.clear();
        self.days.clear();
        self.refused.clear();
        self.lost.clear();
    }

    /// Moves the cursor of the item's epoch; the last epoch is nearly always the one.
    fn count(&mut self, item: &Item) {
        let (epoch, seq) = (item.source.epoch.0, item.frame.seq.cast_signed());
        let next_seq = item.frame.next_seq().cast_signed();
        let advance = &mut self.advance;
        if let Some(at) = advance.epochs.iter().rposition(|known| *known == epoch) {
            advance.next_seq[at] = next_seq;
        } else {
            advance.epochs.push(epoch);
            advance.expected.push(seq);
            advance.next_seq.push(next_seq);
        }
    }

    fn add(&mut self, item: &Item, today: Day, hub: &Hub) -> Result<(), &'static str> {
        let record = item.frame.record().map_err(|_| "the payload is not a record")?;
        let source = item.source;
        match record.kind.ok_or("the kind of record is not known to this build")? {
            Kind::Complete(complete) => self.complete(source, &complete, today, hub)?,
            Kind::Head(exchange) => {
                let id = self.day_of(&exchange.id, today)?;
                if self.begun.contains_key(&id) {
                    return Err("the exchange began already");
                }
                self.begun.insert(
                    id,
                    Begun {
                        source,
                        exchange,
                        ended: false,
                    },
                );
            }
            Kind::End(exchange) => {
                let id = self.day_of(&exchange.id, today)?;
                self.stored(source);
                if let Some(begun) = self.begun.get_mut(&id) {
                    *begun = Begun {
                        source,
                        exchange,
                        ended: true,
                    };
                } else {
                    self.ended.push(Uuid::from_bytes(id));
                    self.exchange(source, &id, &exchange, Bodies::default(), hub);
                }
            }
            Kind::BodyChunk(chunk) => {
                let id = self.day_of(&chunk.exchange_id, today)?;
                rows::body_chunk(&mut self.chunks, &id, &chunk);
            }
            Kind::WsMessage(message) => {
                let id = self.day_of(&message.exchange_id, today)?;
                rows::message(&mut self.messages, &id, &message);
            }
            Kind::Gap(gap) => {
                rows::gap(&mut self.gaps, source, &gap);
                self.lost.push((source, gap));
            }
        }
        Ok(())
    }

    fn complete(&mut self, source: Source, complete: &Complete, today: Day, hub: &Hub) -> Result<(), &'static str> {
        let id = self.day_of(&complete.exchange.id, today)?;
        self.stored(source);
        let bodies: Bodies<'_> = [&complete.request_body, &complete.response_body];
        self.exchange(source, &id, &complete.exchange, bodies, hub);
        Ok(())
    }

    fn exchange(&mut self, source: Source, id: &[u8; 16], exchange: &Exchange, bodies: Bodies<'_>, hub: &Hub) {
        self.ids.insert(*id);
        self.positions
            .push(rows::exchange(&mut self.exchanges, source, id, exchange));
        rows::heads(&mut self.heads, id, exchange, bodies);
        if let Some(socket) = &exchange.websocket {
            rows::websocket(&mut self.websockets, source, id, socket);
        }
        if let Some(live) = &mut self.live
            && let Some(row) = hub.row(source, exchange)
        {
            live.push(row);
        }
    }

    /// The id as bytes, if it is one and of a day that can be; its day is noted.
    fn day_of(&mut self, id: &[u8], today: Day) -> Result<[u8; 16], &'static str> {
        let id: [u8; 16] = id.try_into().map_err(|_| "the exchange's id is not 16 bytes")?;
        let day = Day::of_id(&id);
        if !day.is_believed(today) {
            return Err("the time in the exchange's id is more than a year away");
        }
        self.days.insert(day);
        Ok(id)
    }

    /// One exchange more of this service is there to its end.
    fn stored(&mut self, source: Source) {
        let advance = &mut self.advance;
        if let Some(at) = advance.services.iter().rposition(|known| *known == source.service_id.0) {
            advance.stored[at] += 1;
        } else {
            advance.services.push(source.service_id.0);
            advance.stored.push(1);
        }
    }

    /// Gives the rows their positions, the last of which is `last`.
    pub(super) fn place(&mut self, last: i64) {
        self.last = (!self.positions.is_empty()).then_some(last);
        let first = last - self.positions.len() as i64 + 1;
        for (position, at) in (first..).zip(&self.positions) {
            self.exchanges.fill(*at, position);
        }
        for (position, row) in (first..).zip(self.live.iter_mut().flatten()) {
            row.position = position;
        }
    }

    /// The last of its rows' positions; `None` if it has no row with one.
    pub(super) fn position(&self) -> Option<i64> {
        self.last
    }

    /// What is to be copied, table by table: the statement, and the data of each time it is run.
    pub(super) fn copies(&mut self) -> impl Iterator<Item = (&'static str, impl Iterator<Item = &[u8]>)> {
        [
            (ingest::COPY_EXCHANGES, &mut self.exchanges),
            (ingest::COPY_HEADS, &mut self.heads),
            (ingest::COPY_BODY_CHUNKS, &mut self.chunks),
            (ingest::COPY_WEBSOCKETS, &mut self.websockets),
            (ingest::COPY_MESSAGES, &mut self.messages),
            (ingest::COPY_GAPS, &mut self.gaps),
        ]
        .into_iter()
        .filter(|(_, rows)| !rows.is_empty())
        .map(|(statement, rows)| (statement, rows.finish()))
    }

    /// The summary rows for watchers; none if nobody watched when the batch was filled.
    pub(super) fn take_live(&mut self) -> Vec<ExchangeRow> {
        self.live.take().unwrap_or_default()
    }
}
