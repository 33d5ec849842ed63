//! From one direction's bytes to message records and the connection's summary.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use proxyplane_record::{Side, WebSocketSummary, WsMessage, error_code};

use super::assembler::{Assembler, Part, Step};
use super::extension::DeflateParams;
use super::frame::{Violation, opcode};
use crate::capture::{Recorder, wall_clock_us};

/// RFC 6455 §7.1.5: what a Close frame without a code means.
const NO_STATUS: u16 = 1005;

/// Numbers the messages of a connection, both directions together.
#[derive(Debug, Default)]
pub(super) struct Sequence(AtomicU64);

impl Sequence {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Relaxed)
    }
}

/// Reads along with one direction.
pub(super) struct Track<'a> {
    recorder: &'a Recorder,
    sequence: &'a Sequence,
    side: Side,
    /// None once the stream turned out not to be WebSocket.
    assembler: Option<Assembler>,
    /// Number of the data message whose parts are being recorded.
    current: u64,
}

impl<'a> Track<'a> {
    pub(super) fn new(
        recorder: &'a Recorder,
        sequence: &'a Sequence,
        side: Side,
        limit: u64,
        deflate: Option<DeflateParams>,
    ) -> Self {
        Self {
            recorder,
            sequence,
            side,
            assembler: Some(Assembler::new(limit, deflate)),
            current: 0,
        }
    }

    pub(super) fn side(&self) -> Side {
        self.side
    }

    /// Records what `chunk` completes; undoes its masks on the way.
    pub(super) async fn watch(&mut self, chunk: &mut [u8]) {
        self.advance(chunk, false).await;
    }

    /// The same, but only up to the first place between two messages where the direction is not closed yet; returns
    /// that place, if there is one.
    pub(super) async fn watch_to_boundary(&mut self, chunk: &mut [u8]) -> Option<usize> {
        self.advance(chunk, true).await
    }

    async fn advance(&mut self, chunk: &mut [u8], to_boundary: bool) -> Option<usize> {
        let mut taken = 0;
        loop {
            let Some(assembler) = &mut self.assembler else {
                self.count(chunk.len());
                return None;
            };
            if to_boundary && assembler.at_boundary() && !assembler.closed() {
                self.count(taken);
                return Some(taken);
            }
            let step = match assembler.feed(chunk.get_mut(taken..).unwrap_or_default()) {
                Ok((count, step)) => {
                    taken += count;
                    step
                }
                Err(violation) => {
                    self.give_up(violation);
                    continue;
                }
            };
            match step {
                Step::Part(part) => self.record(part).await,
                Step::Busy => tokio::task::yield_now().await,
                Step::Starved if to_boundary && assembler.at_boundary() && !assembler.closed() => {}
                Step::Starved => {
                    self.count(chunk.len());
                    return None;
                }
            }
        }
    }

    /// Reads on without recording, until a Close frame has come: true then, or when that can no longer be known.
    pub(super) fn ignore(&mut self, chunk: &mut [u8]) -> bool {
        let mut taken = 0;
        while let Some(assembler) = &mut self.assembler
            && !assembler.closed()
        {
            match assembler.feed(chunk.get_mut(taken..).unwrap_or_default()) {
                Ok((_, Step::Starved)) => return false,
                Ok((count, _)) => taken += count,
                Err(_) => self.assembler = None,
            }
        }
        true
    }

    /// Records what there is of an unfinished message; true if there was one.
    pub(super) async fn cut(&mut self) -> bool {
        let Some(assembler) = &mut self.assembler else {
            return false;
        };
        let inside = !assembler.at_boundary();
        if let Some(part) = assembler.cut() {
            self.record(part).await;
        }
        inside
    }

    /// We sent a Close frame into this direction.
    pub(super) fn said_goodbye(&self, code: u16) {
        self.summarise(|summary| close_with(summary, code, Bytes::new()));
    }

    fn give_up(&mut self, violation: Violation) {
        let sender = if self.side == Side::Request { "client" } else { "origin" };
        self.recorder.fail(
            error_code::WEBSOCKET_UNPARSABLE,
            format!("from the {sender}: {violation}"),
        );
        self.assembler = None;
    }

    fn count(&self, bytes: usize) {
        match self.side {
            Side::Request => self.recorder.count_request(bytes as u64),
            _ => self.recorder.count_response(bytes as u64),
        }
    }

    async fn record(&mut self, part: Part) {
        // Control frames may come between the parts of a data message, which keeps its number.
        let control = part.opcode >= opcode::CLOSE;
        let sequence = if part.index > 0 {
            self.current
        } else {
            self.sequence.next()
        };
        if !control {
            self.current = sequence;
        }
        if part.last {
            self.summarise(|summary| add(summary, self.side, &part));
        }
        let message = WsMessage {
            exchange_id: Bytes::new(),
            sequence,
            part: part.index,
            side: self.side.into(),
            opcode: part.opcode.into(),
            at_us: wall_clock_us(),
            payload: part.payload.into(),
            size: part.size,
            truncated: part.truncated,
            compressed: part.compressed,
            last: part.last,
        };
        self.recorder.ws_message(message).await;
    }

    fn summarise(&self, change: impl FnOnce(&mut WebSocketSummary)) {
        self.recorder.with(|exchange| {
            if let Some(summary) = &mut exchange.websocket {
                change(summary);
            }
        });
    }
}

fn add(summary: &mut WebSocketSummary, side: Side, part: &Part) {
    let (messages, bytes) = match side {
        Side::Request => (&mut summary.messages_from_client, &mut summary.bytes_from_client),
        _ => (&mut summary.messages_from_server, &mut summary.bytes_from_server),
    };
    *messages += 1;
    *bytes += part.size;
    if part.opcode == opcode::CLOSE {
        let (code, reason) = match part.payload.split_first_chunk() {
            Some((code, reason)) => (u16::from_be_bytes(*code), Bytes::copy_from_slice(reason)),
            None => (NO_STATUS, Bytes::new()),
        };
        close_with(summary, code, reason);
    }
}

/// The first Close frame counts: the second one answers it.
fn close_with(summary: &mut WebSocketSummary, code: u16, reason: Bytes) {
    if summary.close_code == 0 {
        summary.close_code = u32::from(code);
        summary.close_reason = reason;
    }
}
