//! Exchanges, WebSockets, filters and live events.

use std::sync::Arc;

use proxyplane_proto::v1;
use proxyplane_record::Side;
use proxyplane_spec::{ServiceId, Violation, WorkspaceId};

use super::{Fields, optional_id, page, time, timestamp};
use crate::{
    api::status::Refusal,
    live,
    store::{
        exchanges::{ExchangeFilter, ExchangeRow},
        heads::HeadsRow,
        page::Page,
        websockets::{MessageRow, WebSocketFilter, WebSocketRow},
    },
};

/// Longest method or host of a filter: longer ones match nothing that is stored.
const TEXT_MAX: usize = 1_024;

/// Whose traffic.
#[derive(Clone, Copy, Debug)]
pub(in crate::api) struct Owner {
    /// Of this service.
    pub(in crate::api) service_id: Option<ServiceId>,
    /// Of this workspace.
    pub(in crate::api) workspace_id: Option<WorkspaceId>,
}

/// Reads whose traffic is asked for; fields are below `prefix`.
pub(in crate::api) fn owner(prefix: &str, proxy_id: &str, workspace_id: &str, fields: &mut Fields) -> Option<Owner> {
    let service = fields.take(optional_id(&format!("{prefix}proxy_id"), proxy_id));
    let workspace = fields.take(optional_id(&format!("{prefix}workspace_id"), workspace_id));
    Some(Owner {
        service_id: service?,
        workspace_id: workspace?,
    })
}

/// Which exchanges and which page of them.
pub(in crate::api) fn exchanges(request: v1::ListExchangesRequest) -> Result<(ExchangeFilter, Page), Refusal> {
    let mut fields = Fields::default();
    let filter = filter(request.filter.unwrap_or_default(), &mut fields);
    let page = fields.take(page(request.page_size, &request.page_token));
    fields.finish(filter.zip(page))
}

fn filter(filter: v1::ExchangeFilter, fields: &mut Fields) -> Option<ExchangeFilter> {
    let owner = owner("filter.", &filter.proxy_id, &filter.workspace_id, fields);
    let method = fields.take(text("filter.method", filter.method));
    let host = fields.take(text("filter.host", filter.host));
    let status_min = fields.take(status("filter.status_min", filter.status_min));
    let status_max = fields.take(status("filter.status_max", filter.status_max));
    let since = fields.take(filter.since.map(|at| time("filter.since", at)).transpose());
    let until = fields.take(filter.until.map(|at| time("filter.until", at)).transpose());
    if matches!((status_min.flatten(), status_max.flatten()), (Some(min), Some(max)) if min > max) {
        fields.wrong("filter.status_max", "must not be less than status_min");
    }
    if matches!((since.flatten(), until.flatten()), (Some(since), Some(until)) if since >= until) {
        fields.wrong("filter.until", "must be later than since");
    }
    let Owner {
        service_id,
        workspace_id,
    } = owner?;
    Some(ExchangeFilter {
        service_id,
        workspace_id,
        method: method?,
        host: host?,
        status_min: status_min?,
        status_max: status_max?,
        since: since?,
        until: until?,
    })
}

fn text(field: &str, text: String) -> Result<Option<String>, Violation> {
    if text.len() > TEXT_MAX || text.contains('\0') {
        return Err(Violation::new(field, "must have at most 1,024 bytes and no NUL"));
    }
    Ok((!text.is_empty()).then_some(text))
}

fn status(field: &str, status: u32) -> Result<Option<u16>, Violation> {
    match u16::try_from(status) {
        Ok(0) => Ok(None),
        Ok(status @ 100..=999) => Ok(Some(status)),
        _ => Err(Violation::new(field, "must be a status from 100 to 999, or 0 for any")),
    }
}

/// Which WebSocket connections and which page of them.
pub(in crate::api) fn websockets(
    request: &v1::ListWebSocketConnectionsRequest,
) -> Result<(WebSocketFilter, Page), Refusal> {
    let mut fields = Fields::default();
    let owner = owner("", &request.proxy_id, &request.workspace_id, &mut fields);
    let page = fields.take(page(request.page_size, &request.page_token));
    let filter = owner.map(
        |Owner {
             service_id,
             workspace_id,
         }| WebSocketFilter {
            service_id,
            workspace_id,
        },
    );
    fields.finish(filter.zip(page))
}

/// What is to be watched.
pub(in crate::api) fn watch(request: &v1::WatchTrafficRequest) -> Result<live::Filter, Refusal> {
    let mut fields = Fields::default();
    let owner = owner("", &request.proxy_id, &request.workspace_id, &mut fields);
    if request.after_position < 0 {
        fields.wrong("after_position", "must not be negative");
    }
    let filter = owner.map(
        |Owner {
             service_id,
             workspace_id,
         }| live::Filter {
            service_id,
            workspace_id,
            after_position: (request.after_position > 0).then_some(request.after_position),
            stored_only: request.stored_only,
        },
    );
    fields.finish(filter)
}

/// A live event.
pub(in crate::api) fn event(event: live::Event) -> v1::WatchTrafficResponse {
    use v1::watch_traffic_response::Event as Wire;
    let row = |row: Arc<ExchangeRow>| exchange(Arc::unwrap_or_clone(row));
    let socket = |row: Arc<WebSocketRow>| websocket(Arc::unwrap_or_clone(row));
    let event = match event {
        live::Event::Subscribed(position) => Wire::Subscribed(v1::Subscribed { position }),
        live::Event::Begun(begun) => Wire::Begun(row(begun)),
        live::Event::Completed(completed) => Wire::Completed(row(completed)),
        live::Event::Stored(stored) => Wire::Stored(row(stored)),
        live::Event::WebSocketOpened(opened) => Wire::WebsocketOpened(socket(opened)),
        live::Event::WebSocketMessage(passed) => Wire::WebsocketMessage(message(Arc::unwrap_or_clone(passed))),
        live::Event::WebSocketClosed(closed) => Wire::WebsocketClosed(socket(closed)),
        live::Event::Missed(count) => Wire::Missed(count),
    };
    v1::WatchTrafficResponse { event: Some(event) }
}

/// Which body.
pub(in crate::api) fn side(side: v1::BodySide) -> Result<Side, Violation> {
    match side {
        v1::BodySide::Request => Ok(Side::Request),
        v1::BodySide::Response => Ok(Side::Response),
        v1::BodySide::Unspecified => Err(Violation::new("side", "must be REQUEST or RESPONSE")),
    }
}

/// A summary row.
pub(in crate::api) fn exchange(row: ExchangeRow) -> v1::Exchange {
    v1::Exchange {
        url: row.url(),
        flags: row.flag_names().map(str::to_owned).collect(),
        id: row.id.to_string(),
        proxy_id: row.service_id.map(|id| id.to_string()).unwrap_or_default(),
        proxy_name: row.service_name.unwrap_or_default(),
        workspace_id: row.workspace_id.to_string(),
        workspace_code: row.workspace_code.unwrap_or_default(),
        position: row.position,
        // The records' numbers are those of the API, from 0 for unknown on.
        kind: row.kind as i32,
        state: row.state as i32,
        started_at: Some(timestamp(row.started_at)),
        duration_us: row.duration_us.cast_signed(),
        client: row.client,
        method: row.method,
        scheme: row.scheme,
        host: row.host,
        port: row.port.into(),
        path: row.path,
        has_query: row.query.is_some(),
        query: row.query.unwrap_or_default(),
        status: row.status.into(),
        request_version: version(row.request_version).to_owned(),
        response_version: version(row.response_version).to_owned(),
        request_size: row.request_size,
        response_size: row.response_size,
        request_captured: row.request_captured,
        response_captured: row.response_captured,
        request_truncated: row.request_truncated,
        response_truncated: row.response_truncated,
        request_content_type: row.request_content_type,
        response_content_type: row.response_content_type,
        request_content_encoding: row.request_content_encoding,
        response_content_encoding: row.response_content_encoding,
        error: row.error,
        error_detail: row.error_detail,
    }
}

fn version(version: u16) -> &'static str {
    match version {
        10 => "HTTP/1.0",
        11 => "HTTP/1.1",
        20 => "HTTP/2",
        _ => "",
    }
}

/// An exchange with its heads; those of one that is still open may be missing.
pub(in crate::api) fn detail(row: ExchangeRow, heads: HeadsRow) -> v1::ExchangeDetail {
    let total = row.duration_us.cast_signed();
    v1::ExchangeDetail {
        request_head: heads.request_head.unwrap_or_default().into(),
        response_head: heads.response_head.unwrap_or_default().into(),
        informational_heads: heads.informational_heads.unwrap_or_default().into(),
        request_trailers: heads.request_trailers.unwrap_or_default().into(),
        response_trailers: heads.response_trailers.unwrap_or_default().into(),
        timings: Some(v1::Timings {
            dns_us: heads.dns_us,
            connect_us: heads.connect_us,
            tls_us: heads.tls_us,
            first_byte_us: heads.first_byte_us,
            total_us: Some(total),
        }),
        origin_address: heads.origin_address.unwrap_or_default(),
        client_tls: heads.client_tls_version.map(|version| v1::TlsInfo {
            version,
            cipher: heads.client_tls_cipher.unwrap_or_default(),
            alpn: heads.client_tls_alpn.unwrap_or_default(),
            sni: heads.client_tls_sni.unwrap_or_default(),
        }),
        origin_tls: heads.origin_tls_version.map(|version| v1::TlsInfo {
            version,
            cipher: heads.origin_tls_cipher.unwrap_or_default(),
            alpn: heads.origin_tls_alpn.unwrap_or_default(),
            sni: heads.origin_tls_sni.unwrap_or_default(),
        }),
        exchange: Some(exchange(row)),
    }
}

/// A WebSocket connection.
pub(in crate::api) fn websocket(row: WebSocketRow) -> v1::WebSocketConnection {
    v1::WebSocketConnection {
        exchange_id: row.exchange_id.to_string(),
        proxy_id: row.service_id.map(|id| id.to_string()).unwrap_or_default(),
        proxy_name: row.service_name.unwrap_or_default(),
        workspace_id: row.workspace_id.to_string(),
        workspace_code: row.workspace_code.unwrap_or_default(),
        url: row.url,
        subprotocol: row.subprotocol,
        extensions: row.extensions,
        opened_at: Some(timestamp(row.opened_at)),
        closed_at: row.closed_at.map(timestamp),
        close_code: row.close_code.into(),
        close_reason: row.close_reason,
        messages_from_client: row.messages_from_client,
        messages_from_server: row.messages_from_server,
        bytes_from_client: row.bytes_from_client,
        bytes_from_server: row.bytes_from_server,
    }
}

/// A WebSocket message.
pub(in crate::api) fn message(row: MessageRow) -> v1::WebSocketMessage {
    let direction = match row.side {
        Side::Request => v1::MessageDirection::ClientToServer,
        Side::Response => v1::MessageDirection::ServerToClient,
        Side::Unknown => v1::MessageDirection::Unspecified,
    };
    v1::WebSocketMessage {
        exchange_id: row.exchange_id.to_string(),
        sequence: row.sequence,
        direction: direction.into(),
        opcode: row.opcode.into(),
        at: Some(timestamp(row.at)),
        payload: row.payload.into(),
        size: row.size,
        truncated: row.truncated,
        compressed: row.compressed,
        payload_cut: row.payload_cut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_names_every_field_that_is_wrong() {
        let request = v1::ListExchangesRequest {
            filter: Some(v1::ExchangeFilter {
                proxy_id: "capture".into(),
                status_min: 99,
                status_max: 70_000,
                host: "x".repeat(2_000),
                ..Default::default()
            }),
            page_size: -1,
            ..Default::default()
        };
        let refusal = exchanges(request).unwrap_err();
        for field in [
            "filter.proxy_id",
            "filter.status_min",
            "filter.status_max",
            "filter.host",
            "page_size",
        ] {
            assert!(
                refusal.message().contains(&format!("{field}:")),
                "{field}: {}",
                refusal.message()
            );
        }
    }

    #[test]
    fn the_records_numbers_are_those_of_the_api() {
        use proxyplane_record::{ExchangeKind, ExchangeState};
        assert_eq!(ExchangeKind::Http as i32, v1::ExchangeKind::Http as i32);
        assert_eq!(ExchangeKind::WebSocket as i32, v1::ExchangeKind::Websocket as i32);
        assert_eq!(ExchangeKind::Tunnel as i32, v1::ExchangeKind::Tunnel as i32);
        assert_eq!(ExchangeKind::Connect as i32, v1::ExchangeKind::Connect as i32);
        assert_eq!(ExchangeState::Open as i32, v1::ExchangeState::Open as i32);
        assert_eq!(ExchangeState::Complete as i32, v1::ExchangeState::Complete as i32);
        assert_eq!(ExchangeState::Failed as i32, v1::ExchangeState::Failed as i32);
    }
}
