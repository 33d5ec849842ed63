//! What is logged at warning or error becomes an event by itself.
//!
//! Only lines of the control plane's own code, not of libraries, and none of those that the event log itself writes:
//! its own failures must not feed it. An event has the fields of the line and nothing else.

use std::fmt;

use proxyplane_spec::ServiceId;
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

use super::{
    Events,
    event::{NewEvent, Subject, TARGET},
    kind::{Kind, Severity},
};

/// Our own code in targets of log lines.
const OURS: &str = env!("CARGO_CRATE_NAME");

/// Turns log lines into events; whatever the level at which lines are written.
pub fn layer<S>(events: Events) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let filter: FilterFn<fn(&Metadata<'_>) -> bool> = filter_fn(is_event);
    EventLayer(events).with_filter(filter.with_max_level_hint(LevelFilter::WARN))
}

struct EventLayer(Events);

impl<S: Subscriber> Layer<S> for EventLayer {
    fn on_event(&self, line: &tracing::Event<'_>, _: Context<'_, S>) {
        let metadata = line.metadata();
        let mut fields = Fields::default();
        line.record(&mut fields);
        let severity = if *metadata.level() == Level::ERROR {
            Severity::Error
        } else {
            Severity::Warning
        };
        let subject = fields.service.map_or(Subject::System, |id| Subject::proxy(id, None));
        let mut event = NewEvent::new(
            severity,
            Kind::Logged,
            source(metadata.target()),
            subject,
            &fields.message,
        );
        event = event.because(&fields.cause);
        for (name, value) in fields.others {
            event = event.with(name, &value);
        }
        self.0.put(event);
    }
}

fn is_event(line: &Metadata<'_>) -> bool {
    let rest = line.target().strip_prefix(OURS);
    line.is_event()
        && *line.level() <= Level::WARN
        && line.target() != TARGET
        && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The part of the control plane that wrote a line: `ingest` of `proxyplane::ingest::committer`.
fn source(target: &'static str) -> &'static str {
    target.split("::").nth(1).unwrap_or(OURS)
}

/// The fields of a line.
#[derive(Default)]
struct Fields {
    message: String,
    /// Field `error`, `reason` or `failure`.
    cause: String,
    /// Field `service` or `service_id`.
    service: Option<ServiceId>,
    others: Vec<(&'static str, String)>,
}

impl Fields {
    fn note(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            "error" | "reason" | "failure" => self.cause = value,
            "service" | "service_id" if let Ok(id) = value.parse() => self.service = Some(id),
            name => self.others.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.note(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let causes = std::iter::successors(Some(value), |error| error.source());
        let chain: Vec<String> = causes.map(ToString::to_string).collect();
        self.note(field, chain.join(": "));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.note(field, format!("{value:?}"));
    }
}
