//! An exchange: a row of the history.

use proxyplane_proto::v1;
use serde::Serialize;

use super::{proxy_path, some, time, variant};
use crate::{
    output::{Row, Text, Tone},
    when,
};

#[derive(Serialize)]
pub(crate) struct Exchange {
    pub(crate) id: String,
    /// Name of its proxy; null when that is gone.
    proxy: Option<String>,
    proxy_id: Option<String>,
    /// Code of its workspace; null when that is gone.
    workspace: Option<String>,
    workspace_id: Option<String>,
    kind: String,
    state: String,
    method: Option<String>,
    url: String,
    scheme: Option<String>,
    host: String,
    port: u32,
    path: String,
    /// Null when the target has no `?`.
    query: Option<String>,
    /// Null when there was no answer.
    status: Option<u32>,
    /// Of the request.
    http_version: Option<String>,
    response_http_version: Option<String>,
    /// Sizes, and what is stored of them: null while it is open, for only its end tells.
    pub(super) request_size: Option<u64>,
    pub(super) response_size: Option<u64>,
    pub(super) request_captured: Option<u64>,
    pub(super) response_captured: Option<u64>,
    /// Either body was cut at the capture limit.
    truncated: bool,
    pub(super) request_truncated: bool,
    pub(super) response_truncated: bool,
    request_content_type: Option<String>,
    response_content_type: Option<String>,
    request_content_encoding: Option<String>,
    response_content_encoding: Option<String>,
    /// Stable code; null when all went well.
    pub(super) error: Option<String>,
    pub(super) error_detail: Option<String>,
    started_at: Option<String>,
    /// Null while it is open.
    duration_us: Option<i64>,
    pub(super) client: String,
    pub(super) flags: Vec<String>,
    /// Place in commit order; null before it is stored.
    position: Option<i64>,
    #[serde(skip)]
    started: Option<prost_types::Timestamp>,
}

impl From<v1::Exchange> for Exchange {
    fn from(from: v1::Exchange) -> Self {
        let ended = from.state() != v1::ExchangeState::Open;
        Self {
            kind: variant(from.kind().as_str_name(), "EXCHANGE_KIND_"),
            state: variant(from.state().as_str_name(), "EXCHANGE_STATE_"),
            id: from.id,
            proxy: some(from.proxy_name),
            proxy_id: some(from.proxy_id),
            workspace: some(from.workspace_code),
            workspace_id: some(from.workspace_id),
            method: some(from.method),
            url: from.url,
            scheme: some(from.scheme),
            host: from.host,
            port: from.port,
            path: from.path,
            query: from.has_query.then_some(from.query),
            status: (from.status != 0).then_some(from.status),
            http_version: some(from.request_version),
            response_http_version: some(from.response_version),
            request_size: ended.then_some(from.request_size),
            response_size: ended.then_some(from.response_size),
            request_captured: ended.then_some(from.request_captured),
            response_captured: ended.then_some(from.response_captured),
            truncated: from.request_truncated || from.response_truncated,
            request_truncated: from.request_truncated,
            response_truncated: from.response_truncated,
            request_content_type: some(from.request_content_type),
            response_content_type: some(from.response_content_type),
            request_content_encoding: some(from.request_content_encoding),
            response_content_encoding: some(from.response_content_encoding),
            error: some(from.error),
            error_detail: some(from.error_detail),
            started_at: time(from.started_at.as_ref()),
            duration_us: ended.then_some(from.duration_us),
            client: from.client,
            flags: from.flags,
            position: (from.position != 0).then_some(from.position),
            started: from.started_at,
        }
    }
}

impl Exchange {
    fn proxy_path(&self) -> Option<String> {
        proxy_path(self.workspace.as_deref(), self.proxy.as_deref())
    }

    /// Was it read inside of a tunnel that a CONNECT opened?
    pub(super) fn was_intercepted(&self) -> bool {
        self.kind != "connect" && self.flags.iter().any(|flag| flag == "intercepted")
    }

    /// Is it over?
    pub(super) fn has_ended(&self) -> bool {
        self.duration_us.is_some()
    }

    fn verdict(&self) -> Text {
        match (self.status, &self.error) {
            (Some(status), _) => Text::new(status.to_string(), status_tone(status)),
            (None, Some(_)) => Text::new("ERR", Tone::Bad),
            (None, None) => Text::new("-", Tone::Faint),
        }
    }

    fn size(&self) -> String {
        self.response_size.map_or_else(|| "-".to_owned(), when::bytes)
    }

    fn duration(&self) -> String {
        self.duration_us.map_or_else(|| "pending".to_owned(), when::micros)
    }

    /// What is worth knowing beside the numbers.
    fn note(&self) -> Text {
        match &self.error {
            Some(error) => Text::new(error, Tone::Bad),
            None if self.state == "open" => Text::new("open", Tone::Notice),
            None if self.truncated => Text::new("truncated", Tone::Notice),
            None => Text::plain(""),
        }
    }

    /// One line of a live view.
    pub(crate) fn line(&self) -> Vec<Text> {
        let pad = |text: String, width: usize| Text::plain(format!("{text:>width$}  "));
        let mut line = vec![
            Text::new(format!("{}  ", when::clock(self.started.as_ref())), Tone::Faint),
            self.verdict(),
            Text::plain(format!(
                "{}  ",
                if self.status.is_some() || self.error.is_some() {
                    ""
                } else {
                    "  "
                }
            )),
            Text::plain(format!("{:<7}", self.method.as_deref().unwrap_or("-"))),
            pad(self.size(), 10),
            pad(self.duration(), 9),
            Text::plain(&self.url),
        ];
        let note = self.note();
        if !note.is_empty() {
            line.extend([Text::plain("  "), note]);
        }
        if let Some(proxy) = self.proxy_path() {
            line.push(Text::new(format!("  [{proxy}]"), Tone::Faint));
        }
        line
    }
}

fn status_tone(status: u32) -> Tone {
    match status {
        ..400 => Tone::Good,
        400..500 => Tone::Notice,
        _ => Tone::Bad,
    }
}

impl Row for Exchange {
    // The URL is last: one of kilobytes then pads no other row.
    const COLUMNS: &'static [&'static str] = &[
        "STARTED (UTC)",
        "STATUS",
        "METHOD",
        "SIZE",
        "TIME",
        "PROXY",
        "ID",
        "NOTE",
        "*URL",
    ];

    fn cells(&self) -> Vec<Text> {
        vec![
            Text::new(when::short(self.started.as_ref()), Tone::Faint),
            self.verdict(),
            Text::plain(self.method.as_deref().unwrap_or("-")),
            Text::plain(self.size()),
            Text::plain(self.duration()),
            Text::plain(self.proxy_path().unwrap_or_else(|| "-".to_owned())),
            Text::new(&self.id, Tone::Faint),
            self.note(),
            Text::plain(&self.url),
        ]
    }
}
