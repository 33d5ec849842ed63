//! The client side of TLS, towards origins.

use std::sync::{Arc, OnceLock};

use proxyplane_spec::{CaptureSpec, Violation};
use rustls::{
    ClientConfig,
    client::{Resumption, danger::ServerCertVerifier},
};

use super::{
    TlsFailure,
    alpn::Offer,
    provider, roots,
    verify::{Insecure, Verified},
};

/// Sessions that are kept for resumption, in rustls's count: eight tickets for each of 128 origins.
const SESSIONS_MAX: usize = 1_024;

/// How origins are met: one verifier and one session cache for all connections, one configuration for each list of
/// protocols that may be offered.
#[derive(Debug)]
pub(super) struct Origin {
    insecure: bool,
    verifier: Arc<dyn ServerCertVerifier>,
    sessions: Resumption,
    configs: [OnceLock<Arc<ClientConfig>>; Offer::COUNT],
}

impl Origin {
    pub(super) fn build(spec: &CaptureSpec) -> Result<Self, Violation> {
        let extra = roots::extra(&spec.extra_ca_pem)?;
        let insecure = spec.insecure_upstream;
        let verifier: Arc<dyn ServerCertVerifier> = if insecure {
            Arc::new(Insecure)
        } else {
            Arc::new(Verified::new(extra))
        };
        let sessions = Resumption::in_memory_sessions(SESSIONS_MAX);
        Ok(Self {
            insecure,
            verifier,
            sessions,
            configs: Default::default(),
        })
    }

    pub(super) fn insecure(&self) -> bool {
        self.insecure
    }

    /// The configuration that offers what a client offered.
    pub(super) fn config(&self, offered: &[Vec<u8>]) -> Result<Arc<ClientConfig>, TlsFailure> {
        let offer = Offer::of(offered);
        let slot = &self.configs[offer as usize];
        if let Some(config) = slot.get() {
            return Ok(Arc::clone(config));
        }
        let made = self
            .make(offer)
            .map_err(|error| TlsFailure::internal(error.to_string()))?;
        Ok(Arc::clone(slot.get_or_init(|| Arc::new(made))))
    }

    fn make(&self, offer: Offer) -> Result<ClientConfig, rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&self.verifier))
            .with_no_client_auth();
        config.alpn_protocols = offer.protocols();
        config.resumption = self.sessions.clone();
        Ok(config)
    }
}
