//! The recorder of one exchange.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use proxyplane_record::{Exchange, ExchangeKind, Flags, Kind, Side, WsMessage, error_code};

use super::{Capture, Start, cell::Cell, lock};
use crate::service::OpenKind;

/// Most bytes of an error's detail that are kept.
const DETAIL_MAX: usize = 4 * 1024;

/// Records one exchange, from its first byte to its end.
///
/// All methods take `&self`: the loops that copy request and response share it. A recorder that is dropped without
/// [`Recorder::finish`] records that the exchange was cut off.
pub struct Recorder {
    cell: Arc<Cell>,
}

impl Recorder {
    pub(super) fn begin(capture: &Arc<Capture>, start: Start) -> Self {
        Self {
            cell: Cell::begin(capture, start),
        }
    }

    /// Id of the exchange: a UUIDv7, 16 bytes.
    pub fn id(&self) -> &Bytes {
        &self.cell.id
    }

    /// Reads or sets any field. Sizes and captured sizes are kept here and need no setting.
    pub fn with<T>(&self, change: impl FnOnce(&mut Exchange) -> T) -> T {
        change(&mut lock(&self.cell.state).exchange)
    }

    /// The request's head is known: counts the request and shows it to watchers. Once per exchange.
    pub fn announce(&self) {
        let mut state = lock(&self.cell.state);
        if !state.announced {
            state.announced = true;
            self.cell.capture.stats.request();
            if !state.finished && state.counted.is_none() {
                self.cell.count_as(&mut state, Some(OpenKind::Request));
            }
            self.cell.capture.tell_watchers(&state.exchange);
        }
    }

    /// Bytes of the request's body passed: counts them and captures what the limit allows. Waits while the queue is
    /// full, so that the body is not read faster than it can be recorded.
    pub async fn request_data(&self, data: &[u8]) {
        self.data(Side::Request, data).await;
    }

    /// The same for the response's body.
    pub async fn response_data(&self, data: &[u8]) {
        self.data(Side::Response, data).await;
    }

    /// Counts bytes from the client that are not captured (tunnels).
    pub fn count_request(&self, bytes: u64) {
        self.cell.capture.stats.received(bytes);
        lock(&self.cell.state).exchange.request_size += bytes;
    }

    /// Counts bytes to the client that are not captured (tunnels).
    pub fn count_response(&self, bytes: u64) {
        self.cell.capture.stats.sent(bytes);
        lock(&self.cell.state).exchange.response_size += bytes;
    }

    /// The first byte of the answer arrived; later calls change nothing.
    pub fn first_byte(&self) {
        let elapsed = self.cell.elapsed_us();
        lock(&self.cell.state)
            .exchange
            .timings
            .first_byte_us
            .get_or_insert(elapsed);
    }

    /// Gives the exchange its row now: a WebSocket or tunnel that begins to carry. Others get one after two seconds.
    pub fn open(&self) {
        let mut state = lock(&self.cell.state);
        if state.finished {
            return;
        }
        match state.exchange.kind() {
            ExchangeKind::WebSocket if state.counted != Some(OpenKind::WebSocket) => {
                self.cell.capture.stats.websocket();
                self.cell.count_as(&mut state, Some(OpenKind::WebSocket));
            }
            ExchangeKind::Tunnel => self.cell.count_as(&mut state, Some(OpenKind::Tunnel)),
            _ => {}
        }
        if state.opened {
            return;
        }
        self.cell.write_head(&mut state);
        self.cell.unregister(&mut state);
    }

    /// Records a message of this WebSocket, or a part of one; its `exchange_id` is filled in. Waits while the queue
    /// is full.
    pub async fn ws_message(&self, mut message: WsMessage) {
        message.exchange_id = self.cell.id.clone();
        if self.cell.capture.queue.is_scarce() && !message.payload.is_empty() {
            message.payload = Bytes::new();
            message.truncated = true;
            self.with(|exchange| exchange.flags |= Flags::SPOOL_TRUNCATED);
        }
        self.cell.put(Kind::WsMessage(message));
        self.cell.capture.queue.room_for_bulk().await;
    }

    /// The exchange went wrong. The first failure is kept: what follows from it is no news.
    pub fn fail(&self, code: &'static str, detail: impl Into<Bytes>) {
        let mut detail: Bytes = detail.into();
        detail.truncate(DETAIL_MAX);
        lock(&self.cell.state).fail(code, detail);
    }

    /// Has a failure been recorded?
    pub fn failed(&self) -> bool {
        lock(&self.cell.state).failed()
    }

    /// It ended so long `ago`, which is known only now: waiting to be sure is not a part of what it took.
    pub fn ended_ago(&self, ago: Duration) {
        let ended_us = self.cell.elapsed_us().saturating_sub(ago.as_micros() as u64);
        lock(&self.cell.state).ended_us = Some(ended_us);
    }

    /// The exchange is over. Later calls of any method change nothing that is recorded.
    pub fn finish(&self) {
        self.cell.finish(&mut lock(&self.cell.state));
    }

    /// The answer is about to end. For a service that is `durable_before_end`, the record ends here, and this waits until
    /// it is on disk, or committed; what comes after it is not recorded.
    pub async fn before_end(&self) {
        if self.is_durable() {
            self.finish();
            self.cell.capture.queue.settled().await;
        }
    }

    /// Is the record to be on disk before the answer ends?
    pub fn is_durable(&self) -> bool {
        self.cell.capture.durable.load(Relaxed)
    }

    async fn data(&self, side: Side, data: &[u8]) {
        if self.cell.data(side, data) {
            self.cell.capture.queue.room_for_bulk().await;
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let mut state = lock(&self.cell.state);
        if state.finished {
            return;
        }
        if std::thread::panicking() {
            state.fail(
                error_code::INTERNAL,
                Bytes::from_static(b"the connection's task panicked"),
            );
        } else if self.cell.capture.drain.expired() {
            state.fail(
                error_code::DRAINED,
                Bytes::from_static(b"the service stopped before this was over"),
            );
        } else {
            state.fail(
                error_code::CLIENT_ABORTED,
                Bytes::from_static(b"the connection ended before this was over"),
            );
        }
        self.cell.finish(&mut state);
    }
}

#[cfg(test)]
mod tests;
