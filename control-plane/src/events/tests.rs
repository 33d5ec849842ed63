//! The log from raising to reading.

mod away;
mod limits;
mod lines;

use std::{sync::Arc, time::Duration};

use proxyplane_spec::{EventId, ServiceId};

use super::{
    EventLog, Events, Subscription, Watched, channel,
    event::{NewEvent, Subject},
    kind::{Kind, Severity},
};
use crate::{
    postgres::testing,
    store::{
        Db,
        events::{self as table, EventFilter, EventRow},
        page::Page,
    },
};

const PATIENCE: Duration = Duration::from_secs(20);

fn event(what: &str) -> NewEvent {
    NewEvent::new(Severity::Warning, Kind::Logged, "test", Subject::System, what)
}

async fn next(subscription: &mut Subscription) -> Arc<EventRow> {
    loop {
        let next = tokio::time::timeout(PATIENCE, subscription.next()).await;
        if let Watched::Event(row) = next.expect("an event comes").unwrap() {
            return row;
        }
    }
}

/// Everything that is stored, oldest first.
async fn stored(db: &Db) -> Vec<EventRow> {
    let mut page = Page::first();
    let mut rows = Vec::new();
    loop {
        let found = table::list(db, &EventFilter::default(), None, &page).await.unwrap();
        rows.extend(found.rows);
        if found.next_page_token.is_empty() {
            rows.reverse();
            return rows;
        }
        page = page.next(&found.next_page_token);
    }
}

async fn count(db: &Db) -> i64 {
    let count = sqlx::query_scalar("SELECT count(*) FROM events");
    count.fetch_one(db).await.unwrap()
}

async fn started() -> (Db, Events, EventLog) {
    let db = testing::database().await;
    let (events, writer) = channel();
    let log = writer.start(db.clone());
    (db, events, log)
}

#[tokio::test]
async fn what_is_raised_is_told_and_stored_with_all_that_is_known() {
    let (db, events, log) = started().await;
    let mut watch = log.feed().subscribe(EventFilter::default(), None);
    let id = ServiceId::new();
    let proxy = Subject::Proxy {
        id,
        name: "w/p".into(),
        workspace_id: None,
    };
    events.worker_crashed(proxy, 7, "worker 7 died: signal 9 (SIGKILL)", "signal 9 (SIGKILL)");
    let told = next(&mut watch).await;
    log.finish(PATIENCE).await;
    assert_eq!(stored(&db).await, [(*told).clone()]);
    assert_eq!(
        (told.kind.as_str(), told.severity),
        ("worker_crashed", Severity::Warning)
    );
    assert_eq!((told.subject_id, told.subject_name.as_str()), (Some(id.0), "w/p"));
    assert_eq!(told.details["exit"], "signal 9 (SIGKILL)");
    assert_eq!(told.occurrences, 1);
}

#[tokio::test]
async fn a_watch_resumes_after_any_event_also_one_that_is_read_back_from_the_database() {
    let (db, events, log) = started().await;
    let mut watch = log.feed().subscribe(EventFilter::default(), None);
    let mut ids = Vec::new();
    // More than are kept in memory.
    for round in 0..6 {
        for number in 0..500 {
            events.raise(event(&format!("{round}.{number}")));
        }
        for _ in 0..500 {
            ids.push(next(&mut watch).await.id);
        }
        while count(&db).await < ids.len() as i64 {}
    }
    assert!(ids.is_sorted());
    let feed = log.feed();
    log.finish(PATIENCE).await;
    for from in [0, 100, 2_500, 2_998] {
        let mut resumed = feed.subscribe(EventFilter::default(), Some(ids[from]));
        let mut seen = Vec::new();
        for _ in from + 1..ids.len() {
            seen.push(next(&mut resumed).await.id);
        }
        assert_eq!(seen, ids[from + 1..], "from {from}");
    }
}

#[tokio::test]
async fn filters_choose_what_is_listed_and_what_is_watched() {
    let (db, events, log) = started().await;
    let (one, other) = (ServiceId::new(), ServiceId::new());
    let begin = EventId::new();
    for id in [one, other] {
        events.worker_started(Subject::proxy(id, None), 1, 1);
        events.breaker_opened(Subject::proxy(id, None), "it died");
    }
    let feed = log.feed();
    log.finish(PATIENCE).await;
    let any = EventFilter::default();
    for (filter, expected) in [
        (any.clone(), 4),
        (
            EventFilter {
                severity_min: Severity::Error,
                ..any.clone()
            },
            2,
        ),
        (
            EventFilter {
                kinds: vec![Kind::WorkerStarted],
                ..any.clone()
            },
            2,
        ),
        (
            EventFilter {
                kinds: vec![Kind::WorkerStarted, Kind::BreakerOpened],
                ..any.clone()
            },
            4,
        ),
        (
            EventFilter {
                kinds: vec![Kind::Gap],
                ..any.clone()
            },
            0,
        ),
        (
            EventFilter {
                service_id: Some(one),
                ..any.clone()
            },
            2,
        ),
        (
            EventFilter {
                workspace_id: Some(proxyplane_spec::WorkspaceId::new()),
                ..any.clone()
            },
            0,
        ),
    ] {
        let listed = table::list(&db, &filter, None, &Page::first()).await.unwrap().rows;
        assert_eq!(listed.len(), expected, "{filter:?}");
        let mut watch = feed.subscribe(filter.clone(), Some(begin));
        for row in listed.iter().rev() {
            assert_eq!(*next(&mut watch).await, *row, "{filter:?}");
        }
    }
}

#[tokio::test]
async fn the_newest_are_kept_and_the_old_are_pruned() {
    let (db, events, log) = started().await;
    for number in 0..10 {
        events.raise(event(&number.to_string()));
    }
    log.finish(PATIENCE).await;
    let before = stored(&db).await;
    assert_eq!(table::prune(&db, before[2].at, 100).await.unwrap(), 2);
    assert_eq!(table::prune(&db, before[0].at, 3).await.unwrap(), 5);
    assert_eq!(stored(&db).await, before[7..]);
    assert_eq!(table::prune(&db, before[0].at, 3).await.unwrap(), 0);
}
