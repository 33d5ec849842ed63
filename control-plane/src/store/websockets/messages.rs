//! Table `websocket_messages`: a row per part of a message.

use proxyplane_record::{CHUNK_MAX, Side, WsMessage};
use proxyplane_spec::ExchangeId;
use sqlx::PgExecutor;
use time::OffsetDateTime;
use uuid::Uuid;

use super::side_of;
use crate::store::{
    StoreError, exchanges,
    page::{Cursor, Page, Paged},
};

/// Payload of one page of messages, in bytes: a page fits into a gRPC message of 4 MiB.
const PAGE_BYTES: i64 = 2 * 1024 * 1024;
/// Parts of one read: 256 KiB, as parts have at most 64 KiB.
const PARTS: i64 = 4;

/// A message with the beginning of its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRow {
    /// Its connection's exchange.
    pub exchange_id: ExchangeId,
    /// Order in its connection, both directions counted together.
    pub sequence: u64,
    /// Who sent it: `Request` is the client, `Response` the server.
    pub side: Side,
    /// RFC 6455 §5.2.
    pub opcode: u8,
    /// When its last byte came.
    pub at: OffsetDateTime,
    /// The first 64 KiB of what was captured.
    pub payload: Vec<u8>,
    /// Size of the whole message, inflated.
    pub size: u64,
    /// Captured less than `size`.
    pub truncated: bool,
    /// It came compressed.
    pub compressed: bool,
    /// More was captured than `payload` holds.
    pub payload_cut: bool,
}

impl MessageRow {
    /// The row of a message whose last part this is. Of several parts, the payload is left out: `payload_cut`.
    ///
    /// `None` for the other parts and for a damaged id.
    pub fn of_record(message: &WsMessage) -> Option<Self> {
        if !message.last {
            return None;
        }
        let single = message.part == 0;
        Some(Self {
            exchange_id: ExchangeId(Uuid::from_slice(&message.exchange_id).ok()?),
            sequence: message.sequence,
            side: message.side(),
            opcode: message.opcode as u8,
            at: exchanges::time_of(message.at_us),
            payload: if single { message.payload.to_vec() } else { Vec::new() },
            size: message.size,
            truncated: message.truncated,
            compressed: message.compressed,
            payload_cut: !single,
        })
    }
}

/// A page of one connection's messages, in the order in which they passed.
///
/// A page ends early when its payloads come to 2 MiB. A message whose last part never came counts as truncated.
pub async fn messages(db: impl PgExecutor<'_>, id: ExchangeId, page: &Page) -> Result<Paged<MessageRow>, StoreError> {
    let cursor = Cursor::of("websocket_messages", &id);
    let after: Option<u64> = cursor.after(page)?;
    let rows = sqlx::query!(
        r#"SELECT m.sequence, m.side, m.opcode, m.compressed, m.last AS "single!", m.payload,
                  coalesce(l.at, m.at) AS "at!", coalesce(l.size, m.size) AS "size!",
                  coalesce(l.truncated, m.truncated OR NOT m.last) AS "truncated!",
                  m.before_it >= $4 AS "beyond!"
           FROM (SELECT exchange_id, sequence, side, opcode, compressed, last, payload, at, size, truncated,
                        sum(octet_length(payload)) OVER (ORDER BY sequence) - octet_length(payload) AS before_it
                 FROM websocket_messages
                 WHERE exchange_id = $1 AND part = 0 AND ($2::bigint IS NULL OR sequence > $2)
                 ORDER BY sequence LIMIT $3) m
           LEFT JOIN websocket_messages l
             ON NOT m.last AND l.exchange_id = $1 AND l.sequence = m.sequence AND l.last
           WHERE m.before_it < $4 + $5
           ORDER BY m.sequence"#,
        id.0,
        after.map(u64::cast_signed),
        page.fetch(),
        PAGE_BYTES,
        CHUNK_MAX as i64,
    )
    .fetch_all(db)
    .await?;
    let full = rows.iter().position(|row| row.beyond);
    let rows = rows.into_iter().map(|row| MessageRow {
        exchange_id: id,
        sequence: row.sequence.cast_unsigned(),
        side: side_of(row.side),
        opcode: row.opcode as u8,
        at: row.at,
        payload: row.payload,
        size: row.size.cast_unsigned(),
        truncated: row.truncated,
        compressed: row.compressed,
        payload_cut: !row.single,
    });
    Ok(cursor.paged_at(page, full, rows.collect(), |row: &MessageRow| row.sequence))
}

/// The next parts of one message's payload from part `from` on, in order; empty at its end.
pub async fn parts(
    db: impl PgExecutor<'_>,
    id: ExchangeId,
    sequence: u64,
    from: u32,
) -> Result<Vec<Vec<u8>>, StoreError> {
    Ok(sqlx::query_scalar!(
        "SELECT payload FROM websocket_messages WHERE exchange_id = $1 AND sequence = $2 AND part >= $3
         ORDER BY part LIMIT $4",
        id.0,
        sequence.cast_signed(),
        from.cast_signed(),
        PARTS,
    )
    .fetch_all(db)
    .await?)
}
