//! The gRPC API, without `proxyctl`.

use std::collections::HashMap;

use proxyplane_proto::v1::{
    event_service_client::EventServiceClient, proxy_lifecycle_service_client::ProxyLifecycleServiceClient,
    system_service_client::SystemServiceClient, traffic_service_client::TrafficServiceClient,
    workspace_service_client::WorkspaceServiceClient,
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use crate::World;

/// The smallest window of HTTP/2: what a client that does not read takes at most.
const SMALLEST_WINDOW: u32 = 65_535;

/// A channel that carries the token.
pub type Authorized = InterceptedService<Channel, Bearer>;

/// A connection of its own to a world's API.
#[derive(Clone)]
pub struct Api {
    channel: Channel,
    bearer: Bearer,
}

/// Adds the token to every call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

impl Api {
    /// Connects.
    pub async fn of(world: &World) -> Self {
        let endpoint = Endpoint::from_shared(world.api()).expect("it is a URL");
        let endpoint = endpoint
            .initial_stream_window_size(SMALLEST_WINDOW)
            .initial_connection_window_size(SMALLEST_WINDOW);
        let bearer = format!("Bearer {}", world.token());
        Self {
            channel: endpoint.connect().await.expect("the server answers"),
            bearer: Bearer(bearer.parse().expect("a token is ASCII")),
        }
    }

    /// The connection, without the token.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The connection, with the token.
    pub fn authorized(&self) -> Authorized {
        InterceptedService::new(self.channel(), self.bearer.clone())
    }

    /// Workspaces.
    pub fn workspaces(&self) -> WorkspaceServiceClient<Authorized> {
        WorkspaceServiceClient::new(self.authorized())
    }

    /// Proxies.
    pub fn proxies(&self) -> ProxyLifecycleServiceClient<Authorized> {
        ProxyLifecycleServiceClient::new(self.authorized())
    }

    /// What was captured.
    pub fn traffic(&self) -> TrafficServiceClient<Authorized> {
        TrafficServiceClient::new(self.authorized())
    }

    /// What happened.
    pub fn events(&self) -> EventServiceClient<Authorized> {
        EventServiceClient::new(self.authorized())
    }

    /// The server itself.
    pub fn system(&self) -> SystemServiceClient<Authorized> {
        SystemServiceClient::new(self.authorized())
    }
}

/// The reason in an error; empty if it has none.
pub fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default()
}

/// The metadata beside the reason.
pub fn metadata(status: &Status) -> HashMap<String, String> {
    status
        .get_details_error_info()
        .map(|info| info.metadata)
        .unwrap_or_default()
}

/// Paths of the fields that an error blames.
pub fn blamed(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().map(|request| request.field_violations);
    let violations = violations.unwrap_or_default().into_iter();
    violations.map(|violation| violation.field).collect()
}
