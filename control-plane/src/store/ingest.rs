//! Tables `ingest_cursors`, `ingest_state`, `ingest_rejects` and `open_exchanges`, and the COPY statements of ingest.

use std::collections::HashMap;

use proxyplane_spec::{Epoch, ServiceId, WorkspaceId};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::StoreError;

/// Columns in the order in which `ingest::rows` writes them.
pub const COPY_EXCHANGES: &str = "COPY exchanges (id, position, workspace_id, service_id, started_at, duration_us, \
    request_size, response_size, request_captured, response_captured, port, flags, kind, state, status, \
    request_version, response_version, request_truncated, response_truncated, client, method, scheme, host, path, \
    query, request_content_type, response_content_type, request_content_encoding, response_content_encoding, error, \
    error_detail) FROM STDIN (FORMAT binary)";
/// As above.
pub const COPY_HEADS: &str = "COPY heads (exchange_id, request_head, response_head, informational_heads, \
    request_trailers, response_trailers, dns_us, connect_us, tls_us, first_byte_us, origin_address, \
    client_tls_version, client_tls_cipher, client_tls_alpn, client_tls_sni, origin_tls_version, origin_tls_cipher, \
    origin_tls_alpn, origin_tls_sni, request_body, response_body) FROM STDIN (FORMAT binary)";
/// As above.
pub const COPY_BODY_CHUNKS: &str = "COPY body_chunks (exchange_id, chunk_start, side, data) FROM STDIN (FORMAT binary)";
/// As above.
pub const COPY_WEBSOCKETS: &str = "COPY websocket_connections (exchange_id, workspace_id, service_id, opened_at, \
    closed_at, messages_from_client, messages_from_server, bytes_from_client, bytes_from_server, close_code, \
    close_reason, subprotocol, extensions) FROM STDIN (FORMAT binary)";
/// As above.
pub const COPY_MESSAGES: &str = "COPY websocket_messages (exchange_id, sequence, part, at, size, side, opcode, \
    truncated, compressed, last, payload) FROM STDIN (FORMAT binary)";
/// As above.
pub const COPY_GAPS: &str = "COPY ingest_gaps (epoch, first_seq, service_id, records, exchanges, from_at, to_at) \
    FROM STDIN (FORMAT binary)";

/// What one transaction settles beside its rows.
#[derive(Debug, Default)]
pub struct Advance {
    /// Instances whose records it has.
    pub epochs: Vec<Uuid>,
    /// For each, the cursor that is expected,
    pub expected: Vec<i64>,
    /// and where it goes.
    pub next_seq: Vec<i64>,
    /// Services that get exchanges.
    pub services: Vec<Uuid>,
    /// For each, how many.
    pub stored: Vec<i64>,
    /// Positions that its rows need.
    pub positions: i64,
}

/// What came of [`advance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advanced {
    /// Every cursor was where it was expected; the positions up to this one are the transaction's.
    To(i64),
    /// A cursor is elsewhere: read them again. The transaction must not be committed.
    CursorsMoved,
    /// Another control plane has the lease. The transaction must not be committed.
    LeaseLost,
}

/// Locks and advances cursors, counters and position in one statement.
pub async fn advance(db: &mut PgConnection, advance: &Advance, lease: Option<Uuid>) -> Result<Advanced, sqlx::Error> {
    let row = sqlx::query!(
        r#"WITH cursors AS (
               UPDATE ingest_cursors c SET next_seq = w.next_seq
               FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS w(epoch, expected, next_seq)
               WHERE c.epoch = w.epoch AND c.next_seq = w.expected RETURNING 1
           ), counters AS (
               UPDATE service_counters k SET stored = k.stored + n.stored
               FROM unnest($4::uuid[], $5::bigint[]) AS n(service_id, stored) WHERE k.service_id = n.service_id
           ), state AS (
               UPDATE ingest_state SET position = position + $6
               WHERE $7::uuid IS NULL OR EXISTS (SELECT FROM installation WHERE lease_boot = $7) RETURNING position
           )
           SELECT (SELECT count(*) FROM cursors) AS "cursors!", (SELECT position FROM state) AS position"#,
        &advance.epochs,
        &advance.expected,
        &advance.next_seq,
        &advance.services,
        &advance.stored,
        advance.positions,
        lease,
    )
    .fetch_one(db)
    .await?;
    Ok(match row.position {
        None => Advanced::LeaseLost,
        Some(_) if row.cursors.cast_unsigned() != advance.epochs.len() as u64 => Advanced::CursorsMoved,
        Some(position) => Advanced::To(position),
    })
}

/// The last position that was given out and committed.
pub async fn position(db: impl PgExecutor<'_>) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar!("SELECT position FROM ingest_state")
        .fetch_one(db)
        .await?)
}

/// Where the records of each of these instances are to resume; unknown ones are missing.
pub async fn cursors(db: impl PgExecutor<'_>, epochs: &[Uuid]) -> Result<HashMap<Uuid, u64>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT epoch, next_seq FROM ingest_cursors WHERE epoch = ANY($1)",
        epochs
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.epoch, row.next_seq.cast_unsigned()))
        .collect())
}

/// Where an instance is to resume; one that is new begins at 0.
pub async fn open(
    db: &mut PgConnection,
    epoch: Epoch,
    service: ServiceId,
    workspace: WorkspaceId,
) -> Result<u64, sqlx::Error> {
    let next_seq = sqlx::query_scalar!(
        "INSERT INTO ingest_cursors (epoch, service_id, workspace_id) VALUES ($1, $2, $3)
         ON CONFLICT (epoch) DO UPDATE SET closed_at = NULL RETURNING next_seq",
        epoch.0,
        service.0,
        workspace.0,
    )
    .fetch_one(db)
    .await?;
    Ok(next_seq.cast_unsigned())
}

/// Instances that were never closed: those of a former control plane.
pub async fn unclosed(db: impl PgExecutor<'_>) -> Result<Vec<Epoch>, StoreError> {
    let epochs = sqlx::query_scalar!("SELECT epoch FROM ingest_cursors WHERE closed_at IS NULL")
        .fetch_all(db)
        .await?;
    Ok(epochs.into_iter().map(Epoch).collect())
}

/// Where an instance's records belong: by its cursor, or else by its service.
pub async fn workspace(
    db: impl PgExecutor<'_>,
    epoch: Epoch,
    service: ServiceId,
) -> Result<Option<WorkspaceId>, StoreError> {
    let id = sqlx::query_scalar!(
        r#"SELECT coalesce((SELECT workspace_id FROM ingest_cursors WHERE epoch = $1),
                           (SELECT workspace_id FROM services WHERE id = $2)) AS workspace_id"#,
        epoch.0,
        service.0,
    )
    .fetch_one(db)
    .await?;
    Ok(id.map(WorkspaceId))
}

/// Notes which rows were written while their exchange was open.
pub async fn insert_open(db: &mut PgConnection, exchanges: &[Uuid], epochs: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO open_exchanges (exchange_id, epoch) SELECT x, e FROM unnest($1::uuid[], $2::uuid[]) AS o(x, e)",
        exchanges,
        epochs,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Removes the rows of exchanges that were open, for their final ones to be copied in.
pub async fn delete_open(db: &mut PgConnection, exchanges: &[Uuid]) -> Result<(), sqlx::Error> {
    let (Some(first), Some(last)) = (exchanges.iter().min(), exchanges.iter().max()) else {
        return Ok(());
    };
    // The bounds let Postgres leave out other days: it does not look into the array for that.
    sqlx::query!(
        "WITH o AS (DELETE FROM open_exchanges WHERE exchange_id = ANY($1)),
         h AS (DELETE FROM heads WHERE exchange_id = ANY($1) AND exchange_id BETWEEN $2 AND $3),
         w AS (DELETE FROM websocket_connections WHERE exchange_id = ANY($1) AND exchange_id BETWEEN $2 AND $3)
         DELETE FROM exchanges WHERE id = ANY($1) AND id BETWEEN $2 AND $3",
        exchanges,
        *first,
        *last,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A record that was refused, as it came.
#[derive(Clone, Copy, Debug)]
pub struct Reject<'a> {
    /// Its instance.
    pub epoch: Epoch,
    /// Its service.
    pub service_id: ServiceId,
    /// Its workspace.
    pub workspace_id: WorkspaceId,
    /// Its number.
    pub seq: u64,
    /// The encoded record.
    pub payload: &'a [u8],
    /// Why it was refused.
    pub reason: &'a str,
}

/// Keeps a record that was refused.
pub async fn insert_reject(db: &mut PgConnection, reject: Reject<'_>) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO ingest_rejects (epoch, seq, service_id, workspace_id, reason, payload)
         VALUES ($1, $2, $3, $4, $5, $6)",
        reject.epoch.0,
        reject.seq.cast_signed(),
        reject.service_id.0,
        reject.workspace_id.0,
        reject.reason,
        reject.payload,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Closes what a dead instance left open, with `error` as the reason, and answers how many exchanges that were.
/// Needs a transaction.
///
/// Now they count as stored. What its bodies came to is counted from their chunks: the open row says only how far they were when it was written.
pub async fn close(db: &mut PgConnection, epoch: Epoch, error: &str, detail: &str) -> Result<u64, sqlx::Error> {
    let lost = sqlx::query_scalar!(
        "DELETE FROM open_exchanges WHERE epoch = $1 RETURNING exchange_id",
        epoch.0
    )
    .fetch_all(&mut *db)
    .await?;
    sqlx::query!("UPDATE ingest_cursors SET closed_at = now() WHERE epoch = $1", epoch.0)
        .execute(&mut *db)
        .await?;
    if lost.is_empty() {
        return Ok(0);
    }
    sqlx::query!(
        "WITH state AS (
             UPDATE ingest_state SET position = position + cardinality($1::uuid[]) RETURNING position
         ), lost AS (
             SELECT id, (SELECT position FROM state) - cardinality($1) + n AS position,
                    (SELECT coalesce(sum(octet_length(data)), 0) FROM body_chunks
                     WHERE exchange_id = id AND side = 1)::bigint AS request,
                    (SELECT coalesce(sum(octet_length(data)), 0) FROM body_chunks
                     WHERE exchange_id = id AND side = 2)::bigint AS response
             FROM unnest($1) WITH ORDINALITY AS l(id, n)
         ), counted AS (
             SELECT e.service_id, count(*) AS exchanges FROM exchanges e JOIN lost l ON e.id = l.id GROUP BY 1
         ), counters AS (
             UPDATE service_counters k SET stored = k.stored + c.exchanges FROM counted c WHERE k.service_id = c.service_id
         ), websockets AS (
             UPDATE websocket_connections w SET closed_at = now() FROM lost l
             WHERE w.exchange_id = l.id AND w.closed_at IS NULL
         )
         UPDATE exchanges e SET position = l.position, state = 3, error = $2, error_detail = $3,
             duration_us = greatest(e.duration_us, (extract(epoch FROM now() - e.started_at) * 1e6)::bigint),
             request_captured = greatest(e.request_captured, l.request),
             response_captured = greatest(e.response_captured, l.response),
             request_size = greatest(e.request_size, l.request), response_size = greatest(e.response_size, l.response)
         FROM lost l WHERE e.id = l.id",
        &lost,
        error,
        detail,
    )
    .execute(db)
    .await?;
    Ok(lost.len() as u64)
}

/// Removes cursors of instances that were closed a week ago: they will not resume.
pub async fn forget_cursors(db: impl PgExecutor<'_>) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM ingest_cursors WHERE closed_at < now() - interval '7 days'")
        .execute(db)
        .await?;
    Ok(())
}
