//! `TrafficService`: history, bodies and the live view.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use proxyplane_proto::v1::{self, traffic_service_server::TrafficService};
use proxyplane_spec::ExchangeId;
use tonic::{Request, Response, Status};

use super::{
    bodies::{Bodies, not_found},
    convert::{self, Fields},
    status::Refusal,
    streams::{Answers, Streams},
};
use crate::{
    live::Hub,
    store::{Db, exchanges, heads, websockets},
};

/// Serves what was captured.
pub(super) struct Traffic {
    db: Db,
    hub: Hub,
    bodies: Bodies,
    streams: Streams,
}

impl Traffic {
    pub(super) fn new(db: Db, hub: Hub, streams: Streams) -> Self {
        Self {
            bodies: Bodies::new(db.clone()),
            db,
            hub,
            streams,
        }
    }

    async fn exchange(&self, id: ExchangeId) -> Result<exchanges::ExchangeRow, Refusal> {
        exchanges::get(&self.db, id)
            .await?
            .ok_or_else(|| not_found("exchange", &id))
    }
}

#[tonic::async_trait]
impl TrafficService for Traffic {
    async fn list_exchanges(
        &self,
        request: Request<v1::ListExchangesRequest>,
    ) -> Result<Response<v1::ListExchangesResponse>, Status> {
        let (filter, page) = convert::traffic::exchanges(request.into_inner())?;
        let found = exchanges::list(&self.db, &filter, &page).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::ListExchangesResponse {
            exchanges: found.rows.into_iter().map(convert::traffic::exchange).collect(),
            next_page_token: found.next_page_token,
        }))
    }

    async fn get_exchange(
        &self,
        request: Request<v1::GetExchangeRequest>,
    ) -> Result<Response<v1::GetExchangeResponse>, Status> {
        let id = convert::id("id", &request.get_ref().id).map_err(Refusal::from)?;
        let row = self.exchange(id).await?;
        let heads = heads::get(&self.db, id)
            .await
            .map_err(Refusal::from)?
            .unwrap_or_default();
        Ok(Response::new(v1::GetExchangeResponse {
            exchange: Some(convert::traffic::detail(row, heads)),
        }))
    }

    type StreamBodyStream = Answers<v1::StreamBodyResponse>;

    async fn stream_body(
        &self,
        request: Request<v1::StreamBodyRequest>,
    ) -> Result<Response<Self::StreamBodyStream>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::default();
        let id = fields.take(convert::id("exchange_id", &request.exchange_id));
        let side = fields.take(convert::traffic::side(request.side()));
        let (id, side) = fields.finish(id.zip(side))?;
        let row = self.exchange(id).await?;
        let answer = |data| v1::StreamBodyResponse { data };
        if request.decode {
            let (codings, cut) = Bodies::codings(&row, side)?;
            if !codings.is_empty() {
                let decoded = self.bodies.decoded(id, side, codings, cut).await?;
                return Ok(self.streams.open(decoded.map_ok(answer))?);
            }
        }
        Ok(self.streams.open(self.bodies.raw(id, side).map_ok(answer))?)
    }

    async fn list_web_socket_connections(
        &self,
        request: Request<v1::ListWebSocketConnectionsRequest>,
    ) -> Result<Response<v1::ListWebSocketConnectionsResponse>, Status> {
        let (filter, page) = convert::traffic::websockets(request.get_ref())?;
        let found = websockets::list(&self.db, &filter, &page)
            .await
            .map_err(Refusal::from)?;
        Ok(Response::new(v1::ListWebSocketConnectionsResponse {
            connections: found.rows.into_iter().map(convert::traffic::websocket).collect(),
            next_page_token: found.next_page_token,
        }))
    }

    async fn get_web_socket_connection(
        &self,
        request: Request<v1::GetWebSocketConnectionRequest>,
    ) -> Result<Response<v1::GetWebSocketConnectionResponse>, Status> {
        let id = convert::id("exchange_id", &request.get_ref().exchange_id).map_err(Refusal::from)?;
        let found = websockets::get(&self.db, id).await.map_err(Refusal::from)?;
        let row = found.ok_or_else(|| not_found("websocket connection", &id))?;
        Ok(Response::new(v1::GetWebSocketConnectionResponse {
            connection: Some(convert::traffic::websocket(row)),
        }))
    }

    async fn list_web_socket_messages(
        &self,
        request: Request<v1::ListWebSocketMessagesRequest>,
    ) -> Result<Response<v1::ListWebSocketMessagesResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::default();
        let id = fields.take(convert::id("exchange_id", &request.exchange_id));
        let page = fields.take(convert::page(request.page_size, &request.page_token));
        let (id, page) = fields.finish(id.zip(page))?;
        websockets::get(&self.db, id)
            .await
            .map_err(Refusal::from)?
            .ok_or_else(|| not_found("websocket connection", &id))?;
        let found = websockets::messages(&self.db, id, &page).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::ListWebSocketMessagesResponse {
            messages: found.rows.into_iter().map(convert::traffic::message).collect(),
            next_page_token: found.next_page_token,
        }))
    }

    type StreamWebSocketMessageStream = Answers<v1::StreamWebSocketMessageResponse>;

    async fn stream_web_socket_message(
        &self,
        request: Request<v1::StreamWebSocketMessageRequest>,
    ) -> Result<Response<Self::StreamWebSocketMessageStream>, Status> {
        let v1::StreamWebSocketMessageRequest { exchange_id, sequence } = request.into_inner();
        let id = convert::id("exchange_id", &exchange_id).map_err(Refusal::from)?;
        let mut parts = Box::pin(self.bodies.message(id, sequence));
        // The first read tells whether there is such a message: a stream without answers would say nothing.
        let first = parts
            .try_next()
            .await?
            .ok_or_else(|| not_found("websocket message", &format_args!("{id} {sequence}")))?;
        let all = stream::iter([Ok(first)]).chain(parts);
        Ok(self
            .streams
            .open(all.map_ok(|data| v1::StreamWebSocketMessageResponse { data }))?)
    }

    type WatchTrafficStream = Answers<v1::WatchTrafficResponse>;

    async fn watch_traffic(
        &self,
        request: Request<v1::WatchTrafficRequest>,
    ) -> Result<Response<Self::WatchTrafficStream>, Status> {
        let filter = convert::traffic::watch(request.get_ref())?;
        let subscription = self.hub.subscribe(filter).await.map_err(Refusal::from)?;
        let events = stream::try_unfold(subscription, |mut subscription| async move {
            let event = subscription.next().await?;
            Ok(Some((convert::traffic::event(event), subscription)))
        });
        Ok(self.streams.open(events)?)
    }
}
