//! A client's HTTP/1 connection: one request after the other.

use std::{future::poll_fn, io, pin::Pin, task::Poll, time::Duration};

use bytes::Bytes;
use proxyplane_h1::{Limits, Refusal, RequestHead, Scanner};
use proxyplane_record::{ExchangeKind, error_code};
use proxyplane_spec::limits;
use tokio::{io::AsyncWriteExt as _, time::timeout};

use super::{
    answer,
    deadline::Deadline,
    describe,
    leg::{Downstream, Leg},
    pool::Pool,
    transfer::GRACE,
};
use crate::{
    capture::{Recorder, Start},
    disconnect::{self, Peer},
    forward::Connection,
};

/// A client that was answered before it had sent everything may take this long to notice, as long as it sends.
const LINGER_IDLE: Duration = Duration::from_secs(5);
/// The same in all.
const LINGER_MAX: Duration = Duration::from_secs(30);
/// For the last bytes of a connection, TLS's close_notify among them.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a client's connection needs between and during its exchanges.
pub(crate) struct Session<C> {
    pub(crate) ctx: Connection,
    pub(crate) client: Leg<C>,
    pub(super) pool: Pool,
    pub(super) deadline: Deadline,
    /// It sent something that is, or was refused as, a request.
    pub(super) asked: bool,
    /// Of messages being written; kept so that no exchange allocates.
    pub(super) memory: [Vec<u8>; 2],
    /// One future for the connection's life: registering for the drain takes a lock that all threads share.
    draining: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// A request whose head is known.
pub(crate) struct Request {
    pub(crate) head: RequestHead,
    /// When it began.
    pub(crate) start: Start,
}

/// The client went away.
pub(crate) struct Gone {
    /// How, for people.
    detail: String,
    /// So long ago: for some time it might only have ended what it sends.
    ago: Duration,
}

impl Gone {
    /// Ends the record of what it had asked for.
    pub(crate) fn record(self, recorder: &Recorder) {
        recorder.fail(error_code::CLIENT_ABORTED, self.detail);
        recorder.ended_ago(self.ago);
        recorder.finish();
    }
}

enum Wait {
    Filled(io::Result<usize>),
    Deadline,
    Draining,
}

impl<C: Downstream> Session<C> {
    /// A session on `client`, from which `prefix` was read already.
    pub(crate) fn new(ctx: Connection, client: C, prefix: &[u8]) -> Self {
        let drain = ctx.service.drain.clone();
        Self {
            ctx,
            client: Leg::new(client, prefix),
            pool: Pool::default(),
            deadline: Deadline::default(),
            asked: false,
            memory: [Vec::new(), Vec::new()],
            draining: Box::pin(async move { drain.idle_ended().await }),
        }
    }

    /// The next request. `None` when the connection is over: the client closed it or said nothing for too long, or it
    /// sent something that was refused, which is then answered and recorded.
    pub(crate) async fn next_request(&mut self) -> Option<Request> {
        let mut scanner = Scanner::request(Limits::CAPTURE);
        let mut start: Option<Start> = None;
        let mut timed = false;
        self.client.buffer.shrink();
        self.deadline.set(limits::KEEP_ALIVE_TIMEOUT);
        loop {
            // Some clients send an empty line behind a body; it begins nothing.
            if start.is_none() && self.client.buffer.filled() == b"\r\n" {
                self.client.buffer.consume(2);
            }
            if !self.client.buffer.is_empty() {
                self.asked = true;
                let began = start.get_or_insert_with(|| self.ctx.start(ExchangeKind::Http)).clone();
                match self.look(&mut scanner) {
                    Ok(Some(head)) => return Some(Request { head, start: began }),
                    Ok(None) if timed => {}
                    Ok(None) => {
                        timed = true;
                        self.deadline.set(limits::HEAD_TIMEOUT);
                    }
                    Err(refusal) => {
                        self.refuse(began, refusal).await;
                        return None;
                    }
                }
            }
            match (self.wait(timed).await, start.clone()) {
                (Wait::Filled(Ok(1..)), _) => {}
                (_, None) => return None,
                (wait, Some(began)) => {
                    self.incomplete(began, &wait).await;
                    return None;
                }
            }
        }
    }

    fn look(&mut self, scanner: &mut Scanner) -> Result<Option<RequestHead>, Refusal> {
        let filled = self.client.buffer.filled();
        // Nothing that begins like this ends with an empty line: TLS sent to a port that expects requests.
        if filled.first().is_some_and(|b| !b.is_ascii_graphic() && *b != b'\r') {
            return Err(Refusal::InvalidRequestLine);
        }
        let Some(range) = scanner.find(filled)? else {
            return Ok(None);
        };
        let head = RequestHead::parse(Bytes::copy_from_slice(&filled[range.clone()]), Limits::CAPTURE)?;
        self.client.buffer.consume(range.end);
        Ok(Some(head))
    }

    /// Waits for bytes. A drain ends an idle connection, at once or after a while, not one that is in the middle of a request.
    async fn wait(&mut self, begun: bool) -> Wait {
        if self.client.eof {
            return Wait::Filled(Ok(0));
        }
        poll_fn(|cx| {
            // A head has to fit, and one byte more, so that the scanner sees that it does not.
            if let Poll::Ready(filled) = self
                .client
                .poll_fill_to(cx, limits::HEAD_BYTES_MAX + limits::COPY_BUFFER)
            {
                return Poll::Ready(Wait::Filled(filled));
            }
            if self.deadline.poll(cx).is_ready() {
                return Poll::Ready(Wait::Deadline);
            }
            if !begun && self.draining.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Wait::Draining);
            }
            Poll::Pending
        })
        .await
    }

    /// Does what the client waits for, and gives up when the client does. What it sends meanwhile is kept.
    pub(crate) async fn while_present<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Gone> {
        let mut work = std::pin::pin!(work);
        self.deadline.clear();
        if self.client.eof {
            self.deadline.set(GRACE);
        }
        let done = poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            while !self.client.eof && !self.client.buffer.is_full(limits::COPY_BUFFER) {
                match self.client.poll_fill(cx) {
                    Poll::Ready(Ok(0)) => self.deadline.set(GRACE),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => {
                        let cause = disconnect::in_words(Peer::Client, &error);
                        let detail = format!("{cause} before the origin was reached");
                        let ago = Duration::ZERO;
                        return Poll::Ready(Err(Gone { detail, ago }));
                    }
                    Poll::Pending => break,
                }
            }
            let gone = || Gone {
                detail: "the client closed the connection before the origin was reached".to_owned(),
                ago: GRACE,
            };
            self.deadline.poll(cx).map(|()| Err(gone()))
        })
        .await;
        self.deadline.clear();
        done
    }

    /// Answers and records a head that cannot be carried.
    async fn refuse(&mut self, start: Start, refusal: Refusal) {
        let (status, code) = if refusal.is_too_large() {
            (431, error_code::REQUEST_HEAD_TOO_LARGE)
        } else {
            (400, error_code::REQUEST_REFUSED)
        };
        let detail = format!("{}: {refusal}", refusal.code());
        let recorder = self.ctx.begin(start).await;
        describe::broken_request(&recorder, &self.ctx, self.client.buffer.filled());
        recorder.fail(code, detail.clone());
        self.answer(&recorder, &answer::error(status, code, &detail, false))
            .await;
    }

    /// Records a head that did not become complete.
    async fn incomplete(&mut self, start: Start, wait: &Wait) {
        let recorder = self.ctx.begin(start).await;
        describe::broken_request(&recorder, &self.ctx, self.client.buffer.filled());
        if matches!(wait, Wait::Deadline) {
            let detail = format!(
                "the request's head was not complete after {} seconds",
                limits::HEAD_TIMEOUT.as_secs()
            );
            recorder.fail(error_code::CLIENT_TIMEOUT, detail.clone());
            self.answer(
                &recorder,
                &answer::error(408, error_code::CLIENT_TIMEOUT, &detail, false),
            )
            .await;
        } else {
            recorder.fail(
                error_code::CLIENT_ABORTED,
                "the client closed the connection inside of a request's head",
            );
            recorder.finish();
        }
    }

    /// Closes the connection after an answer that the client may still be sending something before.
    pub(super) async fn linger(&mut self) {
        let discard = async {
            self.client.io.shutdown().await?;
            while !self.client.eof {
                let held = self.client.buffer.filled().len();
                self.client.buffer.consume(held);
                match timeout(LINGER_IDLE, poll_fn(|cx| self.client.poll_fill(cx))).await {
                    Ok(filled) => filled?,
                    Err(_) => break,
                };
            }
            io::Result::Ok(())
        };
        // What goes wrong here changes nothing: the answer is out.
        let _ = timeout(LINGER_MAX, discard).await;
    }

    /// Closes the connection in order.
    pub(crate) async fn close(mut self) {
        let _ = timeout(CLOSE_TIMEOUT, self.client.io.shutdown()).await;
    }
}
