//! Removing a service's traffic, a batch at a time, so that ingest and readers never wait for it.

use proxyplane_spec::ServiceId;

use super::{Db, StoreError};

/// Exchanges of one transaction.
const BATCH: i64 = 500;

/// Removes everything that a service recorded, and answers how many exchanges that were.
///
/// For a service that does not run: what it records meanwhile may stay.
pub async fn service(db: &Db, id: ServiceId) -> Result<u64, StoreError> {
    let mut purged = 0;
    loop {
        let gone = batch(db, id).await?;
        if gone == 0 {
            return Ok(purged);
        }
        purged += gone;
    }
}

async fn batch(db: &Db, id: ServiceId) -> Result<u64, StoreError> {
    let gone = sqlx::query_scalar!(
        r#"WITH doomed AS MATERIALIZED (
               SELECT id FROM exchanges WHERE service_id = $1 ORDER BY id LIMIT $2
           ), h AS (DELETE FROM heads t USING doomed d WHERE t.exchange_id = d.id),
           b AS (DELETE FROM body_chunks t USING doomed d WHERE t.exchange_id = d.id),
           c AS (DELETE FROM websocket_connections t USING doomed d WHERE t.exchange_id = d.id),
           m AS (DELETE FROM websocket_messages t USING doomed d WHERE t.exchange_id = d.id),
           o AS (DELETE FROM open_exchanges t USING doomed d WHERE t.exchange_id = d.id),
           e AS (DELETE FROM exchanges t USING doomed d WHERE t.id = d.id RETURNING 1)
           SELECT count(*) AS "gone!" FROM e"#,
        id.0,
        BATCH,
    )
    .fetch_one(db)
    .await?;
    Ok(gone.cast_unsigned())
}
