//! More waits than one transaction takes: batches are written beside one another, and committed in order.

use super::*;

/// More than two batches.
const MANY: usize = 3_500;

impl World {
    /// Pushes these while nothing can be committed, then lets ingest go on: at once there is enough for several batches.
    async fn commit_at_once(&self, session: &IngestSession, seq: u64, records: &[Record]) {
        let mut lock = self.db.begin().await.unwrap();
        sqlx::query("LOCK TABLE ingest_cursors")
            .execute(&mut *lock)
            .await
            .unwrap();
        let (one, others) = records.split_first().unwrap();
        session.push(frames(seq, std::slice::from_ref(one))).await.unwrap();
        testing::eventually("ingest waits for the lock", async || {
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'ingest_cursors'::regclass";
            let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&self.db).await.unwrap();
            waiting > 0
        })
        .await;
        within(session.push(frames(seq + 1, others))).await.unwrap();
        lock.rollback().await.unwrap();
        let end = seq + records.len() as u64;
        within(session.acked().wait_for(|acked| *acked >= end)).await.unwrap();
    }

    /// Ids in the order of their positions, which have no gap.
    async fn in_order(&self) -> Vec<Uuid> {
        let rows: Vec<(Uuid, i64)> = sqlx::query_as("SELECT id, position FROM exchanges ORDER BY position")
            .fetch_all(&self.db)
            .await
            .unwrap();
        let positions: Vec<i64> = rows.iter().map(|(_, position)| *position).collect();
        assert_eq!(positions, (1..=rows.len() as i64).collect::<Vec<_>>());
        rows.into_iter().map(|(id, _)| id).collect()
    }

    /// The server's processes that store.
    async fn processes(&self) -> Vec<i32> {
        let sql = "SELECT pid FROM pg_stat_activity \
                   WHERE application_name = 'proxyplane ingest' AND datname = current_database() ORDER BY pid";
        sqlx::query_scalar(sql).fetch_all(&self.db).await.unwrap()
    }
}

fn id_of(record: &Record) -> Uuid {
    match &record.kind {
        Some(Kind::Complete(complete)) => Uuid::from_slice(&complete.exchange.id).unwrap(),
        _ => unreachable!("the tests have no others"),
    }
}

fn ids(records: &[Record]) -> Vec<Uuid> {
    records.iter().map(id_of).collect()
}

#[tokio::test]
async fn what_waits_for_several_transactions_is_committed_in_order() {
    let world = World::new().await;
    let session = world.session().await;
    let records = completes(MANY);
    world.commit_at_once(&session, 0, &records).await;
    // The first time the day is to be looked for; a second time nothing is in the way.
    let more = completes(MANY);
    world.commit_at_once(&session, MANY as u64, &more).await;
    assert_eq!(world.in_order().await, [ids(&records), ids(&more)].concat());
    assert_eq!(world.stored().await, 2 * MANY as u64);
    assert_eq!(world.processes().await.len(), 2, "as many as write at once");
    assert_eq!(*world.ingest.health().borrow(), Health::Ready);
}

#[tokio::test]
async fn records_that_are_refused_behind_others_are_kept_aside_alone() {
    let world = World::new().await;
    let session = world.session().await;
    let first = completes(1);
    world.commit(&session, 0, &first).await;
    let mut records = completes(MANY);
    // Copies, of one that is committed long before and of one in the batch before.
    records[1_300] = first[0].clone();
    records[1_700] = records[800].clone();
    world.commit_at_once(&session, 1, &records).await;
    records.remove(1_700);
    records.remove(1_300);
    assert_eq!(world.in_order().await, [ids(&first), ids(&records)].concat());
    let rejects: Vec<i64> = sqlx::query_scalar("SELECT seq FROM ingest_rejects ORDER BY seq")
        .fetch_all(&world.db)
        .await
        .unwrap();
    assert_eq!(rejects, [1_301, 1_701]);
}

#[tokio::test]
async fn an_exchange_that_one_batch_opens_and_the_next_ends_has_one_row() {
    let world = World::new().await;
    let session = world.session().await;
    world.commit_at_once(&session, 0, &completes(MANY)).await;
    world.commit_at_once(&session, MANY as u64, &completes(MANY)).await;
    let processes = world.processes().await;
    let long = exchange(Uuid::now_v7());
    let mut records = completes(MANY);
    records[900] = head(&long);
    records[1_100] = end(&long);
    world.commit_at_once(&session, 2 * MANY as u64, &records).await;
    assert_eq!(world.processes().await, processes, "nothing had to be done anew");
    assert_eq!(
        world.row(Uuid::from_slice(&long.id).unwrap()).await.state,
        ExchangeState::Complete
    );
    assert_eq!(world.count("exchanges").await as usize, 3 * MANY - 1);
    assert_eq!(world.count("open_exchanges").await, 0);
    assert_eq!(world.stored().await as usize, 3 * MANY - 1);
}

#[tokio::test]
async fn connections_that_are_cut_again_and_again_lose_nothing_and_double_nothing() {
    let world = World::new().await;
    let session = world.session().await;
    let all = completes(30_000);
    let cut = async {
        let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                    WHERE application_name = 'proxyplane ingest' AND datname = current_database()";
        let mut acked = session.acked();
        for step in 1..=10 {
            within(acked.wait_for(|acked| *acked >= step * 2_500)).await.unwrap();
            sqlx::query(kill).execute(&world.db).await.unwrap();
        }
    };
    let push = async {
        for (seq, records) in (0..).step_by(500).zip(all.chunks(500)) {
            within(session.push(frames(seq, records))).await.unwrap();
        }
    };
    tokio::join!(cut, push);
    within(session.acked().wait_for(|acked| *acked == all.len() as u64))
        .await
        .unwrap();
    assert_eq!(world.in_order().await, ids(&all));
    assert_eq!(world.stored().await as usize, all.len());
}
