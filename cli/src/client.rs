//! The connection to the server.

use std::time::Duration;

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

use crate::{
    error::{Error, root_cause},
    settings::Settings,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An open stream notices within the sum of both that the server's machine is gone.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer: a full page of rows whose URLs are as long as heads may be.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// A channel whose calls carry the token.
pub(crate) type Service = InterceptedService<Channel, Bearer>;

/// The server's services, each call with the token.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    bearer: Bearer,
}

/// Adds the token to each call.
#[derive(Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl Client {
    /// Connects; fails if nobody answers.
    pub(crate) async fn connect(settings: &Settings) -> Result<Self, Error> {
        let bearer = match &settings.token {
            Some(token) => Some(
                format!("Bearer {token}")
                    .parse()
                    .map_err(|_| Error::Usage("the token has characters that no token has".into()))?,
            ),
            None => None,
        };
        let unreachable = |error: tonic::transport::Error| Error::Unreachable {
            server: settings.server.clone(),
            cause: root_cause(&error),
        };
        let channel = Endpoint::from_shared(settings.server.clone())
            .map_err(|_| Error::Usage(format!("--server: '{}' is no URL", settings.server)))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .connect()
            .await
            .map_err(unreachable)?;
        Ok(Self {
            channel,
            bearer: Bearer(bearer),
        })
    }

    fn service(&self) -> Service {
        InterceptedService::new(self.channel.clone(), self.bearer.clone())
    }

    pub(crate) fn workspaces(&self) -> WorkspaceServiceClient<Service> {
        WorkspaceServiceClient::new(self.service()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn proxies(&self) -> ProxyLifecycleServiceClient<Service> {
        ProxyLifecycleServiceClient::new(self.service()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn traffic(&self) -> TrafficServiceClient<Service> {
        TrafficServiceClient::new(self.service()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn events(&self) -> EventServiceClient<Service> {
        EventServiceClient::new(self.service()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn system(&self) -> SystemServiceClient<Service> {
        SystemServiceClient::new(self.service()).max_decoding_message_size(MAX_ANSWER)
    }
}
