//! Records to the control plane: batches from the queue up, acknowledgements down.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, stream};
use proxyplane_proto::worker as wire;
use proxyplane_spec::limits;
use tokio::sync::oneshot;

use super::Link;
use crate::{
    alarms::LOCAL,
    capture::{AckError, Queue, Sender},
};

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("cannot reach the control plane: {0}")]
    Dial(#[from] tonic::transport::Error),
    #[error("{}", .0.message())]
    Status(#[from] tonic::Status),
    #[error("the control plane closed the stream")]
    Closed,
    #[error(transparent)]
    Ack(#[from] AckError),
}

/// Runs until it is dropped.
pub(crate) async fn run(link: Arc<Link>, queue: Arc<Queue>) {
    let mut told = false;
    loop {
        let mut connected = false;
        let Err(ended) = carry(&link, &queue, &mut connected).await;
        if connected || !std::mem::replace(&mut told, true) {
            told = !connected;
            tracing::warn!(target: LOCAL, reason = %ended, "records cannot be sent; they are kept until they can");
        }
        tokio::time::sleep(limits::REDIAL).await;
    }
}

/// Sends on one connection until that ends.
pub(crate) async fn carry(link: &Link, queue: &Arc<Queue>, connected: &mut bool) -> Result<Infallible, Ended> {
    let mut client = link.dial().await?;
    let (resume, resumed) = oneshot::channel();
    let requests = requests(link.identity.clone(), Arc::clone(queue), resumed);
    let mut acks = client.records(requests).await?.into_inner();
    let first = acks.message().await?.ok_or(Ended::Closed)?;
    let sender = queue.resume(first.next_seq)?;
    *connected = true;
    tracing::debug!(next_seq = first.next_seq, "sending records");
    // If the stream is gone, the next message says why.
    let _ = resume.send(sender);
    while let Some(ack) = acks.message().await? {
        queue.ack(ack.next_seq)?;
    }
    Err(Ended::Closed)
}

/// What the request stream does next.
enum Step {
    Introduce(wire::Identity, oneshot::Receiver<Sender>),
    AwaitResume(oneshot::Receiver<Sender>),
    Send(Sender),
}

fn requests(
    identity: wire::Identity,
    queue: Arc<Queue>,
    resumed: oneshot::Receiver<Sender>,
) -> impl Stream<Item = wire::RecordsRequest> + Send + 'static {
    stream::unfold(Step::Introduce(identity, resumed), move |step| {
        let queue = Arc::clone(&queue);
        async move {
            let sender = match step {
                Step::Introduce(identity, resumed) => {
                    let request = wire::RecordsRequest {
                        identity: Some(identity),
                        frames: Bytes::new(),
                    };
                    return Some((request, Step::AwaitResume(resumed)));
                }
                Step::AwaitResume(resumed) => resumed.await.ok()?,
                Step::Send(sender) => sender,
            };
            let batch = queue.next(sender).await?;
            Some((
                wire::RecordsRequest {
                    identity: None,
                    frames: batch.frames,
                },
                Step::Send(sender),
            ))
        }
    })
}
