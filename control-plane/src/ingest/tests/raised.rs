//! What ingest raises.

use super::*;
use crate::{events, store::events as table};

#[tokio::test]
async fn a_record_that_is_refused_is_an_event_of_its_proxy() {
    let world = World::new().await;
    let (events, writer) = events::channel();
    let log = writer.start(world.db.clone());
    let lifecycle = Lifecycle::new();
    let ingest = Ingest::start(
        world.db.clone(),
        world.hub.clone(),
        events,
        None,
        Room::unknown(),
        &lifecycle,
    );
    let session = within(ingest.open(world.source)).await.unwrap();
    let records = [Record { kind: None }, complete(Uuid::now_v7())];
    world.commit(&session, 0, &records).await;
    log.finish(PATIENCE).await;
    let filter = table::EventFilter::default();
    let rows = table::list(&world.db, &filter, None, &Page::first())
        .await
        .unwrap()
        .rows;
    let [rejected] = rows.as_slice() else {
        panic!("{rows:?}")
    };
    assert_eq!(
        (rejected.kind.as_str(), rejected.severity),
        ("row_rejected", events::Severity::Error)
    );
    // Ingest knows ids; the name was looked up.
    assert_eq!(rejected.subject_id, Some(world.source.service_id.0));
    assert_eq!(rejected.subject_name, "w/p");
    assert_eq!(rejected.workspace_id, Some(world.source.workspace_id));
    assert_eq!(rejected.details["seq"], "0");
    assert_eq!(rejected.details["epoch"], world.source.epoch.to_string());
}
