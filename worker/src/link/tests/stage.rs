//! The control plane's side of the link, moved by hand, and a worker that echoes.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use proxyplane_proto::worker::{
    self as wire,
    session_request::Message as Up,
    session_response::Message as Down,
    worker_link_service_server::{WorkerLinkService, WorkerLinkServiceServer},
};
use proxyplane_record::{ExchangeKind, Kind, frame};
use proxyplane_spec::{Epoch, HANDOFF_VERSION, Manifest, Sandbox, ServiceId, limits};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::CertificateSigningRequestDer;
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixListener},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    app::{self, Fatal},
    capture::Start,
    handoff::Handoff,
    service::Service,
};

const SOON: Duration = Duration::from_secs(10);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.expect("in time")
}

/// What the worker is given and what it talks to.
pub(super) struct Stage {
    manifest: Manifest,
    listener: Option<TcpListener>,
    address: SocketAddr,
    sessions: mpsc::Receiver<Session>,
    records: mpsc::Receiver<Records>,
    socket: PathBuf,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Stage {
    pub(super) fn set() -> Self {
        let socket = std::env::temp_dir().join(format!("pp-{}.sock", uuid::Uuid::now_v7()));
        let (new_sessions, sessions) = mpsc::channel(8);
        let (new_records, records) = mpsc::channel(8);
        let incoming = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
        let server = WorkerLinkServiceServer::new(Server {
            sessions: new_sessions,
            records: new_records,
        });
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(server)
                .serve_with_incoming(incoming),
        );

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let manifest = Manifest {
            version: HANDOFF_VERSION,
            epoch: Epoch::new(),
            nonce: "0A".repeat(32),
            service_id: ServiceId::new(),
            link: socket.clone(),
            spool: None,
            listeners: vec![address],
            account: None,
        };
        Self {
            manifest,
            listener: Some(listener),
            address,
            sessions,
            records,
            socket,
        }
    }

    pub(super) fn start_worker(&mut self) -> JoinHandle<Result<(), Fatal>> {
        let listeners = vec![self.listener.take().unwrap()];
        let handoff = Handoff {
            manifest: self.manifest.clone(),
            listeners,
        };
        tokio::spawn(app::run(handoff, Sandbox::default(), 2, |service, stream, _, _| {
            echo(service, stream)
        }))
    }

    pub(super) fn identity(&self) -> wire::Identity {
        wire::Identity {
            epoch: Bytes::copy_from_slice(self.manifest.epoch.0.as_bytes()),
            nonce: Bytes::from(vec![10; 32]),
            service_id: Bytes::copy_from_slice(self.manifest.service_id.0.as_bytes()),
        }
    }

    /// The next session that the worker opens.
    pub(super) async fn session(&mut self) -> Session {
        soon(self.sessions.recv()).await.unwrap()
    }

    /// A session with revision 1 in force.
    pub(super) async fn ready(&mut self) -> Session {
        let mut session = self.session().await;
        let hello = session.hello().await;
        session.welcome(&hello.csr_der, config(1)).await;
        assert_eq!(session.next().await, Up::Ready(wire::Ready { revision: 1 }));
        session
    }

    pub(super) async fn records(&mut self) -> Records {
        soon(self.records.recv()).await.unwrap()
    }

    /// A stream of records of this worker, told to resume at `next_seq`.
    pub(super) async fn records_from(&mut self, next_seq: u64) -> Records {
        let mut records = self.records().await;
        assert_eq!(records.next().await.identity.unwrap(), self.identity());
        records.ack(next_seq).await;
        records
    }

    pub(super) async fn client(&self) -> TcpStream {
        soon(TcpStream::connect(self.address)).await.unwrap()
    }

    /// Waits until the listener is closed: somebody else can listen there then.
    pub(super) async fn nobody_listens(&self) {
        soon(async {
            while TcpListener::bind(self.address).is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// A connection that is an exchange with four bytes each way.
    pub(super) async fn one_exchange(&self) {
        let mut client = self.client().await;
        client.write_all(b"ping").await.unwrap();
        soon(client.read_exact(&mut [0; 4])).await.unwrap();
    }
}

/// What the echo answers with the name of its thread.
pub(super) const WHICH_THREAD: &[u8] = b"which?";

async fn echo(service: Arc<Service>, mut stream: TcpStream) {
    let start = Start::new(Bytes::new(), ExchangeKind::Http, service.config().spec.capture_limit);
    let recorder = service.capture.begin(start).await;
    recorder.announce();
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        assert_ne!(&buffer[..length], b"boom");
        if &buffer[..length] == WHICH_THREAD {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            let _ = stream.write_all(name.as_bytes()).await;
            continue;
        }
        recorder.request_data(&buffer[..length]).await;
        recorder.response_data(&buffer[..length]).await;
        let _ = stream.write_all(&buffer[..length]).await;
    }
    recorder.finish();
}

pub(super) fn config(revision: i64) -> wire::WorkerConfig {
    let capture_limit = limits::CAPTURE_LIMIT_DEFAULT;
    wire::WorkerConfig {
        revision,
        service_name: "test".into(),
        capture: Some(wire::Capture {
            capture_limit,
            ..wire::Capture::default()
        }),
        ..wire::WorkerConfig::default()
    }
}

/// The frames of a batch with their sequence numbers.
pub(super) fn frames(batch: &Bytes) -> Vec<(u64, Kind)> {
    let mut rest = batch.clone();
    std::iter::from_fn(|| frame::take(&mut rest).unwrap())
        .map(|frame| (frame.seq, frame.record().unwrap().kind.unwrap()))
        .collect()
}

/// The far end of one Session.
pub(super) struct Session {
    up: Streaming<wire::SessionRequest>,
    down: mpsc::Sender<Result<wire::SessionResponse, Status>>,
}

impl Session {
    pub(super) async fn next(&mut self) -> Up {
        soon(self.up.message()).await.unwrap().unwrap().message.unwrap()
    }

    pub(super) async fn wait_for(&mut self, wanted: impl Fn(&Up) -> bool) {
        while !wanted(&self.next().await) {}
    }

    /// The next message that is not statistics.
    pub(super) async fn answer(&mut self) -> Up {
        loop {
            let message = self.next().await;
            if !matches!(message, Up::Stats(_)) {
                return message;
            }
        }
    }

    /// What the worker refuses, with a field at fault.
    pub(super) async fn rejection(&mut self) -> (i64, String) {
        let Up::Rejected(rejected) = self.answer().await else {
            panic!("it was not refused")
        };
        (rejected.revision, rejected.violations[0].field.clone())
    }

    pub(super) async fn drain(&self, timeout_ms: u64) {
        self.order(Down::Drain(wire::Drain { timeout_ms, idle_ms: 0 })).await;
    }

    /// Waits until the worker says so, and lets it end.
    pub(super) async fn drained(mut self) {
        self.wait_for(|message| *message == Up::Drained(wire::Drained {})).await;
    }

    pub(super) async fn hello(&mut self) -> wire::Hello {
        let Up::Hello(hello) = self.next().await else {
            panic!("did not begin with Hello")
        };
        hello
    }

    pub(super) async fn order(&self, message: Down) {
        self.down
            .send(Ok(wire::SessionResponse { message: Some(message) }))
            .await
            .unwrap();
    }

    pub(super) async fn welcome(&self, csr_der: &[u8], config: wire::WorkerConfig) {
        let now = OffsetDateTime::now_utc();
        let certificates = certificates(csr_der, now - time::Duration::DAY, now + time::Duration::days(7));
        self.welcome_with(certificates, config).await;
    }

    pub(super) async fn welcome_with(&self, certificates: wire::Certificates, config: wire::WorkerConfig) {
        let welcome = wire::Welcome {
            config: Some(config),
            certificates: Some(certificates),
        };
        self.order(Down::Welcome(welcome)).await;
    }

    pub(super) async fn refuse(&self, status: Status) {
        self.down.send(Err(status)).await.unwrap();
    }
}

/// The far end of one Records stream.
pub(super) struct Records {
    up: Streaming<wire::RecordsRequest>,
    down: mpsc::Sender<Result<wire::RecordsResponse, Status>>,
}

impl Records {
    pub(super) async fn next(&mut self) -> wire::RecordsRequest {
        soon(self.up.message()).await.unwrap().unwrap()
    }

    pub(super) async fn ack(&self, next_seq: u64) {
        self.down.send(Ok(wire::RecordsResponse { next_seq })).await.unwrap();
    }
}

struct Server {
    sessions: mpsc::Sender<Session>,
    records: mpsc::Sender<Records>,
}

#[tonic::async_trait]
impl WorkerLinkService for Server {
    type SessionStream = ReceiverStream<Result<wire::SessionResponse, Status>>;
    type RecordsStream = ReceiverStream<Result<wire::RecordsResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<wire::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (down, answers) = mpsc::channel(8);
        let _ = self
            .sessions
            .send(Session {
                up: request.into_inner(),
                down,
            })
            .await;
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn records(
        &self,
        request: Request<Streaming<wire::RecordsRequest>>,
    ) -> Result<Response<Self::RecordsStream>, Status> {
        let (down, answers) = mpsc::channel(8);
        let _ = self
            .records
            .send(Records {
                up: request.into_inner(),
                down,
            })
            .await;
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// Does what the control plane's CA does, with a root that nobody keeps and for a time of the test's choice.
pub(super) fn certificates(
    csr_der: &[u8],
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
) -> wire::Certificates {
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root_der = Bytes::copy_from_slice(root.self_signed(&key).unwrap().der());
    let csr = CertificateSigningRequestDer::from(csr_der);
    let mut csr = CertificateSigningRequestParams::from_der(&csr).unwrap();
    (csr.params.not_before, csr.params.not_after) = (not_before, not_after);
    csr.params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let intermediate_der = Bytes::copy_from_slice(csr.signed_by(&Issuer::new(root, key)).unwrap().der());
    wire::Certificates {
        intermediate_der,
        root_der,
    }
}
