//! Answers that the proxy gives by itself. None of them repeats what a client or an origin sent.

use std::fmt::Write as _;

use bytes::Bytes;
use proxyplane_record::{Flags, error_code};
use tokio::io::AsyncWriteExt as _;

use super::{
    describe,
    leg::Downstream,
    session::{Request, Session},
};
use crate::{capture::Recorder, forward::ca_page::Answer, upstream::Origin};

/// An error page: plain text with the code and the cause.
pub(crate) fn error(status: u16, code: &str, detail: &str, head_only: bool) -> Answer {
    let mut body = format!("proxyplane: {code}\n\n");
    // Causes are our words, but a name out of an origin's certificate may be among them.
    body.extend(detail.chars().map(|c| if c.is_control() { '?' } else { c }));
    body.push('\n');
    Answer {
        status,
        content_type: "text/plain; charset=utf-8",
        content_length: body.len(),
        body: if head_only { Bytes::new() } else { body.into() },
        headers: vec![("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")],
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        504 => "Gateway Timeout",
        508 => "Loop Detected",
        _ => "Error",
    }
}

fn head(answer: &Answer) -> Bytes {
    let mut head = String::new();
    let _ = write!(head, "HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status));
    let _ = write!(
        head,
        "Content-Type: {}\r\nContent-Length: {}\r\n",
        answer.content_type, answer.content_length
    );
    for (name, value) in &answer.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("Connection: close\r\n\r\n");
    head.into()
}

impl<C: Downstream> Session<C> {
    /// Answers a request that is for the proxy itself.
    pub(crate) async fn answer_request(&mut self, request: Request, origin: &Origin, page: &Answer) {
        let recorder = self.ctx.begin(request.start).await;
        describe::request(&recorder, &self.ctx, &request.head, origin);
        self.answer(&recorder, page).await;
    }

    /// Answers a request that goes nowhere.
    pub(crate) async fn refuse_request(&mut self, request: Request, origin: &Origin, detail: &'static str) {
        let recorder = self.ctx.begin(request.start).await;
        describe::request(&recorder, &self.ctx, &request.head, origin);
        recorder.fail(error_code::REQUEST_REFUSED, detail);
        let head_only = request.head.method() == b"HEAD";
        self.answer(&recorder, &error(400, error_code::REQUEST_REFUSED, detail, head_only))
            .await;
    }

    /// Sends an answer of ours, ends its record and the connection.
    pub(crate) async fn answer(&mut self, recorder: &Recorder, answer: &Answer) {
        let head = head(answer);
        recorder.with(|exchange| {
            exchange.status = answer.status.into();
            exchange.response_version = 11;
            exchange.response_head = head.clone();
            exchange.response_content_type = Bytes::from_static(answer.content_type.as_bytes());
            exchange.response_content_encoding = Bytes::new();
            exchange.flags |= Flags::LOCAL_ANSWER;
        });
        recorder.first_byte();
        recorder.response_data(&answer.body).await;
        recorder.finish();
        recorder.before_end().await;
        let whole = [&head[..], &answer.body[..]].concat();
        if self.client.io.write_all(&whole).await.is_ok() {
            self.linger().await;
        }
    }
}
