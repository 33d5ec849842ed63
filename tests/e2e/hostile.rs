//! Clients of the API, and would-be workers, that mean no good (hardening 38 and 39).

use std::{fs, thread};

use proxyplane_proto::{
    LINK_PROTOCOL,
    v1::{ListProxyServicesRequest, WatchTrafficRequest, WatchTrafficResponse, watch_traffic_response::Event},
    worker::{
        Hello, Identity, RecordsRequest, SessionRequest, session_request::Message as FromWorker,
        worker_link_service_client::WorkerLinkServiceClient,
    },
};
use proxyplane_tests::{Api, Curl, RawClient, RawOrigin, World, kernel::resident, reason};
use tonic::{Code, Streaming, transport::Endpoint};

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_costs_little_and_is_told_what_it_missed() {
    const CLIENTS: usize = 4;
    const EACH: usize = 500;
    let mut world = World::start();
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let server = world.server().pid();
    let workspace = world.workspace();
    let proxy = workspace.proxy("busy").start();
    let (slow, fast) = (Api::of(&world).await, Api::of(&world).await);
    let mut asleep = watch(&slow).await;
    let mut awake = watch(&fast).await;
    let reading = tokio::spawn(async move { Seen::until(&mut awake, CLIENTS * EACH).await });

    let before = resident(server);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = proxy.connect();
                for _ in 0..EACH {
                    client.send(format!(
                        "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
                        origin.http("/"),
                        origin.address()
                    ));
                    assert!(client.read_head().starts_with("HTTP/1.1 200"));
                    client.read_exactly(2);
                }
            });
        }
    });
    let awake = reading.await.unwrap();
    let grown = resident(server).saturating_sub(before);
    assert!(grown < 32 * 1024 * 1024, "{grown} bytes more");

    let asleep = Seen::until(&mut asleep, CLIENTS * EACH).await;
    assert_eq!((awake.stored, asleep.stored), (CLIENTS * EACH, CLIENTS * EACH));
    assert!(asleep.missed > 0, "{asleep:?}");
    assert_eq!(
        asleep.lossy + asleep.missed,
        awake.lossy + awake.missed,
        "every event is told or counted: {asleep:?} {awake:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_without_end_are_refused_and_the_server_goes_on() {
    let world = World::start();
    let (mut connections, mut held, mut refused) = (Vec::new(), Vec::new(), None);
    'all: for _ in 0..4 {
        let api = Api::of(&world).await;
        connections.push(api.clone());
        for _ in 0..200 {
            match api.traffic().watch_traffic(WatchTrafficRequest::default()).await {
                Ok(stream) => {
                    let mut stream = stream.into_inner();
                    // Many small frames that nobody reads end the whole connection, by the client's own limits.
                    stream.message().await.unwrap();
                    held.push(stream);
                }
                Err(status) => {
                    refused = Some(status);
                    break 'all;
                }
            }
        }
    }
    let refused = refused.expect("there is an end to streams");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "TOO_MANY_REQUESTS")
    );
    let api = Api::of(&world).await;
    let list = ListProxyServicesRequest::default();
    assert!(
        api.proxies().list_proxy_services(list).await.is_ok(),
        "calls are answered"
    );
    drop(held);
    while let Err(refused) = api.traffic().watch_traffic(WatchTrafficRequest::default()).await {
        assert_eq!(reason(&refused), "TOO_MANY_REQUESTS", "{refused:?}");
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_message_that_claims_4_gib_is_refused_unread() {
    let world = World::shared();
    let body = world.directory().join("claims-4-gib");
    fs::write(&body, [0, 0xFF, 0xFF, 0xFF, 0xFF, b'x']).unwrap();
    let url = format!("{}/proxyplane.v1.WorkspaceService/ListWorkspaces", world.api());
    for (version, content_type) in [
        ("--http2-prior-knowledge", "application/grpc"),
        ("--http1.1", "application/grpc-web+proto"),
    ] {
        let answer = Curl::direct()
            .with([version, "-X", "POST", "-H", "TE: trailers"])
            .with(["-H", &format!("Content-Type: {content_type}")])
            .with(["-H", &format!("Authorization: Bearer {}", world.token())])
            .with(["--data-binary", &format!("@{}", body.display())])
            .get(&url);
        let told = format!("{}{}", answer.head, answer.text());
        let refused = ["grpc-status: 11", "grpc-status:11", "grpc-status: 8", "grpc-status:8"];
        assert!(refused.iter().any(|status| told.contains(status)), "{version}: {told}");
    }
    assert_eq!(world.proxyctl(["proxy", "list"]).code, 0);
}

#[test]
fn garbage_after_the_preface_ends_that_connection_only() {
    let world = World::shared();
    for garbage in [
        b"GET / HTTP/1.1\r\n\r\n".repeat(10),
        vec![0xFF; 70_000],
        // A frame of 16 MiB of an unknown type, on a stream that was never opened.
        [0xFF, 0xFF, 0xFF, 0x77, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF].repeat(10),
    ] {
        let mut client = RawClient::connect(world.listen());
        client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        // It may be closed before everything is sent.
        let _ = client.try_send(&garbage);
        client.read_to_end();
        assert!(client.is_closed());
    }
    assert_eq!(world.proxyctl(["proxy", "list"]).code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_shows_anothers_identity_is_refused() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("impersonated").start();
    let socket = workspace.world().data_dir().join("run/link.sock");
    let channel = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
    let mut link = WorkerLinkServiceClient::new(channel.connect().await.unwrap());

    // The epoch of the real worker, as its run record tells; its nonce is told to nobody.
    let identity = Identity {
        epoch: epoch_of(&proxy).as_bytes().to_vec().into(),
        nonce: vec![7; 32].into(),
        service_id: proxy.id().parse::<uuid::Uuid>().unwrap().as_bytes().to_vec().into(),
    };
    let hello = Hello {
        identity: Some(identity.clone()),
        protocol: LINK_PROTOCOL,
        pid: proxy.worker(),
        ..Hello::default()
    };
    let session = SessionRequest {
        message: Some(FromWorker::Hello(hello)),
    };
    let refused = link.session(tokio_stream::once(session)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    let records = RecordsRequest {
        identity: Some(identity),
        ..RecordsRequest::default()
    };
    let refused = link.records(tokio_stream::once(records)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");

    let now = proxy.update(["--capture-limit", "5"]);
    assert_eq!(now["applied_revision"], now["revision"], "the real one is still heard");
}

#[derive(Debug, Default)]
struct Seen {
    stored: usize,
    lossy: u64,
    missed: u64,
}

impl Seen {
    /// Reads until so many exchanges were told as stored.
    async fn until(stream: &mut Streaming<WatchTrafficResponse>, stored: usize) -> Self {
        let mut seen = Self::default();
        while seen.stored < stored {
            match stream.message().await.unwrap().unwrap().event.unwrap() {
                Event::Stored(_) => seen.stored += 1,
                Event::Missed(count) => seen.missed += count,
                Event::Subscribed(_) => {}
                _ => seen.lossy += 1,
            }
        }
        seen
    }
}

async fn watch(api: &Api) -> Streaming<WatchTrafficResponse> {
    let watch = api.traffic().watch_traffic(WatchTrafficRequest::default()).await;
    let mut stream = watch.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert!(matches!(first.event, Some(Event::Subscribed(_))));
    stream
}

fn epoch_of(proxy: &proxyplane_tests::Proxy<'_>) -> uuid::Uuid {
    let run = proxy.world().data_dir().join("run");
    let records = fs::read_dir(&run).unwrap().flatten().map(|entry| entry.path());
    let record = records
        .filter(|path| path.is_file())
        .find(|path| path.to_string_lossy().contains(proxy.id()))
        .expect("a running worker has a run record");
    let record: serde_json::Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    record["epoch"].as_str().unwrap().parse().unwrap()
}
