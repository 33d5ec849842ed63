//! Plain HTTP beside gRPC: `/health` and `/ready`, and errors for whoever speaks neither.

use http::{Method, Request, Response, StatusCode, header};
use proxyplane_spec::reasons::{self, Reason};
use serde::Serialize;
use tonic::body::Body;

use super::status::Refusal;
use crate::health::{Health, Report};

#[derive(Serialize)]
struct Answer<'a> {
    status: &'a str,
    version: &'a str,
    parts: Vec<Part<'a>>,
}

#[derive(Serialize)]
struct Part<'a> {
    name: &'a str,
    ready: bool,
    detail: &'a str,
}

#[derive(Serialize)]
struct Error<'a> {
    error: &'a str,
    message: &'a str,
}

/// Is this for [`answer`], not for gRPC?
pub(super) fn is_plain<B>(request: &Request<B>) -> bool {
    let content_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .map(http::HeaderValue::as_bytes);
    !content_type.is_some_and(|value| value.starts_with(b"application/grpc"))
}

/// Answers what is not gRPC. `/health` says that the process lives (200), `/ready` whether all of it works (200 or
/// 503); both list the parts.
pub(super) async fn answer<B>(request: &Request<B>, health: &Health) -> Response<Body> {
    let path = request.uri().path();
    if !matches!(path, "/health" | "/ready") {
        let message = "there is nothing here; the API speaks gRPC and grpc-web, see /health and /ready";
        return refusal(&Refusal::new(reasons::NOT_FOUND, message));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = error(StatusCode::METHOD_NOT_ALLOWED, reasons::INVALID_ARGUMENT, "use GET");
        response
            .headers_mut()
            .insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let report = health.report().await;
    let status = if path == "/ready" && !report.ready {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    json(status, &shown(&report), request.method() == Method::HEAD)
}

/// A refusal for a client that speaks plain HTTP.
pub(super) fn refusal(refusal: &Refusal) -> Response<Body> {
    let status = StatusCode::from_u16(refusal.reason().http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    error(status, refusal.reason(), refusal.message())
}

fn error(status: StatusCode, reason: Reason, message: &str) -> Response<Body> {
    json(
        status,
        &Error {
            error: reason.name,
            message,
        },
        false,
    )
}

fn shown(report: &Report) -> Answer<'_> {
    let parts = report.parts.iter().map(|part| Part {
        name: &part.name,
        ready: part.ready,
        detail: &part.detail,
    });
    Answer {
        status: if report.ready { "ready" } else { "not ready" },
        version: env!("CARGO_PKG_VERSION"),
        parts: parts.collect(),
    }
}

fn json(status: StatusCode, value: &impl Serialize, head_only: bool) -> Response<Body> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    let length = text.len();
    let body = if head_only {
        Body::empty()
    } else {
        Body::new(http_body_util::Full::from(text))
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        header::HeaderValue::from_static("nosniff"),
    );
    response
}
