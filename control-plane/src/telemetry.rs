//! Log lines: text or JSON on standard error, in UTC.
//!
//! Every line that is written while a request is served carries that request's id: `api/server.rs` opens a span
//! for each, and spans are written with the line. What is logged at warning or error becomes an event as well, at
//! whatever level lines are written.

use std::io;

use tracing_subscriber::{EnvFilter, Layer as _, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::{
    config::{LogFormat, LogLevel},
    events::{self, Events},
};

/// Installs the writer of log lines for the process, and has warnings and errors raised as events.
pub fn install(format: LogFormat, level: LogLevel, events: Events) {
    let detailed = matches!(level, LogLevel::Debug | LogLevel::Trace);
    let layer = fmt::layer()
        .with_writer(io::stderr)
        .with_file(detailed)
        .with_line_number(detailed);
    let registry = tracing_subscriber::registry().with(events::layer(events));
    let installed = match format {
        LogFormat::Json => registry
            .with(
                layer
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_filter(filter(level)),
            )
            .try_init(),
        LogFormat::Text => registry
            .with(
                layer
                    .with_target(detailed)
                    .with_ansi(use_colour())
                    .with_filter(filter(level)),
            )
            .try_init(),
    };
    if installed.is_err() {
        tracing::debug!("log lines are already being written");
    }
}

/// Below info only our own lines: those of HTTP/2 and SQL libraries would bury them.
fn filter(level: LogLevel) -> EnvFilter {
    let name = level.as_str();
    match level {
        LogLevel::Error | LogLevel::Warn => EnvFilter::new(name),
        // sqlx repeats the server's notices at info.
        LogLevel::Info => EnvFilter::new("info,sqlx=warn"),
        LogLevel::Debug | LogLevel::Trace => EnvFilter::new(format!("info,sqlx=warn,proxyplane={name}")),
    }
}

fn use_colour() -> bool {
    io::IsTerminal::is_terminal(&io::stderr()) && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
