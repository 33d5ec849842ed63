//! The Records stream of one worker: batches to ingest, acknowledgements back.

use std::sync::Arc;

use proxyplane_proto::worker::{RecordsRequest, RecordsResponse};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{Link, instance::Instance, session::source};
use crate::ingest::IngestSession;

/// Acknowledgements on their way to a worker. When full, later ones are merged: only the newest counts.
const ACK_QUEUE: usize = 1;

type Outbound = mpsc::Sender<Result<RecordsResponse, Status>>;

/// Says where to resume and reads the stream in a task of its own.
pub(super) async fn open(
    link: &Link,
    instance: Arc<Instance>,
    inbound: Streaming<RecordsRequest>,
    stop: CancellationToken,
) -> Result<ReceiverStream<Result<RecordsResponse, Status>>, Status> {
    let reading = instance.stream();
    let session = link.shared.ingest.open(source(&instance)).await;
    let session = session.map_err(|error| Status::unavailable(format!("ingest: {error}")))?;
    let (sender, receiver) = mpsc::channel(ACK_QUEUE);
    let acked = session.acked();
    tokio::spawn(async move {
        let acknowledge = acknowledge(&instance, acked, &sender);
        let read = async {
            let read = push(&session, inbound).await;
            // What it sent is with ingest: nobody who retires the worker needs to wait for acknowledgements to go out.
            drop(reading);
            if let Err(status) = read {
                let _ = sender.send(Err(status)).await;
                return;
            }
            // The worker has closed its side and may wait for the last acknowledgements.
            sender.closed().await;
        };
        tokio::select! {
            () = read => {}
            () = acknowledge => {}
            () = stop.cancelled() => {}
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// Hands every batch to ingest; waits while ingest has enough.
async fn push(session: &IngestSession, mut inbound: Streaming<RecordsRequest>) -> Result<(), Status> {
    while let Some(batch) = inbound.message().await? {
        if !batch.frames.is_empty() {
            session
                .push(batch.frames)
                .await
                .map_err(|error| Status::aborted(format!("ingest: {error}")))?;
        }
    }
    Ok(())
}

/// Sends where to resume at once, then every advance, until the worker is gone.
async fn acknowledge(instance: &Instance, mut acked: watch::Receiver<u64>, sender: &Outbound) {
    loop {
        let next_seq = *acked.borrow_and_update();
        instance.committed(next_seq);
        if sender.send(Ok(RecordsResponse { next_seq })).await.is_err() {
            return;
        }
        tokio::select! {
            changed = acked.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
        }
    }
}
