//! The public API: gRPC, grpc-web and plain HTTP on one port.
//!
//! Handlers are thin: decode → one call → encode. `api/status.rs` is the only place that builds a `tonic::Status`.

mod auth;
mod bodies;
mod convert;
mod deadline;
mod decode;
mod events;
mod front;
mod gate;
mod grpc_health;
mod http;
mod origin;
mod proxies;
mod reasoned;
mod server;
mod status;
mod streams;
mod system;
mod traffic;
mod workspaces;

use std::sync::Arc;

pub use auth::Token;
use proxyplane_proto::{
    PUBLIC_DESCRIPTORS,
    v1::{
        event_service_server::EventServiceServer,
        proxy_lifecycle_service_server::ProxyLifecycleServiceServer,
        system_service_server::{self, SystemServiceServer},
        traffic_service_server::TrafficServiceServer,
        workspace_service_server::WorkspaceServiceServer,
    },
};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic_reflection::server::Builder as Reflection;
use uuid::Uuid;

use crate::{
    config::WebOrigin, events::Feed, health::Health, lifecycle::Lifecycle, live::Hub, pki::Pki, services::Services,
    store::Db, upgrade::Upgrade,
};

/// What the API is served from, whether there is a database or not.
#[derive(Clone)]
pub struct Api {
    /// The installation's CA.
    pub pki: Arc<Pki>,
    /// For `/ready` and its kin.
    pub health: Health,
    /// What callers must show.
    pub token: Token,
    /// Pages of others that may call.
    pub allowed_origins: Vec<WebOrigin>,
    /// Of this process.
    pub upgrade: Upgrade,
    /// This run of the control plane.
    pub run: Uuid,
}

/// What calls need that are about more than the server itself.
pub struct Resources {
    /// For what was captured.
    pub db: Db,
    /// For what happens.
    pub hub: Hub,
    /// For the event log.
    pub feed: Feed,
    /// Workspaces and ProxyServices.
    pub services: Services,
}

/// Served, and what needs the database is waited for.
pub struct Opening {
    early: Routes,
    key: gate::Key,
    streams: streams::Streams,
}

/// What is answered from the beginning: the server's own services.
const EARLY: &[&str] = &[
    system_service_server::SERVICE_NAME,
    tonic_health::pb::health_server::SERVICE_NAME,
    tonic_reflection::pb::v1::server_reflection_server::SERVICE_NAME,
    tonic_reflection::pb::v1alpha::server_reflection_server::SERVICE_NAME,
];

impl Api {
    /// Serves on `listener` in the background, until the soft token; what is open then ends, or is cut by the hard one.
    pub async fn serve(self, listener: TcpListener, lifecycle: &Lifecycle) -> std::io::Result<Opening> {
        let guard = origin::Guard::new(listener.local_addr()?, self.allowed_origins.clone());
        let (token, health) = (self.token.clone(), self.health.clone());
        let early = self.routes(lifecycle).await?;
        let (gate, key) = gate::Gate::new(early.clone().prepare(), EARLY, lifecycle.soft().clone());
        let front = front::Front::new(guard, token, health, gate);
        lifecycle.spawn(server::serve(listener, front, lifecycle.clone()));
        let streams = streams::Streams::new(lifecycle.soft().clone());
        Ok(Opening { early, key, streams })
    }

    async fn routes(self, lifecycle: &Lifecycle) -> std::io::Result<Routes> {
        let reflection = || {
            Reflection::configure()
                .register_encoded_file_descriptor_set(PUBLIC_DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let health = grpc_health::serve(self.health.clone(), lifecycle).await;
        let system = system::System::new(self.health, self.pki, self.upgrade, self.run);
        Ok(Routes::new(SystemServiceServer::new(system))
            .add_service(reflection().build_v1().map_err(std::io::Error::other)?)
            .add_service(reflection().build_v1alpha().map_err(std::io::Error::other)?)
            .add_service(health))
    }
}

impl Opening {
    /// From now on every call is answered.
    pub fn open(self, resources: Resources) {
        let Resources {
            db,
            hub,
            feed,
            services,
        } = resources;
        let streams = self.streams;
        let events = events::EventLog::new(db.clone(), feed, streams.clone());
        let proxies = proxies::Proxies::new(services.clone(), streams.clone());
        let all = self
            .early
            .add_service(WorkspaceServiceServer::new(workspaces::Workspaces::new(services)))
            .add_service(ProxyLifecycleServiceServer::new(proxies))
            .add_service(TrafficServiceServer::new(traffic::Traffic::new(db, hub, streams)))
            .add_service(EventServiceServer::new(events));
        self.key.open(all.prepare());
    }
}
