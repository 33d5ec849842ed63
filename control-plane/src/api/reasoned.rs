//! Errors that tonic answers by itself (an unknown method, a message that is too long or no message) get a reason, as
//! all others have.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{Code, Status, body::Body};
use tower::Service;

use super::status::Refusal;

/// Gives a reason to answers that are an error without one.
#[derive(Clone)]
pub(super) struct Reasoned<S> {
    inner: S,
}

impl<S> Reasoned<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, B> Service<Request<B>> for Reasoned<S>
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

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answering = self.inner.call(request);
        Box::pin(async move {
            let answer = answering.await?;
            Ok(match Status::from_header_map(answer.headers()) {
                Some(status) if status.code() != Code::Ok && status.details().is_empty() => {
                    Refusal::of_code(&status).map_or(answer, |refusal| Status::from(refusal).into_http())
                }
                _ => answer,
            })
        })
    }
}
