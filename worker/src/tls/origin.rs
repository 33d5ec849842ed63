//! The client side of TLS, towards origins.

use std::sync::{Arc, OnceLock};

use proxyplane_spec::{CaptureSpec, Violation};
use rustls::{ClientConfig, client::Resumption};
use rustls_pki_types::CertificateDer;
use tokio::sync::OnceCell;

use super::{
    TlsFailure,
    alpn::Offer,
    provider, roots,
    verify::{Trusted, Verifier},
};

/// Sessions that are kept for resumption, in rustls's count: eight tickets for each of 128 origins.
const SESSIONS_MAX: usize = 1_024;

/// How origins are met: one verifier and one session cache for all connections, one configuration for each list of
/// protocols that may be offered.
#[derive(Debug)]
pub(super) struct Origin {
    insecure: bool,
    extra: Vec<CertificateDer<'static>>,
    /// Made for the first connection: a worker that carries no TLS never loads the system's roots.
    verifier: OnceCell<Arc<Verifier>>,
    sessions: Resumption,
    configs: [OnceLock<Arc<ClientConfig>>; Offer::COUNT],
}

impl Origin {
    pub(super) fn build(spec: &CaptureSpec) -> Result<Self, Violation> {
        Ok(Self {
            insecure: spec.insecure_upstream,
            extra: roots::extra(&spec.extra_ca_pem)?,
            verifier: OnceCell::new(),
            sessions: Resumption::in_memory_sessions(SESSIONS_MAX),
            configs: Default::default(),
        })
    }

    pub(super) fn insecure(&self) -> bool {
        self.insecure
    }

    /// The configuration that offers what a client offered.
    pub(super) async fn config(&self, offered: &[Vec<u8>]) -> Result<Arc<ClientConfig>, TlsFailure> {
        let offer = Offer::of(offered);
        let slot = &self.configs[offer as usize];
        if let Some(config) = slot.get() {
            return Ok(Arc::clone(config));
        }
        let verifier = self.verifier.get_or_try_init(|| self.make_verifier()).await?;
        let made = self
            .make(offer, verifier)
            .map_err(|error| TlsFailure::internal(error.to_string()))?;
        Ok(Arc::clone(slot.get_or_init(|| Arc::new(made))))
    }

    /// Loading the system's roots takes 5–25 ms, so it happens beside the data plane's threads.
    async fn make_verifier(&self) -> Result<Arc<Verifier>, TlsFailure> {
        if self.insecure {
            return Ok(Arc::new(Verifier::Insecure));
        }
        let extra = self.extra.clone();
        let made = tokio::task::spawn_blocking(move || Arc::new(Verifier::Trusted(Trusted::new(extra))));
        made.await.map_err(|error| TlsFailure::internal(error.to_string()))
    }

    fn make(&self, offer: Offer, verifier: &Arc<Verifier>) -> Result<ClientConfig, rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Verifier>::clone(verifier))
            .with_no_client_auth();
        config.alpn_protocols = offer.protocols();
        config.resumption = self.sessions.clone();
        Ok(config)
    }
}
