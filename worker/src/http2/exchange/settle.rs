//! What a failed exchange leaves on both streams and in the record.

use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::StatusCode;
use proxyplane_record::error_code;
use tokio::time::{Instant, timeout};

use super::{Exchange, Outcome, transfer::Progress};
use crate::{
    disconnect::{self, Peer},
    http2::{
        answer,
        fault::{Cause, Fault, name},
    },
};

/// So much of a request is taken in after its answer as fast as it comes. Behind that the client's window closes, and it
/// has time to read the answer,
const REST_MAX: usize = 256 * 1024;
/// but no longer than this.
const REST_WITHIN: Duration = Duration::from_secs(1);

impl Exchange {
    /// Carries the failure on to the other side, as the same reset code where there was one.
    pub(super) async fn settle(
        &mut self,
        progress: Progress,
        fault: Fault,
        upstream: &mut SendStream<Bytes>,
    ) -> Outcome {
        match fault {
            Fault::Stalled => {
                upstream.send_reset(Reason::CANCEL);
                self.stalled(progress).await;
                Outcome::Served
            }
            Fault::Client(cause) => {
                let reset = if let Cause::Reset(reason) = cause {
                    Some(reason)
                } else {
                    None
                };
                upstream.send_reset(reset.unwrap_or(Reason::CANCEL));
                // Who has the answer may leave, and need not finish a request that was answered early.
                let has_answer = progress == Progress::Done || progress == Progress::Whole && cause.is_leaving();
                if !has_answer {
                    self.note_client(&cause);
                }
                let cancelled = reset.is_some() && progress == Progress::Waiting;
                if cancelled { Outcome::Cancelled } else { Outcome::Served }
            }
            Fault::Origin(cause) => {
                if matches!(cause, Cause::TooLarge(_)) {
                    upstream.send_reset(Reason::CANCEL);
                }
                match progress {
                    Progress::Waiting => self.no_answer(cause).await,
                    Progress::Streaming | Progress::Whole => self.answer_cut(&cause),
                    Progress::Done => self.request_cut(&cause).await,
                }
                Outcome::Served
            }
        }
    }

    /// Records how the client ended the exchange.
    pub(super) fn note_client(&self, cause: &Cause) {
        match cause {
            _ if self.shared.ctx.service.drain.expired() => {
                self.recorder
                    .fail(error_code::DRAINED, "the service stopped before this was over");
            }
            Cause::Reset(reason) => {
                let detail = format!("the client reset the stream: {}", name(*reason));
                self.recorder.fail(error_code::STREAM_RESET, detail);
            }
            Cause::Malformed(detail) => self.recorder.fail(error_code::REQUEST_REFUSED, detail.clone()),
            Cause::TooLarge(detail) => self.recorder.fail(error_code::REQUEST_HEAD_TOO_LARGE, *detail),
            Cause::Unprocessed => self
                .recorder
                .fail(error_code::CLIENT_ABORTED, "the client closed the connection"),
            Cause::Lost(error) => self
                .recorder
                .fail(error_code::CLIENT_ABORTED, disconnect::in_words(Peer::Client, error)),
            Cause::Tls(detail) => self
                .recorder
                .fail(error_code::CLIENT_ABORTED, format!("the client's TLS failed: {detail}")),
        }
    }

    fn note_origin(&self, cause: &Cause) {
        let (code, detail) = cause.of_origin();
        self.recorder.fail(code, detail);
    }

    /// The request's body stands still.
    async fn stalled(&mut self, progress: Progress) {
        let detail = "nothing more of the request's body came for 60 seconds";
        if progress == Progress::Waiting {
            self.error(StatusCode::REQUEST_TIMEOUT, error_code::CLIENT_TIMEOUT, detail)
                .await;
        } else {
            self.recorder.fail(error_code::CLIENT_TIMEOUT, detail);
            self.respond.send_reset_after_data(Reason::NO_ERROR);
        }
    }

    /// The origin failed before its final head.
    async fn no_answer(&mut self, cause: Cause) {
        let reset = match cause {
            Cause::Reset(reason) => reason,
            // The client may send it again, which it would not do after an answer.
            Cause::Unprocessed => Reason::REFUSED_STREAM,
            _ => {
                let (code, detail) = cause.of_origin();
                return self.error(StatusCode::BAD_GATEWAY, code, &detail).await;
            }
        };
        self.note_origin(&cause);
        self.respond.send_reset(reset);
    }

    /// The origin failed inside of its answer: a short answer must not look whole.
    fn answer_cut(&mut self, cause: &Cause) {
        self.note_origin(cause);
        let reason = if let Cause::Reset(reason) = cause {
            *reason
        } else {
            Reason::INTERNAL_ERROR
        };
        self.respond.send_reset_after_data(reason);
    }

    /// The origin has answered and wants no more of the request (RFC 9113 §8.1), or is gone.
    async fn request_cut(&mut self, cause: &Cause) {
        match cause {
            Cause::Reset(reason) if *reason != Reason::NO_ERROR => {
                self.note_origin(cause);
                self.respond.send_reset_after_data(*reason);
            }
            _ => self.take_in_rest().await,
        }
    }

    /// Takes in what the client still sends of a request that has its answer, for a moment, and only then resets the
    /// stream: curl 7.88 among others loses an answer that has a reset right behind it, or that comes while it is busy
    /// sending. An origin that is asked directly has mostly read the request when it answers, or stops reading.
    pub(super) async fn take_in_rest(&mut self) {
        let Self { recorder, body, .. } = self;
        let mut last = Instant::now();
        let rest = async {
            let mut taken = 0;
            while let Some(Ok(data)) = body.data().await {
                last = Instant::now();
                taken += data.len();
                if taken <= REST_MAX {
                    // It fails only for a stream that has ended, which has no window to mind.
                    let _ = body.flow_control().release_capacity(data.len());
                }
                recorder.request_data(&data).await;
            }
        };
        if timeout(REST_WITHIN, rest).await.is_err() {
            self.respond.send_reset_after_data(Reason::NO_ERROR);
            recorder.ended_ago(last.elapsed());
        }
    }

    pub(super) async fn error(&mut self, status: StatusCode, code: &'static str, detail: &str) {
        answer::error(&self.recorder, &mut self.respond, &self.method, status, code, detail).await;
    }
}
