//! Workspaces.

use proxyplane_spec::{ServiceId, Violation, WorkspaceCode, WorkspaceId, check_description, check_title};

use super::{
    Deletion, Error, Services,
    check::{self, Checks},
};
use crate::store::{
    self, StoreError,
    page::{Page, Paged},
    services::ServiceFilter,
    workspaces::{WorkspaceChange, WorkspaceRow},
};

/// Raw values of a new workspace.
#[derive(Clone, Debug, Default)]
pub struct NewWorkspace {
    /// Unique short name.
    pub code: String,
    /// Title for people.
    pub title: String,
    /// Free text.
    pub description: String,
}

/// A change of a workspace: of the values only what `mask` names is read.
#[derive(Clone, Debug)]
pub struct UpdateWorkspace {
    /// Which.
    pub id: WorkspaceId,
    /// Raw values.
    pub values: NewWorkspace,
    /// `code`, `title`, `description`.
    pub mask: Vec<String>,
    /// The etag the change is based on; empty means any.
    pub etag: String,
    /// Check and answer as if done, change nothing.
    pub validate_only: bool,
}

const FIELDS: [&str; 3] = ["code", "title", "description"];

impl Services {
    /// Makes a workspace.
    pub async fn create_workspace(&self, new: NewWorkspace) -> Result<WorkspaceRow, Error> {
        let mut checks = Checks::default();
        let code = checks.take(WorkspaceCode::parse("code", &new.code));
        let title = checks.take(check_title("title", &new.title));
        let description = checks.take(check_description("description", &new.description));
        let new = code.zip(title).zip(description);
        let ((code, title), description) = checks.finish(new)?;
        let new = store::workspaces::NewWorkspace {
            code,
            title,
            description,
        };
        let mut transaction = self.db.begin().await?;
        match store::workspaces::create(&mut transaction, &new).await {
            Ok(row) => {
                transaction.commit().await?;
                Ok(row)
            }
            Err(error) => {
                drop(transaction);
                Err(self.workspace_error(error).await)
            }
        }
    }

    /// Reads one.
    pub async fn get_workspace(&self, id: WorkspaceId) -> Result<WorkspaceRow, Error> {
        store::workspaces::get(&self.db, id).await?.ok_or_else(|| not_found(id))
    }

    /// A page of all, by code.
    pub async fn list_workspaces(&self, page: &Page) -> Result<Paged<WorkspaceRow>, Error> {
        Ok(store::workspaces::list(&self.db, page).await?)
    }

    /// Changes one.
    pub async fn update_workspace(&self, update: UpdateWorkspace) -> Result<WorkspaceRow, Error> {
        let change = checked(&update)?;
        let etag = check::etag(update.etag);
        let mut transaction = self.db.begin().await?;
        let updated = store::workspaces::update(&mut transaction, update.id, etag.as_deref(), &change).await;
        let row = match updated {
            Ok(row) => row,
            Err(StoreError::NotFound) => return Err(not_found(update.id)),
            Err(error) => {
                drop(transaction);
                return Err(self.workspace_error(error).await);
            }
        };
        if update.validate_only {
            return Ok(row);
        }
        transaction.commit().await?;
        if change.code.is_some() {
            self.hub.workspace(update.id, &row.code);
            // Services show their workspace's code.
            for id in self.services_of(update.id).await? {
                self.supervisor.announce(id);
            }
        }
        Ok(row)
    }

    /// Deletes one; with `force` its services first, whose traffic stays.
    pub async fn delete_workspace(&self, id: WorkspaceId, etag: &str, force: bool) -> Result<(), Error> {
        let row = self.get_workspace(id).await?;
        if !etag.is_empty() && etag != row.etag() {
            return Err(Error::EtagMismatch);
        }
        if force {
            let services = self.services_of(id).await?;
            let removals = services
                .into_iter()
                .map(|service| self.delete_proxy(service, "", Deletion::default()));
            for removed in futures_util::future::join_all(removals).await {
                match removed {
                    Ok(()) | Err(Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let mut transaction = self.db.begin().await?;
        match store::workspaces::delete(&mut transaction, id, check::etag(etag.to_owned()).as_deref()).await {
            Ok(()) => Ok(transaction.commit().await?),
            Err(StoreError::NotFound) => Err(not_found(id)),
            Err(StoreError::WorkspaceNotEmpty) => Err(Error::WorkspaceNotEmpty {
                proxies: row.proxy_count.max(1),
            }),
            Err(error) => Err(error.into()),
        }
    }

    async fn services_of(&self, workspace_id: WorkspaceId) -> Result<Vec<ServiceId>, Error> {
        let filter = ServiceFilter {
            workspace_id: Some(workspace_id),
            name: None,
        };
        let mut ids = Vec::new();
        let mut page = Page::first();
        loop {
            let found = store::services::list(&self.db, &filter, &page).await?;
            ids.extend(found.rows.iter().map(|row| row.id));
            if found.next_page_token.is_empty() {
                return Ok(ids);
            }
            page = page.next(&found.next_page_token);
        }
    }

    /// Adds who has the name.
    async fn workspace_error(&self, error: StoreError) -> Error {
        let StoreError::NameTaken { name } = error else {
            return error.into();
        };
        let holder = store::workspaces::by_code(&self.db, &name).await.ok().flatten();
        Error::NameTaken {
            name,
            holder: holder.map(|row| row.id.to_string()),
        }
    }
}

impl UpdateWorkspace {
    /// What is wrong with its values, whatever workspace they are for.
    pub fn violations(&self) -> Vec<Violation> {
        check::violations(checked(self))
    }
}

fn checked(update: &UpdateWorkspace) -> Result<WorkspaceChange, Error> {
    let mut checks = Checks::default();
    checks.take_all(check::mask(&update.mask, &FIELDS));
    let mut change = WorkspaceChange::default();
    let values = &update.values;
    for path in &update.mask {
        match path.as_str() {
            "code" => change.code = checks.take(WorkspaceCode::parse("workspace.code", &values.code)),
            "title" => change.title = checks.take(check_title("workspace.title", &values.title)),
            "description" => {
                change.description = checks.take(check_description("workspace.description", &values.description));
            }
            _ => {}
        }
    }
    checks.finish(Some(change))
}

pub(super) fn not_found(id: WorkspaceId) -> Error {
    Error::NotFound {
        kind: "workspace",
        id: id.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_reads_what_its_mask_names_and_reports_every_wrong_field() {
        let values = NewWorkspace {
            code: "Bad Code".into(),
            title: "x".repeat(201),
            description: "\0".into(),
        };
        let mut update = UpdateWorkspace {
            id: WorkspaceId::new(),
            values,
            mask: vec!["code".into(), "title".into(), "id".into()],
            etag: String::new(),
            validate_only: false,
        };
        let error = checked(&update).unwrap_err();
        let fields: Vec<_> = error
            .violations()
            .iter()
            .map(|violation| violation.field.as_str())
            .collect();
        assert_eq!(fields, ["update_mask", "workspace.code", "workspace.title"]);
        update.mask = vec!["title".into()];
        update.values.title = "good".into();
        let change = checked(&update).unwrap();
        assert_eq!(
            (change.code, change.title.as_deref(), change.description),
            (None, Some("good"), None)
        );
    }
}
