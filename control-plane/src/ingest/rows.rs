//! Records as rows of each table, in the column order of the COPY statements in `store::ingest`.

use proxyplane_record::{BodyChunk, Exchange, Gap, TlsInfo, WebSocketSummary, WsMessage};

use super::{Source, copy::CopyBuffer};

/// Writes the summary row and answers where its position is to be filled in.
pub(super) fn exchange(rows: &mut CopyBuffer, source: Source, id: &[u8; 16], exchange: &Exchange) -> usize {
    rows.row(31);
    rows.uuid(id);
    let position = rows.len();
    rows.i64(0);
    rows.uuid(source.workspace_id.0.as_bytes());
    rows.uuid(source.service_id.0.as_bytes());
    rows.time(exchange.started_at_us);
    rows.count(exchange.duration_us);
    rows.count(exchange.request_size);
    rows.count(exchange.response_size);
    rows.count(exchange.request_captured);
    rows.count(exchange.response_captured);
    rows.i32(i32::from(u16::try_from(exchange.port).unwrap_or(u16::MAX)));
    rows.i32(exchange.flags.cast_signed());
    rows.i16(exchange.kind() as i16);
    rows.i16(exchange.state() as i16);
    rows.small_or_null(exchange.status);
    rows.small_or_null(exchange.request_version);
    rows.small_or_null(exchange.response_version);
    rows.bool(exchange.request_truncated);
    rows.bool(exchange.response_truncated);
    for text in [
        &exchange.client,
        &exchange.method,
        &exchange.scheme,
        &exchange.host,
        &exchange.path,
    ] {
        rows.text(text);
    }
    match &exchange.query {
        Some(query) => rows.text(query),
        None => rows.null(),
    }
    for text in [
        &exchange.request_content_type,
        &exchange.response_content_type,
        &exchange.request_content_encoding,
        &exchange.response_content_encoding,
        &exchange.error,
        &exchange.error_detail,
    ] {
        rows.text_or_null(text);
    }
    position
}

/// Bodies that came whole with the exchange: of the request and of the response. Empty ones are no bodies, or are chunks.
pub(super) type Bodies<'a> = [&'a [u8]; 2];

pub(super) fn heads(rows: &mut CopyBuffer, id: &[u8; 16], exchange: &Exchange, bodies: Bodies<'_>) {
    rows.row(21);
    rows.uuid(id);
    for bytes in [
        &exchange.request_head,
        &exchange.response_head,
        &exchange.informational_heads,
        &exchange.request_trailers,
        &exchange.response_trailers,
    ] {
        rows.bytes_or_null(bytes);
    }
    let timings = &exchange.timings;
    for step in [
        timings.dns_us,
        timings.connect_us,
        timings.tls_us,
        timings.first_byte_us,
    ] {
        rows.optional_count(step);
    }
    rows.text_or_null(&exchange.origin_address);
    tls(rows, exchange.client_tls.as_ref());
    tls(rows, exchange.origin_tls.as_ref());
    for body in bodies {
        rows.bytes_or_null(body);
    }
}

/// A version that is not NULL says that there was TLS.
fn tls(rows: &mut CopyBuffer, tls: Option<&TlsInfo>) {
    let Some(tls) = tls else {
        (0..4).for_each(|_| rows.null());
        return;
    };
    rows.text(&tls.version);
    for text in [&tls.cipher, &tls.alpn, &tls.sni] {
        rows.text_or_null(text);
    }
}

pub(super) fn body_chunk(rows: &mut CopyBuffer, id: &[u8; 16], chunk: &BodyChunk) {
    rows.row(4);
    rows.uuid(id);
    rows.count(chunk.offset);
    rows.i16(chunk.side() as i16);
    rows.bytes(&chunk.data);
}

pub(super) fn websocket(rows: &mut CopyBuffer, source: Source, id: &[u8; 16], socket: &WebSocketSummary) {
    rows.row(13);
    rows.uuid(id);
    rows.uuid(source.workspace_id.0.as_bytes());
    rows.uuid(source.service_id.0.as_bytes());
    rows.time(socket.opened_at_us);
    match socket.closed_at_us {
        0 => rows.null(),
        at => rows.time(at),
    }
    rows.count(socket.messages_from_client);
    rows.count(socket.messages_from_server);
    rows.count(socket.bytes_from_client);
    rows.count(socket.bytes_from_server);
    match socket.close_code {
        0 => rows.null(),
        code => rows.i32(i32::from(u16::try_from(code).unwrap_or(u16::MAX))),
    }
    for text in [&socket.close_reason, &socket.subprotocol, &socket.extensions] {
        rows.text_or_null(text);
    }
}

pub(super) fn message(rows: &mut CopyBuffer, id: &[u8; 16], message: &WsMessage) {
    rows.row(11);
    rows.uuid(id);
    rows.count(message.sequence);
    rows.i32(i32::try_from(message.part).unwrap_or(i32::MAX));
    rows.time(message.at_us);
    rows.count(message.size);
    rows.i16(message.side() as i16);
    rows.i16(i16::try_from(message.opcode).unwrap_or(i16::MAX));
    rows.bool(message.truncated);
    rows.bool(message.compressed);
    rows.bool(message.last);
    rows.bytes(&message.payload);
}

pub(super) fn gap(rows: &mut CopyBuffer, source: Source, gap: &Gap) {
    rows.row(7);
    rows.uuid(source.epoch.0.as_bytes());
    rows.count(gap.first_seq);
    rows.uuid(source.service_id.0.as_bytes());
    rows.count(gap.records);
    rows.count(gap.exchanges);
    rows.time(gap.from_us);
    rows.time(gap.to_us);
}
