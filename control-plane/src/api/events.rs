//! `EventService`: the event log.

use futures_util::stream;
use proxyplane_proto::v1::{self, event_service_server::EventService};
use tonic::{Request, Response, Status};

use super::{
    convert,
    status::Refusal,
    streams::{Answers, Streams},
};
use crate::{
    events::Feed,
    store::{Db, events},
};

/// Serves what happened.
pub(super) struct EventLog {
    db: Db,
    feed: Feed,
    streams: Streams,
}

impl EventLog {
    pub(super) fn new(db: Db, feed: Feed, streams: Streams) -> Self {
        Self { db, feed, streams }
    }
}

#[tonic::async_trait]
impl EventService for EventLog {
    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let (filter, since, page) = convert::events::list(request.into_inner())?;
        let found = events::list(&self.db, &filter, since, &page)
            .await
            .map_err(Refusal::from)?;
        Ok(Response::new(v1::ListEventsResponse {
            events: found.rows.into_iter().map(convert::events::event).collect(),
            next_page_token: found.next_page_token,
        }))
    }

    type WatchEventsStream = Answers<v1::WatchEventsResponse>;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let (filter, after) = convert::events::watch(request.into_inner())?;
        let subscription = self.feed.subscribe(filter, after);
        let events = stream::try_unfold(subscription, |mut subscription| async move {
            let next = subscription.next().await?;
            Ok(Some((convert::events::watched(next), subscription)))
        });
        Ok(self.streams.open(events)?)
    }
}
