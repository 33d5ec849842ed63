//! A summary row, from the database or straight from a record.

use proxyplane_record::{Exchange, ExchangeKind, ExchangeState, Flags};
use proxyplane_spec::{ExchangeId, ServiceId, WorkspaceId};
use sqlx::{FromRow, Row as _, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::display::display;

/// One exchange of the history. Texts are in display form; absent ones are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeRow {
    /// UUIDv7, made when it began.
    pub id: ExchangeId,
    /// Place in commit order; 0 when it is not stored yet.
    pub position: i64,
    /// Where it belongs.
    pub workspace_id: WorkspaceId,
    /// Its workspace's code, while that exists.
    pub workspace_code: Option<String>,
    /// The service that carried it, if one did.
    pub service_id: Option<ServiceId>,
    /// Its service's name, while that exists.
    pub service_name: Option<String>,
    /// When it began.
    pub started_at: OffsetDateTime,
    /// From beginning to end, or so far.
    pub duration_us: u64,
    /// True size of the request body.
    pub request_size: u64,
    /// True size of the response body.
    pub response_size: u64,
    /// Bytes stored of the request body.
    pub request_captured: u64,
    /// Bytes stored of the response body.
    pub response_captured: u64,
    /// The origin's port.
    pub port: u16,
    /// What else is known of it.
    pub flags: u32,
    /// What it was.
    pub kind: ExchangeKind,
    /// How far it came.
    pub state: ExchangeState,
    /// 0 without an answer.
    pub status: u16,
    /// 10, 11 or 20; 0 when unknown.
    pub request_version: u16,
    /// 10, 11 or 20; 0 without an answer.
    pub response_version: u16,
    /// Less was captured than passed.
    pub request_truncated: bool,
    /// Less was captured than passed.
    pub response_truncated: bool,
    /// The client's `address:port`.
    pub client: String,
    /// Request method.
    pub method: String,
    /// `http`, `https`, `ws`, `wss` or `tcp`.
    pub scheme: String,
    /// Without port; IPv6 without brackets.
    pub host: String,
    /// From its `/`.
    pub path: String,
    /// Without `?`; `None` when there was none.
    pub query: Option<String>,
    /// Content-Type of the request.
    pub request_content_type: String,
    /// Content-Type of the response.
    pub response_content_type: String,
    /// Content-Encoding of the request.
    pub request_content_encoding: String,
    /// Content-Encoding of the response.
    pub response_content_encoding: String,
    /// Stable code; empty when all went well.
    pub error: String,
    /// The same for people.
    pub error_detail: String,
}

impl ExchangeRow {
    /// The row that a record will have. Names and `position` are for the caller to set.
    ///
    /// `None` if its id is not 16 bytes.
    pub fn of_record(exchange: &Exchange, workspace_id: WorkspaceId, service_id: ServiceId) -> Option<Self> {
        let text = |bytes: &[u8]| display(bytes).into_owned();
        Some(Self {
            id: ExchangeId(Uuid::from_slice(&exchange.id).ok()?),
            position: 0,
            workspace_id,
            workspace_code: None,
            service_id: Some(service_id),
            service_name: None,
            started_at: time_of(exchange.started_at_us),
            duration_us: exchange.duration_us,
            request_size: exchange.request_size,
            response_size: exchange.response_size,
            request_captured: exchange.request_captured,
            response_captured: exchange.response_captured,
            port: exchange.port as u16,
            flags: exchange.flags,
            kind: exchange.kind(),
            state: exchange.state(),
            status: exchange.status as u16,
            request_version: exchange.request_version as u16,
            response_version: exchange.response_version as u16,
            request_truncated: exchange.request_truncated,
            response_truncated: exchange.response_truncated,
            client: text(&exchange.client),
            method: text(&exchange.method),
            scheme: text(&exchange.scheme),
            host: text(&exchange.host),
            path: text(&exchange.path),
            query: exchange.query.as_deref().map(text),
            request_content_type: text(&exchange.request_content_type),
            response_content_type: text(&exchange.response_content_type),
            request_content_encoding: text(&exchange.request_content_encoding),
            response_content_encoding: text(&exchange.response_content_encoding),
            error: text(&exchange.error),
            error_detail: text(&exchange.error_detail),
        })
    }

    /// `scheme://host[:port]path[?query]`, the port left out where it is the scheme's own.
    pub fn url(&self) -> String {
        url(&self.scheme, &self.host, self.port, &self.path, self.query.as_deref())
    }

    /// Names of the flags that are set.
    pub fn flag_names(&self) -> impl Iterator<Item = &'static str> + '_ {
        Flags::NAMES
            .iter()
            .filter(|(bit, _)| self.flags & bit != 0)
            .map(|(_, name)| *name)
    }
}

impl FromRow<'_, PgRow> for ExchangeRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let size = |column| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
        let small = |column| {
            row.try_get::<Option<i16>, _>(column)
                .map(|value| value.unwrap_or(0).cast_unsigned())
        };
        let text = |column| row.try_get::<Option<String>, _>(column).map(Option::unwrap_or_default);
        Ok(Self {
            id: ExchangeId(row.try_get("id")?),
            position: row.try_get("position")?,
            workspace_id: WorkspaceId(row.try_get("workspace_id")?),
            workspace_code: row.try_get("workspace_code")?,
            service_id: row.try_get::<Option<Uuid>, _>("service_id")?.map(ServiceId),
            service_name: row.try_get("service_name")?,
            started_at: row.try_get("started_at")?,
            duration_us: size("duration_us")?,
            request_size: size("request_size")?,
            response_size: size("response_size")?,
            request_captured: size("request_captured")?,
            response_captured: size("response_captured")?,
            port: row.try_get::<i32, _>("port")? as u16,
            flags: row.try_get::<i32, _>("flags")?.cast_unsigned(),
            kind: ExchangeKind::try_from(i32::from(small("kind")?)).unwrap_or(ExchangeKind::Unknown),
            state: ExchangeState::try_from(i32::from(small("state")?)).unwrap_or(ExchangeState::Unknown),
            status: small("status")?,
            request_version: small("request_version")?,
            response_version: small("response_version")?,
            request_truncated: row.try_get("request_truncated")?,
            response_truncated: row.try_get("response_truncated")?,
            client: row.try_get("client")?,
            method: row.try_get("method")?,
            scheme: row.try_get("scheme")?,
            host: row.try_get("host")?,
            path: row.try_get("path")?,
            query: row.try_get("query")?,
            request_content_type: text("request_content_type")?,
            response_content_type: text("response_content_type")?,
            request_content_encoding: text("request_content_encoding")?,
            response_content_encoding: text("response_content_encoding")?,
            error: text("error")?,
            error_detail: text("error_detail")?,
        })
    }
}

/// `scheme://host[:port]path[?query]`, the port left out where it is the scheme's own or unknown. A refused request may
/// have neither scheme nor host: its target stays as far as it was read.
pub fn url(scheme: &str, host: &str, port: u16, path: &str, query: Option<&str>) -> String {
    let mut url = String::with_capacity(scheme.len() + host.len() + path.len() + query.map_or(0, str::len) + 12);
    url.push_str(scheme);
    if !scheme.is_empty() {
        url.push_str("://");
    }
    if host.contains(':') {
        url.push('[');
        url.push_str(host);
        url.push(']');
    } else {
        url.push_str(host);
    }
    let own = match scheme {
        "http" | "ws" => 80,
        "https" | "wss" => 443,
        _ => 0,
    };
    if port != own {
        url.push(':');
        url.push_str(&port.to_string());
    }
    url.push_str(path);
    if let Some(query) = query {
        url.push('?');
        url.push_str(query);
    }
    url
}

/// Microseconds since 1970 as a time; what no calendar has becomes its nearest end.
pub(crate) fn time_of(us: i64) -> OffsetDateTime {
    let limit = 250_000_000_000_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(us.clamp(-60_000_000_000_000_000, limit)) * 1_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_written_as_people_write_it() {
        assert_eq!(
            url("https", "a.example", 443, "/x", Some("q=1")),
            "https://a.example/x?q=1"
        );
        assert_eq!(url("http", "::1", 8080, "/", Some("")), "http://[::1]:8080/?");
        assert_eq!(url("tcp", "db.example", 5432, "", None), "tcp://db.example:5432");
        assert_eq!(url("", "", 0, "http://a.example/x", Some("y")), "http://a.example/x?y");
    }

    #[test]
    fn absurd_times_are_times_all_the_same() {
        assert_eq!(time_of(0), OffsetDateTime::UNIX_EPOCH);
        assert!(time_of(i64::MAX) > time_of(0) && time_of(i64::MIN) < time_of(0));
    }
}
