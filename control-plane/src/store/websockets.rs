//! Tables `websocket_connections` and `websocket_messages`.

use proxyplane_record::{Exchange, Side};
use proxyplane_spec::{ExchangeId, ServiceId, WorkspaceId};
use serde::Serialize;
use sqlx::PgExecutor;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    StoreError,
    display::display,
    exchanges::{self, ExchangeRow},
    page::{Cursor, Page, Paged},
};

mod messages;

pub use messages::{MessageRow, messages, parts};

/// A WebSocket connection. Texts are in display form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketRow {
    /// Its exchange.
    pub exchange_id: ExchangeId,
    /// Where it belongs.
    pub workspace_id: WorkspaceId,
    /// Its workspace's code, while that exists.
    pub workspace_code: Option<String>,
    /// The service that carried it, if one did.
    pub service_id: Option<ServiceId>,
    /// Its service's name, while that exists.
    pub service_name: Option<String>,
    /// Of its exchange.
    pub url: String,
    /// Sec-WebSocket-Protocol of the answer.
    pub subprotocol: String,
    /// Sec-WebSocket-Extensions of the answer.
    pub extensions: String,
    /// When the answer came.
    pub opened_at: OffsetDateTime,
    /// `None` while open.
    pub closed_at: Option<OffsetDateTime>,
    /// 0 when no Close frame was seen.
    pub close_code: u16,
    /// Of the first Close frame.
    pub close_reason: String,
    /// Messages, control frames included.
    pub messages_from_client: u64,
    /// Messages, control frames included.
    pub messages_from_server: u64,
    /// Inflated payload bytes.
    pub bytes_from_client: u64,
    /// Inflated payload bytes.
    pub bytes_from_server: u64,
}

impl WebSocketRow {
    /// The row that a record will have; `None` if the exchange is no WebSocket.
    pub fn of_record(exchange: &Exchange, row: &ExchangeRow) -> Option<Self> {
        let summary = exchange.websocket.as_ref()?;
        Some(Self {
            exchange_id: row.id,
            workspace_id: row.workspace_id,
            workspace_code: row.workspace_code.clone(),
            service_id: row.service_id,
            service_name: row.service_name.clone(),
            url: row.url(),
            subprotocol: display(&summary.subprotocol).into_owned(),
            extensions: display(&summary.extensions).into_owned(),
            opened_at: exchanges::time_of(summary.opened_at_us),
            closed_at: (summary.closed_at_us != 0).then(|| exchanges::time_of(summary.closed_at_us)),
            close_code: summary.close_code as u16,
            close_reason: display(&summary.close_reason).into_owned(),
            messages_from_client: summary.messages_from_client,
            messages_from_server: summary.messages_from_server,
            bytes_from_client: summary.bytes_from_client,
            bytes_from_server: summary.bytes_from_server,
        })
    }
}

/// Which connections. Everything that is set must match.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct WebSocketFilter {
    /// Those of this service.
    pub service_id: Option<ServiceId>,
    /// Those of this workspace.
    pub workspace_id: Option<WorkspaceId>,
}

/// A row as the database has it.
struct Raw {
    exchange_id: ExchangeId,
    workspace_id: WorkspaceId,
    workspace_code: Option<String>,
    service_id: Option<Uuid>,
    service_name: Option<String>,
    scheme: Option<String>,
    host: Option<String>,
    port: Option<i32>,
    path: Option<String>,
    query: Option<String>,
    subprotocol: Option<String>,
    extensions: Option<String>,
    opened_at: OffsetDateTime,
    closed_at: Option<OffsetDateTime>,
    close_code: Option<i32>,
    close_reason: Option<String>,
    messages_from_client: i64,
    messages_from_server: i64,
    bytes_from_client: i64,
    bytes_from_server: i64,
}

impl From<Raw> for WebSocketRow {
    fn from(raw: Raw) -> Self {
        // The exchange is missing only when it was refused by the database and is among the rejects.
        let url = raw.scheme.as_deref().map(|scheme| {
            let port = raw.port.unwrap_or_default() as u16;
            let host = raw.host.as_deref().unwrap_or_default();
            exchanges::url(
                scheme,
                host,
                port,
                raw.path.as_deref().unwrap_or_default(),
                raw.query.as_deref(),
            )
        });
        Self {
            exchange_id: raw.exchange_id,
            workspace_id: raw.workspace_id,
            workspace_code: raw.workspace_code,
            service_id: raw.service_id.map(ServiceId),
            service_name: raw.service_name,
            url: url.unwrap_or_default(),
            subprotocol: raw.subprotocol.unwrap_or_default(),
            extensions: raw.extensions.unwrap_or_default(),
            opened_at: raw.opened_at,
            closed_at: raw.closed_at,
            close_code: raw.close_code.unwrap_or_default() as u16,
            close_reason: raw.close_reason.unwrap_or_default(),
            messages_from_client: raw.messages_from_client.cast_unsigned(),
            messages_from_server: raw.messages_from_server.cast_unsigned(),
            bytes_from_client: raw.bytes_from_client.cast_unsigned(),
            bytes_from_server: raw.bytes_from_server.cast_unsigned(),
        }
    }
}

/// Queries connections with their exchanges; what is given says which, and in what order. A macro, since the text has to
/// be a literal to be checked when it is compiled.
macro_rules! whole {
    ($which:literal $(, $value:expr)* $(,)?) => {
        sqlx::query_as!(
            Raw,
            r#"SELECT w.exchange_id, w.workspace_id, c.code AS "workspace_code?", w.service_id, s.name AS "service_name?",
                      e.scheme AS "scheme?", e.host AS "host?", e.port AS "port?", e.path AS "path?", e.query,
                      w.subprotocol, w.extensions, w.opened_at, w.closed_at, w.close_code, w.close_reason,
                      w.messages_from_client, w.messages_from_server, w.bytes_from_client, w.bytes_from_server
               FROM websocket_connections w LEFT JOIN exchanges e ON e.id = w.exchange_id
                    LEFT JOIN services s ON s.id = w.service_id LEFT JOIN workspaces c ON c.id = w.workspace_id "#
                + $which
            $(, $value)*
        )
    };
}

/// A page of those that match, newest first.
pub async fn list(
    db: impl PgExecutor<'_>,
    filter: &WebSocketFilter,
    page: &Page,
) -> Result<Paged<WebSocketRow>, StoreError> {
    let cursor = Cursor::of("websockets", filter);
    let before: Option<ExchangeId> = cursor.after(page)?;
    let rows = whole!(
        "WHERE ($1::uuid IS NULL OR w.service_id = $1) AND ($2::uuid IS NULL OR w.workspace_id = $2)
             AND ($3::uuid IS NULL OR w.exchange_id < $3)
           ORDER BY w.exchange_id DESC LIMIT $4",
        filter.service_id.map(|id| id.0),
        filter.workspace_id.map(|id| id.0),
        before.map(|id| id.0),
        page.fetch(),
    )
    .fetch_all(db)
    .await?;
    let rows = rows.into_iter().map(WebSocketRow::from).collect();
    Ok(cursor.paged(page, rows, |row: &WebSocketRow| row.exchange_id))
}

/// Reads one.
pub async fn get(db: impl PgExecutor<'_>, id: ExchangeId) -> Result<Option<WebSocketRow>, StoreError> {
    let row = whole!("WHERE w.exchange_id = $1", id.0,).fetch_optional(db).await?;
    Ok(row.map(Into::into))
}

/// Who sent it, from the database's number.
fn side_of(side: i16) -> Side {
    Side::try_from(i32::from(side)).unwrap_or(Side::Unknown)
}
