//! Both directions of an exchange at once.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::atomic::{AtomicU8, Ordering::Relaxed},
    task::Poll,
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::ResponseFuture, server::SendResponse};
use http::{Method, Response};
use proxyplane_record::Flags;
use proxyplane_spec::limits;
use tokio::time::timeout;

use super::{Exchange, Sent};
use crate::{
    capture::Recorder,
    http2::{
        fault::{Cause, Fault},
        head,
        pump::{self, Body, Failed},
    },
};

/// Calls with both directions open may be silent for as long as they like.
const GRPC: &[u8] = b"application/grpc";

/// How far the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The final head has not come.
    Waiting,
    /// The head has been passed on.
    Streaming,
    /// All of its Content-Length has been passed on, but not its end; the request is over. Clients may leave now.
    Whole,
    /// All of it has been passed on.
    Done,
}

/// What both directions know of each other.
#[derive(Debug, Default)]
struct State {
    progress: AtomicU8,
    uploading: AtomicU8,
}

impl State {
    fn progress(&self) -> Progress {
        match self.progress.load(Relaxed) {
            0 => Progress::Waiting,
            2 if self.uploading.load(Relaxed) == 0 => Progress::Whole,
            1 | 2 => Progress::Streaming,
            _ => Progress::Done,
        }
    }
}

impl Exchange {
    /// Carries both bodies to their ends; says how far the answer came.
    pub(super) async fn transfer(&mut self, sent: &mut Sent) -> (Progress, Result<(), Fault>) {
        let state = State::default();
        let Self {
            recorder,
            respond,
            body,
            method,
            ..
        } = self;
        let patient = recorder.with(|exchange| exchange.request_content_type.starts_with(GRPC));
        let upload = upload(recorder, body, &mut sent.body, &state, patient);
        let download = download(recorder, respond, method, &mut sent.response, &state);
        let result = both(upload, download).await;
        (state.progress(), result)
    }
}

/// Runs both directions until both are over or one fails in a way that ends the other.
async fn both(
    upload: impl Future<Output = Result<(), Fault>>,
    download: impl Future<Output = Result<(), Fault>>,
) -> Result<(), Fault> {
    let (mut upload, mut download) = (pin!(upload), pin!(download));
    let (mut uploading, mut downloading) = (true, true);
    loop {
        tokio::select! {
            biased;
            result = &mut download, if downloading => {
                result?;
                downloading = false;
            }
            result = &mut upload, if uploading => {
                uploading = false;
                match result {
                    // An origin that wants no more of a request says why in its answer.
                    Err(Fault::Origin(_)) if downloading => {}
                    result => result?,
                }
            }
        }
        if !uploading && !downloading {
            return Ok(());
        }
    }
}

async fn upload(
    recorder: &Recorder,
    from: &mut RecvStream,
    to: &mut SendStream<Bytes>,
    state: &State,
    patient: bool,
) -> Result<(), Fault> {
    if from.is_end_stream() {
        return Ok(());
    }
    state.uploading.store(1, Relaxed);
    let fault = |failed| match failed {
        Failed::From(cause) => Fault::Client(cause),
        Failed::To(cause) => Fault::Origin(cause),
    };
    loop {
        let next = pump::next(from, to);
        let data = match timeout(limits::BODY_IDLE_TIMEOUT, next).await {
            Ok(data) => data.map_err(fault)?,
            // While the answer streams, both sides take their time: a subscription, a call in both directions.
            Err(_) if patient || state.progress() == Progress::Streaming => continue,
            Err(_) => return Err(Fault::Stalled),
        };
        let last = pump::pass(data, from, to, recorder, Body::Request)
            .await
            .map_err(fault)?;
        if last {
            state.uploading.store(0, Relaxed);
            return Ok(());
        }
    }
}

async fn download(
    recorder: &Recorder,
    respond: &mut SendResponse<Bytes>,
    method: &Method,
    response: &mut ResponseFuture,
    state: &State,
) -> Result<(), Fault> {
    let fault = |failed| match failed {
        Failed::From(cause) => Fault::Origin(cause),
        Failed::To(cause) => Fault::Client(cause),
    };
    let (parts, mut from) = final_head(recorder, respond, response).await?.into_parts();
    if let Some(detail) = head::too_large(&parts.headers, 0) {
        return Err(Fault::Origin(Cause::TooLarge(detail)));
    }
    head::describe_response(recorder, &parts);
    if state.uploading.load(Relaxed) == 1 {
        recorder.with(|exchange| exchange.flags |= Flags::EARLY_RESPONSE);
    }
    let mut last = from.is_end_stream();
    let mut left = head::content_length(method, &parts);
    if last || left == Some(0) {
        recorder.before_end().await;
    }
    let passed = respond.send_response(Response::from_parts(parts, ()), last);
    let Ok(mut to) = passed else {
        return Err(Fault::Client(closed(respond).await));
    };
    state.progress.store(if left == Some(0) { 2 } else { 1 }, Relaxed);
    while !last {
        let data = pump::next(&mut from, &mut to).await.map_err(fault)?;
        let size = data.as_ref().map_or(0, Bytes::len) as u64;
        left = left.map(|left| left.saturating_sub(size));
        let whole = size > 0 && left == Some(0);
        let passed = pump::pass(data, &mut from, &mut to, recorder, Body::Response { whole }).await;
        last = passed.map_err(fault)?;
        if whole {
            state.progress.store(2, Relaxed);
        }
    }
    state.progress.store(3, Relaxed);
    Ok(())
}

/// Why a client's stream takes no answer.
async fn closed(respond: &mut SendResponse<Bytes>) -> Cause {
    poll_fn(|cx| Poll::Ready(Cause::of_closed(respond.poll_reset(cx)))).await
}

/// Awaits the final head and passes on the 1xx before it. Notices as well that the client resets the stream.
async fn final_head(
    recorder: &Recorder,
    respond: &mut SendResponse<Bytes>,
    response: &mut ResponseFuture,
) -> Result<Response<RecvStream>, Fault> {
    loop {
        let informational = poll_fn(|cx| {
            if let Poll::Ready(Some(result)) = response.poll_informational(cx) {
                return Poll::Ready(Ok(Err(result)));
            }
            if let Poll::Ready(result) = std::pin::Pin::new(&mut *response).poll(cx) {
                return Poll::Ready(Ok(Ok(result)));
            }
            respond.poll_reset(cx).map(Err)
        })
        .await;
        match informational {
            Ok(Ok(result)) => return result.map_err(|error| Fault::Origin(error.into())),
            Ok(Err(result)) => {
                let interim = result.map_err(|error| Fault::Origin(error.into()))?;
                let (parts, ()) = interim.into_parts();
                head::describe_informational(recorder, &parts);
                // If the client is gone, the next poll says so.
                let _ = respond.send_informational(Response::from_parts(parts, ()));
            }
            Err(Ok(reason)) => return Err(Fault::Client(Cause::Reset(reason))),
            Err(Err(error)) => return Err(Fault::Client(error.into())),
        }
    }
}
