//! Ingest and live hub against a real Postgres.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proxyplane_record::{
    BodyChunk, Complete, Exchange, ExchangeKind, ExchangeState, Kind, Record, Side, WebSocketSummary, WsMessage, frame,
};
use proxyplane_spec::{CaptureSpec, Epoch, ExchangeId, ListenHost, ServiceId, ServiceName, WorkspaceCode, WorkspaceId};
use sqlx::AssertSqlSafe;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Health, Ingest, IngestError, IngestHandle, IngestSession, Source};
use crate::{
    lifecycle::Lifecycle,
    live::{Event, Filter, Hub, Subscription},
    postgres::testing,
    store::{
        self, Db, body_chunks,
        exchanges::{self, ExchangeFilter, ExchangeRow},
        heads,
        page::Page,
        partitions, purge,
        services::{self, NewService},
        websockets::{self, WebSocketFilter},
        workspaces::{self, NewWorkspace},
    },
};

const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    db: Db,
    hub: Hub,
    ingest: IngestHandle,
    source: Source,
    _lifecycle: Lifecycle,
}

impl World {
    async fn new() -> Self {
        let db = testing::database().await;
        let mut transaction = db.begin().await.unwrap();
        let code = WorkspaceCode::parse("code", "w").unwrap();
        let new = NewWorkspace {
            code,
            title: String::new(),
            description: String::new(),
        };
        let workspace = workspaces::create(&mut transaction, &new).await.unwrap();
        let service = services::create(&mut transaction, &new_service(workspace.id, "p", 8080))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        let hub = Hub::new(db.clone());
        let lifecycle = Lifecycle::new();
        let ingest = Ingest::start(db.clone(), hub.clone(), None, &lifecycle);
        let source = Source {
            epoch: Epoch::new(),
            service_id: service.id,
            workspace_id: workspace.id,
        };
        Self {
            db,
            hub,
            ingest,
            source,
            _lifecycle: lifecycle,
        }
    }

    async fn session(&self) -> IngestSession {
        within(self.ingest.open(self.source)).await.unwrap()
    }

    /// Commits these from `seq` on.
    async fn commit(&self, session: &IngestSession, seq: u64, records: &[Record]) {
        session.push(frames(seq, records)).await.unwrap();
        let end = seq + records.len() as u64;
        within(session.acked().wait_for(|acked| *acked >= end)).await.unwrap();
    }

    async fn row(&self, id: Uuid) -> ExchangeRow {
        exchanges::get(&self.db, ExchangeId(id)).await.unwrap().expect("a row")
    }

    async fn count(&self, table: &str) -> i64 {
        let sql = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        sqlx::query_scalar(sql).fetch_one(&self.db).await.unwrap()
    }

    async fn stored(&self) -> u64 {
        services::stored(&self.db, &[self.source.service_id]).await.unwrap()[&self.source.service_id]
    }
}

fn new_service(workspace_id: WorkspaceId, name: &str, port: u16) -> NewService {
    NewService {
        workspace_id,
        name: ServiceName::parse("name", name).unwrap(),
        host: ListenHost::DEFAULT,
        port,
        verbose: true,
        log_out_of_scope: true,
        enabled: false,
        spec: CaptureSpec::default(),
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

fn frames(seq: u64, records: &[Record]) -> Bytes {
    let mut out = BytesMut::new();
    for (seq, record) in (seq..).zip(records) {
        frame::put(&mut out, seq, record);
    }
    out.freeze()
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn exchange(id: Uuid) -> Exchange {
    Exchange {
        id: Bytes::copy_from_slice(id.as_bytes()),
        kind: ExchangeKind::Http as i32,
        state: ExchangeState::Complete as i32,
        started_at_us: (OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000) as i64,
        duration_us: 1_234,
        client: bytes("127.0.0.1:5000"),
        method: bytes("GET"),
        scheme: bytes("http"),
        host: bytes("a.example"),
        port: 80,
        path: bytes("/x"),
        query: Some(Bytes::from_static(b"q=\xff\0")),
        request_version: 11,
        response_version: 11,
        status: 200,
        request_head: Bytes::from_static(b"GET /x?q=\xff\0 HTTP/1.1\r\n\r\n"),
        response_head: bytes("HTTP/1.1 200 OK\r\n\r\n"),
        response_size: 3,
        response_captured: 3,
        ..Exchange::default()
    }
}

fn complete(id: Uuid) -> Record {
    let complete = Complete {
        exchange: exchange(id),
        request_body: Bytes::new(),
        response_body: bytes("abc"),
    };
    Record {
        kind: Some(Kind::Complete(complete)),
    }
}

fn completes(count: usize) -> Vec<Record> {
    (0..count).map(|_| complete(Uuid::now_v7())).collect()
}

fn head(exchange: &Exchange) -> Record {
    let open = Exchange {
        state: ExchangeState::Open as i32,
        status: 0,
        ..exchange.clone()
    };
    Record {
        kind: Some(Kind::Head(open)),
    }
}

fn end(exchange: &Exchange) -> Record {
    Record {
        kind: Some(Kind::End(exchange.clone())),
    }
}

fn chunk(id: Uuid, offset: u64, data: &'static str) -> Record {
    let exchange_id = Bytes::copy_from_slice(id.as_bytes());
    let chunk = BodyChunk {
        exchange_id,
        side: Side::Response as i32,
        offset,
        data: bytes(data),
    };
    Record {
        kind: Some(Kind::BodyChunk(chunk)),
    }
}

#[tokio::test]
async fn a_complete_exchange_is_read_back_as_it_was() {
    let world = World::new().await;
    let session = world.session().await;
    assert_eq!(session.next_seq(), 0);
    let id = Uuid::now_v7();
    world.commit(&session, 0, &[complete(id)]).await;

    let row = world.row(id).await;
    assert_eq!(row.url(), r"http://a.example/x?q=\xff\x00");
    assert_eq!(
        (row.status, row.state, row.service_name.as_deref()),
        (200, ExchangeState::Complete, Some("p"))
    );
    assert_eq!((row.position, row.response_size, row.duration_us), (1, 3, 1_234));
    let heads = heads::get(&world.db, ExchangeId(id)).await.unwrap().unwrap();
    assert_eq!(heads.request_head.unwrap(), b"GET /x?q=\xff\0 HTTP/1.1\r\n\r\n");
    assert_eq!(heads.client_tls_version, None);
    let body = body_chunks::read(&world.db, ExchangeId(id), Side::Response, 0)
        .await
        .unwrap();
    assert_eq!(
        (body.len(), body[0].start, body[0].data.as_slice()),
        (1, 0, b"abc".as_slice())
    );
    assert_eq!(
        body_chunks::read(&world.db, ExchangeId(id), Side::Response, body[0].end())
            .await
            .unwrap(),
        []
    );
    assert_eq!(world.stored().await, 1);
}

#[tokio::test]
async fn an_open_exchange_has_a_row_that_its_end_replaces() {
    let world = World::new().await;
    let session = world.session().await;
    let id = Uuid::now_v7();
    let whole = exchange(id);
    world.commit(&session, 0, &[head(&whole), chunk(id, 0, "ab")]).await;
    let open = world.row(id).await;
    assert_eq!((open.state, open.status, open.position), (ExchangeState::Open, 0, 1));

    world.commit(&session, 2, &[chunk(id, 2, "c"), end(&whole)]).await;
    let ended = world.row(id).await;
    assert_eq!(
        (ended.state, ended.status, ended.position),
        (ExchangeState::Complete, 200, 2)
    );
    let body = body_chunks::read(&world.db, ExchangeId(id), Side::Response, 0)
        .await
        .unwrap();
    let body: Vec<u8> = body.into_iter().flat_map(|chunk| chunk.data).collect();
    assert_eq!(body, b"abc");
    assert_eq!((world.count("open_exchanges").await, world.stored().await), (0, 1));
}

#[tokio::test]
async fn a_head_and_its_end_in_one_batch_are_one_row() {
    let world = World::new().await;
    let session = world.session().await;
    let id = Uuid::now_v7();
    world
        .commit(
            &session,
            0,
            &[head(&exchange(id)), chunk(id, 0, "abc"), end(&exchange(id))],
        )
        .await;
    assert_eq!(
        (world.row(id).await.state, world.row(id).await.position),
        (ExchangeState::Complete, 1)
    );
    assert_eq!((world.count("open_exchanges").await, world.stored().await), (0, 1));
}

#[tokio::test]
async fn what_a_dead_worker_left_open_is_closed() {
    let world = World::new().await;
    let session = world.session().await;
    let (lost, whole) = (Uuid::now_v7(), Uuid::now_v7());
    session
        .push(frames(
            0,
            &[head(&exchange(lost)), chunk(lost, 0, "abcdef"), complete(whole)],
        ))
        .await
        .unwrap();
    drop(session);
    world.ingest.close_epoch(world.source.epoch).await;
    within(world.ingest.drained()).await;
    let row = world.row(lost).await;
    assert_eq!((row.state, row.error.as_str()), (ExchangeState::Failed, "worker_lost"));
    assert_eq!((row.response_captured, row.response_size, row.position), (6, 6, 3));
    assert_eq!(world.row(whole).await.state, ExchangeState::Complete);
    assert_eq!(store::ingest::unclosed(&world.db).await.unwrap(), []);
}

#[tokio::test]
async fn websocket_messages_are_stored_in_parts_and_listed_whole() {
    let world = World::new().await;
    let session = world.session().await;
    let id = Uuid::now_v7();
    let mut socket = exchange(id);
    socket.kind = ExchangeKind::WebSocket as i32;
    socket.scheme = bytes("wss");
    let opened_at_us = socket.started_at_us;
    socket.websocket = Some(WebSocketSummary {
        subprotocol: bytes("chat"),
        opened_at_us,
        ..Default::default()
    });
    let message = |sequence, part, payload: Bytes, last| {
        let exchange_id = Bytes::copy_from_slice(id.as_bytes());
        let size = if last { 70_000 } else { 0 };
        let message = WsMessage {
            exchange_id,
            sequence,
            part,
            side: 1,
            opcode: 2,
            size,
            payload,
            last,
            ..WsMessage::default()
        };
        Record {
            kind: Some(Kind::WsMessage(message)),
        }
    };
    let long = Bytes::from(vec![7; 65_536]);
    let mut records = vec![
        head(&socket),
        message(0, 0, long.clone(), false),
        message(0, 1, bytes("rest"), true),
    ];
    records.extend((1..60).map(|sequence| message(sequence, 0, long.clone(), true)));
    let opening = records.len() as u64;
    world.commit(&session, 0, &records).await;

    let first = websockets::messages(&world.db, ExchangeId(id), &Page::new(1000, ""))
        .await
        .unwrap();
    assert_eq!(first.rows.len(), 32, "a page has at most 2 MiB of payload");
    assert_eq!(
        (first.rows[0].size, first.rows[0].payload_cut, first.rows[1].payload_cut),
        (70_000, true, false)
    );
    let rest = Page::new(1000, &first.next_page_token);
    let rest = websockets::messages(&world.db, ExchangeId(id), &rest).await.unwrap();
    assert_eq!(
        (rest.rows.len(), rest.rows[0].sequence, rest.next_page_token.as_str()),
        (28, 32, "")
    );
    let parts = websockets::parts(&world.db, ExchangeId(id), 0, 1).await.unwrap();
    assert_eq!(parts, [b"rest".to_vec()]);

    let summary = socket.websocket.as_mut().unwrap();
    (summary.closed_at_us, summary.close_code, summary.messages_from_client) = (opened_at_us + 5, 1000, 60);
    assert_eq!(
        websockets::get(&world.db, ExchangeId(id))
            .await
            .unwrap()
            .unwrap()
            .closed_at,
        None
    );
    world.commit(&session, opening, &[end(&socket)]).await;
    let filter = WebSocketFilter {
        service_id: Some(world.source.service_id),
        workspace_id: None,
    };
    let listed = websockets::list(&world.db, &filter, &Page::first()).await.unwrap().rows;
    assert_eq!(
        (listed.len(), listed[0].close_code, listed[0].subprotocol.as_str()),
        (1, 1000, "chat")
    );
    assert_eq!(
        (listed[0].url.as_str(), listed[0].messages_from_client),
        (r"wss://a.example:80/x?q=\xff\x00", 60)
    );
    assert!(listed[0].closed_at.is_some());
}

#[tokio::test]
async fn what_is_sent_again_is_stored_once_and_a_gap_is_refused() {
    let world = World::new().await;
    let records = completes(5);
    let session = world.session().await;
    world.commit(&session, 0, &records[..3]).await;
    session.push(frames(0, &records[..4])).await.unwrap();
    within(session.acked().wait_for(|acked| *acked == 4)).await.unwrap();

    let redialled = world.session().await;
    assert_eq!(redialled.next_seq(), 4);
    assert!(matches!(
        session.push(frames(4, &records[4..])).await,
        Err(IngestError::Over)
    ));
    let gap = redialled.push(frames(9, &records[..1])).await;
    assert!(matches!(gap, Err(IngestError::Gap { expected: 4, got: 9 })));
    world.commit(&redialled, 0, &records).await;
    assert_eq!((world.count("exchanges").await, world.stored().await), (5, 5));
    assert!(matches!(
        redialled.push(Bytes::from_static(b"garbage")).await,
        Err(IngestError::Frame(_))
    ));
}

#[tokio::test]
async fn a_record_that_postgres_refuses_is_kept_aside_and_the_others_are_stored() {
    let world = World::new().await;
    let session = world.session().await;
    let mut records = completes(40);
    records[17] = records[3].clone();
    let Some(Kind::Complete(forged)) = &mut records[30].kind else {
        unreachable!()
    };
    forged.exchange.id = Bytes::from_static(&[0xff; 16]);
    records[31] = Record { kind: None };
    world.commit(&session, 0, &records).await;
    assert_eq!((world.count("exchanges").await, world.stored().await), (37, 37));
    let rejects: Vec<(i64, String)> = sqlx::query_as("SELECT seq, reason FROM ingest_rejects ORDER BY seq")
        .fetch_all(&world.db)
        .await
        .unwrap();
    assert_eq!(rejects.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [17, 30, 31]);
    assert!(rejects[0].1.starts_with("23505"), "{}", rejects[0].1);
    let positions: Vec<i64> = sqlx::query_scalar("SELECT position FROM exchanges ORDER BY position")
        .fetch_all(&world.db)
        .await
        .unwrap();
    assert_eq!(positions, (1..=37).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_day_without_partition_gets_one_on_demand() {
    let world = World::new().await;
    let session = world.session().await;
    let ms = OffsetDateTime::now_utc().unix_timestamp() as u64 * 1_000;
    for (seq, days) in [(0, 40), (1, -40)] {
        let ms = ms.checked_add_signed(days * 86_400_000).unwrap();
        let id = uuid::Builder::from_unix_timestamp_millis(ms, &[1; 10]).into_uuid();
        world.commit(&session, seq, &[complete(id)]).await;
        assert_eq!(world.row(id).await.id.0, id);
    }
    for table in partitions::TABLES {
        // The keeper's five days may not be there yet.
        let made: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_inherits WHERE inhparent = $1::text::regclass")
            .bind(table)
            .fetch_one(&world.db)
            .await
            .unwrap();
        assert!(made >= 2, "{table}: {made}");
    }
}

#[tokio::test]
async fn ingest_goes_on_by_itself_after_its_connection_was_cut() {
    let world = World::new().await;
    let session = world.session().await;
    let records = completes(3);
    world.commit(&session, 0, &records[..1]).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE application_name = 'proxyplane ingest' AND datname = current_database()";
    sqlx::query(cut).execute(&world.db).await.unwrap();
    world.commit(&session, 1, &records[1..]).await;
    assert_eq!(world.count("exchanges").await, 3);
    assert_eq!(*world.ingest.health().borrow(), Health::Ready);
}

#[tokio::test]
async fn a_session_waits_while_the_database_is_locked_and_loses_nothing() {
    let world = World::new().await;
    let session = world.session().await;
    let mut lock = world.db.begin().await.unwrap();
    sqlx::query("LOCK TABLE ingest_cursors")
        .execute(&mut *lock)
        .await
        .unwrap();
    let (mut pushed, mut waited) = (0, false);
    while pushed < 1_000 && !waited {
        let mut records = completes(10);
        for record in &mut records {
            let Some(Kind::Complete(complete)) = &mut record.kind else {
                unreachable!()
            };
            complete.response_body = Bytes::from(vec![0; 60_000]);
        }
        let push = session.push(frames(pushed, &records));
        waited = tokio::time::timeout(Duration::from_millis(300), push).await.is_err();
        pushed += if waited { 0 } else { 10 };
    }
    assert!(waited, "a session must not take more than it can hold");
    lock.rollback().await.unwrap();
    within(session.acked().wait_for(|acked| *acked == pushed))
        .await
        .unwrap();
    assert_eq!(world.count("exchanges").await.cast_unsigned(), pushed);
}

#[tokio::test]
async fn a_control_plane_without_the_lease_commits_nothing() {
    let db = testing::database().await;
    let lifecycle = Lifecycle::new();
    let holder = |name: &str| store::installation::Holder {
        instance: Uuid::now_v7(),
        boot: Uuid::now_v7(),
        name: name.to_owned(),
    };
    let (first, second) = (holder("first"), holder("second"));
    store::installation::acquire(&db, &first).await.unwrap();
    let held = store::installation::acquire(&db, &second).await.unwrap_err();
    assert!(matches!(held, store::StoreError::Held { holder } if holder == "first"));

    let fenced = Ingest::start(db.clone(), Hub::new(db.clone()), Some(second.boot), &lifecycle);
    let source = Source {
        epoch: Epoch::new(),
        service_id: ServiceId::new(),
        workspace_id: WorkspaceId::new(),
    };
    let session = within(fenced.open(source)).await.unwrap();
    session.push(frames(0, &completes(1))).await.unwrap();
    within(fenced.health().wait_for(|health| *health == Health::Fenced))
        .await
        .unwrap();
    assert_eq!(session.next_seq(), 0);
    let restarted = store::installation::Holder {
        boot: Uuid::now_v7(),
        ..first
    };
    store::installation::acquire(&db, &restarted)
        .await
        .expect("the same data directory takes its lease over at once");
}

/// The stored events up to position `last`.
async fn stored_until(subscription: &mut Subscription, last: i64) -> Vec<i64> {
    let mut seen = Vec::new();
    while seen.last() != Some(&last) {
        if let Event::Stored(row) = within(subscription.next()).await.unwrap() {
            seen.push(row.position);
        }
    }
    seen
}

#[tokio::test]
async fn stored_events_are_told_once_each_from_any_position_on() {
    let world = World::new().await;
    let session = world.session().await;
    world.commit(&session, 0, &completes(1_500)).await;
    let filter = Filter {
        after_position: Some(700),
        stored_only: true,
        ..Filter::default()
    };
    let mut resumed = world.hub.subscribe(filter).await.unwrap();
    assert!(matches!(
        within(resumed.next()).await.unwrap(),
        Event::Subscribed(1_500)
    ));
    let mut fresh = world
        .hub
        .subscribe(Filter {
            after_position: None,
            ..filter
        })
        .await
        .unwrap();
    assert!(!*world.hub.interest().borrow(), "nobody watches lossy events");

    // More than the ring holds, while neither reads.
    session.push(frames(1_500, &completes(6_000))).await.unwrap();
    within(session.acked().wait_for(|acked| *acked == 7_500)).await.unwrap();
    assert_eq!(
        stored_until(&mut resumed, 7_500).await,
        (701..=7_500).collect::<Vec<_>>()
    );
    assert_eq!(
        stored_until(&mut fresh, 7_500).await,
        (1_501..=7_500).collect::<Vec<_>>()
    );

    let mut others = world
        .hub
        .subscribe(Filter {
            service_id: Some(ServiceId::new()),
            ..filter
        })
        .await
        .unwrap();
    assert!(matches!(others.next().await.unwrap(), Event::Subscribed(_)));
    assert!(
        tokio::time::timeout(Duration::from_millis(200), others.next())
            .await
            .is_err(),
        "what is another's is not told"
    );
}

#[tokio::test]
async fn a_watcher_is_told_what_begins_and_completes_and_how_much_it_missed() {
    let world = World::new().await;
    let session = world.session().await;
    let mut watcher = world.hub.subscribe(Filter::default()).await.unwrap();
    assert!(*world.hub.interest().borrow());
    assert!(matches!(watcher.next().await.unwrap(), Event::Subscribed(0)));
    let id = Uuid::now_v7();
    world.hub.begun(world.source, exchange(id));
    world.commit(&session, 0, &[complete(id)]).await;
    assert!(matches!(within(watcher.next()).await.unwrap(), Event::Begun(row) if row.position == 0));
    assert!(matches!(within(watcher.next()).await.unwrap(), Event::Completed(row) if row.id.0 == id));
    let stored = within(watcher.next()).await.unwrap();
    assert!(matches!(stored, Event::Stored(row) if row.position == 1 && row.service_name.as_deref() == Some("p")));

    for _ in 0..3_000 {
        world.hub.begun(world.source, exchange(id));
    }
    let (mut begun, mut missed) = (0, 0);
    while begun + missed < 3_000 {
        match within(watcher.next()).await.unwrap() {
            Event::Begun(_) => begun += 1,
            Event::Missed(count) => missed += count,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(begun + missed, 3_000);
    assert!(missed > 0);
    drop(watcher);
    assert!(!*world.hub.interest().borrow());
}

#[tokio::test]
async fn exchanges_are_listed_by_every_filter_newest_first_page_by_page() {
    let world = World::new().await;
    let session = world.session().await;
    let mut records = completes(30);
    let mut ids = Vec::new();
    for (index, record) in records.iter_mut().enumerate() {
        let Some(Kind::Complete(Complete { exchange, .. })) = &mut record.kind else {
            unreachable!()
        };
        ids.push(Uuid::from_slice(&exchange.id).unwrap());
        exchange.status = if index % 3 == 0 { 503 } else { 200 };
        exchange.method = bytes(if index % 2 == 0 { "GET" } else { "POST" });
        exchange.host = bytes(if index < 10 { "Api.Example.com" } else { "example.com" });
        exchange.started_at_us += index as i64;
    }
    world.commit(&session, 0, &records).await;
    let all = exchanges::list(&world.db, &ExchangeFilter::default(), &Page::first())
        .await
        .unwrap()
        .rows;
    assert_eq!(
        all.iter().map(|row| row.id.0).collect::<Vec<_>>(),
        ids.iter().rev().copied().collect::<Vec<_>>()
    );

    let count = async |filter: ExchangeFilter| {
        exchanges::list(&world.db, &filter, &Page::first())
            .await
            .unwrap()
            .rows
            .len()
    };
    let any = ExchangeFilter::default;
    assert_eq!(
        count(ExchangeFilter {
            status_min: Some(500),
            status_max: Some(599),
            ..any()
        })
        .await,
        10
    );
    assert_eq!(
        count(ExchangeFilter {
            method: Some("POST".into()),
            ..any()
        })
        .await,
        15
    );
    assert_eq!(
        count(ExchangeFilter {
            host: Some("*.example.com".into()),
            ..any()
        })
        .await,
        10
    );
    assert_eq!(
        count(ExchangeFilter {
            host: Some("EXAMPLE.com".into()),
            ..any()
        })
        .await,
        20
    );
    assert_eq!(
        count(ExchangeFilter {
            service_id: Some(world.source.service_id),
            ..any()
        })
        .await,
        30
    );
    assert_eq!(
        count(ExchangeFilter {
            service_id: Some(ServiceId::new()),
            ..any()
        })
        .await,
        0
    );
    assert_eq!(
        count(ExchangeFilter {
            workspace_id: Some(world.source.workspace_id),
            ..any()
        })
        .await,
        30
    );
    let (oldest, newest) = (all[29].started_at, all[0].started_at);
    assert_eq!(
        count(ExchangeFilter {
            since: Some(oldest),
            until: Some(newest),
            ..any()
        })
        .await,
        29
    );

    let filter = ExchangeFilter {
        method: Some("GET".into()),
        ..any()
    };
    let (mut page, mut paged) = (Page::new(4, ""), Vec::new());
    loop {
        let next = exchanges::list(&world.db, &filter, &page).await.unwrap();
        paged.extend(next.rows.iter().map(|row| row.id.0));
        if next.next_page_token.is_empty() {
            break;
        }
        page = page.next(&next.next_page_token);
    }
    assert_eq!(paged, ids.iter().rev().skip(1).step_by(2).copied().collect::<Vec<_>>());
    let foreign = exchanges::list(&world.db, &any(), &page).await;
    assert!(matches!(foreign, Err(store::StoreError::InvalidPageToken)));
}

#[tokio::test]
async fn a_purge_removes_one_services_traffic_only() {
    let world = World::new().await;
    let session = world.session().await;
    world.commit(&session, 0, &completes(1_200)).await;
    let other = Source {
        epoch: Epoch::new(),
        service_id: ServiceId::new(),
        ..world.source
    };
    let others = within(world.ingest.open(other)).await.unwrap();
    world.commit(&others, 0, &completes(3)).await;
    assert_eq!(purge::service(&world.db, world.source.service_id).await.unwrap(), 1_200);
    for table in ["exchanges", "heads", "body_chunks"] {
        assert_eq!(world.count(table).await, 3, "{table}");
    }
}

#[tokio::test]
async fn names_ports_and_etags_are_kept_apart() {
    let world = World::new().await;
    let mut db = world.db.acquire().await.unwrap();
    let workspace = world.source.workspace_id;
    let taken = services::create(&mut db, &new_service(workspace, "p", 9_000))
        .await
        .unwrap_err();
    assert!(matches!(taken, store::StoreError::NameTaken { name } if name == "p"));
    let taken = services::create(&mut db, &new_service(workspace, "q", 8_080))
        .await
        .unwrap_err();
    assert!(matches!(taken, store::StoreError::PortTaken { port: 8_080 }));
    let missing = services::create(&mut db, &new_service(WorkspaceId::new(), "q", 9_000))
        .await
        .unwrap_err();
    assert!(matches!(missing, store::StoreError::NotFound));

    let row = services::get(&mut *db, world.source.service_id).await.unwrap().unwrap();
    let change = services::ServiceChange {
        verbose: Some(false),
        ..Default::default()
    };
    let changed = services::update(&mut db, row.id, Some(&row.etag()), &change)
        .await
        .unwrap();
    assert_eq!((changed.verbose, changed.revision, changed.port), (false, 2, 8_080));
    let late = services::update(&mut db, row.id, Some(&row.etag()), &change)
        .await
        .unwrap_err();
    assert!(matches!(late, store::StoreError::EtagMismatch));

    let full = workspaces::delete(&mut db, workspace, None).await.unwrap_err();
    assert!(matches!(full, store::StoreError::WorkspaceNotEmpty));
    services::delete(&mut db, row.id, None).await.unwrap();
    workspaces::delete(&mut db, workspace, None).await.unwrap();
}
