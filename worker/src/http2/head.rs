//! Heads as they are recorded: lines `name: value`, pseudo-headers first.

use std::net::IpAddr;

use bytes::Bytes;
use h2::ext::{FieldOrder, RawTarget};
use http::{Extensions, HeaderMap, Method, StatusCode, header, request, response};
use proxyplane_h1::Authority;
use proxyplane_record::error_code;
use proxyplane_spec::limits;

use super::Shared;
use crate::capture::Recorder;

/// As the record has it.
const VERSION: u32 = 20;
const CONTENT_KINDS: [header::HeaderName; 2] = [header::CONTENT_TYPE, header::CONTENT_ENCODING];

/// Describes a request and counts it.
pub(super) fn describe_request(recorder: &Recorder, shared: &Shared, parts: &request::Parts) {
    let target = parts.extensions.get::<RawTarget>();
    let lines = request_lines(parts, target);
    let [content_type, content_encoding] = CONTENT_KINDS.map(|name| value(&parts.headers, &name));
    let host = shown_host(shared, parts, target);
    recorder.with(|exchange| {
        exchange.method = method(&parts.method);
        exchange.scheme = Bytes::from_static(shared.origin.scheme.as_str().as_bytes());
        exchange.host = host;
        exchange.port = shared.origin.port.into();
        if let Some(target) = target {
            (exchange.path, exchange.query) = split(&target.path);
        }
        exchange.request_version = VERSION;
        exchange.request_head = lines;
        exchange.request_content_type = content_type;
        exchange.request_content_encoding = content_encoding;
        exchange.client_tls.clone_from(&shared.ctx.client_tls);
        exchange.flags |= shared.ctx.flags;
    });
    recorder.announce();
}

/// Describes the final answer.
pub(super) fn describe_response(recorder: &Recorder, parts: &response::Parts) {
    let lines = response_lines(parts);
    let [content_type, content_encoding] = CONTENT_KINDS.map(|name| value(&parts.headers, &name));
    recorder.with(|exchange| {
        exchange.status = parts.status.as_u16().into();
        exchange.response_version = VERSION;
        exchange.response_head = lines;
        exchange.response_content_type = content_type;
        exchange.response_content_encoding = content_encoding;
    });
    recorder.first_byte();
}

/// How long the body of a final answer to `method` is by its head (RFC 9110 §6.4.1), if it says so.
pub(super) fn content_length(method: &Method, parts: &response::Parts) -> Option<u64> {
    if *method == Method::HEAD || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Some(0);
    }
    // What is not a number, or another one than before, h2 has refused.
    let value = parts.headers.get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

/// Adds a 1xx answer. Those that would make the record too long are left out.
pub(super) fn describe_informational(recorder: &Recorder, parts: &response::Parts) {
    let lines = response_lines(parts);
    recorder.with(|exchange| {
        let heads = &mut exchange.informational_heads;
        if heads.len() + lines.len() <= limits::HEAD_BYTES_MAX {
            *heads = [&heads[..], &lines[..]].concat().into();
        }
    });
    recorder.first_byte();
}

/// Trailer fields.
pub(super) fn field_lines(headers: &HeaderMap) -> Bytes {
    let mut lines = Vec::with_capacity(size(headers));
    put_fields(&mut lines, headers, None);
    lines.into()
}

/// Why a request is not passed on.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) detail: &'static str,
}

/// Why a request is not passed on, if so.
pub(super) fn refusal(parts: &request::Parts) -> Option<Refusal> {
    if parts.method == Method::CONNECT {
        let detail = "CONNECT inside of an HTTP/2 connection is not supported";
        return Some(Refusal {
            status: StatusCode::NOT_IMPLEMENTED,
            code: error_code::REQUEST_REFUSED,
            detail,
        });
    }
    let target = parts.extensions.get::<RawTarget>();
    let target_size = target.map_or(0, |target| {
        target.path.len() + target.authority.as_ref().map_or(0, Bytes::len)
    });
    too_large(&parts.headers, target_size).map(|detail| Refusal {
        status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        code: error_code::REQUEST_HEAD_TOO_LARGE,
        detail,
    })
}

/// What is too large about a head, if anything is.
pub(super) fn too_large(headers: &HeaderMap, pseudo: usize) -> Option<&'static str> {
    if size(headers) + pseudo > limits::HEAD_BYTES_MAX {
        return Some("the head has more than 256 KiB");
    }
    (headers.len() > limits::HEAD_FIELDS_MAX).then_some("the head has more than 1,000 fields")
}

fn request_lines(parts: &request::Parts, target: Option<&RawTarget>) -> Bytes {
    let mut lines = Vec::with_capacity(size(&parts.headers) + 256);
    put(&mut lines, b":method", parts.method.as_str().as_bytes());
    match target {
        Some(target) => {
            put(&mut lines, b":scheme", &target.scheme);
            if let Some(authority) = &target.authority {
                put(&mut lines, b":authority", authority);
            }
            put(&mut lines, b":path", &target.path);
        }
        // CONNECT has an authority only.
        None => put(&mut lines, b":authority", parts.uri.to_string().as_bytes()),
    }
    put_fields(&mut lines, &parts.headers, order(&parts.extensions));
    lines.into()
}

fn response_lines(parts: &response::Parts) -> Bytes {
    let mut lines = Vec::with_capacity(size(&parts.headers) + 16);
    put(&mut lines, b":status", parts.status.as_str().as_bytes());
    put_fields(&mut lines, &parts.headers, order(&parts.extensions));
    lines.into()
}

/// In which order the lines came, where that is not the map's.
fn order(extensions: &Extensions) -> Option<&FieldOrder> {
    extensions.get()
}

fn put_fields(lines: &mut Vec<u8>, headers: &HeaderMap, order: Option<&FieldOrder>) {
    let fields = order.map_or_else(|| headers.iter().collect(), |order| order.lines(headers));
    for (name, value) in fields {
        put(lines, name.as_str().as_bytes(), value.as_bytes());
    }
}

fn put(lines: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        lines.extend_from_slice(part);
    }
}

fn size(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum()
}

fn value(headers: &HeaderMap, name: &header::HeaderName) -> Bytes {
    headers
        .get(name)
        .map_or_else(Bytes::new, |value| Bytes::copy_from_slice(value.as_bytes()))
}

fn method(method: &Method) -> Bytes {
    match *method {
        Method::GET => Bytes::from_static(b"GET"),
        Method::POST => Bytes::from_static(b"POST"),
        _ => Bytes::copy_from_slice(method.as_str().as_bytes()),
    }
}

fn split(target: &Bytes) -> (Bytes, Option<Bytes>) {
    match target.iter().position(|&byte| byte == b'?') {
        Some(mark) => (target.slice(..mark), Some(target.slice(mark + 1..))),
        None => (target.clone(), None),
    }
}

/// The host of the URL. A client that resolves names by itself asks for a tunnel to an address: what it means by it is
/// in the authority.
fn shown_host(shared: &Shared, parts: &request::Parts, target: Option<&RawTarget>) -> Bytes {
    let asked = &shared.origin.host;
    if shared.origin.host_str().parse::<IpAddr>().is_err() {
        return asked.clone();
    }
    let authority = target.and_then(|target| target.authority.clone());
    let named = authority.unwrap_or_else(|| value(&parts.headers, &header::HOST));
    match Authority::parse(&named) {
        Some(named) => named.host.to_ascii_lowercase().into(),
        None => asked.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_lines_with_pseudo_headers_first_and_repeated_fields_in_order() {
        let target = RawTarget {
            scheme: Bytes::from_static(b"https"),
            authority: Some(Bytes::from_static(b"a.example")),
            path: Bytes::from_static(b"/?q=<b>\xff"),
        };
        let request = http::Request::builder()
            .method("GET")
            .header("x-b", "1")
            .header("cookie", "a=1");
        let (parts, ()) = request
            .header("x-a", "2")
            .header("cookie", "b=2")
            .body(())
            .unwrap()
            .into_parts();
        let expected = b":method: GET\r\n:scheme: https\r\n:authority: a.example\r\n:path: /?q=<b>\xff\r\n\
            x-b: 1\r\ncookie: a=1\r\ncookie: b=2\r\nx-a: 2\r\n";
        assert_eq!(request_lines(&parts, Some(&target)), &expected[..]);
        assert_eq!(
            split(&target.path),
            (Bytes::from_static(b"/"), Some(Bytes::from_static(b"q=<b>\xff")))
        );
    }

    #[test]
    fn heads_over_the_limits_are_too_large() {
        let mut headers = HeaderMap::new();
        for _ in 0..=limits::HEAD_FIELDS_MAX {
            headers.append("x", header::HeaderValue::from_static("y"));
        }
        assert!(too_large(&headers, 0).unwrap().contains("fields"));
        assert!(
            too_large(&HeaderMap::new(), limits::HEAD_BYTES_MAX + 1)
                .unwrap()
                .contains("KiB")
        );
        assert_eq!(too_large(&HeaderMap::new(), limits::HEAD_BYTES_MAX), None);
    }
}
