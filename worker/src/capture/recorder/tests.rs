use std::time::Duration;

use futures_util::FutureExt as _;
use proxyplane_record::{Complete, ExchangeState, OPEN_ROW_AFTER_MS, Record};
use proxyplane_spec::limits;

use super::*;
use crate::service::QueueStats;
use crate::{capture, service::Drain};

const LIMIT: u64 = 1024 * 1024;

async fn begin(limit: u64) -> (Arc<Capture>, Drain, Recorder) {
    let drain = Drain::new();
    let (capture, _) = Capture::new(drain.clone());
    let recorder = capture
        .begin(Start::new(
            Bytes::from_static(b"127.0.0.1:1"),
            ExchangeKind::Http,
            limit,
        ))
        .await;
    (capture, drain, recorder)
}

fn one(capture: &Capture) -> Kind {
    let mut kinds = capture.queue.take_all();
    assert_eq!(kinds.len(), 1, "one record");
    kinds.remove(0)
}

fn complete(capture: &Capture) -> Complete {
    let Kind::Complete(complete) = one(capture) else {
        panic!("not a Complete")
    };
    complete
}

/// The bodies, put together from chunks whose offsets must fit, and the final exchange.
fn reassemble(kinds: Vec<Kind>) -> (Vec<u8>, Vec<u8>, Exchange) {
    let (mut request, mut response) = (Vec::new(), Vec::new());
    let mut end = None;
    for (index, kind) in kinds.into_iter().enumerate() {
        match kind {
            Kind::Head(_) => assert_eq!(index, 0),
            Kind::BodyChunk(chunk) => {
                let body = if chunk.side == i32::from(Side::Request) {
                    &mut request
                } else {
                    &mut response
                };
                assert_eq!(chunk.offset, body.len() as u64);
                assert!(chunk.data.len() <= proxyplane_record::CHUNK_MAX);
                body.extend_from_slice(&chunk.data);
            }
            Kind::End(exchange) => end = Some(exchange),
            other => panic!("unexpected {other:?}"),
        }
    }
    (request, response, end.unwrap())
}

#[tokio::test]
async fn a_small_exchange_is_one_record() {
    let (capture, _, recorder) = begin(LIMIT).await;
    recorder.with(|exchange| exchange.method = Bytes::from_static(b"POST"));
    recorder.announce();
    recorder.announce();
    recorder.request_data(b"ping").await;
    recorder.first_byte();
    recorder.response_data(b"po").await;
    recorder.response_data(b"ng").await;
    recorder.finish();
    drop(recorder);

    let Complete {
        exchange,
        request_body,
        response_body,
    } = complete(&capture);
    assert_eq!((&request_body[..], &response_body[..]), (&b"ping"[..], &b"pong"[..]));
    assert_eq!(exchange.state, i32::from(ExchangeState::Complete));
    assert_eq!(
        (
            exchange.request_size,
            exchange.request_captured,
            exchange.request_truncated
        ),
        (4, 4, false)
    );
    assert_eq!(&exchange.method[..], b"POST");
    assert!(exchange.timings.first_byte_us.unwrap() <= exchange.duration_us);
    assert_eq!(uuid::Uuid::from_slice(&exchange.id).unwrap().get_version_num(), 7);
    assert_eq!(capture.stats.snapshot(QueueStats::default()).requests, 1);
}

#[tokio::test]
async fn what_is_open_is_counted_as_what_it_is_until_its_end() {
    let (capture, _, recorder) = begin(LIMIT).await;
    let open = || {
        let stats = capture.stats.snapshot(QueueStats::default());
        (stats.open_requests, stats.open_websockets, stats.open_tunnels)
    };
    assert_eq!(open(), (0, 0, 0), "nothing is known of it");
    recorder.announce();
    assert_eq!(open(), (1, 0, 0));
    recorder.with(|exchange| exchange.kind = ExchangeKind::WebSocket.into());
    recorder.open();
    assert_eq!(open(), (0, 1, 0));
    let tunnel = capture
        .begin(Start::new(Bytes::new(), ExchangeKind::Tunnel, LIMIT))
        .await;
    tunnel.open();
    tunnel.announce();
    assert_eq!(open(), (0, 1, 1));
    recorder.finish();
    drop(tunnel);
    assert_eq!(open(), (0, 0, 0));
}

#[tokio::test]
async fn ids_are_in_order_of_beginning() {
    let (capture, _, first) = begin(LIMIT).await;
    let second = capture.begin(Start::new(Bytes::new(), ExchangeKind::Http, LIMIT)).await;
    assert!(first.id() < second.id());
}

#[tokio::test]
async fn bodies_are_cut_at_the_limit_and_counted_to_the_end() {
    let (capture, _, recorder) = begin(5).await;
    recorder.request_data(b"12345").await;
    recorder.response_data(b"1234").await;
    recorder.response_data(b"5678").await;
    recorder.finish();
    let Complete {
        exchange,
        request_body,
        response_body,
    } = complete(&capture);
    assert_eq!((&request_body[..], exchange.request_truncated), (&b"12345"[..], false));
    assert_eq!((&response_body[..], exchange.response_truncated), (&b"12345"[..], true));
    assert_eq!((exchange.response_size, exchange.response_captured), (8, 5));
}

#[tokio::test]
async fn a_large_body_travels_in_chunks_while_it_passes() {
    let (capture, _, recorder) = begin(LIMIT).await;
    let body: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    recorder.request_data(b"small").await;
    for piece in body.chunks(30_000) {
        recorder.response_data(piece).await;
    }
    assert!(capture.queue.next_seq() > 3, "nothing is written before the end");
    recorder.finish();
    let (request, response, end) = reassemble(capture.queue.take_all());
    assert_eq!((&request[..], response), (&b"small"[..], body));
    assert_eq!(
        (end.response_captured, end.state),
        (300_000, ExchangeState::Complete.into())
    );
}

#[tokio::test]
async fn one_huge_piece_is_cut_into_chunks() {
    let (capture, _, recorder) = begin(LIMIT).await;
    let body = vec![7; 200_000];
    recorder.response_data(&body).await;
    recorder.finish();
    assert_eq!(reassemble(capture.queue.take_all()).1, body);
}

#[tokio::test]
async fn dropped_without_finish_it_was_cut_off() {
    let (capture, _, recorder) = begin(LIMIT).await;
    recorder.response_data(b"half").await;
    drop(recorder);
    let Complete {
        exchange,
        response_body,
        ..
    } = complete(&capture);
    assert_eq!(exchange.state, i32::from(ExchangeState::Failed));
    assert_eq!(
        (&exchange.error[..], &response_body[..]),
        (error_code::CLIENT_ABORTED.as_bytes(), &b"half"[..])
    );
}

#[tokio::test]
async fn dropped_at_the_drain_deadline_it_says_so() {
    let (capture, drain, recorder) = begin(LIMIT).await;
    drain.expire();
    drop(recorder);
    assert_eq!(&complete(&capture).exchange.error[..], error_code::DRAINED.as_bytes());
}

#[tokio::test]
async fn a_panic_is_our_own_fault() {
    let (capture, _, recorder) = begin(LIMIT).await;
    let task = tokio::spawn(async move {
        let _recorder = recorder;
        panic!("on purpose");
    });
    assert!(task.await.is_err());
    assert_eq!(&complete(&capture).exchange.error[..], error_code::INTERNAL.as_bytes());
}

#[tokio::test]
async fn the_first_failure_is_kept() {
    let (capture, _, recorder) = begin(LIMIT).await;
    recorder.fail(error_code::DNS_FAILED, "no such name");
    recorder.fail(error_code::CLIENT_ABORTED, "and then the client went");
    assert!(recorder.failed());
    drop(recorder);
    let exchange = complete(&capture).exchange;
    assert_eq!(
        (&exchange.error[..], &exchange.error_detail[..]),
        (&b"dns_failed"[..], &b"no such name"[..])
    );
}

#[tokio::test]
async fn a_websocket_has_its_row_at_once_and_messages_name_it() {
    let (capture, _, recorder) = begin(LIMIT).await;
    recorder.with(|exchange| exchange.kind = ExchangeKind::WebSocket.into());
    recorder.open();
    recorder.open();
    recorder
        .ws_message(WsMessage {
            payload: Bytes::from_static(b"hi"),
            ..WsMessage::default()
        })
        .await;
    recorder.finish();
    let kinds = capture.queue.take_all();
    assert!(
        matches!(&kinds[..], [Kind::Head(head), Kind::WsMessage(message), Kind::End(_)]
        if head.id == message.exchange_id && head.state == i32::from(ExchangeState::Open))
    );
    assert_eq!(capture.stats.snapshot(QueueStats::default()).websockets, 1);
}

/// The sweeper's timers run on a paused clock; exchanges measure real time, so their beginning is set back.
fn set_back(recorder: &mut Recorder, by: Duration) {
    let mut state = lock(&recorder.cell.state);
    recorder.cell.unregister(&mut state);
    drop(state);
    let cell = Arc::get_mut(&mut recorder.cell).unwrap();
    cell.began -= by;
    recorder.cell.register(&mut lock(&recorder.cell.state));
}

#[tokio::test(start_paused = true)]
async fn an_exchange_that_is_open_for_two_seconds_gets_a_row() {
    let (capture, _, mut recorder) = begin(LIMIT).await;
    tokio::spawn(capture::sweep(Arc::clone(&capture)));
    recorder.response_data(b"first").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(capture.queue.next_seq(), 0);
    set_back(&mut recorder, Duration::from_millis(OPEN_ROW_AFTER_MS));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(capture.queue.next_seq(), 2, "a Head and what had passed");

    recorder.response_data(b", second").await;
    assert_eq!(capture.queue.next_seq(), 2, "small pieces are gathered");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(capture.queue.next_seq(), 3, "but not for long");
    recorder.finish();
    assert_eq!(reassemble(capture.queue.take_all()).1, b"first, second");
}

#[tokio::test]
async fn watchers_see_it_begin_only_while_there_are_any() {
    let (capture, mut updates) = Capture::new(Drain::new());
    let start = || Start::new(Bytes::new(), ExchangeKind::Http, LIMIT);
    capture.begin(start()).await.announce();
    assert!(updates.try_recv().is_err());
    capture.set_watched(true);
    let recorder = capture.begin(start()).await;
    recorder.announce();
    let payload = updates.try_recv().unwrap();
    let record: Record = prost::Message::decode(payload).unwrap();
    assert!(matches!(record.kind, Some(Kind::Head(exchange)) if exchange.id == *recorder.id()));
}

#[tokio::test]
async fn body_waits_while_the_queue_is_full_of_bodies() {
    let (capture, _, recorder) = begin(u64::MAX).await;
    let piece = vec![0; 64 * 1024];
    let mut passed = 0;
    while recorder.response_data(&piece).now_or_never().is_some() {
        passed += piece.len();
    }
    assert!(passed < limits::RECORD_QUEUE_BYTES, "{passed}");
    capture.queue.take_all();
    assert!(recorder.response_data(&piece).now_or_never().is_some());
}

#[tokio::test]
async fn no_record_is_too_long_for_a_frame() {
    let (capture, _, recorder) = begin(LIMIT).await;
    let huge = Bytes::from(vec![b'x'; 4 * 1024 * 1024]);
    recorder.with(|exchange| {
        exchange.request_head = huge.clone();
        exchange.response_head = huge.clone();
        exchange.informational_heads = huge.clone();
        exchange.path = huge.clone();
        exchange.query = Some(huge.clone());
        exchange.response_content_type = huge.clone();
        exchange.host = huge;
    });
    recorder.fail(error_code::INTERNAL, vec![b'x'; 1024 * 1024]);
    drop(recorder);
    complete(&capture);
}
