//! One exchange: find an upstream connection, carry request and answer, decide what becomes of both connections.

use std::sync::Arc;

use proxyplane_record::{Flags, error_code};

use super::{
    answer, describe,
    leg::Downstream,
    pool::Line,
    session::{Gone, Request, Session},
    transfer::{Between, Failure, Outcome, Rules, Transfer},
    upgrade::Upgrade,
};
use crate::{
    capture::Recorder,
    upstream::{self, DialError, Origin},
};

/// What becomes of the client's connection after an exchange.
pub(crate) enum After {
    /// It may carry the next request.
    Continue,
    /// It is closed in order.
    Close,
    /// It is dropped as it is, so that the client notices.
    Drop,
    /// It carries another protocol from now on.
    Upgrade(Box<Upgrade>),
}

impl<C: Downstream> Session<C> {
    /// Carries one request to `origin` and its answer back.
    pub(crate) async fn exchange(&mut self, request: Request, origin: &Origin) -> After {
        let Request { head, start } = request;
        let recorder = self.ctx.begin(start).await;
        describe::request(&recorder, &self.ctx, &head, origin);
        let mut retried = false;
        loop {
            let mut line = match self.line(origin, &recorder, retried).await {
                Ok(Ok(line)) => line,
                Ok(Err(error)) => return self.unreachable(&recorder, head.method(), error).await,
                Err(gone) => {
                    gone.record(&recorder);
                    return After::Drop;
                }
            };
            describe::upstream(&recorder, &line.facts, line.reused);
            let between = Between {
                client: &mut self.client,
                upstream: &mut line.leg,
                recorder: &recorder,
                request: &head,
                deadline: &mut self.deadline,
                drain: &self.ctx.service.drain,
                rules: Rules {
                    reused: line.reused,
                    paired: self.ctx.origin.is_some(),
                },
            };
            let outcome = Transfer::new(between, &mut self.memory).run(&mut self.memory).await;
            match outcome {
                Outcome::Complete { client, upstream } => {
                    recorder.finish();
                    return self.completed(origin, line, client, upstream).await;
                }
                Outcome::Stale(_) if !retried && head.is_idempotent() && head.framing().is_empty() => {
                    retried = true;
                    recorder
                        .with(|exchange| exchange.flags = exchange.flags & !Flags::REUSED_UPSTREAM | Flags::RETRIED);
                }
                Outcome::Stale(cause) => {
                    recorder.fail(
                        error_code::UPSTREAM_ABORTED,
                        format!("{cause} before it answered; it had been used before"),
                    );
                    recorder.finish();
                    return After::Drop;
                }
                Outcome::Failed(failure) => {
                    self.fail(&recorder, head.method(), &failure).await;
                    return After::Drop;
                }
                Outcome::Aborted(cut) => {
                    recorder.finish();
                    if let Some(cut) = cut {
                        self.client.io.cut_off(cut);
                    }
                    return After::Drop;
                }
                Outcome::Upgrade(answer) => {
                    return After::Upgrade(Box::new(Upgrade::new(recorder, &head, &answer, line.leg)));
                }
            }
        }
    }

    /// A connection to `origin`: one that is kept, or else a new one.
    async fn line(&mut self, origin: &Origin, recorder: &Recorder, new: bool) -> Result<Result<Line, DialError>, Gone> {
        if !new && let Some(line) = self.pool.take(origin).await {
            return Ok(Ok(line));
        }
        if self.ctx.service.config().tls.insecure_upstream() && origin.is_tls() {
            recorder.with(|exchange| exchange.flags |= Flags::INSECURE_UPSTREAM);
        }
        let service = Arc::clone(&self.ctx.service);
        let dialled = self.while_present(upstream::dial(&service, origin)).await?;
        Ok(dialled.map(Line::new))
    }

    /// Keeps what can be kept.
    async fn completed(&mut self, origin: &Origin, mut line: Line, client: bool, upstream: bool) -> After {
        if upstream && client {
            line.reused = true;
            line.leg.buffer.shrink();
            self.pool.keep(origin.clone(), line);
        }
        if client {
            return After::Continue;
        }
        if self.client.eof || self.client.buffer.is_empty() && upstream {
            return After::Close;
        }
        self.linger().await;
        After::Drop
    }

    /// Answers a request with why its origin cannot be reached.
    pub(super) async fn refuse_with(&mut self, request: Request, origin: &Origin, error: &DialError) {
        let recorder = self.ctx.begin(request.start).await;
        describe::request(&recorder, &self.ctx, &request.head, origin);
        self.unreachable(&recorder, request.head.method(), error.clone()).await;
    }

    async fn unreachable(&mut self, recorder: &Recorder, method: &[u8], error: DialError) -> After {
        let failure = Failure::new(error.status(), error.code, error.detail);
        error.reached.describe(recorder);
        self.fail(recorder, method, &failure).await;
        After::Drop
    }

    async fn fail(&mut self, recorder: &Recorder, method: &[u8], failure: &Failure) {
        recorder.fail(failure.code, failure.detail.clone());
        let page = answer::error(failure.status, failure.code, &failure.detail, method == b"HEAD");
        self.answer(recorder, &page).await;
    }
}
