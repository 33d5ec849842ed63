//! One request and its answer on their way, both directions at once.
//!
//! A loop of events over one poll function: whichever side can go on does. Each direction reads, records and writes
//! one buffer at a time, so the slower side slows the faster one down. While an answer is awaited the client is
//! listened to, so that a client that goes away is noticed.

mod download;
mod upload;

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use proxyplane_h1::{Hop, RequestHead, ResponseHead};
use proxyplane_record::error_code;
use proxyplane_spec::limits;

use self::{download::Download, upload::Upload};
use super::{
    deadline::Deadline,
    leg::{Cut, Downstream, Leg},
};
use crate::{
    capture::Recorder,
    disconnect::{self, Peer},
    service::Drain,
    upstream::Stream,
};

/// A client that has ended what it sends may have gone, or may wait for the answer (a half-closed connection looks the
/// same): it is given up when nothing could be sent to it for this long. Also how long a request body may stand still
/// once its answer is complete.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// The two connections and what is going on between them.
pub(super) struct Transfer<'a, C> {
    client: &'a mut Leg<C>,
    upstream: &'a mut Leg<Stream>,
    recorder: &'a Recorder,
    request: &'a RequestHead,
    deadline: &'a mut Deadline,
    drain: &'a Drain,
    rules: Rules,
    upload: Upload,
    download: Download,
}

/// What a [`Transfer`] is made of.
pub(super) struct Between<'a, C> {
    pub(super) client: &'a mut Leg<C>,
    pub(super) upstream: &'a mut Leg<Stream>,
    pub(super) recorder: &'a Recorder,
    pub(super) request: &'a RequestHead,
    pub(super) deadline: &'a mut Deadline,
    pub(super) drain: &'a Drain,
    pub(super) rules: Rules,
}

/// What the surroundings of an exchange mean for its connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// The upstream connection carried an exchange before.
    pub(super) reused: bool,
    /// Both connections belong together: if the origin closes its one, so do we.
    pub(super) paired: bool,
}

impl Rules {
    /// What the client is talking to.
    fn hop(self) -> Hop {
        if self.paired { Hop::Tunnel } else { Hop::Proxy }
    }
}

/// How an exchange ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// With a complete answer.
    Complete {
        /// The client's connection may go on.
        client: bool,
        /// The upstream connection may go on.
        upstream: bool,
    },
    /// With a 101, which has gone out: the connections carry another protocol from now on.
    Upgrade(Box<ResponseHead>),
    /// A connection that had been used before was closed before it answered anything.
    Stale(String),
    /// Nothing of an answer went to the client yet: it can be told.
    Failed(Failure),
    /// In the midst of the answer; what is wrong is recorded. The client must notice: with `Some`, it would take the
    /// end of the connection for the end of the answer.
    Aborted(Option<Cut>),
}

/// What a client is told instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) detail: String,
}

impl Failure {
    pub(super) fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
        }
    }
}

enum Event {
    Client(io::Result<usize>),
    Upstream(io::Result<usize>),
    Sent(io::Result<()>),
    Answered(io::Result<()>),
    Deadline,
}

impl<'a, C: Downstream> Transfer<'a, C> {
    /// Puts an exchange together; `memory` is lent to it until [`Self::run`] is over.
    pub(super) fn new(between: Between<'a, C>, memory: &mut [Vec<u8>; 2]) -> Self {
        let [up, down] = std::mem::take(memory);
        let upload = Upload::new(between.request, between.rules.hop(), up);
        let Between {
            client,
            upstream,
            recorder,
            request,
            deadline,
            drain,
            rules,
        } = between;
        Self {
            client,
            upstream,
            recorder,
            request,
            deadline,
            drain,
            rules,
            upload,
            download: Download::new(down),
        }
    }

    /// Runs the exchange to its end. `memory` gets back what [`Self::new`] took.
    pub(super) async fn run(mut self, memory: &mut [Vec<u8>; 2]) -> Outcome {
        self.deadline.clear();
        let outcome = self.carry().await;
        self.deadline.clear();
        *memory = [self.upload.out.into_memory(), self.download.out.into_memory()];
        outcome
    }

    async fn carry(&mut self) -> Outcome {
        if let Some(outcome) = self.begin_upload().await {
            return outcome;
        }
        loop {
            let outcome = match poll_fn(|cx| self.poll(cx)).await {
                Event::Sent(result) => self.on_sent(&result),
                Event::Upstream(result) => self.on_upstream(result).await,
                Event::Answered(result) => self.on_answered(result),
                Event::Client(result) => self.on_client(result).await,
                Event::Deadline => self.on_deadline(),
            };
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
    }

    /// The next thing that happens, on either side.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.download.writing {
            if let Poll::Ready(result) = self
                .download
                .out
                .poll_write(cx, &mut self.client.io, &self.upstream.buffer)
            {
                self.download.writing = false;
                return Poll::Ready(Event::Answered(result));
            }
        } else if !self.download.complete
            && let Poll::Ready(result) = self.upstream.poll_fill_to(cx, self.download.capacity())
        {
            return Poll::Ready(Event::Upstream(result));
        }
        if self.upload.is_writing() {
            if let Poll::Ready(result) = self
                .upload
                .out
                .poll_write(cx, &mut self.upstream.io, &self.client.buffer)
            {
                return Poll::Ready(Event::Sent(result));
            }
        } else if !self.client.eof
            && !self.client.buffer.is_full(limits::COPY_BUFFER)
            && let Poll::Ready(result) = self.client.poll_fill(cx)
        {
            return Poll::Ready(Event::Client(result));
        }
        self.deadline.poll(cx).map(|()| Event::Deadline)
    }

    async fn on_client(&mut self, result: io::Result<usize>) -> Option<Outcome> {
        match result {
            Ok(0) => self.client_ended(),
            // What comes behind the request is the next one and waits.
            Ok(_) if self.upload.is_complete() => None,
            Ok(_) => self.upload_piece().await,
            Err(error) => Some(self.client_failed(&error)),
        }
    }

    /// The client will send no more.
    fn client_ended(&mut self) -> Option<Outcome> {
        if self.download.complete {
            return Some(self.complete());
        }
        if !self.upload.is_complete() && !self.upload.is_broken() {
            return Some(self.client_gone("the client closed the connection inside of the request's body"));
        }
        self.deadline.set(GRACE);
        None
    }

    /// The client's connection failed.
    fn client_failed(&mut self, error: &io::Error) -> Outcome {
        let cause = disconnect::in_words(Peer::Client, error);
        self.client_gone(format!("{cause} before the answer was complete"))
    }

    fn client_gone(&mut self, detail: impl Into<Bytes>) -> Outcome {
        if self.download.complete {
            return self.complete();
        }
        self.recorder.fail(error_code::CLIENT_ABORTED, detail);
        Outcome::Aborted(None)
    }

    fn on_deadline(&mut self) -> Option<Outcome> {
        self.deadline.clear();
        if self.download.complete {
            self.recorder.ended_ago(GRACE);
            return Some(self.complete());
        }
        if self.client.eof {
            self.recorder.ended_ago(GRACE);
            return Some(self.client_gone("the client closed the connection before the answer was complete"));
        }
        if self.upload.is_held() {
            self.send_own_continue();
            return None;
        }
        let detail = format!(
            "no more of the request's body came for {} seconds",
            limits::BODY_IDLE_TIMEOUT.as_secs()
        );
        Some(self.failure(Failure::new(408, error_code::CLIENT_TIMEOUT, detail)))
    }

    /// Something is wrong with the exchange: the client is told, or at least notices.
    fn failure(&mut self, failure: Failure) -> Outcome {
        if !self.download.started {
            return Outcome::Failed(failure);
        }
        self.recorder.fail(failure.code, failure.detail);
        Outcome::Aborted(self.download.ends_with_connection().then_some(Cut::Reset))
    }
}
