//! Log lines become events.

use tracing_subscriber::layer::SubscriberExt as _;

use super::{
    super::{event::TARGET, layer},
    *,
};

/// What `log` logs, as events.
async fn events_of(log: impl FnOnce()) -> Vec<EventRow> {
    let db = testing::database().await;
    let (events, writer) = channel();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer(events)), log);
    writer.start(db.clone()).finish(PATIENCE).await;
    stored(&db).await
}

#[tokio::test]
async fn a_warning_becomes_an_event_with_its_fields() {
    let id = ServiceId::new();
    let rows = events_of(|| {
        let error = std::io::Error::other("no room");
        tracing::warn!(service = %id, %error, attempt = 3, "a log could not be cut");
        tracing::error!(target: "proxyplane::ingest::committer", "it broke");
    })
    .await;
    let [cut, broke] = rows.as_slice() else {
        panic!("{rows:?}")
    };
    assert_eq!((cut.kind.as_str(), cut.severity), ("logged", Severity::Warning));
    assert_eq!(cut.message, "a log could not be cut: no room");
    assert_eq!(cut.subject_id, Some(id.0));
    assert_eq!((cut.details.len(), cut.details["attempt"].as_str()), (1, "3"));
    assert_eq!(cut.source, "events", "the module that logged it");
    assert_eq!((broke.severity, broke.source.as_str()), (Severity::Error, "ingest"));
}

#[tokio::test]
async fn what_is_not_ours_not_bad_or_of_the_log_itself_becomes_none() {
    let rows = events_of(|| {
        tracing::info!("all is well");
        tracing::error!(target: "sqlx::query", "slow");
        tracing::error!(target: "proxyplaned", "somebody else");
        tracing::error!(target: TARGET, "events cannot be stored");
        let (events, _writer) = channel();
        events.breaker_opened(Subject::System, "raised elsewhere, logged here");
    })
    .await;
    assert_eq!(rows, []);
}
