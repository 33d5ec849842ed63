//! Table `workspaces`.

use proxyplane_spec::{WorkspaceCode, WorkspaceId};
use sqlx::{PgConnection, PgExecutor};
use time::OffsetDateTime;

use super::{
    StoreError,
    error::violated,
    page::{Cursor, Page, Paged},
};

/// A workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkspaceRow {
    /// UUIDv7.
    pub id: WorkspaceId,
    /// Unique short name.
    pub code: String,
    /// Title for people.
    pub title: String,
    /// Free text.
    pub description: String,
    /// Counts changes, from 1.
    pub revision: i64,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    pub updated_at: OffsetDateTime,
    /// ProxyServices in it.
    pub proxy_count: i64,
}

impl WorkspaceRow {
    /// Changes with every update.
    pub fn etag(&self) -> String {
        super::page::etag(self.revision)
    }
}

/// What a new workspace is to be.
#[derive(Clone, Debug)]
pub struct NewWorkspace {
    /// Unique short name.
    pub code: WorkspaceCode,
    /// Title for people.
    pub title: String,
    /// Free text.
    pub description: String,
}

/// What is to change; `None` leaves as it is.
#[derive(Clone, Debug, Default)]
pub struct WorkspaceChange {
    /// New code.
    pub code: Option<WorkspaceCode>,
    /// New title.
    pub title: Option<String>,
    /// New description.
    pub description: Option<String>,
}

/// Makes one. `NameTaken` if the code is in use.
pub async fn create(db: &mut PgConnection, new: &NewWorkspace) -> Result<WorkspaceRow, StoreError> {
    sqlx::query_as!(
        WorkspaceRow,
        r#"INSERT INTO workspaces (id, code, title, description) VALUES ($1, $2, $3, $4)
           RETURNING id, code, title, description, revision, created_at, updated_at, 0::bigint AS "proxy_count!""#,
        WorkspaceId::new().0,
        new.code.as_str(),
        new.title,
        new.description,
    )
    .fetch_one(db)
    .await
    .map_err(|error| refused(error, new.code.as_str()))
}

/// Reads one.
pub async fn get(db: impl PgExecutor<'_>, id: WorkspaceId) -> Result<Option<WorkspaceRow>, StoreError> {
    Ok(sqlx::query_as!(
        WorkspaceRow,
        r#"SELECT id, code, title, description, revision, created_at, updated_at,
                  (SELECT count(*) FROM services s WHERE s.workspace_id = w.id) AS "proxy_count!"
           FROM workspaces w WHERE id = $1"#,
        id.0,
    )
    .fetch_optional(db)
    .await?)
}

/// Reads the one with this code.
pub async fn by_code(db: impl PgExecutor<'_>, code: &str) -> Result<Option<WorkspaceRow>, StoreError> {
    Ok(sqlx::query_as!(
        WorkspaceRow,
        r#"SELECT id, code, title, description, revision, created_at, updated_at,
                  (SELECT count(*) FROM services s WHERE s.workspace_id = w.id) AS "proxy_count!"
           FROM workspaces w WHERE code = $1"#,
        code,
    )
    .fetch_optional(db)
    .await?)
}

/// A page of all, by code.
pub async fn list(db: impl PgExecutor<'_>, page: &Page) -> Result<Paged<WorkspaceRow>, StoreError> {
    let cursor = Cursor::of("workspaces", &());
    let after: Option<String> = cursor.after(page)?;
    let rows = sqlx::query_as!(
        WorkspaceRow,
        r#"SELECT id, code, title, description, revision, created_at, updated_at,
                  (SELECT count(*) FROM services s WHERE s.workspace_id = w.id) AS "proxy_count!"
           FROM workspaces w WHERE $1::text IS NULL OR code > $1 ORDER BY code LIMIT $2"#,
        after,
        page.fetch(),
    )
    .fetch_all(db)
    .await?;
    Ok(cursor.paged(page, rows, |row| row.code.clone()))
}

/// Changes one. `NotFound`, `EtagMismatch` (when `etag` is given), `NameTaken`.
pub async fn update(
    db: &mut PgConnection,
    id: WorkspaceId,
    etag: Option<&str>,
    change: &WorkspaceChange,
) -> Result<WorkspaceRow, StoreError> {
    check_etag(db, id, etag).await?;
    let code = change.code.as_ref().map(WorkspaceCode::as_str);
    sqlx::query_as!(
        WorkspaceRow,
        r#"UPDATE workspaces w SET code = coalesce($2, code), title = coalesce($3, title),
                  description = coalesce($4, description), revision = revision + 1, updated_at = now()
           WHERE id = $1
           RETURNING id, code, title, description, revision, created_at, updated_at,
                  (SELECT count(*) FROM services s WHERE s.workspace_id = w.id) AS "proxy_count!""#,
        id.0,
        code,
        change.title,
        change.description,
    )
    .fetch_one(db)
    .await
    .map_err(|error| refused(error, code.unwrap_or_default()))
}

/// Deletes one. `NotFound`, `EtagMismatch`, `WorkspaceNotEmpty`.
pub async fn delete(db: &mut PgConnection, id: WorkspaceId, etag: Option<&str>) -> Result<(), StoreError> {
    check_etag(db, id, etag).await?;
    match sqlx::query!("DELETE FROM workspaces WHERE id = $1", id.0)
        .execute(db)
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if matches!(violated(&error), Some(("services_workspace_fk", _))) => {
            Err(StoreError::WorkspaceNotEmpty)
        }
        Err(error) => Err(error.into()),
    }
}

/// Locks the row; the caller's transaction then changes what was checked.
async fn check_etag(db: &mut PgConnection, id: WorkspaceId, etag: Option<&str>) -> Result<(), StoreError> {
    let revision = sqlx::query_scalar!("SELECT revision FROM workspaces WHERE id = $1 FOR UPDATE", id.0)
        .fetch_optional(db)
        .await?
        .ok_or(StoreError::NotFound)?;
    super::page::check_etag(revision, etag)
}

fn refused(error: sqlx::Error, code: &str) -> StoreError {
    match violated(&error) {
        Some(("workspaces_code_key", _)) => StoreError::NameTaken { name: code.to_owned() },
        _ => error.into(),
    }
}
