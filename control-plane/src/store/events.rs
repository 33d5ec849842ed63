//! Table `events`: the event log.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proxyplane_spec::{EventId, ServiceId, WorkspaceId};
use serde::Serialize;
use sqlx::PgExecutor;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    StoreError,
    page::{Cursor, Page, Paged},
};
use crate::events::{Kind, Severity, SubjectType};

/// How long events are kept.
pub const KEPT_FOR: Duration = Duration::from_hours(30 * 24);
/// How many are kept.
pub const KEPT: i64 = 100_000;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// UUIDv7, made in the order in which events are told.
    pub id: EventId,
    /// When it happened; of several equal ones, the last.
    pub at: OffsetDateTime,
    /// How bad it is.
    pub severity: Severity,
    /// Part of the control plane that raised it.
    pub source: String,
    /// Code of its [`Kind`]; of a build before or after this one maybe another.
    pub kind: String,
    /// What it is about.
    pub subject_type: SubjectType,
    /// Which one of those.
    pub subject_id: Option<Uuid>,
    /// As it was when it happened: `workspace/name` of a proxy.
    pub subject_name: String,
    /// The subject's workspace.
    pub workspace_id: Option<WorkspaceId>,
    /// For people.
    pub message: String,
    /// For programs.
    pub details: BTreeMap<String, String>,
    /// Equal events that this one stands for; at least 1.
    pub occurrences: u32,
}

/// Which events. Everything that is set must match.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// This severe or more.
    pub severity_min: Severity,
    /// One of these; empty for any.
    pub kinds: Vec<Kind>,
    /// Those about this service.
    pub service_id: Option<ServiceId>,
    /// Those of this workspace.
    pub workspace_id: Option<WorkspaceId>,
}

impl EventFilter {
    /// Does an event match?
    pub fn matches(&self, event: &EventRow) -> bool {
        event.severity >= self.severity_min
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind.code() == event.kind))
            && self.service_id.is_none_or(|id| event.subject_id == Some(id.0))
            && self.workspace_id.is_none_or(|id| event.workspace_id == Some(id))
    }

    fn codes(&self) -> Option<Vec<String>> {
        let codes = self.kinds.iter().map(|kind| kind.code().to_owned());
        (!self.kinds.is_empty()).then(|| codes.collect())
    }

    /// What a page token is bound to.
    fn bound(&self, since: Option<OffsetDateTime>) -> impl Serialize {
        let since = since.map(|since| since.unix_timestamp_nanos().to_string());
        let ids = (self.service_id, self.workspace_id);
        (self.severity_min.number(), self.codes(), ids, since)
    }
}

/// A row as the database has it.
struct Raw {
    id: EventId,
    at: OffsetDateTime,
    severity: i16,
    subject_type: i16,
    subject_id: Option<Uuid>,
    subject_name: String,
    workspace_id: Option<Uuid>,
    source: String,
    kind: String,
    message: String,
    details: String,
    occurrences: i32,
}

impl TryFrom<Raw> for EventRow {
    type Error = StoreError;

    fn try_from(raw: Raw) -> Result<Self, StoreError> {
        let unknown = |column| move || StoreError::corrupt(column, "a number of no meaning");
        Ok(Self {
            id: raw.id,
            at: raw.at,
            severity: Severity::of(raw.severity).ok_or_else(unknown("severity"))?,
            source: raw.source,
            kind: raw.kind,
            subject_type: SubjectType::of(raw.subject_type).ok_or_else(unknown("subject_type"))?,
            subject_id: raw.subject_id,
            subject_name: raw.subject_name,
            workspace_id: raw.workspace_id.map(WorkspaceId),
            message: raw.message,
            details: serde_json::from_str(&raw.details).map_err(|error| StoreError::corrupt("details", error))?,
            occurrences: raw.occurrences.cast_unsigned(),
        })
    }
}

/// Stores events; those that are there already stay as they are. A proxy's name and workspace that the event does not
/// have are looked up.
pub async fn insert(db: impl PgExecutor<'_>, events: &[Arc<EventRow>]) -> Result<(), StoreError> {
    let details = |event: &Arc<EventRow>| serde_json::json!(event.details).to_string();
    let column = |of: fn(&EventRow) -> &str| events.iter().map(|event| of(event).to_owned()).collect::<Vec<_>>();
    sqlx::query!(
        r#"INSERT INTO events (id, at, severity, subject_type, subject_id, subject_name, workspace_id, source, kind,
                  message, details, occurrences)
           SELECT e.id, e.at, e.severity, e.subject_type, e.subject_id,
                  coalesce(nullif(e.subject_name, ''), w.code || '/' || s.name, ''),
                  coalesce(e.workspace_id, s.workspace_id), e.source, e.kind, e.message, e.details::jsonb, e.occurrences
           FROM unnest($1::uuid[], $2::timestamptz[], $3::smallint[], $4::smallint[], $5::uuid[], $6::text[],
                       $7::uuid[], $8::text[], $9::text[], $10::text[], $11::text[], $12::integer[])
                AS e (id, at, severity, subject_type, subject_id, subject_name, workspace_id, source, kind, message,
                      details, occurrences)
                LEFT JOIN services s ON s.id = e.subject_id LEFT JOIN workspaces w ON w.id = s.workspace_id
           ON CONFLICT ON CONSTRAINT events_pk DO NOTHING"#,
        &events.iter().map(|event| event.id.0).collect::<Vec<_>>(),
        &events.iter().map(|event| event.at).collect::<Vec<_>>(),
        &events.iter().map(|event| event.severity.number()).collect::<Vec<_>>(),
        &events
            .iter()
            .map(|event| event.subject_type.number())
            .collect::<Vec<_>>(),
        &events.iter().map(|event| event.subject_id).collect::<Vec<_>>() as &[Option<Uuid>],
        &column(|event| &event.subject_name),
        &events
            .iter()
            .map(|event| event.workspace_id.map(|id| id.0))
            .collect::<Vec<_>>() as &[Option<Uuid>],
        &column(|event| &event.source),
        &column(|event| &event.kind),
        &column(|event| &event.message),
        &events.iter().map(details).collect::<Vec<_>>(),
        &events
            .iter()
            .map(|event| i32::try_from(event.occurrences).unwrap_or(i32::MAX))
            .collect::<Vec<_>>(),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A page of those that match and happened at `since` or later, newest first.
pub async fn list(
    db: impl PgExecutor<'_>,
    filter: &EventFilter,
    since: Option<OffsetDateTime>,
    page: &Page,
) -> Result<Paged<EventRow>, StoreError> {
    let cursor = Cursor::of("events", &filter.bound(since));
    let before: Option<EventId> = cursor.after(page)?;
    let rows = sqlx::query_as!(
        Raw,
        r#"SELECT id, at, severity, subject_type, subject_id, subject_name, workspace_id, source, kind, message,
                  details::text AS "details!", occurrences
           FROM events
           WHERE severity >= $1 AND ($2::text[] IS NULL OR kind = ANY ($2)) AND ($3::uuid IS NULL OR subject_id = $3)
             AND ($4::uuid IS NULL OR workspace_id = $4) AND ($5::timestamptz IS NULL OR at >= $5)
             AND ($6::uuid IS NULL OR id < $6)
           ORDER BY id DESC LIMIT $7"#,
        filter.severity_min.number(),
        filter.codes() as Option<Vec<String>>,
        filter.service_id.map(|id| id.0),
        filter.workspace_id.map(|id| id.0),
        since,
        before.map(|id| id.0),
        page.fetch(),
    )
    .fetch_all(db)
    .await?;
    let rows: Result<Vec<EventRow>, StoreError> = rows.into_iter().map(EventRow::try_from).collect();
    Ok(cursor.paged(page, rows?, |row| row.id))
}

/// The first `limit` of those that match and have an id above `after`, up to and with `to`; oldest first.
pub async fn between(
    db: impl PgExecutor<'_>,
    filter: &EventFilter,
    after: EventId,
    to: EventId,
    limit: i64,
) -> Result<Vec<EventRow>, StoreError> {
    let rows = sqlx::query_as!(
        Raw,
        r#"SELECT id, at, severity, subject_type, subject_id, subject_name, workspace_id, source, kind, message,
                  details::text AS "details!", occurrences
           FROM events
           WHERE severity >= $1 AND ($2::text[] IS NULL OR kind = ANY ($2)) AND ($3::uuid IS NULL OR subject_id = $3)
             AND ($4::uuid IS NULL OR workspace_id = $4) AND id > $5 AND id <= $6
           ORDER BY id LIMIT $7"#,
        filter.severity_min.number(),
        filter.codes() as Option<Vec<String>>,
        filter.service_id.map(|id| id.0),
        filter.workspace_id.map(|id| id.0),
        after.0,
        to.0,
        limit,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(EventRow::try_from).collect()
}

/// Removes what happened before `oldest`, and all but the newest `kept`. Answers how many that were.
pub async fn prune(db: impl PgExecutor<'_>, oldest: OffsetDateTime, kept: i64) -> Result<u64, StoreError> {
    let pruned = sqlx::query!(
        "DELETE FROM events
         WHERE at < $1 OR id <= (SELECT id FROM events ORDER BY id DESC OFFSET $2 LIMIT 1)",
        oldest,
        kept,
    )
    .execute(db)
    .await?;
    Ok(pruned.rows_affected())
}
