//! `grpc.health.v1`: the same as `/ready`, for gRPC's own probes.

use std::time::Duration;

use proxyplane_proto::v1::{
    proxy_lifecycle_service_server as proxies, system_service_server as system, traffic_service_server as traffic,
    workspace_service_server as workspaces,
};
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health as HealthApi, HealthServer},
    server::{HealthReporter, health_reporter},
};

use crate::{health::Health, lifecycle::Lifecycle};

/// Between looks at the parts, for whoever watches.
const LOOK: Duration = Duration::from_secs(5);
/// Until everything has started.
const LOOK_AT_START: Duration = Duration::from_millis(100);

/// The whole server, and each service of it.
const NAMES: [&str; 5] = [
    "",
    workspaces::SERVICE_NAME,
    proxies::SERVICE_NAME,
    traffic::SERVICE_NAME,
    system::SERVICE_NAME,
];

/// The service, told of readiness in the background; not serving from the soft token on.
pub(super) async fn serve(health: Health, lifecycle: &Lifecycle) -> HealthServer<impl HealthApi> {
    let (reporter, server) = health_reporter();
    tell(&reporter, false).await;
    let soft = lifecycle.soft().clone();
    lifecycle.spawn(async move {
        loop {
            let ready = health.report().await.ready;
            tell(&reporter, ready).await;
            let pause = if ready {
                LOOK
            } else {
                LOOK_AT_START.max(LOOK * u32::from(health.has_started()))
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = soft.cancelled() => break,
            }
        }
        tell(&reporter, false).await;
    });
    server
}

async fn tell(reporter: &HealthReporter, ready: bool) {
    let status = if ready {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    for name in NAMES {
        reporter.set_service_status(name, status).await;
    }
}
