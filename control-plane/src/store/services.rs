//! Tables `services`, `listeners` and `service_counters`: ProxyServices with where they listen.

use std::collections::HashMap;

use proxyplane_spec::{
    CaptureSpec, ListenHost, OnPortConflict, RawCapture, ServiceId, ServiceName, SpoolFull, WorkspaceId,
};
use serde::Serialize;
use sqlx::{PgConnection, PgExecutor};
use time::OffsetDateTime;

use super::{
    StoreError,
    error::violated,
    page::{Cursor, Page, Paged},
    revisions::{self, Cause},
};

mod change;

pub use change::{CaptureChange, ServiceChange};

/// A ProxyService: its desired configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRow {
    /// UUIDv7.
    pub id: ServiceId,
    /// Where it belongs.
    pub workspace_id: WorkspaceId,
    /// The workspace's code.
    pub workspace_code: String,
    /// Unique in its workspace.
    pub name: String,
    /// What it does.
    pub kind: ServiceKind,
    /// Where it listens.
    pub host: ListenHost,
    /// Unique across the installation.
    pub port: u16,
    /// What happens when it stays taken at boot.
    pub on_port_conflict: OnPortConflict,
    /// A log line per exchange.
    pub verbose: bool,
    /// Also of what is out of scope.
    pub log_out_of_scope: bool,
    /// Is it to run?
    pub enabled: bool,
    /// What it does with what passes.
    pub spec: CaptureSpec,
    /// Counts changes of the configuration, from 1.
    pub revision: i64,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When its configuration was last changed.
    pub updated_at: OffsetDateTime,
}

impl ServiceRow {
    /// Changes with every update of the configuration.
    pub fn etag(&self) -> String {
        super::page::etag(self.revision)
    }
}

/// What a service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceKind {
    /// Explicit forward proxy that records what passes.
    Capture,
}

/// What a new service is to be.
#[derive(Clone, Debug)]
pub struct NewService {
    /// Where it belongs.
    pub workspace_id: WorkspaceId,
    /// Unique in its workspace.
    pub name: ServiceName,
    /// Where it listens.
    pub host: ListenHost,
    /// Unique across the installation.
    pub port: u16,
    /// What happens when it stays taken at boot.
    pub on_port_conflict: OnPortConflict,
    /// A log line per exchange.
    pub verbose: bool,
    /// Also of what is out of scope.
    pub log_out_of_scope: bool,
    /// Is it to run?
    pub enabled: bool,
    /// What it does with what passes.
    pub spec: CaptureSpec,
}

/// Which services.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ServiceFilter {
    /// Those of this workspace.
    pub workspace_id: Option<WorkspaceId>,
    /// Those with exactly this name.
    pub name: Option<String>,
}

/// A row as the database has it.
#[expect(clippy::struct_excessive_bools, reason = "they are columns")]
struct Raw {
    id: ServiceId,
    workspace_id: WorkspaceId,
    workspace_code: String,
    name: String,
    host: String,
    port: i32,
    on_port_conflict: String,
    is_verbose: bool,
    log_out_of_scope: bool,
    enabled: bool,
    insecure_upstream: bool,
    extra_ca_pem: String,
    passthrough_hosts: Vec<String>,
    capture_limit: i64,
    spool_limit: i64,
    spool_full: String,
    durable_before_end: bool,
    revision: i64,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl TryFrom<Raw> for ServiceRow {
    type Error = StoreError;

    fn try_from(raw: Raw) -> Result<Self, StoreError> {
        let spec = CaptureSpec::parse(&RawCapture {
            insecure_upstream: raw.insecure_upstream,
            extra_ca_pem: raw.extra_ca_pem,
            passthrough_hosts: raw.passthrough_hosts,
            capture_limit: Some(raw.capture_limit as u64),
            spool_limit: Some(raw.spool_limit as u64),
            spool_full: parse_spool_full(&raw.spool_full)?,
            durable_before_end: raw.durable_before_end,
        })
        .map_err(|violations| StoreError::corrupt("services", format!("{violations:?}")))?;
        Ok(Self {
            id: raw.id,
            workspace_id: raw.workspace_id,
            workspace_code: raw.workspace_code,
            name: raw.name,
            kind: ServiceKind::Capture,
            host: ListenHost::parse("host", &raw.host).map_err(|error| StoreError::corrupt("host", error))?,
            port: u16::try_from(raw.port).map_err(|error| StoreError::corrupt("port", error))?,
            on_port_conflict: parse_on_port_conflict(&raw.on_port_conflict)?,
            verbose: raw.is_verbose,
            log_out_of_scope: raw.log_out_of_scope,
            enabled: raw.enabled,
            spec,
            revision: raw.revision,
            created_at: raw.created_at,
            updated_at: raw.updated_at,
        })
    }
}

/// Queries whole services; what is given says which, and in what order. A macro, since the text has to be a literal to be
/// checked when it is compiled.
macro_rules! whole {
    ($which:literal $(, $value:expr)* $(,)?) => {
        sqlx::query_as!(
            Raw,
            "SELECT s.id, s.workspace_id, w.code AS workspace_code, s.name, l.host, l.port, s.is_verbose,
                    s.log_out_of_scope, s.enabled, s.insecure_upstream, s.extra_ca_pem, s.passthrough_hosts,
                    s.capture_limit, s.spool_limit, s.spool_full, s.durable_before_end, s.on_port_conflict, s.revision,
                    s.created_at, s.updated_at
             FROM services s JOIN workspaces w ON w.id = s.workspace_id JOIN listeners l ON l.service_id = s.id "
                + $which
            $(, $value)*
        )
    };
}

/// Makes one with its listener and its first revision. `NotFound` (workspace), `NameTaken`, `PortTaken`. Needs a
/// transaction.
pub async fn create(db: &mut PgConnection, new: &NewService) -> Result<ServiceRow, StoreError> {
    let id = ServiceId::new();
    let hosts: Vec<String> = new.spec.passthrough_hosts.iter().map(ToString::to_string).collect();
    sqlx::query!(
        "WITH service AS (
             INSERT INTO services (id, workspace_id, name, is_verbose, log_out_of_scope, enabled, insecure_upstream,
                                   extra_ca_pem, passthrough_hosts, capture_limit, spool_limit, spool_full,
                                   durable_before_end, on_port_conflict)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $13, $14, $15, $16)
         ), counter AS (
             INSERT INTO service_counters (service_id) VALUES ($1)
         )
         INSERT INTO listeners (service_id, host, port) VALUES ($1, $11, $12)",
        id.0,
        new.workspace_id.0,
        new.name.as_str(),
        new.verbose,
        new.log_out_of_scope,
        new.enabled,
        new.spec.insecure_upstream,
        new.spec.extra_ca_pem,
        &hosts,
        new.spec.capture_limit as i64,
        new.host.to_string(),
        i32::from(new.port),
        new.spec.spool_limit as i64,
        spool_full(new.spec.spool_full),
        new.spec.durable_before_end,
        on_port_conflict(new.on_port_conflict),
    )
    .execute(&mut *db)
    .await
    .map_err(|error| refused(error, new.name.as_str(), new.port))?;
    let row = get(&mut *db, id).await?.ok_or(StoreError::NotFound)?;
    revisions::keep(db, None, &row, Cause::Create).await?;
    Ok(row)
}

/// Reads one.
pub async fn get(db: impl PgExecutor<'_>, id: ServiceId) -> Result<Option<ServiceRow>, StoreError> {
    let raw = whole!("WHERE s.id = $1", id.0,).fetch_optional(db).await?;
    raw.map(TryInto::try_into).transpose()
}

/// Reads the one that has this port.
pub async fn by_port(db: impl PgExecutor<'_>, port: u16) -> Result<Option<ServiceRow>, StoreError> {
    let raw = whole!("WHERE l.port = $1", i32::from(port),).fetch_optional(db).await?;
    raw.map(TryInto::try_into).transpose()
}

/// Those that are to run, oldest first.
pub async fn enabled(db: impl PgExecutor<'_>) -> Result<Vec<ServiceRow>, StoreError> {
    let rows = whole!("WHERE s.enabled ORDER BY s.id",).fetch_all(db).await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// A page of those that match, by name.
pub async fn list(
    db: impl PgExecutor<'_>,
    filter: &ServiceFilter,
    page: &Page,
) -> Result<Paged<ServiceRow>, StoreError> {
    let cursor = Cursor::of("services", filter);
    let (after_name, after_id) = cursor.after::<(String, ServiceId)>(page)?.unzip();
    let rows = whole!(
        "WHERE ($1::uuid IS NULL OR s.workspace_id = $1) AND ($2::text IS NULL OR s.name = $2)
           AND ($3::text IS NULL OR (s.name, s.id) > ($3, $4::uuid))
         ORDER BY s.name, s.id LIMIT $5",
        filter.workspace_id.map(|id| id.0),
        filter.name,
        after_name,
        after_id.map(|id| id.0),
        page.fetch(),
    )
    .fetch_all(db)
    .await?;
    let rows = rows
        .into_iter()
        .map(TryInto::try_into)
        .collect::<Result<Vec<ServiceRow>, _>>()?;
    Ok(cursor.paged(page, rows, |row| (row.name.clone(), row.id)))
}

/// Reads one that the caller's transaction is to change, and locks it.
pub async fn lock(db: &mut PgConnection, id: ServiceId) -> Result<Option<ServiceRow>, StoreError> {
    let raw = whole!("WHERE s.id = $1 FOR UPDATE OF s", id.0,)
        .fetch_optional(db)
        .await?;
    raw.map(TryInto::try_into).transpose()
}

/// Changes one that is locked, which makes a revision; one that is so already stays as it is. `EtagMismatch` (when `etag` is
/// given), `NameTaken`, `PortTaken`. Needs the transaction that it is locked in.
pub async fn update(
    db: &mut PgConnection,
    locked: &ServiceRow,
    etag: Option<&str>,
    change: &ServiceChange,
) -> Result<ServiceRow, StoreError> {
    super::page::check_etag(locked.revision, etag)?;
    if !change.changes(locked) {
        return Ok(locked.clone());
    }
    let mut row = change.applied_to(locked);
    let spec = &row.spec;
    let hosts: Vec<String> = spec.passthrough_hosts.iter().map(ToString::to_string).collect();
    row.updated_at = sqlx::query_scalar!(
        "WITH listener AS (
             UPDATE listeners SET host = $9, port = $10 WHERE service_id = $1
         )
         UPDATE services SET name = $2, is_verbose = $3, log_out_of_scope = $4, insecure_upstream = $5,
             extra_ca_pem = $6, passthrough_hosts = $7, capture_limit = $8, spool_limit = $11, spool_full = $12,
             durable_before_end = $13, on_port_conflict = $14, revision = $15, updated_at = now()
         WHERE id = $1 RETURNING updated_at",
        row.id.0,
        row.name,
        row.verbose,
        row.log_out_of_scope,
        spec.insecure_upstream,
        spec.extra_ca_pem,
        &hosts,
        spec.capture_limit as i64,
        row.host.to_string(),
        i32::from(row.port),
        spec.spool_limit as i64,
        spool_full(spec.spool_full),
        spec.durable_before_end,
        on_port_conflict(row.on_port_conflict),
        row.revision,
    )
    .fetch_one(&mut *db)
    .await
    .map_err(|error| refused(error, &row.name, row.port))?;
    let cause = change
        .rollback_of
        .map_or(Cause::Update, |from| Cause::Rollback { from });
    revisions::keep(db, Some(locked), &row, cause).await?;
    Ok(row)
}

/// Sets whether it is to run; the revision stays. `NotFound`.
pub async fn set_enabled(db: impl PgExecutor<'_>, id: ServiceId, enabled: bool) -> Result<(), StoreError> {
    let done = sqlx::query!("UPDATE services SET enabled = $2 WHERE id = $1", id.0, enabled)
        .execute(db)
        .await?;
    if done.rows_affected() == 0 {
        Err(StoreError::NotFound)
    } else {
        Ok(())
    }
}

/// Deletes one, with its listener, counters and revisions; its traffic stays. `NotFound`, `EtagMismatch`.
pub async fn delete(db: &mut PgConnection, id: ServiceId, etag: Option<&str>) -> Result<(), StoreError> {
    check_etag(db, id, etag).await?;
    sqlx::query!("DELETE FROM services WHERE id = $1", id.0)
        .execute(db)
        .await?;
    Ok(())
}

/// The name of one.
pub async fn name(db: impl PgExecutor<'_>, id: ServiceId) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar!("SELECT name FROM services WHERE id = $1", id.0)
        .fetch_optional(db)
        .await?)
}

/// Exchanges committed since creation, of each of these; deleted ones are missing.
pub async fn stored(db: impl PgExecutor<'_>, ids: &[ServiceId]) -> Result<HashMap<ServiceId, u64>, StoreError> {
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query!(
        "SELECT service_id, stored FROM service_counters WHERE service_id = ANY($1)",
        &ids
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (ServiceId(row.service_id), row.stored as u64))
        .collect())
}

/// The port of every service, for picking a free one.
pub async fn ports(db: impl PgExecutor<'_>) -> Result<Vec<u16>, StoreError> {
    let ports = sqlx::query_scalar!("SELECT port FROM listeners ORDER BY port")
        .fetch_all(db)
        .await?;
    Ok(ports.into_iter().filter_map(|port| u16::try_from(port).ok()).collect())
}

/// Locks the row; the caller's transaction then changes what was checked.
async fn check_etag(db: &mut PgConnection, id: ServiceId, etag: Option<&str>) -> Result<(), StoreError> {
    let revision = sqlx::query_scalar!("SELECT revision FROM services WHERE id = $1 FOR UPDATE", id.0)
        .fetch_optional(db)
        .await?
        .ok_or(StoreError::NotFound)?;
    super::page::check_etag(revision, etag)
}

/// As the database has it.
pub(super) fn spool_full(value: SpoolFull) -> &'static str {
    match value {
        SpoolFull::DropOldest => "drop_oldest",
        SpoolFull::Block => "block",
    }
}

pub(super) fn parse_spool_full(text: &str) -> Result<SpoolFull, StoreError> {
    match text {
        "drop_oldest" => Ok(SpoolFull::DropOldest),
        "block" => Ok(SpoolFull::Block),
        other => Err(StoreError::corrupt("services.spool_full", other)),
    }
}

/// As the database has it.
pub(super) fn on_port_conflict(value: OnPortConflict) -> &'static str {
    match value {
        OnPortConflict::Disable => "disable",
        OnPortConflict::Retry => "retry",
    }
}

pub(super) fn parse_on_port_conflict(text: &str) -> Result<OnPortConflict, StoreError> {
    match text {
        "disable" => Ok(OnPortConflict::Disable),
        "retry" => Ok(OnPortConflict::Retry),
        other => Err(StoreError::corrupt("services.on_port_conflict", other)),
    }
}

fn refused(error: sqlx::Error, name: &str, port: u16) -> StoreError {
    match violated(&error) {
        Some(("services_name_key", _)) => StoreError::NameTaken { name: name.to_owned() },
        Some(("listeners_port_key", _)) => StoreError::PortTaken { port },
        Some(("services_workspace_fk", _)) => StoreError::NotFound,
        _ => error.into(),
    }
}
