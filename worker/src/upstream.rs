//! Connections to origins: resolve once, check every address, connect to a checked one.

mod connect;
mod loops;
mod stream;

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use proxyplane_h1::Scheme;
use proxyplane_record::{Flags, Timings, TlsInfo, error_code};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

pub use self::{
    connect::{Connected, connect},
    stream::Stream,
};
use crate::{capture::Recorder, service::Service, tls::TlsFailure};

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// With or without TLS.
    pub scheme: Scheme,
    /// Name or address, in lower case and ASCII; IPv6 without brackets.
    pub host: Bytes,
    /// Never 0.
    pub port: u16,
    /// Name to be sent and verified if it is not `host`: what an intercepted client asked for.
    pub sni: Option<String>,
    /// Application protocols to offer, as an intercepted client did.
    pub alpn: Vec<Vec<u8>>,
}

impl Origin {
    /// An origin that is reached with HTTP/1.1.
    pub fn new(scheme: Scheme, host: &Bytes, port: u16) -> Self {
        let alpn = if scheme == Scheme::Https {
            vec![b"http/1.1".to_vec()]
        } else {
            Vec::new()
        };
        Self {
            scheme,
            host: lower(host),
            port,
            sni: None,
            alpn,
        }
    }

    /// Is it reached with TLS?
    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::Https
    }

    /// The host as text; it is ASCII since it was parsed.
    pub fn host_str(&self) -> &str {
        std::str::from_utf8(&self.host).unwrap_or_default()
    }
}

fn lower(host: &Bytes) -> Bytes {
    if host.iter().any(u8::is_ascii_uppercase) {
        host.to_ascii_lowercase().into()
    } else {
        host.clone()
    }
}

/// A connection to an origin and what is recorded of it.
#[derive(Debug)]
pub struct Upstream {
    /// The connection.
    pub io: Stream,
    /// `address:port` that was connected to.
    pub address: Bytes,
    /// Its TLS, if any.
    pub tls: Option<TlsInfo>,
    /// What dialling took; for the exchange that dialled, and reset by it.
    pub timings: Timings,
}

impl Upstream {
    /// A connection without TLS.
    pub fn plain(io: TcpStream, facts: UpstreamFacts) -> Self {
        Self {
            io: Stream::Tcp(io),
            address: facts.address,
            tls: None,
            timings: facts.timings,
        }
    }

    /// A connection with TLS.
    pub fn tls(io: TlsStream<TcpStream>, info: TlsInfo, facts: UpstreamFacts) -> Self {
        Self {
            io: Stream::Tls(Box::new(io)),
            address: facts.address,
            tls: Some(info),
            timings: facts.timings,
        }
    }

    /// What is recorded of it apart from its TLS.
    pub fn facts(&self) -> UpstreamFacts {
        UpstreamFacts {
            address: self.address.clone(),
            timings: self.timings,
        }
    }
}

/// What is recorded of a connection apart from its TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamFacts {
    /// `address:port` that was connected to; empty before.
    pub address: Bytes,
    /// What dialling took so far, a step that failed included.
    pub timings: Timings,
}

impl UpstreamFacts {
    /// Puts them into the record of an exchange that came no further.
    pub fn describe(self, recorder: &Recorder) {
        recorder.with(|exchange| {
            exchange.origin_address = self.address;
            exchange.origin_tls = None;
            exchange.flags &= !Flags::REUSED_UPSTREAM;
            exchange.timings = Timings {
                first_byte_us: exchange.timings.first_byte_us,
                ..self.timings
            };
        });
    }
}

/// Why an origin could not be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct DialError {
    /// One of [`error_code`].
    pub code: &'static str,
    /// The cause, for people.
    pub detail: String,
    /// How far it came.
    pub reached: UpstreamFacts,
}

impl DialError {
    /// Failed with `detail` for people, when `reached` was reached.
    pub fn new(code: &'static str, detail: impl Into<String>, reached: UpstreamFacts) -> Self {
        Self {
            code,
            detail: detail.into(),
            reached,
        }
    }

    /// The origin's TLS failed on a connection with these facts.
    pub fn tls(failure: TlsFailure, reached: UpstreamFacts) -> Self {
        Self::new(failure.code, failure.detail, reached)
    }

    /// The status that tells a client.
    pub fn status(&self) -> u16 {
        match self.code {
            error_code::LOOP_DETECTED => 508,
            error_code::UPSTREAM_CONNECT_TIMEOUT => 504,
            _ => 502,
        }
    }
}

/// Connects to `origin`, with TLS if its scheme says so.
pub async fn dial(service: &Service, origin: &Origin) -> Result<Upstream, DialError> {
    let connected = connect(service, origin.host_str(), origin.port).await?;
    let mut facts = connected.facts();
    if !origin.is_tls() {
        return Ok(Upstream::plain(connected.stream, facts));
    }
    let begun = Instant::now();
    let tls = Arc::clone(&service.config().tls);
    let handshake = tls.connect_upstream(connected.stream, origin.host_str(), origin.sni.as_deref(), &origin.alpn);
    let handshake = handshake.await;
    facts.timings.tls_us = Some(begun.elapsed().as_micros() as u64);
    let (stream, info) = match handshake {
        Ok(connected) => connected,
        Err(failure) => return Err(DialError::tls(failure, facts)),
    };
    Ok(Upstream::tls(stream, info, facts))
}
