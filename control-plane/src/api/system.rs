//! `SystemService`: the installation itself.

use std::sync::Arc;

use proxyplane_proto::v1::{self, system_service_server::SystemService};
use proxyplane_spec::reasons;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::status::Refusal;
use crate::{health::Health, pki::Pki, upgrade::Upgrade};

/// Serves what is known of the installation.
pub(super) struct System {
    health: Health,
    pki: Arc<Pki>,
    upgrade: Upgrade,
    run: Uuid,
}

impl System {
    pub(super) fn new(health: Health, pki: Arc<Pki>, upgrade: Upgrade, run: Uuid) -> Self {
        Self {
            health,
            pki,
            upgrade,
            run,
        }
    }
}

#[tonic::async_trait]
impl SystemService for System {
    async fn get_system_status(
        &self,
        _request: Request<v1::GetSystemStatusRequest>,
    ) -> Result<Response<v1::GetSystemStatusResponse>, Status> {
        let report = self.health.report().await;
        let parts = report.parts.into_iter();
        Ok(Response::new(v1::GetSystemStatusResponse {
            ready: report.ready,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            parts: parts
                .map(|p| v1::SystemPart {
                    name: p.name,
                    ready: p.ready,
                    detail: p.detail,
                })
                .collect(),
            run_id: self.run.to_string(),
        }))
    }

    async fn upgrade(&self, _request: Request<v1::UpgradeRequest>) -> Result<Response<v1::UpgradeResponse>, Status> {
        // The program that takes over is of no use before it has read the installation.
        self.health.storage().await.map_err(Refusal::from)?;
        let version = self.upgrade.check().await.map_err(|error| {
            tracing::warn!(%error, "the control plane is not upgraded, and goes on as it is");
            Refusal::from(error)
        })?;
        // The answer to a call that is open goes out before the program is left.
        self.upgrade.begin();
        Ok(Response::new(v1::UpgradeResponse { version }))
    }

    async fn get_certificate_authority(
        &self,
        _request: Request<v1::GetCertificateAuthorityRequest>,
    ) -> Result<Response<v1::GetCertificateAuthorityResponse>, Status> {
        Ok(Response::new(v1::GetCertificateAuthorityResponse {
            pem: self.pki.root_pem().to_owned(),
            der: self.pki.root_der().to_vec().into(),
            fingerprint_sha256: self.pki.fingerprint().to_owned(),
        }))
    }

    async fn list_error_reasons(
        &self,
        _request: Request<v1::ListErrorReasonsRequest>,
    ) -> Result<Response<v1::ListErrorReasonsResponse>, Status> {
        let reasons = reasons::ALL.iter().map(|reason| v1::ErrorReason {
            reason: reason.name.to_owned(),
            grpc_code: reason.grpc.to_owned(),
            http_status: reason.http.into(),
            exit_code: reason.exit.into(),
            meaning: reason.meaning.to_owned(),
        });
        Ok(Response::new(v1::ListErrorReasonsResponse {
            reasons: reasons.collect(),
        }))
    }
}
