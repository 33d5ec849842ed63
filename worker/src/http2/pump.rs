//! One direction's body: DATA from one stream to the other, and the trailers behind it.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use tokio::time::timeout;

use super::{fault::Cause, head};
use crate::capture::Recorder;

/// How long an answer that is to be recorded before its end, and has all of its Content-Length, may take to end before
/// its last piece is passed on all the same.
const END_WITHIN: Duration = Duration::from_millis(200);

/// Which side of a pump failed.
#[derive(Debug)]
pub(super) enum Failed {
    From(Cause),
    To(Cause),
}

/// Which body it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Request,
    Response {
        /// With this piece the answer has all of its Content-Length: for most clients that is its end, before END_STREAM
        /// has come.
        whole: bool,
    },
}

/// The next piece of a body; `None` at its end. Notices as well that the other side wants no more of it.
pub(super) async fn next(from: &mut RecvStream, to: &mut SendStream<Bytes>) -> Result<Option<Bytes>, Failed> {
    poll_fn(|cx| {
        if let Poll::Ready(data) = from.poll_data(cx) {
            return Poll::Ready(data.transpose().map_err(|error| Failed::From(error.into())));
        }
        match to.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => Poll::Ready(Err(Failed::To(Cause::Reset(reason)))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(Failed::To(error.into()))),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Passes a piece on, or the end if there is none; true if nothing follows.
pub(super) async fn pass(
    data: Option<Bytes>,
    from: &mut RecvStream,
    to: &mut SendStream<Bytes>,
    recorder: &Recorder,
    body: Body,
) -> Result<bool, Failed> {
    let Some(data) = data else {
        return end(Bytes::new(), from, to, recorder, body).await.map(|()| true);
    };
    // END_STREAM goes where it came, not into a frame of its own.
    let last = from.is_end_stream();
    let copy = data.clone();
    let ends = last || body == Body::Response { whole: true };
    let kept = ends && body != Body::Request && recorder.is_durable();
    if kept {
        recorder.response_data(&copy).await;
        if !last && has_ended(from).await? {
            return end(data, from, to, recorder, body).await.map(|()| true);
        }
        recorder.before_end().await;
    }
    send(to, data, last).await.map_err(Failed::To)?;
    // The sender gets its window back only now that the receiver has taken the bytes. It fails only for a stream that
    // has ended, which has no window to mind.
    let _ = from.flow_control().release_capacity(copy.len());
    match body {
        Body::Request => recorder.request_data(&copy).await,
        Body::Response { .. } if kept => {}
        Body::Response { .. } => recorder.response_data(&copy).await,
    }
    Ok(last)
}

/// Does the end come within a moment? Then it is known before the last of a body is passed on.
async fn has_ended(from: &mut RecvStream) -> Result<bool, Failed> {
    let rest = async {
        while let Some(data) = from.data().await {
            data?;
        }
        Ok(())
    };
    match timeout(END_WITHIN, rest).await {
        Ok(ended) => ended
            .map(|()| true)
            .map_err(|error: h2::Error| Failed::From(error.into())),
        Err(_) => Ok(false),
    }
}

/// What was `held` back of the body, and its end: trailers, or the bare end.
async fn end(
    held: Bytes,
    from: &mut RecvStream,
    to: &mut SendStream<Bytes>,
    recorder: &Recorder,
    body: Body,
) -> Result<(), Failed> {
    let trailers = from.trailers().await.map_err(|error| Failed::From(error.into()))?;
    let Some(trailers) = trailers else {
        if body != Body::Request {
            recorder.before_end().await;
        }
        return send(to, held, true).await.map_err(Failed::To);
    };
    let lines = head::field_lines(&trailers);
    recorder.with(|exchange| match body {
        Body::Request => exchange.request_trailers = lines,
        Body::Response { .. } => exchange.response_trailers = lines,
    });
    if body != Body::Request {
        recorder.before_end().await;
    }
    send(to, held, false).await.map_err(Failed::To)?;
    to.send_trailers(trailers)
        .map_err(|_| Failed::To(Cause::stream_closed()))
}

/// Sends all of `data` as the receiver's window allows.
pub(super) async fn send(to: &mut SendStream<Bytes>, mut data: Bytes, last: bool) -> Result<(), Cause> {
    while !data.is_empty() {
        to.reserve_capacity(data.len());
        let room = match to.capacity() {
            0 => poll_fn(|cx| poll_room(to, cx)).await?,
            room => room,
        };
        let piece = data.split_to(room.min(data.len()));
        let end = last && data.is_empty();
        give(to, piece, end).await?;
        if end {
            return Ok(());
        }
    }
    if last {
        give(to, Bytes::new(), true).await
    } else {
        Ok(())
    }
}

async fn give(to: &mut SendStream<Bytes>, piece: Bytes, end: bool) -> Result<(), Cause> {
    if to.send_data(piece, end).is_ok() {
        return Ok(());
    }
    poll_fn(|cx| Poll::Ready(Err(Cause::of_closed(to.poll_reset(cx))))).await
}

fn poll_room(to: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<usize, Cause>> {
    match to.poll_capacity(cx) {
        Poll::Ready(Some(Ok(room))) => Poll::Ready(Ok(room)),
        Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error.into())),
        Poll::Ready(None) => Poll::Ready(Err(Cause::of_closed(to.poll_reset(cx)))),
        Poll::Pending => Poll::Pending,
    }
}
