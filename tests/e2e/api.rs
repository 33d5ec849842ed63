//! The gRPC API, without `proxyctl`: what it refuses and how it says so.

use std::net::TcpListener;

use prost::Message as _;
use prost_types::{FieldMask, FileDescriptorProto};
use proxyplane_proto::{
    ERROR_DOMAIN,
    v1::{
        CaptureSpec, CreateProxyServiceRequest, CreateWorkspaceRequest, DeleteProxyServiceRequest,
        DeleteWorkspaceRequest, GetProxyServiceRequest, ListWorkspacesRequest, ProxyService, StartProxyServiceRequest,
        UpdateProxyServiceRequest, WatchProxyServicesRequest,
        proxy_lifecycle_service_client::ProxyLifecycleServiceClient, workspace_service_client::WorkspaceServiceClient,
    },
};
use proxyplane_tests::{Api, Proxy, World, blamed, free_port, metadata, nginx, reason};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tonic_types::StatusExt as _;

/// A PEM frame around bytes that are no certificate.
const NOT_A_CA: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

#[tokio::test]
async fn without_the_token_nothing_is_answered() {
    let world = World::shared();
    let api = Api::of(world).await;
    let mut client = WorkspaceServiceClient::new(api.channel());
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
        api.workspaces()
            .list_workspaces(ListWorkspacesRequest::default())
            .await
            .is_ok()
    );

    let mut proxies = ProxyLifecycleServiceClient::new(api.channel());
    let refused = proxies.watch_proxy_services(WatchProxyServicesRequest::default()).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated, "streams neither");
}

#[tokio::test]
async fn every_wrong_field_is_named() {
    let wrong = CreateWorkspaceRequest {
        code: "Not A Code".into(),
        title: "x".repeat(201),
        description: "\0".into(),
    };
    let mut client = Api::of(World::shared()).await.workspaces();
    let refused = client.create_workspace(wrong).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(blamed(&refused), ["code", "title", "description"]);
}

#[tokio::test]
async fn a_malformed_id_hides_nothing_else_that_is_wrong() {
    let mut proxies = Api::of(World::shared()).await.proxies();
    let wrong = CreateProxyServiceRequest {
        workspace_id: "default".into(),
        name: "a/b".into(),
        port: 70_000,
        ..CreateProxyServiceRequest::default()
    };
    let refused = proxies.create_proxy_service(wrong).await.unwrap_err();
    assert_eq!(blamed(&refused), ["workspace_id", "name", "port"]);
    let wrong = UpdateProxyServiceRequest {
        proxy_service: Some(ProxyService {
            id: "capture".into(),
            port: 70_000,
            ..ProxyService::default()
        }),
        update_mask: Some(FieldMask {
            paths: vec!["port".into(), "nothing".into()],
        }),
        ..UpdateProxyServiceRequest::default()
    };
    let refused = proxies.update_proxy_service(wrong).await.unwrap_err();
    assert_eq!(
        blamed(&refused),
        ["proxy_service.id", "update_mask", "proxy_service.port"]
    );
}

#[tokio::test]
async fn what_the_grpc_server_itself_refuses_has_a_reason_too() {
    let api = Api::of(World::shared()).await;
    let mut unknown = tonic::client::Grpc::new(api.authorized());
    unknown.ready().await.unwrap();
    let refused = unknown
        .unary(
            tonic::Request::new(ListWorkspacesRequest::default()),
            "/proxyplane.v1.WorkspaceService/Paint".parse().unwrap(),
            tonic_prost::ProstCodec::<_, ListWorkspacesRequest>::default(),
        )
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unimplemented, "UNIMPLEMENTED")
    );
    let long = CreateWorkspaceRequest {
        description: "x".repeat(5 * 1024 * 1024),
        ..CreateWorkspaceRequest::default()
    };
    let refused = api.workspaces().create_workspace(long).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::OutOfRange, "OUT_OF_RANGE")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mask_names_what_changes_and_nothing_else() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("masked").create();
    let api = Api::of(workspace.world()).await;
    for paths in [
        vec![],
        vec!["enabled"],
        vec!["verbose", "status.pid"],
        vec!["capture.nothing"],
    ] {
        let update = change(&proxy, ProxyService::default(), &paths);
        let refused = api.proxies().update_proxy_service(update).await.unwrap_err();
        assert_eq!(
            (refused.code(), blamed(&refused)),
            (Code::InvalidArgument, vec!["update_mask".to_owned()]),
            "{paths:?}"
        );
    }
    let values = ProxyService {
        name: "not taken over".into(),
        verbose: false,
        ..ProxyService::default()
    };
    let update = change(&proxy, values, &["verbose"]);
    let changed = api.proxies().update_proxy_service(update).await.unwrap().into_inner();
    let changed = changed.proxy_service.unwrap();
    assert_eq!((changed.name.as_str(), changed.verbose), ("masked", false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_based_on_an_old_version_is_refused() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("edited").start();
    let mut proxies = Api::of(workspace.world()).await.proxies();
    let read = current(&mut proxies, &proxy).await;
    let mut first = change(&proxy, ProxyService::default(), &["verbose"]);
    first.etag.clone_from(&read.etag);
    let late = first.clone();
    assert!(proxies.update_proxy_service(first).await.is_ok());
    let refused = proxies.update_proxy_service(late).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Aborted, "ETAG_MISMATCH")
    );

    let delete = DeleteProxyServiceRequest {
        id: proxy.id().into(),
        etag: read.etag.clone(),
        purge: false,
        discard: false,
        drain_timeout: None,
    };
    let refused = proxies.delete_proxy_service(delete).await.unwrap_err();
    assert_eq!(reason(&refused), "ETAG_MISMATCH");
    assert_eq!(proxy.state(), "running", "what is not deleted is not stopped either");
}

#[tokio::test(flavor = "multi_thread")]
async fn validation_alone_answers_as_if_done_and_changes_nothing() {
    let workspace = World::shared().workspace();
    let (running, stopped) = (workspace.proxy("running").start(), workspace.proxy("stopped").create());
    let mut proxies = Api::of(workspace.world()).await.proxies();
    for proxy in [&running, &stopped] {
        let values = ProxyService {
            name: "renamed".into(),
            ..ProxyService::default()
        };
        let mut update = change(proxy, values, &["name"]);
        update.validate_only = true;
        let answer = proxies.update_proxy_service(update).await.unwrap().into_inner();
        assert_eq!(answer.proxy_service.unwrap().name, "renamed");
        let now = current(&mut proxies, proxy).await;
        assert_eq!((now.name.as_str(), now.revision), (proxy.name(), 1));
    }
    let new = CreateProxyServiceRequest {
        workspace_id: current(&mut proxies, &running).await.workspace_id,
        name: "running".into(),
        validate_only: true,
        ..CreateProxyServiceRequest::default()
    };
    let refused = proxies.create_proxy_service(new.clone()).await.unwrap_err();
    assert_eq!(
        (reason(&refused).as_str(), metadata(&refused)["holder_id"].as_str()),
        ("NAME_TAKEN", running.id())
    );
    let fresh = CreateProxyServiceRequest {
        name: "fresh".into(),
        ..new
    };
    assert!(proxies.create_proxy_service(fresh).await.is_ok());
    assert_eq!(workspace.proxies().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_worker_refuses_is_blamed_on_its_field_and_nothing_changes() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("guarded").start();
    let mut proxies = Api::of(workspace.world()).await.proxies();
    let before = current(&mut proxies, &proxy).await;
    let capture = CaptureSpec {
        extra_ca_pem: NOT_A_CA.into(),
        ..CaptureSpec::default()
    };
    let values = ProxyService {
        capture: Some(capture.clone()),
        ..ProxyService::default()
    };
    let update = change(&proxy, values, &["capture.extra_ca_pem"]);
    let refused = proxies.update_proxy_service(update.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), "WORKER_REJECTED_CONFIG", "{refused:?}");
    assert_eq!(blamed(&refused), ["proxy_service.capture.extra_ca_pem"]);
    let after = current(&mut proxies, &proxy).await;
    assert!(after.status.as_ref().unwrap().rejected_at.is_some());
    assert_eq!(
        (after.capture, after.etag, after.status.unwrap().pid),
        (before.capture, before.etag, before.status.unwrap().pid)
    );

    // Without a worker the server judges in its place.
    proxy.stop();
    let refused = proxies.update_proxy_service(update).await.unwrap_err();
    assert_eq!(
        (reason(&refused).as_str(), blamed(&refused)),
        (
            "INVALID_ARGUMENT",
            vec!["proxy_service.capture.extra_ca_pem".to_owned()]
        )
    );
    let new = CreateProxyServiceRequest {
        workspace_id: after.workspace_id,
        name: "never".into(),
        capture: Some(capture),
        start: true,
        ..CreateProxyServiceRequest::default()
    };
    let refused = proxies.create_proxy_service(new).await.unwrap_err();
    assert_eq!(blamed(&refused), ["capture.extra_ca_pem"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_port_is_tried_out_without_listening_there() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("tentative").start();
    let mut proxies = Api::of(workspace.world()).await.proxies();
    let to = |port: u16| {
        let values = ProxyService {
            host: "0.0.0.0".into(),
            port: port.into(),
            ..ProxyService::default()
        };
        UpdateProxyServiceRequest {
            validate_only: true,
            ..change(&proxy, values, &["host", "port"])
        }
    };
    let (present, free, taken) = (proxy.port(), free_port(), TcpListener::bind("127.0.0.1:0").unwrap());
    for port in [present, free] {
        let answer = proxies.update_proxy_service(to(port)).await.unwrap().into_inner();
        assert_eq!(answer.proxy_service.unwrap().port, u32::from(port));
        proxy.curl().get(&nginx().http("/hello"));
    }
    let refused = proxies.update_proxy_service(to(taken.local_addr().unwrap().port()));
    assert_eq!(reason(&refused.await.unwrap_err()), "PORT_IN_USE");
    assert_eq!(proxy.get()["listening"], serde_json::json!([proxy.address()]));
    drop(TcpListener::bind(("127.0.0.1", free)).expect("nobody listens there"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_names_its_holder_for_programs() {
    let world = World::shared();
    let (workspace, other) = (world.workspace(), world.workspace());
    let (holder, late) = (workspace.proxy("holder").create(), other.proxy("late").create());
    let mut proxies = Api::of(world).await.proxies();
    let at = |port: u16| ProxyService {
        port: port.into(),
        ..ProxyService::default()
    };
    let update = change(&late, at(holder.port()), &["port"]);
    let refused = proxies.update_proxy_service(update).await.unwrap_err();
    assert_eq!(reason(&refused), "PORT_IN_USE");
    let told = metadata(&refused);
    assert_eq!(
        (told["holder_kind"].as_str(), told["holder_id"].as_str()),
        ("proxy", holder.id())
    );
    assert_eq!(
        (told["holder_name"].as_str(), told["holder_workspace"].as_str()),
        ("holder", workspace.code())
    );

    let foreign = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let update = change(&late, at(foreign.local_addr().unwrap().port()), &["port"]);
    let refused = proxies.update_proxy_service(update).await.unwrap_err();
    let told = metadata(&refused);
    assert_eq!(
        (told["holder_kind"].as_str(), told["holder_pid"].as_str()),
        ("process", std::process::id().to_string().as_str())
    );
    assert_eq!(late.get()["port"], late.port());
}

#[tokio::test]
async fn what_does_not_exist_is_not_found_and_what_is_no_id_is_invalid() {
    let api = Api::of(World::shared()).await;
    let unknown = || "01234567-89ab-7def-8123-456789abcdef".to_owned();
    let start = StartProxyServiceRequest { id: unknown() };
    let refused = api.proxies().start_proxy_service(start).await.unwrap_err();
    assert_eq!(
        (refused.code(), metadata(&refused)["kind"].as_str()),
        (Code::NotFound, "proxy")
    );
    let delete = DeleteWorkspaceRequest {
        id: unknown(),
        force: true,
        ..DeleteWorkspaceRequest::default()
    };
    let refused = api.workspaces().delete_workspace(delete).await.unwrap_err();
    assert_eq!(
        (refused.code(), metadata(&refused)["kind"].as_str()),
        (Code::NotFound, "workspace")
    );
    let start = StartProxyServiceRequest { id: "../../etc".into() };
    let refused = api.proxies().start_proxy_service(start).await.unwrap_err();
    assert_eq!(
        (refused.code(), blamed(&refused)),
        (Code::InvalidArgument, vec!["id".to_owned()])
    );
}

#[tokio::test]
async fn a_client_that_knows_nothing_learns_everything_by_reflection() {
    let api = Api::of(World::shared()).await;
    let ask = |question| {
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(question),
        };
        async {
            let mut client = ServerReflectionClient::new(api.authorized());
            let requests = tokio_stream::once(request);
            let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
            answers.message().await.unwrap().unwrap().message_response.unwrap()
        }
    };
    let MessageResponse::ListServicesResponse(services) = ask(MessageRequest::ListServices(String::new())).await else {
        panic!("not the answer to the question");
    };
    let names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    for name in [
        "proxyplane.v1.WorkspaceService",
        "proxyplane.v1.ProxyLifecycleService",
        "proxyplane.v1.TrafficService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
    }
    assert!(names.iter().all(|name| !name.contains("worker")), "{names:?}");

    let symbol = MessageRequest::FileContainingSymbol("proxyplane.v1.TrafficService".into());
    let MessageResponse::FileDescriptorResponse(files) = ask(symbol).await else {
        panic!("not the answer to the question");
    };
    let files: Vec<_> = files
        .file_descriptor_proto
        .iter()
        .map(|file| FileDescriptorProto::decode(file.as_slice()).unwrap())
        .collect();
    let watches = |file: &FileDescriptorProto| {
        file.service
            .iter()
            .flat_map(|service| &service.method)
            .any(|method| method.name() == "WatchTraffic")
    };
    assert!(files.iter().any(watches));
}

#[tokio::test]
async fn health_needs_no_token() {
    let mut client = HealthClient::new(Api::of(World::shared()).await.channel());
    for service in ["", "proxyplane.v1.TrafficService"] {
        let check = HealthCheckRequest {
            service: service.into(),
        };
        assert!(client.check(check).await.is_ok(), "'{service}'");
    }
    let unknown = HealthCheckRequest {
        service: "nothing".into(),
    };
    assert_eq!(client.check(unknown).await.unwrap_err().code(), Code::NotFound);
}

type Proxies = ProxyLifecycleServiceClient<proxyplane_tests::Authorized>;

async fn current(proxies: &mut Proxies, proxy: &Proxy<'_>) -> ProxyService {
    let get = GetProxyServiceRequest { id: proxy.id().into() };
    let answer = proxies.get_proxy_service(get).await.unwrap().into_inner();
    answer.proxy_service.unwrap()
}

fn change(proxy: &Proxy<'_>, values: ProxyService, paths: &[&str]) -> UpdateProxyServiceRequest {
    UpdateProxyServiceRequest {
        proxy_service: Some(ProxyService {
            id: proxy.id().into(),
            ..values
        }),
        update_mask: Some(FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }),
        ..UpdateProxyServiceRequest::default()
    }
}
