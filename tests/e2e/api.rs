//! The gRPC API, without `proxyctl`.

use proxyplane_proto::{
    ERROR_DOMAIN,
    v1::{
        CreateWorkspaceRequest, ListWorkspacesRequest, proxy_lifecycle_service_client::ProxyLifecycleServiceClient,
        workspace_service_client::WorkspaceServiceClient,
    },
};
use proxyplane_tests::World;
use tonic::{Code, Request, transport::Channel};
use tonic_types::StatusExt as _;

async fn channel(world: &World) -> Channel {
    Channel::from_shared(world.api())
        .expect("it is a URL")
        .connect()
        .await
        .expect("the server answers")
}

fn with_token<T>(world: &World, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(
        "authorization",
        format!("Bearer {}", world.token()).parse().expect("a token is ASCII"),
    );
    request
}

#[tokio::test]
async fn without_the_token_nothing_is_answered() {
    let world = World::shared();
    let mut client = WorkspaceServiceClient::new(channel(world).await);
    let refused = client
        .list_workspaces(ListWorkspacesRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(
        (info.reason.as_str(), info.domain.as_str()),
        ("UNAUTHENTICATED", ERROR_DOMAIN)
    );
    assert!(
        client
            .list_workspaces(with_token(world, ListWorkspacesRequest::default()))
            .await
            .is_ok()
    );

    let mut proxies = ProxyLifecycleServiceClient::new(channel(world).await);
    let refused = proxies
        .watch_proxy_services(proxyplane_proto::v1::WatchProxyServicesRequest::default())
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated, "streams neither");
}

#[tokio::test]
async fn every_wrong_field_is_named() {
    let world = World::shared();
    let mut client = WorkspaceServiceClient::new(channel(world).await);
    let wrong = CreateWorkspaceRequest {
        code: "Not A Code".into(),
        title: "x".repeat(201),
        description: "\0".into(),
    };
    let refused = client.create_workspace(with_token(world, wrong)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let violations = refused.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["code", "title", "description"]);
}
