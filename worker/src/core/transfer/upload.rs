//! The request's way to the origin.

use std::io;

use bytes::Bytes;
use proxyplane_h1::{Hop, RequestHead};
use proxyplane_record::{Flags, error_code};
use proxyplane_spec::limits;

use super::{Failure, GRACE, Outcome, Transfer};
use crate::core::{body::Body, leg::Downstream, outgoing::Outgoing};

/// How far the request is.
pub(super) struct Upload {
    pub(super) out: Outgoing,
    body: Body,
    state: State,
    /// What is being written is the end of the request.
    last: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The client is to send more of the body.
    Reading,
    /// The client waits for 100 Continue before it sends the body.
    Held,
    /// Something is on its way.
    Writing,
    /// The origin takes no more of it.
    Broken,
    /// All of it was sent.
    Complete,
}

impl Upload {
    pub(super) fn new(request: &RequestHead, hop: Hop, memory: Vec<u8>) -> Self {
        let mut out = Outgoing::reusing(memory);
        request.write_to(out.head(), hop);
        Self {
            out,
            body: Body::new(request.framing()),
            state: State::Writing,
            last: false,
        }
    }

    pub(super) fn is_writing(&self) -> bool {
        self.state == State::Writing
    }

    pub(super) fn is_held(&self) -> bool {
        self.state == State::Held
    }

    pub(super) fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    pub(super) fn is_complete(&self) -> bool {
        self.state == State::Complete
    }
}

impl<C: Downstream> Transfer<'_, C> {
    /// Sends the head, together with what is there of the body.
    pub(super) async fn begin_upload(&mut self) -> Option<Outcome> {
        let held = self.request.expects_continue() && self.client.buffer.is_empty();
        if held {
            return None;
        }
        self.upload_piece().await
    }

    /// Records what the client sent of the body, and begins to send it on.
    pub(super) async fn upload_piece(&mut self) -> Option<Outcome> {
        if self.upload.is_broken() {
            let held = self.client.buffer.filled().len();
            self.client.buffer.consume(held);
            return None;
        }
        let taken = match self.upload.body.take(&mut self.client.buffer) {
            Ok(taken) => taken,
            Err(refusal) => {
                let detail = format!("{}: {refusal}", refusal.code());
                return Some(self.failure(Failure::new(400, error_code::REQUEST_REFUSED, detail)));
            }
        };
        if !taken.data.is_empty() {
            self.recorder
                .request_data(self.client.buffer.at(taken.data.clone()))
                .await;
        }
        let trailers = self.upload.body.trailers();
        if taken.last && !trailers.is_empty() {
            let trailers = Bytes::copy_from_slice(trailers);
            self.recorder.with(|exchange| exchange.request_trailers = trailers);
        }
        self.upload
            .out
            .piece(&taken, self.upload.body.is_chunked(), self.upload.body.trailers());
        self.upload.last = taken.last;
        if self.upload.out.is_empty() {
            self.await_body();
        } else {
            self.upload.state = State::Writing;
            self.deadline.clear();
        }
        None
    }

    fn await_body(&mut self) {
        self.upload.state = State::Reading;
        self.deadline.set(if self.download.complete {
            GRACE
        } else {
            limits::BODY_IDLE_TIMEOUT
        });
    }

    pub(super) fn on_sent(&mut self, result: &io::Result<()>) -> Option<Outcome> {
        if result.is_err() {
            // The origin may have answered before it closed: what it said is read, and decides.
            self.upload.state = State::Broken;
            return self.download.complete.then(|| self.complete());
        }
        if self.upload.last {
            self.upload.state = State::Complete;
        }
        if self.client.eof || self.upload.is_complete() && self.download.complete {
            return self.client_ended();
        }
        if self.upload.is_complete() {
            return None;
        }
        if self.request.expects_continue() && !self.download.continued && !self.download.has_answer() {
            self.upload.state = State::Held;
            self.deadline.set(limits::CONTINUE_AFTER);
        } else {
            self.await_body();
        }
        None
    }

    /// The client may send the body now.
    pub(super) fn release(&mut self) {
        if self.upload.is_held() {
            self.await_body();
        }
    }

    /// The origin says nothing, and the client waits for it.
    pub(super) fn send_own_continue(&mut self) {
        self.download.continued = true;
        self.download
            .out
            .head()
            .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        self.download.writing = true;
        self.release();
    }

    /// The answer is complete and the request is not: whatever else the client sends goes on to the origin, for as
    /// long as both keep at it.
    pub(super) fn outlive_answer(&mut self) -> Option<Outcome> {
        if self.upload.is_complete() || self.upload.is_held() || self.upload.is_broken() || self.download.closing {
            return Some(self.complete());
        }
        self.deadline.set(GRACE);
        None
    }

    /// Notes that the answer did not wait for the request's end.
    pub(super) fn note_early_answer(&mut self) {
        if !self.upload.is_complete() {
            self.download.early = true;
            self.recorder.with(|exchange| exchange.flags |= Flags::EARLY_RESPONSE);
        }
    }

    /// The end of an exchange whose answer went out whole.
    pub(super) fn complete(&mut self) -> Outcome {
        let whole = self.upload.is_complete();
        // A client that has ended may have sent more requests before it did.
        let over = self.client.eof && self.client.buffer.is_empty();
        Outcome::Complete {
            client: whole && !self.download.closing && !over,
            upstream: whole && self.download.upstream_goes_on(),
        }
    }
}
