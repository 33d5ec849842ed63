//! What goes wrong, and that nothing is lost by it.

use futures_util::FutureExt as _;
use proxyplane_record::{Gap, segment};

use super::*;

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
    assert_eq!(world.stored().await, 2);
    assert_eq!(store::ingest::unclosed(&world.db).await.unwrap(), []);
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
async fn a_gap_stands_for_the_records_that_it_counts() {
    let world = World::new().await;
    let records = completes(4);
    let session = world.session().await;
    world.commit(&session, 0, &records[..2]).await;
    let gap = Gap {
        first_seq: 2,
        records: 40,
        exchanges: 30,
        from_us: 1,
        to_us: 2,
    };
    session.push(segment::gap_frame(gap)).await.unwrap();
    session.push(frames(42, &records[2..])).await.unwrap();
    within(session.acked().wait_for(|acked| *acked == 44)).await.unwrap();
    let kept: (i64, i64, i64) = sqlx::query_as("SELECT first_seq, records, exchanges FROM ingest_gaps")
        .fetch_one(&world.db)
        .await
        .unwrap();
    assert_eq!(kept, (2, 40, 30));
    assert_eq!((world.count("exchanges").await, world.stored().await), (4, 4));
    assert_eq!(world.session().await.next_seq(), 44);
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
async fn a_clock_that_jumps_changes_neither_the_order_nor_the_day_of_a_row() {
    const HOUR: i64 = 3_600_000;
    let world = World::new().await;
    let session = world.session().await;
    let now = OffsetDateTime::now_utc().unix_timestamp() * 1_000;
    // As a clock shows them that is put back an hour, forward a day, and right again.
    let ids: Vec<Uuid> = [0, -HOUR, 1 - HOUR, 24 * HOUR, 1]
        .iter()
        .map(|jump| {
            let ms = now.checked_add(*jump).unwrap().cast_unsigned();
            uuid::Builder::from_unix_timestamp_millis(ms, &rand::random()).into_uuid()
        })
        .collect();
    let records: Vec<Record> = ids.iter().copied().map(complete).collect();
    world.commit(&session, 0, &records[..3]).await;
    world.commit(&session, 3, &records[3..]).await;
    let in_order: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM exchanges ORDER BY position")
        .fetch_all(&world.db)
        .await
        .unwrap();
    assert_eq!(in_order, ids, "what was committed first comes first");
    for id in ids {
        let partition: String = sqlx::query_scalar("SELECT tableoid::regclass::text FROM exchanges WHERE id = $1")
            .bind(id)
            .fetch_one(&world.db)
            .await
            .unwrap();
        assert_eq!(
            partition,
            format!("exchanges_{}", partitions::Day::of_id(id.as_bytes()))
        );
    }
}

#[tokio::test]
async fn a_partition_that_was_detached_or_dropped_is_there_again_when_a_record_needs_it() {
    let world = World::new().await;
    let session = world.session().await;
    let ids = [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()];
    world.commit(&session, 0, &[complete(ids[0])]).await;
    let day = partitions::Day::of_id(ids[0].as_bytes());
    // For a test that runs at midnight. In a transaction, because the keeper may be making it too.
    let mut transaction = world.db.begin().await.unwrap();
    partitions::ensure(&mut transaction, day.plus(1)).await.unwrap();
    transaction.commit().await.unwrap();
    let days = [day, day.plus(1)];
    for day in days {
        let detach = format!("ALTER TABLE exchanges DETACH PARTITION exchanges_{day}");
        sqlx::query(AssertSqlSafe(detach)).execute(&world.db).await.unwrap();
    }
    world.commit(&session, 1, &[complete(ids[1])]).await;
    assert_eq!(world.count("exchanges").await, 2, "with what it held");
    for day in days {
        let drop = format!("DROP TABLE exchanges_{day}, heads_{day}");
        sqlx::query(AssertSqlSafe(drop)).execute(&world.db).await.unwrap();
    }
    world.commit(&session, 2, &[complete(ids[2])]).await;
    assert_eq!(world.row(ids[2]).await.id.0, ids[2]);
    assert_eq!(*world.ingest.health().borrow(), Health::Ready);
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
    session.push(frames(0, &completes(1))).await.unwrap();
    testing::eventually("ingest waits for the lock", async || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'ingest_cursors'::regclass";
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&world.db).await.unwrap();
        waiting > 0
    })
    .await;
    let (mut pushed, mut waited) = (1, false);
    while pushed < 1_000 && !waited {
        let mut records = completes(10);
        for record in &mut records {
            let Some(Kind::Complete(complete)) = &mut record.kind else {
                unreachable!()
            };
            complete.response_body = Bytes::from(vec![0; 60_000]);
        }
        let push = session.push(frames(pushed, &records));
        // It has taken them at once, or it waits.
        waited = push.now_or_never().is_none();
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

    let fenced = Ingest::start(
        db.clone(),
        Hub::new(db.clone()),
        crate::events::channel().0,
        Some(second.boot),
        Room::unknown(),
        &lifecycle,
    );
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
