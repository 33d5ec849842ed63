//! Table `service_revisions`: every configuration that a service has had.
//!
//! A revision is written in the transaction that makes it the service's present one ([`super::services`]), so what is
//! in force always has its row here, and what was refused never has one.

use proxyplane_spec::{
    CaptureSpec, ListenHost, OnPortConflict, RawCapture, ServiceId, ServiceName, SpoolFull, Violation, limits,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor};
use time::OffsetDateTime;

use super::{
    StoreError,
    page::{Cursor, Page, Paged},
    services::{ServiceChange, ServiceRow, on_port_conflict, parse_on_port_conflict, parse_spool_full, spool_full},
};

/// Revisions that are kept of a service: its last ones. Each holds at most 1 MiB of certificates.
pub const KEPT: i64 = 100;

/// What made a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The service's creation.
    Create,
    /// A change of some fields.
    Update,
    /// A return to what an earlier revision held.
    Rollback {
        /// That revision.
        from: i64,
    },
}

/// A revision without its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionRow {
    /// Counts from 1.
    pub revision: i64,
    /// When it was made.
    pub made_at: OffsetDateTime,
    /// What made it.
    pub cause: Cause,
    /// Paths of an update mask whose values it changed, sorted; not known of a revision that is older than this table.
    pub changed: Vec<String>,
}

/// What a revision holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Unique in the workspace.
    pub name: ServiceName,
    /// Where the service listens.
    pub host: ListenHost,
    /// Unique across the installation.
    pub port: u16,
    /// What happens when it stays taken at boot.
    pub on_port_conflict: OnPortConflict,
    /// A log line per exchange.
    pub verbose: bool,
    /// Also of what is out of scope.
    pub log_out_of_scope: bool,
    /// What the service does with what passes.
    pub spec: CaptureSpec,
}

impl Configuration {
    /// The change that brings it back, whatever came since; `revision` is the one that holds it.
    pub fn restored(self, revision: i64) -> ServiceChange {
        ServiceChange {
            name: Some(self.name),
            host: Some(self.host),
            port: Some(self.port),
            on_port_conflict: Some(self.on_port_conflict),
            verbose: Some(self.verbose),
            log_out_of_scope: Some(self.log_out_of_scope),
            capture: self.spec.into(),
            rollback_of: Some(revision),
        }
    }
}

/// A configuration as the database has it: values by their path in an update mask.
///
/// A setting that is added later needs a default here: revisions from before it do not have it.
#[derive(Deserialize, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "these are a service's settings, each by itself"
)]
struct Stored {
    name: String,
    host: String,
    port: u16,
    #[serde(default = "default_on_port_conflict")]
    on_port_conflict: String,
    verbose: bool,
    log_out_of_scope: bool,
    #[serde(rename = "capture.insecure_upstream")]
    insecure_upstream: bool,
    #[serde(rename = "capture.extra_ca_pem")]
    extra_ca_pem: String,
    #[serde(rename = "capture.passthrough_hosts")]
    passthrough_hosts: Vec<String>,
    #[serde(rename = "capture.capture_limit")]
    capture_limit: u64,
    #[serde(rename = "capture.spool_limit_bytes", default = "default_spool_limit")]
    spool_limit: u64,
    #[serde(rename = "capture.spool_full", default = "default_spool_full")]
    spool_full: String,
    #[serde(rename = "capture.durable_before_end", default)]
    durable_before_end: bool,
}

fn default_on_port_conflict() -> String {
    on_port_conflict(OnPortConflict::default()).to_owned()
}

fn default_spool_limit() -> u64 {
    limits::SPOOL_LIMIT_DEFAULT
}

fn default_spool_full() -> String {
    spool_full(SpoolFull::default()).to_owned()
}

impl Stored {
    fn of(row: &ServiceRow) -> Self {
        // Whole, so that a new setting is not forgotten here.
        let CaptureSpec {
            insecure_upstream,
            extra_ca_pem,
            passthrough_hosts,
            capture_limit,
            spool_limit,
            spool_full: when_full,
            durable_before_end,
        } = row.spec.clone();
        Self {
            name: row.name.clone(),
            host: row.host.to_string(),
            port: row.port,
            on_port_conflict: on_port_conflict(row.on_port_conflict).to_owned(),
            verbose: row.verbose,
            log_out_of_scope: row.log_out_of_scope,
            insecure_upstream,
            extra_ca_pem,
            passthrough_hosts: passthrough_hosts.iter().map(ToString::to_string).collect(),
            capture_limit,
            spool_limit,
            spool_full: spool_full(when_full).to_owned(),
            durable_before_end,
        }
    }

    fn value(&self) -> Value {
        serde_json::to_value(self).expect("a configuration is plain data")
    }
}

impl TryFrom<Stored> for Configuration {
    type Error = Vec<Violation>;

    fn try_from(stored: Stored) -> Result<Self, Vec<Violation>> {
        let one = |violation| vec![violation];
        Ok(Self {
            name: ServiceName::parse("name", &stored.name).map_err(one)?,
            host: ListenHost::parse("host", &stored.host).map_err(one)?,
            port: stored.port,
            on_port_conflict: parse_on_port_conflict(&stored.on_port_conflict)
                .map_err(|error| one(Violation::new("on_port_conflict", error.to_string())))?,
            verbose: stored.verbose,
            log_out_of_scope: stored.log_out_of_scope,
            spec: CaptureSpec::parse(&RawCapture {
                insecure_upstream: stored.insecure_upstream,
                extra_ca_pem: stored.extra_ca_pem,
                passthrough_hosts: stored.passthrough_hosts,
                capture_limit: Some(stored.capture_limit),
                spool_limit: Some(stored.spool_limit),
                spool_full: parse_spool_full(&stored.spool_full)
                    .map_err(|error| one(Violation::new("capture.spool_full", error.to_string())))?,
                durable_before_end: stored.durable_before_end,
            })?,
        })
    }
}

/// A row as the database has it.
struct Raw {
    revision: i64,
    made_at: OffsetDateTime,
    cause: String,
    from_revision: Option<i64>,
    changed: Vec<String>,
}

impl TryFrom<Raw> for RevisionRow {
    type Error = StoreError;

    fn try_from(raw: Raw) -> Result<Self, StoreError> {
        let cause = match (raw.cause.as_str(), raw.from_revision) {
            ("create", None) => Cause::Create,
            ("update", None) => Cause::Update,
            ("rollback", Some(from)) => Cause::Rollback { from },
            (other, _) => return Err(StoreError::corrupt("cause", other)),
        };
        Ok(Self {
            revision: raw.revision,
            made_at: raw.made_at,
            cause,
            changed: raw.changed,
        })
    }
}

/// Keeps the service's present state as its revision, and lets go of the one that is too old now. In the transaction
/// that made the state; `before` is what the service was until then.
pub(super) async fn keep(
    db: &mut PgConnection,
    before: Option<&ServiceRow>,
    row: &ServiceRow,
    cause: Cause,
) -> Result<(), StoreError> {
    let now = Stored::of(row).value();
    let changed = before.map_or_else(Vec::new, |before| changed(&Stored::of(before).value(), &now));
    let (cause, from) = match cause {
        Cause::Create => ("create", None),
        Cause::Update => ("update", None),
        Cause::Rollback { from } => ("rollback", Some(from)),
    };
    sqlx::query!(
        "WITH too_old AS (
             DELETE FROM service_revisions WHERE service_id = $1 AND revision <= $8
         )
         INSERT INTO service_revisions (service_id, revision, made_at, cause, from_revision, changed, configuration)
         VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb)",
        row.id.0,
        row.revision,
        row.updated_at,
        cause,
        from,
        &changed,
        now.to_string(),
        row.revision - KEPT,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A page of a service's revisions, newest first.
pub async fn list(db: impl PgExecutor<'_>, id: ServiceId, page: &Page) -> Result<Paged<RevisionRow>, StoreError> {
    let cursor = Cursor::of("service_revisions", &id.0);
    let after = cursor.after::<i64>(page)?;
    let rows = sqlx::query_as!(
        Raw,
        "SELECT revision, made_at, cause, from_revision, changed FROM service_revisions
         WHERE service_id = $1 AND ($2::bigint IS NULL OR revision < $2) ORDER BY revision DESC LIMIT $3",
        id.0,
        after,
        page.fetch(),
    )
    .fetch_all(db)
    .await?;
    let rows = rows
        .into_iter()
        .map(TryInto::try_into)
        .collect::<Result<Vec<RevisionRow>, _>>()?;
    Ok(cursor.paged(page, rows, |row| row.revision))
}

/// Reads one with its configuration.
pub async fn get(
    db: impl PgExecutor<'_>,
    id: ServiceId,
    revision: i64,
) -> Result<Option<(RevisionRow, Configuration)>, StoreError> {
    let found = sqlx::query!(
        r#"SELECT revision, made_at, cause, from_revision, changed, configuration::text AS "configuration!"
           FROM service_revisions WHERE service_id = $1 AND revision = $2"#,
        id.0,
        revision,
    )
    .fetch_optional(db)
    .await?;
    let Some(found) = found else { return Ok(None) };
    let corrupt = |why: String| StoreError::corrupt("configuration", why);
    let stored: Stored = serde_json::from_str(&found.configuration).map_err(|error| corrupt(error.to_string()))?;
    let configuration = stored.try_into().map_err(|wrong| corrupt(format!("{wrong:?}")))?;
    let raw = Raw {
        revision: found.revision,
        made_at: found.made_at,
        cause: found.cause,
        from_revision: found.from_revision,
        changed: found.changed,
    };
    Ok(Some((raw.try_into()?, configuration)))
}

/// The paths whose values differ, sorted.
fn changed(before: &Value, now: &Value) -> Vec<String> {
    let values = now.as_object().into_iter().flatten();
    let differing = values.filter(|(path, value)| before.get(path.as_str()) != Some(*value));
    let mut paths: Vec<_> = differing.map(|(path, _)| path.clone()).collect();
    paths.sort_unstable();
    paths
}

#[cfg(test)]
mod tests;
