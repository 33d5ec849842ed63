//! The gRPC service of the link: identity first, then one task per stream.

use std::{sync::Arc, time::Duration};

use proxyplane_proto::{
    LINK_PROTOCOL,
    worker::{
        Hello, Identity, RecordsRequest, RecordsResponse, SessionRequest, SessionResponse,
        session_request::Message as FromWorkerMessage, worker_link_service_server::WorkerLinkService,
    },
};
use proxyplane_spec::Epoch;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::server::UdsConnectInfo};
use uuid::Uuid;

use super::{Link, instance::Instance, records, session};

/// For the first message of a stream.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Server {
    link: Link,
    stop: CancellationToken,
}

impl Server {
    pub(super) fn new(link: Link, stop: CancellationToken) -> Self {
        Self { link, stop }
    }

    /// The expected worker that `identity` and the process at the socket's other end prove to be.
    fn admit(&self, identity: Option<&Identity>, pid: Option<i32>) -> Result<Arc<Instance>, Status> {
        let instance = identity.and_then(|identity| {
            let epoch = Epoch(Uuid::from_slice(&identity.epoch).ok()?);
            self.link
                .instance(epoch)
                .filter(|instance| instance.expected.admits(identity, pid))
        });
        instance.ok_or_else(|| {
            tracing::warn!(
                pid,
                "refused a connection to the worker link: not a worker that was started here"
            );
            self.link.stranger(pid);
            Status::permission_denied("not an expected worker")
        })
    }
}

#[tonic::async_trait]
impl WorkerLinkService for Server {
    type SessionStream = ReceiverStream<Result<SessionResponse, Status>>;
    type RecordsStream = ReceiverStream<Result<RecordsResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let pid = peer_pid(&request);
        let mut inbound = request.into_inner();
        let Some(FromWorkerMessage::Hello(hello)) = first(&mut inbound).await?.message else {
            return Err(Status::invalid_argument("the first message must be Hello"));
        };
        let instance = self.admit(hello.identity.as_ref(), pid)?;
        check_protocol(&hello)?;
        let outbound = session::open(&self.link, instance, &hello, inbound, self.stop.clone())?;
        Ok(Response::new(outbound))
    }

    async fn records(
        &self,
        request: Request<Streaming<RecordsRequest>>,
    ) -> Result<Response<Self::RecordsStream>, Status> {
        let pid = peer_pid(&request);
        let mut inbound = request.into_inner();
        let hello = first(&mut inbound).await?;
        let instance = self.admit(hello.identity.as_ref(), pid)?;
        let outbound = records::open(&self.link, instance, inbound, self.stop.clone()).await?;
        Ok(Response::new(outbound))
    }
}

fn peer_pid<T>(request: &Request<T>) -> Option<i32> {
    request.extensions().get::<UdsConnectInfo>()?.peer_cred?.pid()
}

async fn first<T>(inbound: &mut Streaming<T>) -> Result<T, Status> {
    let message = tokio::time::timeout(FIRST_MESSAGE_TIMEOUT, inbound.message()).await;
    let message = message.map_err(|_| Status::deadline_exceeded("no first message"))??;
    message.ok_or_else(|| Status::invalid_argument("no first message"))
}

fn check_protocol(hello: &Hello) -> Result<(), Status> {
    // A control plane talks to workers of its own release and of the one before.
    if (LINK_PROTOCOL.saturating_sub(1)..=LINK_PROTOCOL).contains(&hello.protocol) {
        Ok(())
    } else {
        Err(Status::failed_precondition(format!(
            "link protocol {} is not spoken here",
            hello.protocol
        )))
    }
}
