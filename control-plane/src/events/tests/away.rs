//! The database does not take events, or not those.

use sqlx::{Connection as _, PgConnection};

use super::{super::backlog::KEPT, *};

#[tokio::test]
async fn while_the_database_hangs_watchers_are_told_and_the_newest_are_stored_afterwards() {
    let (db, events, log) = started().await;
    let mut watch = log.feed().subscribe(EventFilter::default(), None);
    let options = db.connect_options();
    let mut other = PgConnection::connect_with(&options).await.unwrap();
    let mut lock = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let raised = KEPT + 500;
    for number in 0..raised {
        events.raise(event(&number.to_string()));
        assert_eq!(next(&mut watch).await.message, number.to_string());
    }
    lock.rollback().await.unwrap();
    let dropped = next(&mut watch).await;
    log.finish(PATIENCE).await;
    assert_eq!(
        (dropped.kind.as_str(), dropped.details["count"].as_str()),
        ("events_dropped", "500")
    );
    let rows = stored(&db).await;
    assert_eq!(rows.len(), KEPT + 1);
    assert_eq!(rows[KEPT - 1].message, (raised - 1).to_string());
}

#[tokio::test]
async fn an_end_without_a_database_is_soon() {
    let db = Db::connect_lazy("postgres://nobody@127.0.0.1:1/none").unwrap();
    let (events, writer) = channel();
    let log = writer.start(db);
    events.raise(event("lost"));
    tokio::time::timeout(PATIENCE, log.finish(Duration::from_millis(50)))
        .await
        .unwrap();
    events.raise(event("nobody takes it"));
}

#[tokio::test]
async fn an_event_that_the_database_refuses_does_not_hold_up_the_others() {
    let (db, events, log) = started().await;
    sqlx::query("ALTER TABLE events ADD CONSTRAINT picky CHECK (message <> '7')")
        .execute(&db)
        .await
        .unwrap();
    for number in 0..20 {
        events.raise(event(&number.to_string()));
    }
    let mut watch = log.feed().subscribe(
        EventFilter {
            kinds: vec![Kind::EventsDropped],
            ..EventFilter::default()
        },
        None,
    );
    assert_eq!(next(&mut watch).await.details["count"], "1");
    log.finish(PATIENCE).await;
    assert_eq!(stored(&db).await.len(), 20, "19 and the one that says so");
}
