//! The answer's way to the client.

use std::{future::poll_fn, io};

use bytes::Bytes;
use proxyplane_h1::{Framing, Limits, Refusal, ResponseHead, Scanner, Version};
use proxyplane_record::error_code;
use proxyplane_spec::limits;

use super::{Failure, GRACE, Outcome, Transfer};
use crate::{
    core::{
        body::Body,
        describe,
        leg::{Cut, Downstream},
        outgoing::Outgoing,
    },
    disconnect::{self, Peer},
    tls::TlsFailure,
};

/// Most bytes that are quoted of an origin that speaks something else.
const SAID_MAX: usize = 64;

/// How far the answer is.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one fact about the answer, and most combinations occur"
)]
pub(super) struct Download {
    pub(super) out: Outgoing,
    scanner: Scanner,
    /// Of the final answer, once its head is known.
    body: Option<Body>,
    /// Something is on its way to the client.
    pub(super) writing: bool,
    /// Some of the final answer went to the client, or is on its way.
    pub(super) started: bool,
    /// What is being written is the end of the answer.
    last: bool,
    /// All of it was sent.
    pub(super) complete: bool,
    /// The client was sent 100 Continue.
    pub(super) continued: bool,
    /// The client's connection ends with this answer.
    pub(super) closing: bool,
    /// The final answer came before the end of the request.
    pub(super) early: bool,
    /// Bytes of any answer came.
    heard: bool,
    /// The body has a length that the origin gave.
    exact: bool,
    /// The origin means to keep its connection, and nothing odd came on it.
    keeps_alive: bool,
}

impl Download {
    pub(super) fn new(memory: Vec<u8>) -> Self {
        Self {
            out: Outgoing::reusing(memory),
            scanner: Scanner::response(Limits::CAPTURE),
            body: None,
            writing: false,
            started: false,
            last: false,
            complete: false,
            continued: false,
            closing: false,
            early: false,
            heard: false,
            exact: false,
            keeps_alive: false,
        }
    }

    /// How much may be read before some of it is dealt with: a head has to fit, a body passes.
    pub(super) fn capacity(&self) -> usize {
        if self.body.is_none() {
            limits::HEAD_BYTES_MAX + limits::COPY_BUFFER
        } else {
            limits::COPY_BUFFER
        }
    }

    /// Is the final answer's head known?
    pub(super) fn has_answer(&self) -> bool {
        self.body.is_some()
    }

    pub(super) fn ends_with_connection(&self) -> bool {
        self.body.as_ref().is_some_and(Body::ends_with_connection)
    }

    pub(super) fn upstream_goes_on(&self) -> bool {
        self.keeps_alive && !self.early
    }
}

impl<C: Downstream> Transfer<'_, C> {
    pub(super) async fn on_upstream(&mut self, result: io::Result<usize>) -> Option<Outcome> {
        match result {
            Ok(0) => return self.upstream_ended(None),
            Err(error) => return self.upstream_ended(Some(&error)),
            Ok(_) => {}
        }
        if !self.download.heard {
            self.download.heard = true;
            self.recorder.first_byte();
        }
        if self.download.has_answer() {
            self.answer_piece().await
        } else {
            self.answer_heads().await
        }
    }

    /// The origin will send no more.
    fn upstream_ended(&mut self, error: Option<&io::Error>) -> Option<Outcome> {
        let cause = error.map_or_else(
            || "the origin closed the connection".to_owned(),
            |error| disconnect::in_words(Peer::Origin, error),
        );
        if error.is_none() && self.download.ends_with_connection() {
            return self.answer_complete();
        }
        if !self.download.heard && self.rules.reused {
            return Some(Outcome::Stale(cause));
        }
        let place = match (self.download.has_answer(), self.download.heard) {
            (true, _) => "inside of its answer's body",
            (false, true) => "inside of its answer's head",
            (false, false) => "before it answered",
        };
        let failure = match error.and_then(TlsFailure::after_handshake) {
            Some(tls) => Failure::new(502, tls.code, tls.detail),
            None => Failure::new(502, error_code::UPSTREAM_ABORTED, format!("{cause} {place}")),
        };
        Some(match (self.failure(failure), error.map(io::Error::kind)) {
            // The client's TLS ends as the origin's did: clients that make do with it shall not need to know of us.
            (Outcome::Aborted(Some(_)), Some(io::ErrorKind::UnexpectedEof)) => Outcome::Aborted(Some(Cut::Silent)),
            (outcome, _) => outcome,
        })
    }

    /// Takes heads out of what the origin sent, until the final one.
    async fn answer_heads(&mut self) -> Option<Outcome> {
        loop {
            if let Some(said) = no_http(self.upstream.buffer.filled()) {
                let code = Refusal::InvalidStatusLine.code();
                let detail = format!("{code}: the origin does not speak HTTP; it says '{said}'");
                let failure = Failure::new(502, error_code::UPSTREAM_RESPONSE_REFUSED, detail);
                return Some(self.failure(failure));
            }
            let head = match self.next_head() {
                Ok(Some(head)) => head,
                Ok(None) => {
                    self.download.writing = !self.download.out.is_empty();
                    return None;
                }
                Err(refusal) => return Some(self.refuse_answer(refusal)),
            };
            if head.status() == 101 {
                return Some(self.upgrade(head).await);
            }
            if !head.is_informational() {
                return self.begin_answer(&head).await;
            }
            self.pass_informational(&head);
        }
    }

    fn next_head(&mut self) -> Result<Option<ResponseHead>, Refusal> {
        let Some(range) = self.download.scanner.find(self.upstream.buffer.filled())? else {
            return Ok(None);
        };
        let raw = Bytes::copy_from_slice(&self.upstream.buffer.filled()[range.clone()]);
        self.upstream.buffer.consume(range.end);
        self.download.scanner = Scanner::response(Limits::CAPTURE);
        ResponseHead::parse(raw, Limits::CAPTURE).map(Some)
    }

    fn refuse_answer(&mut self, refusal: Refusal) -> Outcome {
        let code = match refusal {
            Refusal::HeadTooLarge | Refusal::TooManyFields if !self.download.has_answer() => {
                error_code::UPSTREAM_HEAD_TOO_LARGE
            }
            _ => error_code::UPSTREAM_RESPONSE_REFUSED,
        };
        self.failure(Failure::new(502, code, format!("{}: {refusal}", refusal.code())))
    }

    /// Passes a 1xx on. A second 100 Continue after our own is recorded only.
    fn pass_informational(&mut self, head: &ResponseHead) {
        describe::informational(self.recorder, head);
        let repeated = head.status() == 100 && self.download.continued;
        if self.request.version() == Version::Http11 && !repeated {
            head.write_to(self.download.out.head(), self.rules.hop(), false);
        }
        if head.status() == 100 {
            self.download.continued = true;
            self.release();
        }
    }

    async fn begin_answer(&mut self, head: &ResponseHead) -> Option<Outcome> {
        let framing = head.framing(self.request.method());
        describe::response(self.recorder, head);
        self.note_early_answer();
        self.download.body = Some(Body::new(framing));
        let until_close = self.download.ends_with_connection();
        self.download.exact = matches!(framing, Framing::Length(_));
        self.download.keeps_alive = head.keeps_alive() && !until_close && self.request.version() == Version::Http11;
        self.download.closing = !self.request.keeps_alive()
            || head.version() == Version::Http10
            || until_close
            || self.upload.is_held()
            || self.rules.paired && !head.keeps_alive()
            || self.drain.draining();
        // HTTP/1.0 closes unless it says otherwise.
        head.write_to(
            self.download.out.head(),
            self.rules.hop(),
            self.download.closing && head.version() == Version::Http11,
        );
        self.answer_piece().await
    }

    /// Records what came of the answer's body, and begins to send it on.
    async fn answer_piece(&mut self) -> Option<Outcome> {
        let download = &mut self.download;
        let body = download.body.as_mut()?;
        let taken = match body.take(&mut self.upstream.buffer) {
            Ok(taken) => taken,
            Err(refusal) => return Some(self.refuse_answer(refusal)),
        };
        if taken.last && !self.upstream.buffer.is_empty() {
            download.keeps_alive = false;
            if download.exact {
                let detail = "the origin sent more than its Content-Length says";
                return Some(self.failure(Failure::new(502, error_code::UPSTREAM_RESPONSE_REFUSED, detail)));
            }
        }
        if !taken.data.is_empty() {
            self.recorder
                .response_data(self.upstream.buffer.at(taken.data.clone()))
                .await;
        }
        let trailers = body.trailers();
        if taken.last && !trailers.is_empty() {
            let trailers = Bytes::copy_from_slice(trailers);
            self.recorder.with(|exchange| exchange.response_trailers = trailers);
        }
        if taken.last {
            self.recorder.before_end().await;
        }
        download.out.piece(&taken, body.is_chunked(), body.trailers());
        download.last = taken.last;
        if !download.out.is_empty() {
            download.writing = true;
            download.started = true;
        }
        None
    }

    pub(super) fn on_answered(&mut self, result: io::Result<()>) -> Option<Outcome> {
        if let Err(error) = result {
            return Some(self.client_failed(&error));
        }
        if self.download.last {
            return self.answer_complete();
        }
        if self.client.eof {
            self.deadline.set(GRACE);
        }
        None
    }

    fn answer_complete(&mut self) -> Option<Outcome> {
        self.download.complete = true;
        self.outlive_answer()
    }

    /// Switches protocols: what is written last of HTTP is this head.
    async fn upgrade(&mut self, head: ResponseHead) -> Outcome {
        if self.request.upgrade().is_none() || !self.upload.is_complete() {
            let detail = "the origin switched protocols without having been asked to";
            return self.failure(Failure::new(502, error_code::UPSTREAM_RESPONSE_REFUSED, detail));
        }
        describe::response(self.recorder, &head);
        head.write_to(self.download.out.head(), self.rules.hop(), false);
        let out = &mut self.download.out;
        match poll_fn(|cx| out.poll_write(cx, &mut self.client.io, &self.upstream.buffer)).await {
            Ok(()) => Outcome::Upgrade(Box::new(head)),
            Err(error) => self.client_failed(&error),
        }
    }
}

/// What an origin says that speaks another protocol, as far as it is there: such a one may wait for an answer of ours
/// instead of ending a head.
fn no_http(begun: &[u8]) -> Option<String> {
    const START: &[u8] = b"HTTP/";
    let seen = &begun[..begun.len().min(START.len())];
    // Line ends before the head have refusals of their own.
    if START.starts_with(seen) || seen.starts_with(b"\r") || seen.starts_with(b"\n") {
        return None;
    }
    let line = begun.split(|&b| b == b'\r' || b == b'\n').next().unwrap_or_default();
    Some(line[..line.len().min(SAID_MAX)].escape_ascii().to_string())
}
