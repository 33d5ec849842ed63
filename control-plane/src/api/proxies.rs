//! `ProxyLifecycleService`.

use futures_util::{StreamExt as _, TryStreamExt as _};
use proxyplane_proto::v1::{self, proxy_lifecycle_service_server::ProxyLifecycleService};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    convert::{self, Fields},
    deadline::Waits,
    status::Refusal,
    streams::{Answers, Streams},
};
use crate::services::{Deletion, Services};

/// Of a deletion that its client does not wait for.
const DELETION_WAITS: &str = "the deletion goes on: it waits for what is open, at most for `drain_timeout`, and then \
    until the records in the proxy's spools are stored, unless `discard` gives them up";

/// Serves ProxyServices.
pub(super) struct Proxies {
    services: Services,
    streams: Streams,
}

impl Proxies {
    pub(super) fn new(services: Services, streams: Streams) -> Self {
        Self { services, streams }
    }
}

#[tonic::async_trait]
impl ProxyLifecycleService for Proxies {
    async fn create_proxy_service(
        &self,
        request: Request<v1::CreateProxyServiceRequest>,
    ) -> Result<Response<v1::CreateProxyServiceResponse>, Status> {
        let new = convert::proxies::new(request.into_inner())?;
        let made = self.services.create_proxy(new).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::CreateProxyServiceResponse {
            proxy_service: Some(convert::proxies::proxy(made)),
        }))
    }

    async fn get_proxy_service(
        &self,
        request: Request<v1::GetProxyServiceRequest>,
    ) -> Result<Response<v1::GetProxyServiceResponse>, Status> {
        let id = convert::id("id", &request.get_ref().id).map_err(Refusal::from)?;
        let found = self.services.get_proxy(id).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::GetProxyServiceResponse {
            proxy_service: Some(convert::proxies::proxy(found)),
        }))
    }

    async fn list_proxy_services(
        &self,
        request: Request<v1::ListProxyServicesRequest>,
    ) -> Result<Response<v1::ListProxyServicesResponse>, Status> {
        let (filter, page) = convert::proxies::list(request.into_inner())?;
        let found = self
            .services
            .list_proxies(&filter, &page)
            .await
            .map_err(Refusal::from)?;
        Ok(Response::new(v1::ListProxyServicesResponse {
            proxy_services: found.rows.into_iter().map(convert::proxies::proxy).collect(),
            next_page_token: found.next_page_token,
        }))
    }

    async fn update_proxy_service(
        &self,
        request: Request<v1::UpdateProxyServiceRequest>,
    ) -> Result<Response<v1::UpdateProxyServiceResponse>, Status> {
        let update = convert::proxies::update(request.into_inner())?;
        let changed = self.services.update_proxy(update).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::UpdateProxyServiceResponse {
            proxy_service: Some(convert::proxies::proxy(changed)),
        }))
    }

    async fn delete_proxy_service(
        &self,
        request: Request<v1::DeleteProxyServiceRequest>,
    ) -> Result<Response<v1::DeleteProxyServiceResponse>, Status> {
        let (_, extensions, message) = request.into_parts();
        let v1::DeleteProxyServiceRequest {
            id,
            etag,
            purge,
            discard,
            drain_timeout,
        } = message;
        let mut fields = Fields::default();
        let id = fields.take(convert::id("id", &id));
        let drain = fields.take(convert::proxies::drain_timeout(drain_timeout));
        let (id, drain) = fields.finish(id.zip(drain))?;
        Waits::tell(&extensions, DELETION_WAITS);
        let how = Deletion { purge, discard, drain };
        self.services
            .delete_proxy(id, &etag, how)
            .await
            .map_err(Refusal::from)?;
        Ok(Response::new(v1::DeleteProxyServiceResponse {}))
    }

    async fn start_proxy_service(
        &self,
        request: Request<v1::StartProxyServiceRequest>,
    ) -> Result<Response<v1::StartProxyServiceResponse>, Status> {
        let id = convert::id("id", &request.get_ref().id).map_err(Refusal::from)?;
        let started = self.services.start_proxy(id).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::StartProxyServiceResponse {
            proxy_service: Some(convert::proxies::proxy(started)),
        }))
    }

    async fn stop_proxy_service(
        &self,
        request: Request<v1::StopProxyServiceRequest>,
    ) -> Result<Response<v1::StopProxyServiceResponse>, Status> {
        let v1::StopProxyServiceRequest { id, drain_timeout } = request.into_inner();
        let mut fields = Fields::default();
        let id = fields.take(convert::id("id", &id));
        let drain = fields.take(convert::proxies::drain_timeout(drain_timeout));
        let (id, drain) = fields.finish(id.zip(drain))?;
        let stopped = self.services.stop_proxy(id, drain).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::StopProxyServiceResponse {
            proxy_service: Some(convert::proxies::proxy(stopped)),
        }))
    }

    async fn restart_proxy_service(
        &self,
        request: Request<v1::RestartProxyServiceRequest>,
    ) -> Result<Response<v1::RestartProxyServiceResponse>, Status> {
        let v1::RestartProxyServiceRequest { id, drain_timeout } = request.into_inner();
        let mut fields = Fields::default();
        let id = fields.take(convert::id("id", &id));
        let drain = fields.take(convert::proxies::drain_timeout(drain_timeout));
        let (id, drain) = fields.finish(id.zip(drain))?;
        let restarted = self.services.restart_proxy(id, drain).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::RestartProxyServiceResponse {
            proxy_service: Some(convert::proxies::proxy(restarted)),
        }))
    }

    async fn upgrade_proxy_service(
        &self,
        request: Request<v1::UpgradeProxyServiceRequest>,
    ) -> Result<Response<v1::UpgradeProxyServiceResponse>, Status> {
        let v1::UpgradeProxyServiceRequest { id, drain_timeout } = request.into_inner();
        let mut fields = Fields::default();
        let id = fields.take(convert::id("id", &id));
        let drain = fields.take(convert::proxies::drain_timeout(drain_timeout));
        let (id, drain) = fields.finish(id.zip(drain))?;
        let upgraded = self.services.upgrade_proxy(id, drain).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::UpgradeProxyServiceResponse {
            proxy_service: Some(convert::proxies::proxy(upgraded)),
        }))
    }

    type ReadProxyServiceLogsStream = Answers<v1::ReadProxyServiceLogsResponse>;

    async fn read_proxy_service_logs(
        &self,
        request: Request<v1::ReadProxyServiceLogsRequest>,
    ) -> Result<Response<Self::ReadProxyServiceLogsStream>, Status> {
        let v1::ReadProxyServiceLogsRequest { id, tail, follow } = request.into_inner();
        let id = convert::id("id", &id).map_err(Refusal::from)?;
        let lines = self.services.read_logs(id, tail, follow).await.map_err(Refusal::from)?;
        let answers = ReceiverStream::new(lines).map(|lines| Ok(v1::ReadProxyServiceLogsResponse { lines }));
        Ok(self.streams.open(answers)?)
    }

    type WatchProxyServicesStream = Answers<v1::WatchProxyServicesResponse>;

    async fn watch_proxy_services(
        &self,
        request: Request<v1::WatchProxyServicesRequest>,
    ) -> Result<Response<Self::WatchProxyServicesStream>, Status> {
        let scope = convert::proxies::scope(request.get_ref())?;
        let events = self.services.watch_proxies(scope).await.map_err(Refusal::from)?;
        let answers = ReceiverStream::new(events)
            .map_ok(convert::proxies::event)
            .map_err(Refusal::from);
        Ok(self.streams.open(answers)?)
    }

    async fn list_proxy_service_revisions(
        &self,
        request: Request<v1::ListProxyServiceRevisionsRequest>,
    ) -> Result<Response<v1::ListProxyServiceRevisionsResponse>, Status> {
        let (id, page) = convert::revisions::list(request.get_ref())?;
        let found = self
            .services
            .list_proxy_revisions(id, &page)
            .await
            .map_err(Refusal::from)?;
        Ok(Response::new(v1::ListProxyServiceRevisionsResponse {
            revisions: found.rows.into_iter().map(convert::revisions::summary).collect(),
            next_page_token: found.next_page_token,
        }))
    }

    async fn get_proxy_service_revision(
        &self,
        request: Request<v1::GetProxyServiceRevisionRequest>,
    ) -> Result<Response<v1::GetProxyServiceRevisionResponse>, Status> {
        let (id, revision) = convert::revisions::get(request.get_ref())?;
        let found = self.services.get_proxy_revision(id, revision).await;
        let (row, configuration) = found.map_err(Refusal::from)?;
        Ok(Response::new(v1::GetProxyServiceRevisionResponse {
            revision: Some(convert::revisions::whole(row, configuration)),
        }))
    }

    async fn rollback_proxy_service(
        &self,
        request: Request<v1::RollbackProxyServiceRequest>,
    ) -> Result<Response<v1::RollbackProxyServiceResponse>, Status> {
        let rollback = convert::revisions::rollback(request.into_inner())?;
        let changed = self.services.rollback_proxy(rollback).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::RollbackProxyServiceResponse {
            proxy_service: Some(convert::proxies::proxy(changed)),
        }))
    }
}
