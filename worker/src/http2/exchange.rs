//! One exchange: a stream of the client's and the stream to the origin that answers it.

mod settle;
mod transfer;

use std::{future::poll_fn, sync::Arc};

use bytes::Bytes;
use h2::{Reason, RecvStream, client, server::SendResponse};
use http::{Method, Request, StatusCode};
use proxyplane_record::Flags;

use self::transfer::Progress;
use super::{
    Shared,
    fault::{Cause, Fault},
    head,
    origin::Lease,
};
use crate::{
    capture::{Recorder, Start},
    upstream::DialError,
};

/// Connections that are tried for one request: the one in use, and two in case that has just ended.
const ATTEMPTS: usize = 3;

/// What the client's connection has to know of an exchange that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was answered, or it failed through no fault of the client's.
    Served,
    /// The client reset it before it had an answer.
    Cancelled,
}

/// Carries one exchange from its head to its end.
pub(super) async fn run(
    shared: Arc<Shared>,
    start: Start,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) -> Outcome {
    let recorder = shared.ctx.service.capture.begin(start).await;
    let (parts, body) = request.into_parts();
    head::describe_request(&recorder, &shared, &parts);
    let (refusal, method) = (head::refusal(&parts), parts.method.clone());
    let mut exchange = Exchange {
        shared,
        recorder,
        respond,
        body,
        method,
    };
    let outcome = match refusal {
        Some(refusal) => {
            exchange.error(refusal.status, refusal.code, refusal.detail).await;
            Outcome::Served
        }
        None => exchange.carry(Request::from_parts(parts, ())).await,
    };
    exchange.recorder.finish();
    outcome
}

struct Exchange {
    shared: Arc<Shared>,
    recorder: Recorder,
    respond: SendResponse<Bytes>,
    body: RecvStream,
    method: Method,
}

/// A request on its way.
struct Sent {
    response: client::ResponseFuture,
    body: h2::SendStream<Bytes>,
    /// To be sent once more, if it has no body.
    again: Option<Request<()>>,
    lease: Lease,
}

impl Exchange {
    async fn carry(&mut self, request: Request<()>) -> Outcome {
        let mut sent = match self.send(request, None).await {
            Ok(sent) => sent,
            Err(outcome) => return outcome,
        };
        let mut attempts = 1;
        loop {
            let (progress, result) = self.transfer(&mut sent).await;
            let Err(fault) = result else {
                self.take_in_rest().await;
                return Outcome::Served;
            };
            attempts += 1;
            let request = match sent.again.take() {
                Some(request) if progress == Progress::Waiting && attempts <= ATTEMPTS => request,
                _ => return self.settle(progress, fault, &mut sent.body).await,
            };
            if !self.may_repeat(&fault, sent.lease.reused) {
                return self.settle(progress, fault, &mut sent.body).await;
            }
            self.recorder.with(|exchange| exchange.flags |= Flags::RETRIED);
            sent = match self.send(request, Some(&sent.lease)).await {
                Ok(sent) => sent,
                Err(outcome) => return outcome,
            };
        }
    }

    /// Is a request without a body to be sent again? If the origin says that it has not looked at it, always; if its
    /// connection was lost between two exchanges, when that does no harm (RFC 9110 §9.2.2).
    fn may_repeat(&self, fault: &Fault, reused: bool) -> bool {
        match fault {
            Fault::Origin(Cause::Unprocessed | Cause::Reset(Reason::REFUSED_STREAM)) => true,
            Fault::Origin(Cause::Lost(_)) => reused && self.method.is_idempotent(),
            _ => false,
        }
    }

    /// Sends the head on the connection in use, or on a new one if that has ended or is `stale`.
    async fn send(&mut self, request: Request<()>, stale: Option<&Lease>) -> Result<Sent, Outcome> {
        let whole = self.body.is_end_stream();
        let again = whole.then(|| request.clone());
        let lease = self.ready(stale).await?;
        let mut sender = lease.sender.clone();
        match sender.send_request(request, whole) {
            Ok((response, body)) => Ok(Sent {
                response,
                body,
                again,
                lease,
            }),
            Err(error) => {
                let (code, detail) = Cause::from(error).of_origin();
                self.error(StatusCode::BAD_GATEWAY, code, &detail).await;
                Err(Outcome::Served)
            }
        }
    }

    /// A connection that takes requests.
    async fn ready(&mut self, stale: Option<&Lease>) -> Result<Lease, Outcome> {
        let Self {
            shared,
            recorder,
            respond,
            ..
        } = self;
        let connected = tokio::select! {
            biased;
            connected = connect(shared, recorder, stale) => Ok(connected),
            cause = cancelled(respond) => Err(cause),
        };
        match connected {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(error)) => {
                let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_GATEWAY);
                error.reached.describe(recorder);
                self.error(status, error.code, &error.detail).await;
                Err(Outcome::Served)
            }
            Err(cause) => {
                self.note_client(&cause);
                Err(Outcome::Cancelled)
            }
        }
    }
}

async fn connect(shared: &Shared, recorder: &Recorder, stale: Option<&Lease>) -> Result<Lease, DialError> {
    let mut lease = shared.origins.lease(recorder, stale).await?;
    for _ in 1..ATTEMPTS {
        match lease.sender.clone().ready().await {
            Ok(_) => break,
            // It ended while nothing was under way: nothing was sent, nothing is repeated.
            Err(_) => lease = shared.origins.lease(recorder, Some(&lease)).await?,
        }
    }
    Ok(lease)
}

/// Resolves when the client resets a stream that has no answer yet.
async fn cancelled(respond: &mut SendResponse<Bytes>) -> Cause {
    match poll_fn(|cx| respond.poll_reset(cx)).await {
        Ok(reason) => Cause::Reset(reason),
        Err(error) => error.into(),
    }
}
