//! `WorkspaceService`.

use proxyplane_proto::v1::{self, workspace_service_server::WorkspaceService};
use tonic::{Request, Response, Status};

use super::{convert, status::Refusal};
use crate::services::{NewWorkspace, Services};

/// Serves workspaces.
pub(super) struct Workspaces {
    services: Services,
}

impl Workspaces {
    pub(super) fn new(services: Services) -> Self {
        Self { services }
    }
}

#[tonic::async_trait]
impl WorkspaceService for Workspaces {
    async fn create_workspace(
        &self,
        request: Request<v1::CreateWorkspaceRequest>,
    ) -> Result<Response<v1::CreateWorkspaceResponse>, Status> {
        let v1::CreateWorkspaceRequest {
            code,
            title,
            description,
        } = request.into_inner();
        let made = self
            .services
            .create_workspace(NewWorkspace {
                code,
                title,
                description,
            })
            .await;
        let workspace = Some(convert::workspaces::workspace(made.map_err(Refusal::from)?));
        Ok(Response::new(v1::CreateWorkspaceResponse { workspace }))
    }

    async fn get_workspace(
        &self,
        request: Request<v1::GetWorkspaceRequest>,
    ) -> Result<Response<v1::GetWorkspaceResponse>, Status> {
        let id = convert::id("id", &request.get_ref().id).map_err(Refusal::from)?;
        let found = self.services.get_workspace(id).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::GetWorkspaceResponse {
            workspace: Some(convert::workspaces::workspace(found)),
        }))
    }

    async fn list_workspaces(
        &self,
        request: Request<v1::ListWorkspacesRequest>,
    ) -> Result<Response<v1::ListWorkspacesResponse>, Status> {
        let v1::ListWorkspacesRequest { page_size, page_token } = request.into_inner();
        let page = convert::page(page_size, &page_token).map_err(Refusal::from)?;
        let found = self.services.list_workspaces(&page).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::ListWorkspacesResponse {
            workspaces: found.rows.into_iter().map(convert::workspaces::workspace).collect(),
            next_page_token: found.next_page_token,
        }))
    }

    async fn update_workspace(
        &self,
        request: Request<v1::UpdateWorkspaceRequest>,
    ) -> Result<Response<v1::UpdateWorkspaceResponse>, Status> {
        let update = convert::workspaces::update(request.into_inner())?;
        let changed = self.services.update_workspace(update).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::UpdateWorkspaceResponse {
            workspace: Some(convert::workspaces::workspace(changed)),
        }))
    }

    async fn delete_workspace(
        &self,
        request: Request<v1::DeleteWorkspaceRequest>,
    ) -> Result<Response<v1::DeleteWorkspaceResponse>, Status> {
        let v1::DeleteWorkspaceRequest { id, etag, force } = request.into_inner();
        let id = convert::id("id", &id).map_err(Refusal::from)?;
        self.services
            .delete_workspace(id, &etag, force)
            .await
            .map_err(Refusal::from)?;
        Ok(Response::new(v1::DeleteWorkspaceResponse {}))
    }
}
