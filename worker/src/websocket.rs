//! WebSocket (RFC 6455): bytes are carried unchanged, a copy of them is read for the record.
//!
//! The reading follows the writing and cannot hold it up except by a full record queue. What it cannot understand ends
//! the recording of that direction, never the connection.

mod assembler;
mod extension;
mod frame;
mod inflate;
mod relay;
mod track;

use std::time::Duration;

use bytes::Bytes;
use proxyplane_record::{ExchangeKind, Side, WebSocketSummary, error_code};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::capture::{Recorder, wall_clock_us};
use crate::disconnect::{self, Peer};
use crate::service::Drain;
use relay::{End, Fault, Leg};
use track::{Sequence, Track};

/// After one side has ended, the other one may go on for as long as it says something this often.
const HALF_CLOSED_IDLE: Duration = Duration::from_mins(1);

/// What the handshake agreed on.
#[derive(Clone, Debug, Default)]
pub struct Handshake {
    /// Sec-WebSocket-Protocol of the answer.
    pub subprotocol: Bytes,
    /// Sec-WebSocket-Extensions of the answer; several fields joined by commas.
    pub extensions: Bytes,
    /// Captured bytes per message.
    pub capture_limit: u64,
}

/// Carries a WebSocket after its 101 has gone out, until both sides have ended, and records its messages.
///
/// The prefixes are bytes already read behind either head. A stop of the service sends both sides a Close frame with
/// 1001 between two messages; at its deadline the connection is closed as it stands.
pub async fn run<C, U>(
    recorder: Recorder,
    client: C,
    client_prefix: Bytes,
    upstream: U,
    upstream_prefix: Bytes,
    handshake: Handshake,
    drain: &Drain,
) where
    C: AsyncRead + AsyncWrite + Send + Unpin,
    U: AsyncRead + AsyncWrite + Send + Unpin,
{
    let deflate = extension::permessage_deflate(&handshake.extensions);
    let limit = handshake.capture_limit;
    open(&recorder, handshake);
    let sequence = Sequence::default();
    let jitter = rand::random_range(0.0..1.0);
    let (client_read, client_write) = tokio::io::split(client);
    let (upstream_read, upstream_write) = tokio::io::split(upstream);
    let mut up = Leg {
        from: client_read,
        to: upstream_write,
        prefix: client_prefix,
        track: Track::new(
            &recorder,
            &sequence,
            Side::Request,
            limit,
            deflate.map(|agreed| agreed.client),
        ),
        drain,
        jitter,
    };
    let mut down = Leg {
        from: upstream_read,
        to: client_write,
        prefix: upstream_prefix,
        track: Track::new(
            &recorder,
            &sequence,
            Side::Response,
            limit,
            deflate.map(|agreed| agreed.server),
        ),
        drain,
        jitter,
    };
    tokio::select! {
        biased;
        () = drain.deadline() => recorder.fail(error_code::DRAINED, "closed at the deadline of a stop"),
        () = carry_both(&recorder, &mut up, &mut down) => {}
    }
    let cut = [up.track.cut().await, down.track.cut().await];
    close(&recorder, cut);
}

/// Gives the exchange its row, now that it is a WebSocket.
fn open(recorder: &Recorder, handshake: Handshake) {
    recorder.with(|exchange| {
        exchange.kind = ExchangeKind::WebSocket.into();
        let secure = matches!(&exchange.scheme[..], b"https" | b"wss");
        exchange.scheme = Bytes::from_static(if secure { b"wss" } else { b"ws" });
        exchange.websocket = Some(WebSocketSummary {
            subprotocol: handshake.subprotocol,
            extensions: handshake.extensions,
            opened_at_us: wall_clock_us(),
            ..WebSocketSummary::default()
        });
    });
    recorder.open();
}

/// Writes the end. `cut` says which direction ended inside of a message: from the client, from the server.
fn close(recorder: &Recorder, cut: [bool; 2]) {
    match cut {
        [true, _] => recorder.fail(error_code::CLIENT_ABORTED, "the client closed inside of a message"),
        [_, true] => recorder.fail(error_code::UPSTREAM_ABORTED, "the origin closed inside of a message"),
        _ => {}
    }
    recorder.with(|exchange| {
        if let Some(summary) = &mut exchange.websocket {
            summary.closed_at_us = wall_clock_us();
        }
    });
    recorder.finish();
}

/// Runs both legs until both have ended, or one makes the other pointless.
async fn carry_both<A, B, C, D>(recorder: &Recorder, up: &mut Leg<'_, A, B>, down: &mut Leg<'_, C, D>)
where
    A: AsyncRead + Unpin,
    B: AsyncWrite + Unpin,
    C: AsyncRead + Unpin,
    D: AsyncWrite + Unpin,
{
    let mut up = std::pin::pin!(up.carry());
    let mut down = std::pin::pin!(down.carry());
    tokio::select! {
        first = &mut up => {
            if goes_on(recorder, Side::Request, first) {
                let last = while_active(recorder, down).await;
                goes_on(recorder, Side::Response, last);
            }
        }
        first = &mut down => {
            if goes_on(recorder, Side::Response, first) {
                let last = while_active(recorder, up).await;
                goes_on(recorder, Side::Request, last);
            }
        }
    }
}

/// Records how a leg ended, and says whether the other one may still have something to carry.
fn goes_on(recorder: &Recorder, side: Side, result: Result<End, Fault>) -> bool {
    let (peer, error, goes_on) = match (side, result) {
        (_, Ok(End::Eof)) => return true,
        (_, Ok(End::SaidGoodbye)) => {
            recorder.fail(error_code::DRAINED, "closed with 1001 by a stop of the service");
            return true;
        }
        (Side::Request, Err(Fault::Read(error))) => (Peer::Client, error, false),
        (_, Err(Fault::Read(error))) => (Peer::Origin, error, false),
        // Who cannot be written to may have said something before it closed: the other leg reads it.
        (Side::Request, Err(Fault::Write(error))) => (Peer::Origin, error, true),
        (_, Err(Fault::Write(error))) => (Peer::Client, error, true),
    };
    // After a Close frame it does not matter how the connection under it ends (RFC 6455 §7.1.1).
    if recorder.with(|exchange| {
        exchange
            .websocket
            .as_ref()
            .is_none_or(|summary| summary.close_code == 0)
    }) {
        recorder.fail(peer.aborted(), disconnect::in_words(peer, &error));
    }
    goes_on
}

/// Awaits the remaining leg for as long as it carries something.
async fn while_active(
    recorder: &Recorder,
    mut leg: impl Future<Output = Result<End, Fault>> + Unpin,
) -> Result<End, Fault> {
    let carried = || recorder.with(|exchange| exchange.request_size + exchange.response_size);
    let mut before = carried();
    loop {
        match tokio::time::timeout(HALF_CLOSED_IDLE, &mut leg).await {
            Ok(result) => return result,
            Err(_) if carried() == before => return Ok(End::Eof),
            Err(_) => before = carried(),
        }
    }
}

#[cfg(test)]
mod tests;
