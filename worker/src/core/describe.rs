//! What heads mean for the record of an exchange.

use std::net::IpAddr;

use bytes::Bytes;
use proxyplane_h1::{Authority, Head, Known, RequestHead, ResponseHead, Scheme, Version};
use proxyplane_record::{ExchangeKind, Flags};
use proxyplane_spec::limits;

use crate::{
    capture::Recorder,
    forward::Connection,
    upstream::{Origin, Upstream},
};

/// A request for `origin`.
pub(super) fn request(recorder: &Recorder, connection: &Connection, head: &RequestHead, origin: &Origin) {
    let (path, query) = head.path_and_query();
    let host = shown_host(connection, head, origin);
    recorder.with(|exchange| {
        exchange.method = head.shared_method();
        exchange.scheme = Bytes::from_static(origin.scheme.as_str().as_bytes());
        exchange.host = host;
        exchange.port = origin.port.into();
        exchange.path = path;
        exchange.query = query;
        exchange.request_version = version(head.version());
        exchange.request_head = head.head().raw().clone();
        exchange.request_content_type = head.head().shared_value(Known::ContentType);
        exchange.request_content_encoding = head.head().shared_value(Known::ContentEncoding);
        exchange.client_tls.clone_from(&connection.client_tls);
        exchange.flags |= connection.flags;
    });
    recorder.announce();
}

/// The upstream connection of an exchange. What dialling took belongs to the exchange that dialled.
pub(super) fn upstream(recorder: &Recorder, upstream: &Facts, reused: bool) {
    recorder.with(|exchange| {
        exchange.origin_address = upstream.address.clone();
        exchange.origin_tls.clone_from(&upstream.tls);
        if reused {
            exchange.flags |= Flags::REUSED_UPSTREAM;
        } else {
            exchange.timings.dns_us = upstream.timings.dns_us;
            exchange.timings.connect_us = upstream.timings.connect_us;
            exchange.timings.tls_us = upstream.timings.tls_us;
        }
    });
}

/// The final answer, or a 101.
pub(super) fn response(recorder: &Recorder, head: &ResponseHead) {
    recorder.with(|exchange| {
        exchange.status = head.status().into();
        exchange.response_version = version(head.version());
        exchange.response_head = head.head().raw().clone();
        exchange.response_content_type = head.head().shared_value(Known::ContentType);
        exchange.response_content_encoding = head.head().shared_value(Known::ContentEncoding);
    });
}

/// A 1xx answer. Those that would make the record too long are left out.
pub(super) fn informational(recorder: &Recorder, head: &ResponseHead) {
    recorder.with(|exchange| {
        let heads = &mut exchange.informational_heads;
        if heads.len() + head.head().raw().len() <= limits::HEAD_BYTES_MAX {
            *heads = [heads, &head.head().raw()[..]].concat().into();
        }
    });
}

/// A head that was refused or never became complete: its exact bytes, and what can be made out of them.
pub(super) fn broken_request(recorder: &Recorder, connection: &Connection, raw: &[u8]) {
    let raw = Bytes::copy_from_slice(&raw[..raw.len().min(limits::HEAD_BYTES_MAX)]);
    let line_end = memchr::memchr2(b'\r', b'\n', &raw).unwrap_or(raw.len());
    let mut words = raw[..line_end].split(|&b| b == b' ').filter(|word| !word.is_empty());
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    recorder.with(|exchange| {
        if !method.is_empty() && method.len() <= 32 && method.iter().all(u8::is_ascii_graphic) {
            exchange.method = raw.slice_ref(method);
            let path = if let Some((authority, path)) = absolute(target) {
                exchange.scheme = Bytes::from_static(b"http");
                exchange.host = authority.host.to_ascii_lowercase().into();
                exchange.port = authority.port.unwrap_or(Scheme::Http.default_port()).into();
                path
            } else {
                target
            };
            let mut parts = path.splitn(2, |&b| b == b'?');
            exchange.path = raw.slice_ref(parts.next().unwrap_or_default());
            exchange.query = parts.next().map(|query| raw.slice_ref(query));
        }
        if let Some(origin) = &connection.origin {
            exchange.scheme = Bytes::from_static(origin.scheme.as_str().as_bytes());
            exchange.host = origin.host.clone();
            exchange.port = origin.port.into();
        }
        exchange.request_head = raw.clone();
        exchange.client_tls.clone_from(&connection.client_tls);
        exchange.flags |= connection.flags;
    });
    recorder.announce();
}

/// Authority and path of what was meant as an absolute target.
fn absolute(target: &[u8]) -> Option<(Authority<'_>, &[u8])> {
    let rest = target.strip_prefix(b"http://")?;
    let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    Some((Authority::parse(&rest[..end])?, &rest[end..]))
}

/// A CONNECT that came to nothing, or to a tunnel.
pub(crate) fn connect(recorder: &Recorder, connection: &Connection, head: &RequestHead, host: &Bytes, port: u16) {
    recorder.with(|exchange| {
        exchange.kind = ExchangeKind::Connect.into();
        exchange.method = head.shared_method();
        exchange.scheme = Bytes::from_static(b"tcp");
        exchange.host = host.clone();
        exchange.port = port.into();
        exchange.request_version = version(head.version());
        exchange.request_head = head.head().raw().clone();
        exchange.flags |= connection.flags;
    });
    recorder.announce();
}

/// Facts of an upstream connection that go into records.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    address: Bytes,
    tls: Option<proxyplane_record::TlsInfo>,
    timings: proxyplane_record::Timings,
}

impl Facts {
    pub(crate) fn of(upstream: &Upstream) -> Self {
        Self {
            address: upstream.address.clone(),
            tls: upstream.tls.clone(),
            timings: upstream.timings,
        }
    }
}

/// First value of a field, by name.
pub(super) fn joined(head: &Head, name: &str) -> Bytes {
    let values = head
        .fields()
        .filter(|field| field.name.eq_ignore_ascii_case(name.as_bytes()))
        .map(|field| field.value);
    values.collect::<Vec<_>>().join(&b", "[..]).into()
}

/// The host of the URL. A client that resolves names by itself asks for a tunnel to an address: what it means by it is
/// in Host.
fn shown_host(connection: &Connection, head: &RequestHead, origin: &Origin) -> Bytes {
    if connection.origin.is_none() || origin.host_str().parse::<IpAddr>().is_err() {
        return origin.host.clone();
    }
    let named = head.host().filter(|host| !host.host.is_empty());
    named.map_or_else(|| origin.host.clone(), |host| host.host.to_ascii_lowercase().into())
}

fn version(version: Version) -> u32 {
    match version {
        Version::Http10 => 10,
        Version::Http11 => 11,
    }
}
