//! An event as it is raised: checked for size and made harmless to show, without an id yet.

use std::collections::BTreeMap;

use proxyplane_spec::{ServiceId, WorkspaceId};
use time::OffsetDateTime;
use tracing::{error, field::display as shown, info, warn};

use super::kind::{Kind, Severity, SubjectType};
use crate::{
    clock,
    store::{display::display, services::ServiceRow},
};

/// Target of the log lines of events: they do not become events once more.
pub(super) const TARGET: &str = "proxyplane::event";
/// Most bytes of a message, of its cause, and of a detail.
const TEXT_MAX: usize = 1_000;
/// Most details.
const DETAILS_MAX: usize = 16;

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The installation.
    System,
    /// A proxy. Its name and workspace are looked up where they are not known.
    Proxy {
        /// Its id.
        id: ServiceId,
        /// `workspace/name`; empty if not known.
        name: String,
        /// Its workspace.
        workspace_id: Option<WorkspaceId>,
    },
}

impl Subject {
    /// A proxy of which more may be known.
    pub fn proxy(id: ServiceId, row: Option<&ServiceRow>) -> Self {
        Self::Proxy {
            id,
            name: row
                .map(|row| format!("{}/{}", row.workspace_code, row.name))
                .unwrap_or_default(),
            workspace_id: row.map(|row| row.workspace_id),
        }
    }

    /// A proxy by its ids.
    pub fn proxy_in(id: ServiceId, workspace_id: WorkspaceId) -> Self {
        Self::Proxy {
            id,
            name: String::new(),
            workspace_id: Some(workspace_id),
        }
    }

    pub(super) fn service_id(&self) -> Option<ServiceId> {
        match self {
            Self::System => None,
            Self::Proxy { id, .. } => Some(*id),
        }
    }

    pub(super) fn subject_type(&self) -> SubjectType {
        match self {
            Self::System => SubjectType::System,
            Self::Proxy { .. } => SubjectType::Proxy,
        }
    }
}

/// Something that just happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewEvent {
    pub(super) at: OffsetDateTime,
    pub(super) severity: Severity,
    pub(super) kind: Kind,
    pub(super) source: &'static str,
    pub(super) subject: Subject,
    /// What happened. Events that differ in nothing but cause and details count as equal.
    pub(super) what: String,
    /// Why; may be empty.
    pub(super) cause: String,
    pub(super) details: BTreeMap<String, String>,
}

impl NewEvent {
    pub(super) fn new(severity: Severity, kind: Kind, source: &'static str, subject: Subject, what: &str) -> Self {
        Self {
            at: clock::now(),
            severity,
            kind,
            source,
            subject: match subject {
                Subject::Proxy { id, name, workspace_id } => Subject::Proxy {
                    id,
                    name: harmless(&name),
                    workspace_id,
                },
                Subject::System => Subject::System,
            },
            what: harmless(what),
            cause: String::new(),
            details: BTreeMap::new(),
        }
    }

    /// Why it happened; shown behind what happened.
    pub(super) fn because(mut self, cause: &str) -> Self {
        self.cause = harmless(cause);
        self
    }

    /// More about it, for programs.
    pub(super) fn with(mut self, name: &str, value: &impl ToString) -> Self {
        if self.details.len() < DETAILS_MAX {
            self.details.insert(harmless(name), harmless(&value.to_string()));
        }
        self
    }

    pub(super) fn message(&self) -> String {
        if self.cause.is_empty() {
            self.what.clone()
        } else {
            format!("{}: {}", self.what, self.cause)
        }
    }

    /// Writes its log line.
    pub(super) fn log(&self) {
        let (event, message) = (self.kind.code(), self.message());
        let service = self.subject.service_id().map(shown);
        let name = match &self.subject {
            Subject::Proxy { name, .. } if !name.is_empty() => Some(name),
            _ => None,
        };
        let details = (!self.details.is_empty()).then_some(tracing::field::debug(&self.details));
        match self.severity {
            Severity::Info => info!(target: TARGET, event, service, name, details, "{message}"),
            Severity::Warning => warn!(target: TARGET, event, service, name, details, "{message}"),
            Severity::Error => error!(target: TARGET, event, service, name, details, "{message}"),
        }
    }
}

/// Text in its display form, cut to the most that is kept.
fn harmless(text: &str) -> String {
    let mut text = display(text.as_bytes()).into_owned();
    if text.len() > TEXT_MAX {
        text.truncate(text.floor_char_boundary(TEXT_MAX));
        text.push('…');
    }
    text
}
