//! What is known of an exchange while it is open, and how it becomes records.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use bytes::Bytes;
use proxyplane_record::{
    BodyChunk, Complete, Exchange, ExchangeState, Flags, INLINE_BODY_MAX, Kind, Record, Side, frame,
};

use super::{Capture, Start, body::Body, ids::Ids, lock};
use crate::service::OpenKind;

/// Most bytes of all texts of a record; what is left of a frame is for bodies and the rest.
const TEXTS_MAX: usize = frame::PAYLOAD_MAX - 2 * INLINE_BODY_MAX;

/// This process's.
static IDS: Ids = Ids::new();

/// What recorder and sweeper share of an exchange.
pub(super) struct Cell {
    pub(super) capture: Arc<Capture>,
    pub(super) id: Bytes,
    pub(super) began: Instant,
    limit: u64,
    pub(super) state: Mutex<State>,
}

/// The part of a [`Cell`] that changes.
pub(super) struct State {
    pub(super) exchange: Exchange,
    request: Body,
    response: Body,
    /// A `Head` was written: bodies travel in chunks and an `End` closes.
    pub(super) opened: bool,
    pub(super) announced: bool,
    pub(super) finished: bool,
    /// What it is counted as while it is open.
    pub(super) counted: Option<OpenKind>,
    /// When it ended, if that is not now.
    pub(super) ended_us: Option<u64>,
    /// Where the sweeper knows it, while it has something to do for it.
    slot: Option<usize>,
}

impl State {
    pub(super) fn failed(&self) -> bool {
        self.exchange.state == i32::from(ExchangeState::Failed)
    }

    pub(super) fn fail(&mut self, code: &'static str, detail: Bytes) {
        if !self.failed() {
            self.exchange.state = ExchangeState::Failed.into();
            self.exchange.error = Bytes::from_static(code.as_bytes());
            self.exchange.error_detail = detail;
        }
    }

    fn body(&mut self, side: Side) -> &mut Body {
        if side == Side::Request {
            &mut self.request
        } else {
            &mut self.response
        }
    }

    /// Counts `len` bytes of a body and says how many of them are to be captured.
    fn admit(&mut self, side: Side, len: usize, limit: u64) -> usize {
        let exchange = &mut self.exchange;
        let (passed, captured, truncated) = if side == Side::Request {
            (
                &mut exchange.request_size,
                &mut exchange.request_captured,
                &mut exchange.request_truncated,
            )
        } else {
            (
                &mut exchange.response_size,
                &mut exchange.response_captured,
                &mut exchange.response_truncated,
            )
        };
        let kept = (len as u64).min(limit.saturating_sub(*captured));
        *passed += len as u64;
        *captured += kept;
        *truncated |= kept < len as u64;
        kept as usize
    }
}

impl Cell {
    pub(super) fn begin(capture: &Arc<Capture>, start: Start) -> Arc<Self> {
        let id = Bytes::copy_from_slice(IDS.next(start.began_at_us).as_bytes());
        let exchange = Exchange {
            id: id.clone(),
            kind: start.kind.into(),
            state: ExchangeState::Open.into(),
            started_at_us: start.began_at_us,
            client: start.client,
            ..Exchange::default()
        };
        let state = State {
            exchange,
            request: Body::new(Side::Request),
            response: Body::new(Side::Response),
            opened: false,
            announced: false,
            finished: false,
            counted: None,
            ended_us: None,
            slot: None,
        };
        let cell = Arc::new(Self {
            capture: Arc::clone(capture),
            id,
            began: start.began,
            limit: start.capture_limit,
            state: Mutex::new(state),
        });
        cell.register(&mut lock(&cell.state));
        cell
    }

    pub(super) fn elapsed_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    pub(super) fn put(&self, kind: Kind) {
        self.capture.queue.put(&Record { kind: Some(kind) });
    }

    /// Takes in a piece of body; true if it went on into the queue, so that the caller must mind its room.
    pub(super) fn data(self: &Arc<Self>, side: Side, data: &[u8]) -> bool {
        match side {
            Side::Request => self.capture.stats.received(data.len() as u64),
            _ => self.capture.stats.sent(data.len() as u64),
        }
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if state.finished {
            return false;
        }
        let queue = &self.capture.queue;
        let limit = if state.body(side).is_kept(|| !queue.is_scarce()) {
            self.limit
        } else {
            state.exchange.flags |= Flags::SPOOL_TRUNCATED;
            0
        };
        let kept = state.admit(side, data.len(), limit);
        if kept == 0 {
            return false;
        }
        if !state.opened && state.request.pending() + state.response.pending() + kept > INLINE_BODY_MAX {
            self.write_head(state);
        }
        let (opened, body) = (state.opened, state.body(side));
        if !opened {
            body.hold(&data[..kept]);
            return false;
        }
        body.pass(&data[..kept], |offset, data| self.write_chunk(side, offset, data));
        if body.pending() == 0 {
            self.unregister(state);
        } else {
            self.register(state);
        }
        true
    }

    /// Writes the `Head` and what is held of the bodies.
    pub(super) fn write_head(&self, state: &mut State) {
        state.opened = true;
        state.exchange.duration_us = self.elapsed_us();
        let mut exchange = state.exchange.clone();
        exchange.state = ExchangeState::Open.into();
        clip(&mut exchange);
        self.put(Kind::Head(exchange));
        self.write_held(state);
    }

    fn write_held(&self, state: &mut State) {
        for body in [&mut state.request, &mut state.response] {
            let side = body.side();
            body.flush(|offset, data| self.write_chunk(side, offset, data));
        }
    }

    fn write_chunk(&self, side: Side, offset: u64, data: Bytes) {
        let exchange_id = self.id.clone();
        self.put(Kind::BodyChunk(BodyChunk {
            exchange_id,
            side: side.into(),
            offset,
            data,
        }));
    }

    pub(super) fn finish(&self, state: &mut State) {
        if state.finished {
            return;
        }
        state.finished = true;
        self.unregister(state);
        self.count_as(state, None);
        if state.opened {
            self.write_held(state);
        }
        let mut exchange = std::mem::take(&mut state.exchange);
        exchange.duration_us = state.ended_us.unwrap_or_else(|| self.elapsed_us());
        if exchange.state != i32::from(ExchangeState::Failed) {
            exchange.state = ExchangeState::Complete.into();
        }
        clip(&mut exchange);
        self.capture.stats.received(exchange.request_head.len() as u64);
        self.capture.stats.sent(exchange.response_head.len() as u64);
        self.capture.log(&exchange);
        self.put(if state.opened {
            Kind::End(exchange)
        } else {
            let (request_body, response_body) = (state.request.take(), state.response.take());
            Kind::Complete(Complete {
                exchange,
                request_body,
                response_body,
            })
        });
    }

    /// Called by the sweeper, after the exchange has been open for two seconds or while parts of its bodies are held.
    pub(super) fn sweep(&self) {
        let mut state = lock(&self.state);
        state.slot = None;
        if state.finished {
            return;
        }
        if state.opened {
            self.write_held(&mut state);
        } else {
            self.write_head(&mut state);
        }
    }

    /// Counts it among what is open, as this and as nothing else.
    pub(super) fn count_as(&self, state: &mut State, kind: Option<OpenKind>) {
        if let Some(kind) = kind {
            self.capture.stats.opened(kind);
        }
        if let Some(former) = std::mem::replace(&mut state.counted, kind) {
            self.capture.stats.closed(former);
        }
    }

    pub(super) fn register(self: &Arc<Self>, state: &mut State) {
        if state.slot.is_none() {
            let open = &self.capture.open;
            let cell = Arc::clone(self);
            state.slot = Some(if state.opened {
                open.insert_holding(cell)
            } else {
                open.insert_new(cell)
            });
        }
    }

    pub(super) fn unregister(&self, state: &mut State) {
        if let Some(slot) = state.slot.take() {
            self.capture.open.remove(slot, self);
        }
    }
}

/// Cuts what would make the record too long for a frame, the least telling last. With the limits on heads this takes
/// a flood of 1xx answers.
fn clip(exchange: &mut Exchange) {
    let mut left = TEXTS_MAX;
    let texts = [
        Some(&mut exchange.method),
        Some(&mut exchange.host),
        Some(&mut exchange.path),
        exchange.query.as_mut(),
        Some(&mut exchange.request_content_type),
        Some(&mut exchange.request_content_encoding),
        Some(&mut exchange.response_content_type),
        Some(&mut exchange.response_content_encoding),
        Some(&mut exchange.request_head),
        Some(&mut exchange.response_head),
        Some(&mut exchange.request_trailers),
        Some(&mut exchange.response_trailers),
        Some(&mut exchange.informational_heads),
    ];
    for text in texts.into_iter().flatten() {
        text.truncate(left);
        left -= text.len();
    }
}
