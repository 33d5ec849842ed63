use std::sync::Arc;

use proxyplane_record::{Exchange, WsMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;
use crate::capture::{Capture, Start};
use crate::testing;

/// A client, an origin and the WebSocket between them.
struct Bench {
    client: DuplexStream,
    origin: DuplexStream,
    capture: Arc<Capture>,
    drain: Drain,
    running: JoinHandle<()>,
}

impl Bench {
    async fn new(extensions: &'static str) -> Self {
        let (capture, drain) = testing::capture();
        let (client, client_side) = duplex(64 * 1024);
        let (origin, origin_side) = duplex(64 * 1024);
        let recorder = capture
            .begin(Start::new(Bytes::from_static(b"c:1"), ExchangeKind::Http, 0))
            .await;
        recorder.with(|exchange| exchange.scheme = Bytes::from_static(b"https"));
        let handshake = Handshake {
            extensions: extensions.into(),
            capture_limit: 1_000,
            ..Handshake::default()
        };
        let stop = drain.clone();
        let running = tokio::spawn(async move {
            let none = Bytes::new;
            run(recorder, client_side, none(), origin_side, none(), handshake, &stop).await;
        });
        Self {
            client,
            origin,
            capture,
            drain,
            running,
        }
    }

    async fn end(self) -> (Exchange, Vec<WsMessage>) {
        drop((self.client, self.origin));
        self.running.await.unwrap();
        let records = testing::records(&self.capture);
        (testing::ended(&records).remove(0), testing::messages(records))
    }
}

async fn carried(from: &mut DuplexStream, to: &mut DuplexStream, bytes: &[u8]) {
    from.write_all(bytes).await.unwrap();
    let mut arrived = vec![0; bytes.len()];
    to.read_exact(&mut arrived).await.unwrap();
    assert_eq!(arrived, bytes);
}

const HELLO: &[u8] = &[0x81, 0x85, 1, 2, 3, 4, b'h' ^ 1, b'e' ^ 2, b'l' ^ 3, b'l' ^ 4, b'o' ^ 1];
const CLOSE_1000: &[u8] = &[0x88, 5, 3, 0xe8, b'b', b'y', b'e'];

#[tokio::test]
async fn messages_pass_unchanged_and_are_recorded_in_order() {
    let mut bench = Bench::new("").await;
    carried(&mut bench.client, &mut bench.origin, HELLO).await;
    carried(&mut bench.origin, &mut bench.client, &[0x89, 1, b'?']).await;
    carried(&mut bench.client, &mut bench.origin, &HELLO[..3]).await;
    carried(&mut bench.client, &mut bench.origin, &HELLO[3..]).await;
    carried(&mut bench.origin, &mut bench.client, CLOSE_1000).await;
    let (exchange, messages) = bench.end().await;
    let seen: Vec<_> = messages
        .iter()
        .map(|m| (m.sequence, m.side(), m.opcode, &m.payload[..]))
        .collect();
    assert_eq!(
        seen,
        [
            (0, Side::Request, 1, &b"hello"[..]),
            (1, Side::Response, 9, b"?"),
            (2, Side::Request, 1, b"hello"),
            (3, Side::Response, 8, &CLOSE_1000[2..]),
        ]
    );
    let summary = exchange.websocket.unwrap();
    assert_eq!((summary.close_code, &summary.close_reason[..]), (1000, &b"bye"[..]));
    assert_eq!((summary.messages_from_client, summary.messages_from_server), (2, 2));
    assert_eq!((summary.bytes_from_client, summary.bytes_from_server), (10, 6));
    assert!(summary.closed_at_us >= summary.opened_at_us);
    assert_eq!((&exchange.scheme[..], &exchange.error[..]), (&b"wss"[..], &b""[..]));
}

#[tokio::test]
async fn what_is_no_websocket_is_carried_on_unrecorded() {
    let mut bench = Bench::new("").await;
    carried(&mut bench.client, &mut bench.origin, b"\xffthis is not WebSocket").await;
    carried(&mut bench.client, &mut bench.origin, &vec![9; 40_000]).await;
    carried(&mut bench.origin, &mut bench.client, &[0x81, 2, b'h', b'i']).await;
    let (exchange, messages) = bench.end().await;
    assert_eq!(exchange.error, error_code::WEBSOCKET_UNPARSABLE);
    assert_eq!(exchange.request_size, 40_022);
    assert_eq!(messages.len(), 1, "the other direction is recorded on");
}

#[tokio::test]
async fn one_side_may_close_before_the_other_has_said_everything() {
    let mut bench = Bench::new("").await;
    bench.client.shutdown().await.unwrap();
    assert_eq!(bench.origin.read(&mut [0; 8]).await.unwrap(), 0);
    carried(&mut bench.origin, &mut bench.client, CLOSE_1000).await;
    let (exchange, messages) = bench.end().await;
    assert_eq!((messages.len(), &exchange.error[..]), (1, &b""[..]));
}

#[tokio::test]
async fn an_end_inside_a_message_is_a_failure() {
    let mut bench = Bench::new("").await;
    carried(
        &mut bench.origin,
        &mut bench.client,
        &[0x81, 20, b'h', b'a', b'l', b'f'],
    )
    .await;
    let (exchange, messages) = bench.end().await;
    assert_eq!(exchange.error, error_code::UPSTREAM_ABORTED);
    assert!(messages[0].truncated && messages[0].last);
}

#[tokio::test(start_paused = true)]
async fn a_stop_closes_both_sides_between_two_messages() {
    let mut bench = Bench::new("").await;
    // The client is inside of a message, the origin is not.
    carried(&mut bench.client, &mut bench.origin, &HELLO[..7]).await;
    bench.drain.begin(Duration::from_secs(30));
    let mut close = [0; 25];
    bench.client.read_exact(&mut close).await.unwrap();
    assert_eq!(
        (&close[..2], &close[2..4]),
        (&[0x88, 23][..], &1001u16.to_be_bytes()[..])
    );
    bench.client.write_all(&HELLO[7..]).await.unwrap();
    bench.client.write_all(HELLO).await.unwrap();
    let mut rest = [0; 4 + 29];
    bench.origin.read_exact(&mut rest).await.unwrap();
    assert_eq!((&rest[..4], &rest[4..6]), (&HELLO[7..], &[0x88, 0x97][..]));
    let (exchange, messages) = bench.end().await;
    assert_eq!(
        (&exchange.error[..], messages.len()),
        (error_code::DRAINED.as_bytes(), 1)
    );
    assert_eq!(exchange.websocket.unwrap().close_code, 1001);
}

#[tokio::test]
async fn the_deadline_of_a_stop_closes_what_is_open() {
    let mut bench = Bench::new("").await;
    carried(&mut bench.client, &mut bench.origin, &HELLO[..7]).await;
    bench.drain.expire();
    assert_eq!(bench.origin.read(&mut [0; 8]).await.unwrap(), 0);
    let (exchange, _) = bench.end().await;
    assert_eq!(exchange.error, error_code::DRAINED);
}

#[tokio::test]
async fn compressed_messages_are_recorded_inflated_and_cut_at_the_limit() {
    use flate2::{Compress, Compression, FlushCompress};
    let mut bench = Bench::new("permessage-deflate; server_max_window_bits=12").await;
    let mut compressor = Compress::new_with_window_bits(Compression::default(), false, 12);
    for size in [600, 5_000] {
        let mut wire = Vec::with_capacity(1_000);
        compressor
            .compress_vec(&vec![b'z'; size], &mut wire, FlushCompress::Sync)
            .unwrap();
        wire.truncate(wire.len() - 4);
        wire.splice(0..0, [0xc1, wire.len() as u8]);
        carried(&mut bench.origin, &mut bench.client, &wire).await;
    }
    let (exchange, messages) = bench.end().await;
    let seen: Vec<_> = messages
        .iter()
        .map(|m| (m.payload.len(), m.size, m.truncated, m.compressed))
        .collect();
    assert_eq!(seen, [(600, 600, false, true), (1_000, 5_000, true, true)]);
    assert_eq!(exchange.websocket.unwrap().bytes_from_server, 5_600);
}
