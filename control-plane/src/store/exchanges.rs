//! Table `exchanges`: the history's summary rows.

use proxyplane_spec::{ExchangeId, ServiceId, WorkspaceId};
use serde::Serialize;
use sqlx::{PgExecutor, Postgres, QueryBuilder};
use time::{Duration, OffsetDateTime};

use super::{
    StoreError,
    display::display,
    page::{Cursor, Page, Paged},
    partitions,
};

mod row;

pub(crate) use row::time_of;
pub use row::{ExchangeRow, url};

/// Between the time in an id and `started_at`. Both are taken when an exchange begins, but ids never go back, so after
/// a clock was set back they run ahead.
const ID_SLACK: Duration = Duration::hours(2);

const SELECT: &str = "SELECT e.id, e.position, e.workspace_id, e.service_id, w.code AS workspace_code, \
    s.name AS service_name, e.started_at, \
    e.duration_us, e.request_size, e.response_size, e.request_captured, e.response_captured, e.port, e.flags, e.kind, \
    e.state, e.status, e.request_version, e.response_version, e.request_truncated, e.response_truncated, e.client, \
    e.method, e.scheme, e.host, e.path, e.query, e.request_content_type, e.response_content_type, \
    e.request_content_encoding, e.response_content_encoding, e.error, e.error_detail \
    FROM exchanges e LEFT JOIN services s ON s.id = e.service_id LEFT JOIN workspaces w ON w.id = e.workspace_id \
    WHERE true";

/// Which exchanges. Everything that is set must match.
#[derive(Clone, Debug, Default)]
pub struct ExchangeFilter {
    /// Those of this service.
    pub service_id: Option<ServiceId>,
    /// Those of this workspace.
    pub workspace_id: Option<WorkspaceId>,
    /// Exact method, as sent.
    pub method: Option<String>,
    /// Exact host, or `*.` and a domain for every host below it; without regard to case.
    pub host: Option<String>,
    /// Lowest status.
    pub status_min: Option<u16>,
    /// Highest status; an exchange without answer never matches a status.
    pub status_max: Option<u16>,
    /// `started_at` ≥ this.
    pub since: Option<OffsetDateTime>,
    /// `started_at` < this.
    pub until: Option<OffsetDateTime>,
}

impl ExchangeFilter {
    /// What a page token is bound to.
    fn bound(&self) -> impl Serialize {
        let nanoseconds = |time: Option<OffsetDateTime>| time.map(|time| time.unix_timestamp_nanos().to_string());
        let ids = (self.service_id, self.workspace_id);
        let texts = (self.method.clone(), self.host.clone());
        (
            ids,
            texts,
            (self.status_min, self.status_max),
            nanoseconds(self.since),
            nanoseconds(self.until),
        )
    }
}

/// A page of those that match, newest first.
pub async fn list(
    db: impl PgExecutor<'_>,
    filter: &ExchangeFilter,
    page: &Page,
) -> Result<Paged<ExchangeRow>, StoreError> {
    let cursor = Cursor::of("exchanges", &filter.bound());
    let before: Option<ExchangeId> = cursor.after(page)?;
    let mut query = QueryBuilder::new(SELECT);
    push_filter(&mut query, filter);
    if let Some(before) = before {
        query.push(" AND e.id < ").push_bind(before.0);
    }
    query.push(" ORDER BY e.id DESC LIMIT ").push_bind(page.fetch());
    let rows = fetch(db, query).await?;
    Ok(cursor.paged(page, rows, |row| row.id))
}

/// Reads one.
pub async fn get(db: impl PgExecutor<'_>, id: ExchangeId) -> Result<Option<ExchangeRow>, StoreError> {
    let mut query = QueryBuilder::new(SELECT);
    query.push(" AND e.id = ").push_bind(id.0);
    Ok(fetch(db, query).await?.pop())
}

/// Which part of the commit order, and of it what is somebody's.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Positions above this.
    pub after: i64,
    /// Positions up to and with this.
    pub to: i64,
    /// Those of this service.
    pub service_id: Option<ServiceId>,
    /// Those of this workspace.
    pub workspace_id: Option<WorkspaceId>,
}

/// Those of a span, in commit order. Bounded by the span: positions are given out one by one.
pub async fn committed(db: impl PgExecutor<'_>, span: Span) -> Result<Vec<ExchangeRow>, StoreError> {
    let mut query = QueryBuilder::new(SELECT);
    query.push(" AND e.position > ").push_bind(span.after);
    query.push(" AND e.position <= ").push_bind(span.to);
    push_owner(&mut query, span.service_id, span.workspace_id);
    query.push(" ORDER BY e.position");
    fetch(db, query).await
}

fn push_owner(query: &mut QueryBuilder<Postgres>, service: Option<ServiceId>, workspace: Option<WorkspaceId>) {
    if let Some(id) = service {
        query.push(" AND e.service_id = ").push_bind(id.0);
    }
    if let Some(id) = workspace {
        query.push(" AND e.workspace_id = ").push_bind(id.0);
    }
}

fn push_filter(query: &mut QueryBuilder<Postgres>, filter: &ExchangeFilter) {
    push_owner(query, filter.service_id, filter.workspace_id);
    if let Some(method) = &filter.method {
        query
            .push(" AND e.method = ")
            .push_bind(display(method.as_bytes()).into_owned());
    }
    if let Some(host) = &filter.host {
        push_host(query, &host.to_lowercase());
    }
    if let Some(status) = filter.status_min {
        query.push(" AND e.status >= ").push_bind(status.cast_signed());
    }
    if let Some(status) = filter.status_max {
        query.push(" AND e.status <= ").push_bind(status.cast_signed());
    }
    if let Some(since) = filter.since {
        query.push(" AND e.started_at >= ").push_bind(since);
        push_id(query, " AND e.id >= ", since.checked_sub(ID_SLACK));
    }
    if let Some(until) = filter.until {
        query.push(" AND e.started_at < ").push_bind(until);
        push_id(query, " AND e.id < ", until.checked_add(ID_SLACK));
    }
}

/// Lets Postgres leave out the days that cannot match.
fn push_id(query: &mut QueryBuilder<Postgres>, condition: &'static str, at: Option<OffsetDateTime>) {
    if let Some(bound) = at.and_then(partitions::first_id_at) {
        query.push(condition).push_bind(bound);
    }
}

fn push_host(query: &mut QueryBuilder<Postgres>, host: &str) {
    match host.strip_prefix('*') {
        Some(suffix) if suffix.starts_with('.') => {
            let length = i32::try_from(suffix.chars().count()).unwrap_or(i32::MAX);
            query
                .push(" AND right(lower(e.host), ")
                .push_bind(length)
                .push(") = ")
                .push_bind(suffix.to_owned());
            query.push(" AND length(e.host) > ").push_bind(length);
        }
        _ => {
            query.push(" AND lower(e.host) = ").push_bind(host.to_owned());
        }
    }
}

/// Not kept as a prepared statement: a plan made for other values would scan the wrong index.
async fn fetch(db: impl PgExecutor<'_>, mut query: QueryBuilder<Postgres>) -> Result<Vec<ExchangeRow>, StoreError> {
    Ok(query
        .build_query_as::<ExchangeRow>()
        .persistent(false)
        .fetch_all(db)
        .await?)
}
