//! What is logged at warning or error, on its way to the control plane, where it becomes an event.
//!
//! Only lines of our own code: those of libraries may tell what passed through. Of a line its first, with its fields.
//! Lines wait here until the session is open; the log file has all of them.

use std::{
    collections::VecDeque,
    fmt::{self, Write as _},
    sync::{Mutex, MutexGuard, PoisonError},
};

use proxyplane_proto::worker as wire;
use tokio::sync::Notify;
use tracing::{
    Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::{FilterFn, LevelFilter, filter_fn},
    layer::Context,
    registry::LookupSpan,
};

/// Lines that wait. When there are more, the newest is dropped: what went wrong first says most.
const WAITING_MAX: usize = 64;
/// Most bytes of a line.
const TEXT_MAX: usize = 1_000;
/// Our own code in targets of log lines.
const OURS: &str = env!("CARGO_CRATE_NAME");

/// Target of lines that are for the log file alone: what the control plane knows by itself, and what may quote traffic.
pub(crate) const LOCAL: &str = "local";

/// Log lines are the process's, so this is too.
static WAITING: Waiting = Waiting::new();

struct Waiting {
    lines: Mutex<VecDeque<wire::LogLine>>,
    came: Notify,
}

/// Keeps lines for the session to send, whatever the level at which lines are written.
pub fn layer<S>() -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let filter: FilterFn<fn(&Metadata<'_>) -> bool> = filter_fn(is_told);
    Alarms(&WAITING).with_filter(filter.with_max_level_hint(LevelFilter::WARN))
}

/// The next line; waits for one. Safe to cancel.
pub(crate) async fn next() -> wire::LogLine {
    WAITING.next().await
}

impl Waiting {
    const fn new() -> Self {
        Self {
            lines: Mutex::new(VecDeque::new()),
            came: Notify::const_new(),
        }
    }

    fn put(&self, line: wire::LogLine) {
        let mut lines = self.lock();
        if lines.len() < WAITING_MAX {
            lines.push_back(line);
            self.came.notify_one();
        }
    }

    async fn next(&self) -> wire::LogLine {
        loop {
            if let Some(line) = self.lock().pop_front() {
                return line;
            }
            // A permit is kept when a line comes before this waits.
            self.came.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<wire::LogLine>> {
        // It stays whole when a holder panics.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Alarms(&'static Waiting);

impl<S: Subscriber> Layer<S> for Alarms {
    fn on_event(&self, line: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        line.record(&mut text);
        let level = if *line.metadata().level() == Level::ERROR {
            wire::LogLevel::Error
        } else {
            wire::LogLevel::Warning
        };
        self.0.put(wire::LogLine {
            level: level.into(),
            text: text.finish(),
        });
    }
}

fn is_told(line: &Metadata<'_>) -> bool {
    let rest = line.target().strip_prefix(OURS);
    line.is_event()
        && *line.level() <= Level::WARN
        && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// `message: error (field value, field value)`
#[derive(Default)]
struct Text {
    message: String,
    cause: String,
    fields: String,
}

impl Text {
    fn note(&mut self, field: &Field, value: &dyn fmt::Display) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            "error" | "reason" => write!(self.cause, ": {value}"),
            name => {
                let separator = if self.fields.is_empty() { "" } else { ", " };
                write!(self.fields, "{separator}{name} {value}")
            }
        };
    }

    fn finish(self) -> String {
        let mut text = self.message + &self.cause;
        text.truncate(text.find('\n').unwrap_or(text.len()));
        if !self.fields.is_empty() {
            let _ = write!(text, " ({})", self.fields);
        }
        text.truncate(text.floor_char_boundary(TEXT_MAX));
        text
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.note(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.note(field, &format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// What `log` logs, as it is told.
    fn told_of(log: impl FnOnce()) -> Vec<(wire::LogLevel, String)> {
        let waiting: &'static Waiting = Box::leak(Box::new(Waiting::new()));
        let filter: FilterFn<fn(&Metadata<'_>) -> bool> = filter_fn(is_told);
        let layer = Alarms(waiting).with_filter(filter);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        std::iter::from_fn(|| waiting.next().now_or_never())
            .map(|line| (line.level(), line.text))
            .collect()
    }

    #[test]
    fn a_warning_is_told_with_its_fields_and_an_error_by_its_first_line() {
        let told = told_of(|| {
            let error = std::io::Error::other("no room");
            tracing::warn!(%error, file = "a.seg", bytes = 3, "a segment could not be removed");
            tracing::error!("it broke\n   0: somewhere");
        });
        assert_eq!(
            told,
            [
                (
                    wire::LogLevel::Warning,
                    "a segment could not be removed: no room (file a.seg, bytes 3)".to_owned()
                ),
                (wire::LogLevel::Error, "it broke".to_owned()),
            ]
        );
    }

    #[test]
    fn what_is_not_bad_or_not_ours_is_not_told() {
        let told = told_of(|| {
            tracing::info!("all is well");
            tracing::warn!(target: "h2::proto", "a header of somebody's");
            tracing::error!(target: "proxyplane_workers", "somebody else");
        });
        assert_eq!(told, []);
    }

    #[test]
    fn a_flood_is_cut_and_so_is_a_long_line() {
        let told = told_of(|| {
            for number in 0..1_000 {
                tracing::warn!("{number} {}", "é".repeat(2_000));
            }
        });
        assert_eq!(told.len(), WAITING_MAX);
        assert!(told[0].1.starts_with("0 é") && told[0].1.len() <= TEXT_MAX);
    }
}
