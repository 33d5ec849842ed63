//! The front of the API's one port: request ids, Host and Origin, CORS, and the fork between plain HTTP and gRPC.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body};
use tonic_web::GrpcWebService;
use tower::{Layer as _, Service, ServiceExt as _, util::MapResponse};
use tower_http::cors::{AllowOrigin, Cors, CorsLayer};
use tracing::{Instrument as _, Span, debug, info_span};
use uuid::Uuid;

use super::{
    auth::{Authenticated, Token},
    deadline::Deadline,
    gate::Gate,
    http as plain,
    origin::Guard,
    reasoned::reasoned,
    status::Refusal,
};
use crate::health::Health;

/// How long a browser may remember the answer to a preflight.
const PREFLIGHT_AGE: Duration = Duration::from_mins(10);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

<<<<<<< HEAD
type Grpc = GrpcWebService<Deadline<Reasoned<Authenticated<Gate>>>>;
=======
type Grpc = GrpcWebService<Deadline<MapResponse<Authenticated<Routes>, fn(Response<Body>) -> Response<Body>>>>;
>>>>>>> small
type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Everything that is served on the port.
#[derive(Clone)]
pub(super) struct Front {
    guard: Arc<Guard>,
    inner: Cors<Fork>,
}

impl Front {
<<<<<<< HEAD
    pub(super) fn new(guard: Guard, token: Token, health: Health, gate: Gate) -> Self {
        let calls = Deadline::new(Reasoned::new(Authenticated::new(gate, token)));
=======
    pub(super) fn new(guard: Guard, token: Token, health: Health, routes: Routes) -> Self {
        let calls = MapResponse::new(Authenticated::new(routes, token), reasoned as fn(_) -> _);
        let calls = Deadline::new(calls);
>>>>>>> small
        let grpc = tonic_web::GrpcWebLayer::new().layer(calls);
        let guard = Arc::new(guard);
        Self {
            inner: cors(guard.clone()).layer(Fork { grpc, health }),
            guard,
        }
    }
}

impl Service<Request<Body>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        let id = request_id(&request);
        let span = info_span!("request", request_id = %id.to_str().unwrap_or_default(), path = request.uri().path());
        let refused = self.guard.check(&request).err();
        let inner = self.inner.clone();
        let began = Instant::now();
        let answering = async move {
            let mut response = match refused {
                Some(refusal) => {
                    debug!(reason = refusal.reason().name, "refused: {}", refusal.message());
                    refused_answer(&request, refusal)
                }
                None => inner.oneshot(request).await?,
            };
            response.headers_mut().insert(REQUEST_ID, id);
            Ok(response.map(|body| {
                let span = Span::current();
                Body::new(Spanned { body, span, began })
            }))
        };
        Box::pin(answering.instrument(span))
    }
}

/// A gRPC client reads a Status and nothing else; whoever speaks HTTP/1.1 is also told by the HTTP status.
fn refused_answer<B>(request: &Request<B>, refusal: Refusal) -> Response<Body> {
    if plain::is_plain(request) {
        return plain::refusal(&refusal);
    }
    let mut response = Status::from(refusal).into_http();
    if request.version() < Version::HTTP_2 {
        *response.status_mut() = StatusCode::FORBIDDEN;
    }
    response
}

/// The client's own id if it is a plain word, else a new one.
fn request_id<B>(request: &Request<B>) -> HeaderValue {
    let is_word = |value: &HeaderValue| {
        (1..=64).contains(&value.len())
            && value
                .as_bytes()
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
    };
    let given = request
        .headers()
        .get(&REQUEST_ID)
        .filter(|value| is_word(value))
        .cloned();
    given.unwrap_or_else(|| {
        let id = Uuid::now_v7().simple().to_string();
        HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
    })
}

/// A body that is made inside its request's span: a stream goes on after its head was answered.
struct Spanned {
    body: Body,
    span: Span,
    began: Instant,
}

impl Drop for Spanned {
    fn drop(&mut self) {
        let elapsed_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.span.in_scope(|| debug!(elapsed_us, "answered"));
    }
}

impl http_body::Body for Spanned {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let _entered = this.span.enter();
        Pin::new(&mut this.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// CORS for the pages that are allowed; the guard has refused the others before.
fn cors(guard: Arc<Guard>) -> CorsLayer {
    let grpc = ["x-grpc-web", "x-user-agent", "grpc-timeout", "x-request-id"].map(HeaderName::from_static);
    let request = grpc.into_iter().chain([header::CONTENT_TYPE, header::AUTHORIZATION]);
    let answer = ["grpc-status", "grpc-message", "grpc-status-details-bin", "x-request-id"];
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _| {
            guard.allows_page(origin.as_bytes())
        }))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(request.collect::<Vec<_>>())
        .expose_headers(answer.map(HeaderName::from_static))
        .max_age(PREFLIGHT_AGE)
}

/// gRPC and grpc-web to one side, plain HTTP to the other.
#[derive(Clone)]
struct Fork {
    grpc: Grpc,
    health: Health,
}

impl Service<Request<Body>> for Fork {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        if plain::is_plain(&request) {
            let (request, health) = (request.map(drop), self.health.clone());
            return Box::pin(async move { Ok(plain::answer(&request, &health).await) });
        }
        Box::pin(self.grpc.clone().oneshot(request))
    }
}
