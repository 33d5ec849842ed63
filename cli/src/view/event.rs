//! An event of the event log.

use std::collections::BTreeMap;

use proxyplane_proto::v1::{self, EventSeverity};
use serde::Serialize;

use super::{some, time, variant};
use crate::{
    output::{Row, Text, Tone},
    when,
};

#[derive(Serialize)]
pub(crate) struct Event {
    id: String,
    time: Option<String>,
    /// `info`, `warning` or `error`.
    severity: String,
    kind: String,
    source: String,
    /// `system` or `proxy`.
    subject_type: String,
    subject_id: Option<String>,
    /// `workspace/name` of a proxy, as it was then.
    subject: Option<String>,
    workspace_id: Option<String>,
    message: String,
    details: BTreeMap<String, String>,
    occurrences: u32,
    #[serde(skip)]
    tone: Tone,
    #[serde(skip)]
    at: Option<prost_types::Timestamp>,
}

impl From<v1::Event> for Event {
    fn from(from: v1::Event) -> Self {
        let tone = match from.severity() {
            EventSeverity::Error => Tone::Bad,
            EventSeverity::Warning => Tone::Notice,
            EventSeverity::Info | EventSeverity::Unspecified => Tone::Plain,
        };
        let severity = variant(from.severity().as_str_name(), "EVENT_SEVERITY_");
        let subject = from.subject.unwrap_or_default();
        Self {
            id: from.id,
            time: time(from.time.as_ref()),
            severity,
            kind: from.kind,
            source: from.source,
            subject_type: variant(subject.r#type().as_str_name(), "EVENT_SUBJECT_TYPE_"),
            subject_id: some(subject.id),
            subject: some(subject.name),
            workspace_id: some(from.workspace_id),
            message: from.message,
            details: from.details.into_iter().collect(),
            occurrences: from.occurrences,
            tone,
            at: from.time,
        }
    }
}

impl Event {
    /// One line of a live view.
    pub(crate) fn line(&self) -> Vec<Text> {
        vec![
            Text::new(format!("{}  ", when::clock(self.at.as_ref())), Tone::Faint),
            Text::new(format!("{:<7}  ", self.severity), self.tone),
            Text::plain(format!("{:<16}  {}  {}", self.kind, self.about(), self.told())),
        ]
    }

    /// Whom it is about, as far as that is known.
    fn about(&self) -> &str {
        let named = self.subject.as_deref().or(self.subject_id.as_deref());
        named.unwrap_or(&self.subject_type)
    }

    fn told(&self) -> String {
        if self.occurrences > 1 {
            format!("{} (×{})", self.message, self.occurrences)
        } else {
            self.message.clone()
        }
    }
}

impl Row for Event {
    const COLUMNS: &'static [&'static str] = &["TIME (UTC)", "SEVERITY", "KIND", "SUBJECT", "*MESSAGE"];

    fn cells(&self) -> Vec<Text> {
        vec![
            Text::new(when::short(self.at.as_ref()), Tone::Faint),
            Text::new(&self.severity, self.tone),
            Text::plain(&self.kind),
            Text::plain(self.about()),
            Text::plain(self.told()),
        ]
    }
}
