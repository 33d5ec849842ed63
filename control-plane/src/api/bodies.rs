//! Captured bodies and long messages as streams of chunks, raw or decoded.

use std::{fmt::Display, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _, stream};
use proxyplane_record::Side;
use proxyplane_spec::{ExchangeId, reasons};
use tokio::sync::Semaphore;

use super::{
    decode::{self, Coding},
    status::Refusal,
};
use crate::store::{self, Db, exchanges::ExchangeRow};

/// Bytes of one answer.
const CHUNK: usize = 256 * 1024;
/// Bodies decoded at once, each with up to 32 MiB in memory; further ones wait.
const DECODING_MAX: usize = 2;

/// Reads bodies. Cloning shares the places for decoding.
#[derive(Clone)]
pub(super) struct Bodies {
    db: Db,
    decoding: Arc<Semaphore>,
}

impl Bodies {
    pub(super) fn new(db: Db) -> Self {
        Self {
            db,
            decoding: Arc::new(Semaphore::new(DECODING_MAX)),
        }
    }

    /// The bytes as they were captured.
    pub(super) fn raw(&self, id: ExchangeId, side: Side) -> impl Stream<Item = Result<Bytes, Refusal>> + Send + use<> {
        let db = self.db.clone();
        stream::try_unfold((db, 0), move |(db, from)| async move {
            let chunks = store::bodies::read(&db, id, side, from).await?;
            let next = chunks.last().map(store::bodies::Chunk::end);
            let data: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.data).collect();
            Ok(next.map(|next| (Bytes::from(data), (db, next))))
        })
    }

    /// The bytes of a message from its second read on; parts of it come in order.
    pub(super) fn message(
        &self,
        id: ExchangeId,
        sequence: u64,
    ) -> impl Stream<Item = Result<Bytes, Refusal>> + Send + use<> {
        let db = self.db.clone();
        stream::try_unfold((db, 0), move |(db, from)| async move {
            let parts = store::websockets::parts(&db, id, sequence, from).await?;
            let next = from + u32::try_from(parts.len()).unwrap_or(u32::MAX);
            Ok((next != from).then(|| (Bytes::from(parts.concat()), (db, next))))
        })
    }

    /// The codings of a body that are to be undone, and whether it was cut.
    pub(super) fn codings(row: &ExchangeRow, side: Side) -> Result<(Vec<Coding>, bool), Refusal> {
        let (encoding, cut) = match side {
            Side::Request => (&row.request_content_encoding, row.request_truncated),
            _ => (&row.response_content_encoding, row.response_truncated),
        };
        // What an exchange that ended early or is still open has stored is cut as well.
        let cut = cut || row.state != proxyplane_record::ExchangeState::Complete;
        Ok((decode::codings(encoding)?, cut))
    }

    /// The decoded bytes.
    pub(super) async fn decoded(
        &self,
        id: ExchangeId,
        side: Side,
        codings: Vec<Coding>,
        cut: bool,
    ) -> Result<impl Stream<Item = Result<Bytes, Refusal>> + Send + use<>, Refusal> {
        let _place = self
            .decoding
            .acquire()
            .await
            .map_err(|error| Refusal::internal(&error))?;
        let body = self.whole(id, side).await?;
        let decoding = tokio::task::spawn_blocking(move || decode::decode(&body, &codings, cut));
        let mut decoded = Bytes::from(decoding.await.map_err(|error| Refusal::internal(&error))??);
        let mut chunks = Vec::with_capacity(decoded.len() / CHUNK + 1);
        while !decoded.is_empty() {
            chunks.push(Ok(decoded.split_to(decoded.len().min(CHUNK))));
        }
        Ok(stream::iter(chunks))
    }

    /// Everything that was captured; refused once it is larger than what decoding may yield.
    async fn whole(&self, id: ExchangeId, side: Side) -> Result<Vec<u8>, Refusal> {
        let raw = self.raw(id, side);
        raw.try_fold(Vec::new(), |mut body, chunk| async move {
            if body.len() + chunk.len() > decode::DECODED_MAX {
                return Err(decode::too_large());
            }
            body.extend_from_slice(&chunk);
            Ok(body)
        })
        .await
    }
}

/// There is no such thing.
pub(super) fn not_found(what: &str, id: &dyn Display) -> Refusal {
    let id = id.to_string();
    Refusal::new(reasons::NOT_FOUND, format!("there is no {what} {id}"))
        .with("kind", what)
        .with("id", id)
}
