//! The live hub.

use super::*;

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

    let other = Source {
        epoch: Epoch::new(),
        service_id: ServiceId::new(),
        ..world.source
    };
    let mut others = world
        .hub
        .subscribe(Filter {
            service_id: Some(other.service_id),
            ..filter
        })
        .await
        .unwrap();
    assert!(matches!(others.next().await.unwrap(), Event::Subscribed(_)));
    world.commit(&session, 7_500, &completes(1)).await;
    let its_session = within(world.ingest.open(other)).await.unwrap();
    world.commit(&its_session, 0, &completes(1)).await;
    let first = within(others.next()).await.unwrap();
    assert!(
        matches!(first, Event::Stored(row) if row.position == 7_502),
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

    // The session that tells of beginnings may be behind the records.
    world.hub.begun(world.source, exchange(id));
    for _ in 0..3_000 {
        world.hub.begun(world.source, exchange(Uuid::now_v7()));
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
