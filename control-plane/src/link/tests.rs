//! The link as a worker sees it: a gRPC client on the unix socket.

use bytes::Bytes;
use proxyplane_proto::worker::{
    self as wire, Applied, Hello, Identity, Ready, RecordsRequest, Rejected, SessionRequest, SessionResponse, Staged,
    Stats, session_request::Message as Up, session_response::Message as Down,
    worker_link_service_client::WorkerLinkServiceClient,
};
use proxyplane_spec::{ServiceId, WorkspaceId, monotonic_us};
use sha2::Digest as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};

use super::*;
use crate::{
    ingest::{Ingest, Room},
    lifecycle::Lifecycle,
    store::Db,
};

/// A link that is served, without a database behind its ingest.
pub(super) struct Served {
    pub(super) link: Link,
    dir: tempfile::TempDir,
    stop: CancellationToken,
    _lifecycle: Lifecycle,
}

impl Served {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (stop, lifecycle) = (CancellationToken::new(), Lifecycle::new());
        let db = Db::connect_lazy("postgres://nobody@127.0.0.1:1/none").unwrap();
        let hub = Hub::new(db.clone());
        let ingest = Ingest::start(
            db,
            hub.clone(),
            crate::events::channel().0,
            None,
            Room::unknown(),
            &lifecycle,
        );
        let link = Link::new(
            Arc::new(Pki::load_or_create(dir.path()).unwrap()),
            ingest,
            hub,
            crate::events::channel().0,
        );
        let listener = UnixListener::bind(dir.path().join("link.sock")).unwrap();
        tokio::spawn(serve(link.clone(), listener, stop.clone()));
        Self {
            link,
            dir,
            stop,
            _lifecycle: lifecycle,
        }
    }

    /// Expects a worker that runs as `pid`.
    pub(super) fn expect(&self, pid: i32) -> (Identity, WorkerLink, mpsc::Receiver<FromWorker>) {
        let (epoch, service_id, nonce) = (Epoch::new(), ServiceId::new(), [9; 32]);
        let expected = Expected {
            epoch,
            nonce_sha256: sha2::Sha256::digest(nonce).into(),
            pid,
            service_id,
            workspace_id: WorkspaceId::new(),
        };
        let identity = Identity {
            epoch: Bytes::copy_from_slice(epoch.0.as_bytes()),
            nonce: Bytes::copy_from_slice(&nonce),
            service_id: Bytes::copy_from_slice(service_id.0.as_bytes()),
        };
        let (link, events) = self.link.expect(
            expected,
            Some(WorkerConfig {
                revision: 1,
                ..WorkerConfig::default()
            }),
        );
        (identity, link, events)
    }

    async fn client(&self) -> WorkerLinkServiceClient<Channel> {
        let path = self.dir.path().join("link.sock");
        let endpoint = Endpoint::from_shared(format!("unix://{}", path.display())).unwrap();
        let channel = endpoint.connect().await.unwrap();
        WorkerLinkServiceClient::new(channel)
    }

    async fn session(&self, identity: Identity) -> Result<Worker, Status> {
        self.session_of(hello(identity)).await
    }

    async fn session_of(&self, hello: Hello) -> Result<Worker, Status> {
        let (up, requests) = mpsc::channel(8);
        up.send(message(Up::Hello(hello))).await.unwrap();
        let down = self
            .client()
            .await
            .session(ReceiverStream::new(requests))
            .await?
            .into_inner();
        Ok(Worker { up, down })
    }
}

/// The worker's end of a session.
struct Worker {
    up: mpsc::Sender<SessionRequest>,
    down: Streaming<SessionResponse>,
}

impl Worker {
    async fn says(&self, up: Up) {
        self.up.send(message(up)).await.unwrap();
    }

    async fn hears(&mut self) -> Down {
        self.down
            .message()
            .await
            .unwrap()
            .expect("the session is open")
            .message
            .unwrap()
    }
}

fn message(up: Up) -> SessionRequest {
    SessionRequest { message: Some(up) }
}

fn hello(identity: Identity) -> Hello {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    Hello {
        identity: Some(identity),
        protocol: proxyplane_proto::LINK_PROTOCOL,
        build: "1.2.3".into(),
        features: vec![],
        pid: own_pid(),
        csr_der: Bytes::copy_from_slice(request.der()),
        sandbox: Some(wire::Sandbox {
            uid: 5,
            landlock_abi: 7,
            ..wire::Sandbox::default()
        }),
        serving_ms: 0,
        serving_since_us: 0,
    }
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap()
}

#[tokio::test]
async fn whoever_is_not_an_expected_worker_is_refused_on_both_streams() {
    let served = Served::new();
    let (genuine, _link, _events) = served.expect(own_pid());
    let (other_process, _link, _events) = served.expect(own_pid() + 1);
    let wrong_nonce = Identity {
        nonce: vec![1; 32].into(),
        ..genuine.clone()
    };
    let wrong_service = Identity {
        service_id: other_process.service_id.clone(),
        ..genuine.clone()
    };
    let unknown = Identity {
        epoch: Bytes::copy_from_slice(Epoch::new().0.as_bytes()),
        ..genuine
    };
    for identity in [wrong_nonce, wrong_service, unknown, other_process, Identity::default()] {
        let refused = served.session(identity.clone()).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        let first = RecordsRequest {
            identity: Some(identity),
            frames: Bytes::new(),
        };
        let refused = served
            .client()
            .await
            .records(tokio_stream::once(first))
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
}

#[tokio::test]
async fn a_worker_is_welcomed_with_its_configuration_and_certificates_and_tells_its_life() {
    let served = Served::new();
    let (identity, link, mut events) = served.expect(own_pid());
    let mut worker = served.session(identity).await.unwrap();
    let Down::Welcome(welcome) = worker.hears().await else {
        panic!("no welcome")
    };
    assert_eq!(welcome.config.unwrap().revision, 1);
    assert_eq!(
        welcome.certificates.unwrap().root_der,
        served.link.shared.pki.root_der()
    );
    assert_eq!(link.build(), "1.2.3");
    assert_eq!(
        link.sandbox().map(|sandbox| (sandbox.uid, sandbox.landlock_abi)),
        Some((5, 7))
    );
    worker.says(Up::Ready(Ready { revision: 1 })).await;
    assert_eq!(events.recv().await, Some(FromWorker::Ready { revision: 1 }));
    assert!(matches!(worker.hears().await, Down::Interest(interest) if !interest.live));
}

#[tokio::test]
async fn a_worker_says_since_when_it_serves_and_one_of_the_build_before_for_how_long() {
    let served = Served::new();
    let (identity, link, _events) = served.expect(own_pid());
    let says = Hello {
        serving_since_us: monotonic_us() - 2_000_000,
        ..hello(identity.clone())
    };
    let said = Hello {
        serving_ms: 60_000,
        ..hello(identity)
    };
    for (hello, seconds) in [(says, 2), (said, 60)] {
        let _worker = served.session_of(hello).await.unwrap();
        let since = link.serving_since().unwrap();
        assert!(since.elapsed() >= Duration::from_secs(seconds));
    }
}

#[tokio::test]
async fn a_change_is_staged_then_activated_and_a_refusal_carries_its_fields() {
    let served = Served::new();
    let (identity, link, _events) = served.expect(own_pid());
    let mut worker = served.session(identity).await.unwrap();
    let plays = async {
        loop {
            match worker.hears().await {
                Down::Stage(config) if config.revision == 2 => worker.says(Up::Staged(Staged { revision: 2 })).await,
                Down::Activate(activate) => {
                    worker
                        .says(Up::Applied(Applied {
                            revision: activate.revision,
                        }))
                        .await;
                }
                Down::Stage(config) => {
                    let field = "capture.extra_ca_pem".to_owned();
                    let violation = proxyplane_proto::worker::FieldViolation {
                        field,
                        description: "no".into(),
                    };
                    let revision = config.revision;
                    worker
                        .says(Up::Rejected(Rejected {
                            revision,
                            violations: vec![violation],
                        }))
                        .await;
                    return;
                }
                _ => {}
            }
        }
    };
    let config = |revision| WorkerConfig {
        revision,
        ..WorkerConfig::default()
    };
    let asks = async {
        link.stage(config(2)).await.unwrap();
        link.activate(config(2)).await.unwrap();
        link.stage(config(3)).await
    };
    let (refused, ()) = tokio::join!(asks, plays);
    let Err(ChangeError::Rejected(violations)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(violations[0].field, "capture.extra_ca_pem");
    assert_eq!(
        link.instance.config().unwrap().revision,
        2,
        "a refused change is not what a redialling worker gets"
    );
}

#[tokio::test]
async fn counters_are_asked_for_and_the_latest_known_stand_in_for_a_silent_worker() {
    let served = Served::new();
    let (identity, link, _events) = served.expect(own_pid());
    let mut worker = served.session(identity).await.unwrap();
    let answers = async {
        while !matches!(worker.hears().await, Down::ReportStats(_)) {}
        worker
            .says(Up::Stats(Stats {
                requests: 7,
                ..Stats::default()
            }))
            .await;
    };
    let (counters, ()) = tokio::join!(link.fresh_counters(Duration::from_secs(10)), answers);
    assert_eq!(counters.requests, 7);
    assert_eq!(link.fresh_counters(Duration::from_millis(1)).await.requests, 7);
}

#[tokio::test]
async fn a_redialling_worker_takes_its_session_over() {
    let served = Served::new();
    let (identity, link, _events) = served.expect(own_pid());
    let mut first = served.session(identity.clone()).await.unwrap();
    assert!(matches!(first.hears().await, Down::Welcome(_)));
    let mut second = served.session(identity).await.unwrap();
    assert!(matches!(second.hears().await, Down::Welcome(_)));
    while first.down.message().await.unwrap().is_some() {}
    assert!(link.drain(Duration::from_millis(1_500)));
    loop {
        match second.hears().await {
            Down::Drain(drain) => break assert_eq!(drain.timeout_ms, 1_500),
            other => assert!(matches!(other, Down::Interest(_)), "{other:?}"),
        }
    }
}

#[tokio::test]
async fn open_streams_do_not_hold_up_a_stop() {
    let served = Served::new();
    let (identity, link, _events) = served.expect(own_pid());
    let mut worker = served.session(identity).await.unwrap();
    served.stop.cancel();
    while let Ok(Some(_)) = worker.down.message().await {}
    assert!(!link.drain(Duration::ZERO), "nobody is connected");
}

#[tokio::test]
async fn a_renewal_is_a_new_intermediate_for_the_same_key() {
    let served = Served::new();
    let (identity, _link, _events) = served.expect(own_pid());
    let hello = hello(identity);
    let csr_der = hello.csr_der.clone();
    let mut worker = served.session_of(hello).await.unwrap();
    let Down::Welcome(welcome) = worker.hears().await else {
        panic!("no welcome")
    };
    worker.says(Up::Renew(wire::Renew { csr_der })).await;
    let renewed = loop {
        if let Down::Certificates(certificates) = worker.hears().await {
            break certificates;
        }
    };
    let first = welcome.certificates.unwrap();
    assert_eq!(renewed.root_der, first.root_der);
    let parse = |der| x509_parser::parse_x509_certificate(der).unwrap().1;
    let (first, renewed) = (parse(&first.intermediate_der), parse(&renewed.intermediate_der));
    assert_eq!(first.public_key(), renewed.public_key());
    assert_ne!(first.raw_serial(), renewed.raw_serial());
    assert!(renewed.validity().not_after >= first.validity().not_after);
}
