//! Captured bodies, content encoding kept: beside the heads those that came whole with their exchange, in table
//! `body_chunks` those that came in pieces.

use proxyplane_record::Side;
use proxyplane_spec::ExchangeId;
use sqlx::PgExecutor;

use super::StoreError;

/// Chunks of one read: 256 KiB, as chunks have at most 64 KiB.
const CHUNKS: i64 = 4;

/// A piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Position of its first byte in the captured body.
    pub start: u64,
    /// At most 64 KiB.
    pub data: Vec<u8>,
}

impl Chunk {
    /// Position after its last byte: where the next read begins.
    pub fn end(&self) -> u64 {
        self.start + self.data.len() as u64
    }
}

/// The next pieces of a body from position `from` on, in order; empty at its end.
///
/// A body is read by calls, not by one open query, so that a slow reader holds no connection.
pub async fn read(db: impl PgExecutor<'_>, id: ExchangeId, side: Side, from: u64) -> Result<Vec<Chunk>, StoreError> {
    let rows = sqlx::query!(
        r#"(SELECT 0::bigint AS "start!", b.data AS "data!" FROM heads,
                LATERAL (SELECT CASE $2::smallint WHEN 1 THEN request_body ELSE response_body END AS data) b
            WHERE exchange_id = $1 AND $3::bigint = 0 AND b.data IS NOT NULL)
           UNION ALL
           (SELECT chunk_start, data FROM body_chunks WHERE exchange_id = $1 AND side = $2 AND chunk_start >= $3
            ORDER BY chunk_start LIMIT $4)"#,
        id.0,
        side as i16,
        from.cast_signed(),
        CHUNKS,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Chunk {
            start: row.start.cast_unsigned(),
            data: row.data,
        })
        .collect())
}
