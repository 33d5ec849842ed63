//! Workspaces.

use proxyplane_proto::v1;
use proxyplane_spec::WorkspaceId;
use uuid::Uuid;

use super::{Fields, id, timestamp};
use crate::{
    api::status::Refusal,
    services::{NewWorkspace, UpdateWorkspace},
    store::workspaces::WorkspaceRow,
};

/// A workspace.
pub(in crate::api) fn workspace(row: WorkspaceRow) -> v1::Workspace {
    v1::Workspace {
        etag: row.etag(),
        id: row.id.to_string(),
        code: row.code,
        title: row.title,
        description: row.description,
        created_at: Some(timestamp(row.created_at)),
        updated_at: Some(timestamp(row.updated_at)),
        proxy_count: i32::try_from(row.proxy_count).unwrap_or(i32::MAX),
    }
}

/// Raw values of a change.
pub(in crate::api) fn update(request: v1::UpdateWorkspaceRequest) -> Result<UpdateWorkspace, Refusal> {
    let workspace = request
        .workspace
        .ok_or_else(|| Refusal::field("workspace", "must be given"))?;
    let mut fields = Fields::default();
    let id = fields.take(id("workspace.id", &workspace.id));
    let update = UpdateWorkspace {
        id: id.unwrap_or(WorkspaceId(Uuid::nil())),
        values: NewWorkspace {
            code: workspace.code,
            title: workspace.title,
            description: workspace.description,
        },
        mask: request.update_mask.unwrap_or_default().paths,
        etag: request.etag,
        validate_only: request.validate_only,
    };
    fields.finish_values(update, UpdateWorkspace::violations)
}
