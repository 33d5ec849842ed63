//! Repeats and overflow.

use std::time::Instant;

use super::{
    super::{
        QUEUE,
        backlog::{Backlog, KEPT},
        repeats::{Repeats, WINDOW},
    },
    *,
};

#[test]
fn equal_events_that_follow_each_other_closely_become_one() {
    let (mut repeats, start) = (Repeats::default(), Instant::now());
    assert!(repeats.admit(event("a"), start).is_some());
    assert!(
        repeats.admit(event("b"), start).is_some(),
        "another event is told at once"
    );
    for _ in 0..7 {
        assert!(repeats.admit(event("a").because("differs"), start).is_none());
    }
    assert_eq!(repeats.ended(start), None);
    let end = repeats.due().unwrap();
    assert_eq!(end, start + WINDOW);
    let repeat = repeats.ended(end).unwrap();
    assert_eq!((repeat.latest.message().as_str(), repeat.count), ("a: differs", 7));
    assert_eq!(repeats.ended(end), None, "b was not repeated");

    assert!(repeats.admit(event("b"), end).is_some(), "its window is over");
    assert!(
        repeats.admit(event("a"), end).is_none(),
        "as long as it goes on, it is one per window"
    );
    assert_eq!(repeats.ended(end + WINDOW).unwrap().count, 1);
    assert_eq!(repeats.ended(end + WINDOW * 2), None);
    assert_eq!(repeats.due(), None, "nothing is remembered once it is quiet");
}

#[test]
fn events_about_another_proxy_are_not_equal() {
    let (mut repeats, start) = (Repeats::default(), Instant::now());
    for _ in 0..2 {
        let proxy = Subject::proxy(ServiceId::new(), None);
        let event = NewEvent::new(Severity::Error, Kind::BreakerOpened, "test", proxy, "opened");
        assert!(repeats.admit(event, start).is_some());
    }
}

#[test]
fn the_newest_wait_and_what_is_being_stored_is_not_dropped() {
    let row = |number: usize| {
        Arc::new(EventRow {
            id: EventId::new(),
            at: crate::clock::now(),
            severity: Severity::Info,
            source: String::new(),
            kind: String::new(),
            subject_type: super::super::SubjectType::System,
            subject_id: None,
            subject_name: String::new(),
            workspace_id: None,
            message: number.to_string(),
            details: std::collections::BTreeMap::new(),
            occurrences: 1,
        })
    };
    let numbers = |rows: &[Arc<EventRow>]| {
        rows.iter()
            .map(|row| row.message.parse().unwrap())
            .collect::<Vec<usize>>()
    };
    let mut backlog = Backlog::default();
    for number in 0..10 {
        backlog.push(row(number));
    }
    assert_eq!(numbers(&backlog.take(2)), [0, 1]);
    for number in 10..KEPT + 5 {
        backlog.push(row(number));
    }
    assert_eq!((backlog.len(), backlog.dropped()), (KEPT, 5));
    backlog.kept();
    assert_eq!(numbers(&backlog.take(4)), [0, 1, 7, 8]);
    backlog.stored();
    assert_eq!(numbers(&backlog.take(1)), [9]);
    backlog.refused();
    assert_eq!((backlog.len(), backlog.dropped()), (KEPT - 5, 1));
}

#[tokio::test]
async fn what_overflows_is_counted_and_becomes_one_event() {
    let db = testing::database().await;
    let (events, writer) = channel();
    // Nobody takes them yet.
    for number in 0..QUEUE + 300 {
        events.raise(event(&number.to_string()));
    }
    writer.start(db.clone()).finish(PATIENCE).await;
    let rows = stored(&db).await;
    let dropped: Vec<_> = rows.iter().filter(|row| row.kind == "events_dropped").collect();
    assert_eq!(dropped.len(), 1, "{dropped:?}");
    assert_eq!(dropped[0].details["count"], "300");
}

#[tokio::test]
async fn repeats_are_stored_with_their_number() {
    let (db, events, log) = started().await;
    for _ in 0..500 {
        events.raise(event("again"));
    }
    log.finish(PATIENCE).await;
    let rows = stored(&db).await;
    assert_eq!(
        rows.iter().map(|row| row.occurrences).collect::<Vec<_>>(),
        [1, 499],
        "the first, and all that repeat it"
    );
}

#[tokio::test]
async fn text_is_cut_and_shown_as_a_terminal_may_see_it() {
    let (db, events, log) = started().await;
    let proxy = Subject::Proxy {
        id: ServiceId::new(),
        name: "w/\u{1b}[31mp\u{202e}".into(),
        workspace_id: None,
    };
    let lengthy = "ä".repeat(5_000);
    events.worker_crashed(proxy, 1, &format!("a\0b\x07{lengthy}"), &lengthy);
    log.finish(PATIENCE).await;
    let row = stored(&db).await.remove(0);
    assert_eq!(row.subject_name, r"w/\x1b[31mp\xe2\x80\xae");
    assert!(row.message.starts_with(r"a\x00b\x07ä"), "{}", row.message);
    assert!(row.message.len() <= 1_003 && row.details["exit"].len() <= 1_003);
}
