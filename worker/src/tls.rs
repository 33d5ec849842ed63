//! TLS on both legs of an intercepted connection.
//!
//! In the order in which a connection meets them: [`sniff`] looks at the client's first bytes, [`Tls::connect_upstream`]
//! makes the handshake with the origin, offering what the client offered, and [`Tls::accept_client`] answers the client
//! with a certificate for the name it asked for and the protocol that the origin chose. [`Authority`] makes those
//! certificates: the worker's [`Identity`] is a key whose certificate the control plane signed as an intermediate.
//!
//! rustls with aws-lc-rs is the only TLS in the process.

mod alpn;
mod authority;
mod cache;
mod failure;
mod identity;
mod info;
mod leaf;
mod name;
mod origin;
mod roots;
pub mod sniff;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    io,
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwap;
use proxyplane_record::TlsInfo;
use proxyplane_spec::{CaptureSpec, Violation, limits};
use rustls::crypto::CryptoProvider;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub use self::{
    alpn::Alpn,
    authority::{Authority, AuthorityError},
    failure::TlsFailure,
    identity::Identity,
    sniff::{ClientHello, Sniffed, Sniffer},
};
pub(crate) use failure::cause_in_words;

/// What one revision of a service's configuration means for TLS.
///
/// Cheap to build: the system's roots are loaded for the first connection that needs them, once in the process, and
/// client configurations are made when first used.
#[derive(Debug)]
pub struct Tls {
    authority: ArcSwap<Authority>,
    origin: origin::Origin,
}

impl Tls {
    /// Builds both sides from `spec`; extra roots that cannot be used are violations of `capture.extra_ca_pem`.
    pub fn build(spec: &CaptureSpec, authority: Arc<Authority>) -> Result<Arc<Self>, Vec<Violation>> {
        let origin = origin::Origin::build(spec).map_err(|violation| vec![violation])?;
        Ok(Arc::new(Self {
            authority: ArcSwap::new(authority),
            origin,
        }))
    }

    /// The authority that makes certificates now.
    pub fn authority(&self) -> Arc<Authority> {
        self.authority.load_full()
    }

    /// Makes certificates with `authority` from now on; handshakes under way finish with the one before.
    pub fn replace_authority(&self, authority: Arc<Authority>) {
        self.authority.store(authority);
    }

    /// Are origins accepted whatever certificate they show?
    pub fn insecure_upstream(&self) -> bool {
        self.origin.insecure()
    }

    /// Makes the handshake with an origin over `io`, within [`limits::TLS_TIMEOUT`].
    ///
    /// `host` is what the client wanted to reach: a name, or an IP address with or without brackets. The name sent and
    /// verified is the client's `sni`, or `host` if it sent none; no name is sent for an IP address (RFC 6066 §3).
    /// Of `offered`, the client's protocols, h2 and http/1.1 are passed on in the client's order.
    pub async fn connect_upstream<IO>(
        &self,
        io: IO,
        host: &str,
        sni: Option<&str>,
        offered: &[Vec<u8>],
    ) -> Result<(client::TlsStream<IO>, TlsInfo), TlsFailure>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = name::parse(sni.unwrap_or(host)).ok_or_else(|| TlsFailure::origin_name(sni.unwrap_or(host)))?;
        let config = self.origin.config(offered).await?;
        let handshake = TlsConnector::from(config).connect(name.clone(), io);
        match tokio::time::timeout(limits::TLS_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => {
                let info = info::of(stream.get_ref().1, name::sent_as_sni(&name));
                Ok((stream, info))
            }
            Ok(Err(error)) => Err(TlsFailure::origin(&error, &name)),
            Err(_) => Err(TlsFailure::origin(&io::ErrorKind::TimedOut.into(), &name)),
        }
    }

    /// Makes the handshake with a client over `io`, which replays the bytes that were sniffed, within
    /// [`limits::TLS_TIMEOUT`].
    ///
    /// The certificate is for the name in `hello`, or for `host` (the target of CONNECT) if it has none. `alpn` is what
    /// the origin chose; `Alpn::None` answers without a protocol, whatever was offered.
    pub async fn accept_client<IO>(
        &self,
        io: IO,
        host: &str,
        hello: &ClientHello,
        alpn: Alpn,
    ) -> Result<(server::TlsStream<IO>, TlsInfo), TlsFailure>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let wanted = hello.sni.as_deref().unwrap_or(host);
        let name = name::parse(wanted).ok_or_else(|| TlsFailure::client_name(wanted))?;
        let config = self.authority.load().server_config(&name, alpn)?;
        match tokio::time::timeout(limits::TLS_TIMEOUT, TlsAcceptor::from(config).accept(io)).await {
            Ok(Ok(stream)) => {
                let info = info::of(stream.get_ref().1, hello.sni.as_deref().unwrap_or_default());
                Ok((stream, info))
            }
            Ok(Err(error)) => Err(TlsFailure::client(&error, hello.sni.as_deref())),
            Err(_) => Err(TlsFailure::client(
                &io::ErrorKind::TimedOut.into(),
                hello.sni.as_deref(),
            )),
        }
    }
}

/// The one provider, shared by every configuration.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}
