//! Calls while the server starts: what needs no database is answered from the beginning; everything else waits for it, for
//! a moment, and is then told that it is away.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body, service::Routes};
use tower::{Service, ServiceExt as _};

use super::{status::Refusal, streams::shutting_down};
use crate::store::StoreError;

/// As long as a caller waits for a connection once there is a database: it is to know within two seconds.
const WAIT: Duration = Duration::from_millis(1_500);

/// Opens the gate.
#[derive(Debug)]
pub(super) struct Key(watch::Sender<Option<Routes>>);

impl Key {
    /// From now on calls go to `all`, which has everything.
    pub(super) fn open(self, all: Routes) {
        self.0.send_replace(Some(all));
    }
}

/// Leads calls to whoever answers them. Cloning shares it.
#[derive(Clone)]
pub(super) struct Gate {
    /// Need no database.
    early: Routes,
    /// Names of the services in it.
    names: &'static [&'static str],
    all: watch::Receiver<Option<Routes>>,
    soft: CancellationToken,
}

impl Gate {
    /// A closed one: only `early`, whose services are called `names`, answers.
    pub(super) fn new(early: Routes, names: &'static [&'static str], soft: CancellationToken) -> (Self, Key) {
        let (key, all) = watch::channel(None);
        let gate = Self {
            early,
            names,
            all,
            soft,
        };
        (gate, Key(key))
    }

    /// Whoever answers calls of `path`, or why nobody does.
    async fn answerer(mut self, path: &str) -> Result<Routes, Refusal> {
        let all = self.all.borrow().clone();
        if let Some(all) = all {
            return Ok(all);
        }
        let service = path.split('/').nth(1).unwrap_or_default();
        if self.names.contains(&service) {
            return Ok(self.early);
        }
        let opened = timeout(WAIT, self.all.wait_for(Option::is_some));
        let is_stopping = self.soft.run_until_cancelled(opened).await.is_none();
        if is_stopping {
            return Err(shutting_down());
        }
        let all = self.all.borrow().clone();
        all.ok_or_else(|| StoreError::awaited().into())
    }
}

impl Service<Request<Body>> for Gate {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let gate = self.clone();
        Box::pin(async move {
            match gate.answerer(request.uri().path()).await {
                Ok(routes) => routes.oneshot(request).await,
                Err(refusal) => Ok(Status::from(refusal).into_http()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;
    use tonic::Code;

    use super::*;

    fn closed(soft: &CancellationToken) -> (Gate, Key) {
        Gate::new(Routes::default(), &["early.Service"], soft.clone())
    }

    async fn call(gate: &Gate, path: &str) -> Option<Code> {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let answer = gate.clone().oneshot(request).await.unwrap();
        Status::from_header_map(answer.headers()).map(|status| status.code())
    }

    #[tokio::test(start_paused = true)]
    async fn what_needs_no_database_is_answered_at_once_and_the_rest_is_told_within_two_seconds() {
        let (gate, _key) = closed(&CancellationToken::new());
        let began = Instant::now();
        // By the routes, which are empty.
        assert_eq!(call(&gate, "/early.Service/Call").await, Some(Code::Unimplemented));
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(call(&gate, "/late.Service/Call").await, Some(Code::Unavailable));
        assert!(began.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_waits_is_answered_once_everything_is_there() {
        let (gate, key) = closed(&CancellationToken::new());
        let (answer, ()) = tokio::join!(call(&gate, "/late.Service/Call"), async {
            tokio::task::yield_now().await;
            key.open(Routes::default());
        });
        assert_eq!(answer, Some(Code::Unimplemented));
        assert_eq!(call(&gate, "/late.Service/Call").await, Some(Code::Unimplemented));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_does_not_hold_a_stop_up() {
        let soft = CancellationToken::new();
        let (gate, _key) = closed(&soft);
        let began = Instant::now();
        soft.cancel();
        assert_eq!(call(&gate, "/late.Service/Call").await, Some(Code::Unavailable));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
