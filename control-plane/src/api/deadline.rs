//! The client's deadline of a call, `grpc-timeout` (gRPC over HTTP/2, "Requests"): a call that is not over by then is
//! dropped and answered DEADLINE_EXCEEDED, in its trailers if the answer has begun.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use proxyplane_spec::reasons;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::{Status, body::Body};
use tower::Service;

use super::status::Refusal;

/// What a call waits for and what becomes of it, told to whoever does not wait that long. Among the extensions of each
/// request that has a deadline, for its handler to set.
#[derive(Clone, Default)]
pub(super) struct Waits(Arc<OnceLock<&'static str>>);

impl Waits {
    /// Sets what is told of a call that is given up.
    pub(super) fn tell(extensions: &http::Extensions, what: &'static str) {
        if let Some(Self(told)) = extensions.get() {
            let _ = told.set(what);
        }
    }
}

/// Ends calls at their clients' deadlines.
#[derive(Clone)]
pub(super) struct Deadline<S> {
    inner: S,
}

impl<S> Deadline<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, B> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let end = asked_for(request.headers()).map(|limit| Instant::now() + limit);
        let waits = Waits::default();
        if end.is_some() {
            request.extensions_mut().insert(waits.clone());
        }
        let answering = self.inner.call(request);
        Box::pin(async move {
            let Some(end) = end else { return answering.await };
            match timeout_at(end, answering).await {
                Ok(answer) => Ok(answer?.map(|body| Body::new(Limited::new(body, end)))),
                Err(_) => Ok(exceeded(waits.0.get()).into_http()),
            }
        })
    }
}

/// At most eight digits and a unit. What is written otherwise is no deadline.
fn asked_for(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = (1..=8).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
    let count: u32 = is_number.then(|| digits.parse().ok()).flatten()?;
    let unit = match unit {
        "H" => Duration::from_hours(1),
        "M" => Duration::from_mins(1),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => return None,
    };
    Some(unit * count)
}

fn exceeded(waits: Option<&&str>) -> Status {
    let mut message = "the call was not over within its grpc-timeout".to_owned();
    if let Some(waits) = waits {
        message = format!("{message}; {waits}");
    }
    Refusal::new(reasons::DEADLINE_EXCEEDED, message).into()
}

/// An answer that ends at the deadline.
struct Limited {
    body: Body,
    /// `None` once it has passed.
    end: Option<Pin<Box<Sleep>>>,
}

impl Limited {
    fn new(body: Body, end: Instant) -> Self {
        Self {
            body,
            end: Some(Box::pin(sleep_until(end))),
        }
    }
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(end) = &mut this.end else {
            return Poll::Ready(None);
        };
        if end.as_mut().poll(context).is_pending() {
            return Pin::new(&mut this.body).poll_frame(context);
        }
        // Whatever makes the answer stops now.
        (this.body, this.end) = (Body::empty(), None);
        let mut trailers = HeaderMap::new();
        let told = exceeded(None).add_header(&mut trailers);
        Poll::Ready(Some(told.map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.end.is_none() || self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::{BodyExt as _, StreamBody};
    use tonic::Code;
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    async fn call<F>(timeout: &str, answer: impl Fn() -> F) -> Response<Body>
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let inner = service_fn(|_: Request<()>| {
            let answering = answer();
            async move { Ok::<_, Infallible>(answering.await) }
        });
        let request = Request::builder().header("grpc-timeout", timeout).body(()).unwrap();
        Deadline::new(inner).oneshot(request).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_an_answer_is_ended() {
        let began = Instant::now();
        let answer = call("150m", std::future::pending).await;
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(began.elapsed(), Duration::from_millis(150));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_ended_says_what_it_waited_for() {
        let inner = service_fn(|request: Request<()>| {
            Waits::tell(request.extensions(), "it waits for rain");
            std::future::pending::<Result<Response<Body>, Infallible>>()
        });
        let request = Request::builder().header("grpc-timeout", "1S").body(()).unwrap();
        let answer = Deadline::new(inner).oneshot(request).await.unwrap();
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert!(
            status.message().ends_with("grpc-timeout; it waits for rain"),
            "{status}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_without_end_is_ended_in_its_trailers() {
        let endless = || async {
            let first = stream::iter([Ok::<_, Status>(Frame::data(Bytes::from_static(b"first")))]);
            Response::new(Body::new(StreamBody::new(futures_util::StreamExt::chain(
                first,
                stream::pending(),
            ))))
        };
        let whole = call("2S", endless).await.into_body().collect().await.unwrap();
        let status = Status::from_header_map(whole.trailers().unwrap()).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(whole.to_bytes(), "first");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_time_is_left_alone() {
        let answer = call("1H", || async { Response::new(Body::empty()) }).await;
        assert!(Status::from_header_map(answer.headers()).is_none());
    }

    #[test]
    fn a_deadline_is_digits_and_a_unit() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            asked_for(&headers)
        };
        assert_eq!(read("90S"), Some(Duration::from_secs(90)));
        assert_eq!(read("7u"), Some(Duration::from_micros(7)));
        assert_eq!(read("99999999H"), Some(Duration::from_hours(99_999_999)));
        for bad in ["", "S", "5", "5s", "+5S", "123456789S", "1.5S", "5 S"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
