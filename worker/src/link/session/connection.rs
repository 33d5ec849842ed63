//! One connection of the Session.

use std::{io, time::Duration};

use bytes::Bytes;
use proxyplane_proto::{
    LINK_PROTOCOL,
    worker::{self as wire, session_request::Message as Up, session_response::Message as Down},
};
use proxyplane_spec::{Sandbox, monotonic_us};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::{
    link::{FEATURES, Link},
    tls::Identity,
};

/// Messages on their way up. When it is full, answers wait and lossy messages are dropped.
const OUTGOING: usize = 64;
/// From dialling to Welcome.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);
/// For the control plane to take the last messages.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Why a connection failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("cannot dial: {0}")]
    Dial(#[from] tonic::transport::Error),
    #[error("{}", .0.message())]
    Status(#[from] tonic::Status),
    #[error("the control plane closed the session")]
    Closed,
    #[error("no Welcome came in time")]
    NoWelcome,
    #[error("the control plane did not begin with Welcome")]
    Unexpected,
    #[error("the listeners could not be given back: {0}")]
    NotReturned(io::Error),
}

impl SessionError {
    /// The control plane is there and does not want this worker.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Status(status) if matches!(
            status.code(),
            Code::PermissionDenied | Code::FailedPrecondition | Code::InvalidArgument | Code::NotFound
        ))
    }
}

fn sandbox(of: Sandbox) -> wire::Sandbox {
    let Sandbox {
        uid,
        no_new_privs,
        landlock_abi,
        open_files,
        memory,
    } = of;
    wire::Sandbox {
        uid,
        no_new_privs,
        landlock_abi,
        open_files,
        memory,
    }
}

/// An open session.
pub(crate) struct Connection {
    outgoing: mpsc::Sender<wire::SessionRequest>,
    incoming: Streaming<wire::SessionResponse>,
}

impl Connection {
    /// Dials and says Hello; `serving_since_us` is 0 before it serves.
    pub(super) async fn open(
        link: &Link,
        identity: &Identity,
        serving_since_us: u64,
    ) -> Result<(Self, wire::Welcome), SessionError> {
        tokio::time::timeout(WELCOME_WITHIN, Self::greet(link, identity, serving_since_us))
            .await
            .unwrap_or(Err(SessionError::NoWelcome))
    }

    async fn greet(
        link: &Link,
        identity: &Identity,
        serving_since_us: u64,
    ) -> Result<(Self, wire::Welcome), SessionError> {
        let mut client = link.dial().await?;
        let serving_ms = match serving_since_us {
            0 => 0,
            since => monotonic_us().saturating_sub(since) / 1_000,
        };
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let hello = wire::Hello {
            identity: Some(link.identity.clone()),
            protocol: LINK_PROTOCOL,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            features: FEATURES.iter().map(|&name| name.to_owned()).collect(),
            pid: std::process::id().cast_signed(),
            csr_der: Bytes::copy_from_slice(identity.csr_der()),
            sandbox: Some(sandbox(link.sandbox)),
            serving_ms,
            serving_since_us,
        };
        // First in the queue, then the call: the answer's headers may wait for it.
        let hello = wire::SessionRequest {
            message: Some(Up::Hello(hello)),
        };
        outgoing.try_send(hello).map_err(|_| SessionError::Closed)?;
        let incoming = client.session(ReceiverStream::new(messages)).await?.into_inner();
        let mut connection = Self { outgoing, incoming };
        match connection.receive().await? {
            Down::Welcome(welcome) => Ok((connection, welcome)),
            _ => Err(SessionError::Unexpected),
        }
    }

    /// The next message; ones that a newer control plane sent are skipped. Safe to cancel.
    pub(super) async fn receive(&mut self) -> Result<Down, SessionError> {
        loop {
            if let Some(message) = self.incoming.message().await?.ok_or(SessionError::Closed)?.message {
                return Ok(message);
            }
        }
    }

    /// Sends what must arrive.
    pub(super) async fn send(&self, message: Up) -> Result<(), SessionError> {
        let request = wire::SessionRequest { message: Some(message) };
        self.outgoing.send(request).await.map_err(|_| SessionError::Closed)
    }

    /// Sends what may be lost when much is on its way.
    pub(super) fn offer(&self, message: Up) -> Result<(), SessionError> {
        match self.outgoing.try_send(wire::SessionRequest { message: Some(message) }) {
            Err(mpsc::error::TrySendError::Closed(_)) => Err(SessionError::Closed),
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
        }
    }

    /// Ends the stream and waits until the control plane has read it.
    pub(super) async fn close(self) {
        let Self { outgoing, mut incoming } = self;
        drop(outgoing);
        let _ = tokio::time::timeout(CLOSE_WITHIN, async {
            while let Ok(Some(_)) = incoming.message().await {}
        })
        .await;
    }
}
