//! WebSocket connections and messages.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use proxyplane_proto::v1::{self, MessageDirection};
use serde::Serialize;

use super::{proxy_path, some, time};
use crate::{
    escape,
    output::{Row, Text, Tone},
    when,
};

#[derive(Serialize)]
pub(crate) struct Connection {
    /// Of the exchange as well.
    id: String,
    proxy: Option<String>,
    proxy_id: Option<String>,
    /// Code of its workspace; null when that is gone.
    workspace: Option<String>,
    workspace_id: Option<String>,
    url: String,
    subprotocol: Option<String>,
    extensions: Option<String>,
    opened_at: Option<String>,
    /// Null while open.
    closed_at: Option<String>,
    close_code: Option<u32>,
    close_reason: Option<String>,
    messages_from_client: u64,
    messages_from_server: u64,
    bytes_from_client: u64,
    bytes_from_server: u64,
    #[serde(skip)]
    opened: Option<prost_types::Timestamp>,
}

impl From<v1::WebSocketConnection> for Connection {
    fn from(from: v1::WebSocketConnection) -> Self {
        Self {
            id: from.exchange_id,
            proxy: some(from.proxy_name),
            proxy_id: some(from.proxy_id),
            workspace: some(from.workspace_code),
            workspace_id: some(from.workspace_id),
            url: from.url,
            subprotocol: some(from.subprotocol),
            extensions: some(from.extensions),
            opened_at: time(from.opened_at.as_ref()),
            closed_at: time(from.closed_at.as_ref()),
            close_code: (from.close_code != 0).then_some(from.close_code),
            close_reason: some(from.close_reason),
            messages_from_client: from.messages_from_client,
            messages_from_server: from.messages_from_server,
            bytes_from_client: from.bytes_from_client,
            bytes_from_server: from.bytes_from_server,
            opened: from.opened_at,
        }
    }
}

impl Connection {
    fn state(&self) -> Text {
        match (&self.closed_at, self.close_code) {
            (None, _) => Text::new("open", Tone::Good),
            (Some(_), Some(code)) => Text::plain(format!("closed {code}")),
            (Some(_), None) => Text::new("closed", Tone::Notice),
        }
    }

    /// One line of a live view.
    pub(crate) fn line(&self) -> Vec<Text> {
        let messages = self.messages_from_client + self.messages_from_server;
        vec![
            self.state(),
            Text::plain(format!("  {}  {messages} messages", self.url)),
        ]
    }
}

impl Row for Connection {
    const COLUMNS: &'static [&'static str] = &[
        "OPENED (UTC)",
        "STATE",
        "MESSAGES OUT/IN",
        "BYTES OUT/IN",
        "PROXY",
        "ID",
        "*URL",
    ];

    fn cells(&self) -> Vec<Text> {
        vec![
            Text::new(when::short(self.opened.as_ref()), Tone::Faint),
            self.state(),
            Text::plain(format!("{}/{}", self.messages_from_client, self.messages_from_server)),
            Text::plain(format!(
                "{}/{}",
                when::bytes(self.bytes_from_client),
                when::bytes(self.bytes_from_server)
            )),
            Text::plain(proxy_path(self.workspace.as_deref(), self.proxy.as_deref()).unwrap_or_else(|| "-".to_owned())),
            Text::new(&self.id, Tone::Faint),
            Text::plain(&self.url),
        ]
    }
}

#[derive(Serialize)]
pub(crate) struct Message {
    exchange_id: String,
    sequence: u64,
    /// `client_to_server` or `server_to_client`.
    direction: &'static str,
    opcode: u32,
    /// `text`, `binary`, `close`, `ping`, `pong`.
    r#type: &'static str,
    at: Option<String>,
    /// Bytes of the whole message.
    size: u64,
    truncated: bool,
    compressed: bool,
    /// The payload is longer than this; `proxyctl websocket payload` gives the whole.
    payload_cut: bool,
    /// Null when it is no UTF-8.
    text: Option<String>,
    payload_base64: String,
    #[serde(skip)]
    shown: String,
    #[serde(skip)]
    time: Option<prost_types::Timestamp>,
}

/// Characters of a payload in a table.
const SHOWN: usize = 200;

impl From<v1::WebSocketMessage> for Message {
    fn from(from: v1::WebSocketMessage) -> Self {
        let text = std::str::from_utf8(&from.payload).ok().map(str::to_owned);
        Self {
            direction: match from.direction() {
                MessageDirection::ClientToServer => "client_to_server",
                MessageDirection::ServerToClient => "server_to_client",
                MessageDirection::Unspecified => "unknown",
            },
            exchange_id: from.exchange_id,
            sequence: from.sequence,
            opcode: from.opcode,
            r#type: type_name(from.opcode),
            at: time(from.at.as_ref()),
            size: from.size,
            truncated: from.truncated,
            compressed: from.compressed,
            payload_cut: from.payload_cut,
            text,
            payload_base64: BASE64_STANDARD.encode(&from.payload),
            shown: escape::bytes(&from.payload).chars().take(SHOWN).collect(),
            time: from.at,
        }
    }
}

/// RFC 6455 §5.2.
fn type_name(opcode: u32) -> &'static str {
    match opcode {
        0 => "continuation",
        1 => "text",
        2 => "binary",
        8 => "close",
        9 => "ping",
        10 => "pong",
        _ => "reserved",
    }
}

impl Message {
    /// `→` to the server, `←` from it.
    fn arrow(&self) -> &'static str {
        match self.direction {
            "client_to_server" => "→",
            "server_to_client" => "←",
            _ => "?",
        }
    }

    /// One line of a live view.
    pub(crate) fn line(&self) -> Vec<Text> {
        vec![
            Text::new(format!("{}  ", when::clock(self.time.as_ref())), Tone::Faint),
            Text::plain(format!(
                "{} {:<7}{:>10}  {}",
                self.arrow(),
                self.r#type,
                when::bytes(self.size),
                self.shown
            )),
        ]
    }
}

impl Row for Message {
    const COLUMNS: &'static [&'static str] = &["SEQ", "TIME (UTC)", " ", "TYPE", "SIZE", "*PAYLOAD"];

    fn cells(&self) -> Vec<Text> {
        vec![
            Text::plain(self.sequence.to_string()),
            Text::new(when::clock(self.time.as_ref()), Tone::Faint),
            Text::plain(self.arrow()),
            Text::plain(self.r#type),
            Text::plain(when::bytes(self.size)),
            Text::plain(&self.shown),
        ]
    }
}
