//! Handshakes between real peers, over pipes in memory.

mod leaves;
mod legs;
mod sniffing;

use std::{io, sync::Arc};

use bytes::BytesMut;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, DuplexStream, duplex, join, split};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::{
    Alpn, ClientHello, Sniffed, Tls, TlsFailure, sniff,
    testing::{TestCa, TestOrigin},
};
use proxyplane_record::TlsInfo;
use proxyplane_spec::CaptureSpec;

fn name(host: &str) -> ServerName<'static> {
    ServerName::try_from(host.to_owned()).unwrap()
}

fn tls(ca: &TestCa, spec: &CaptureSpec) -> Arc<Tls> {
    Tls::build(spec, ca.authority()).unwrap()
}

/// A spec that trusts these PEM certificates.
fn trusting(extra_ca_pem: &str) -> CaptureSpec {
    CaptureSpec {
        extra_ca_pem: extra_ca_pem.to_owned(),
        ..CaptureSpec::default()
    }
}

/// A client on a pipe: the end to be served, and the handshake under way.
fn client(
    config: ClientConfig,
    host: &str,
) -> (
    DuplexStream,
    tokio::task::JoinHandle<io::Result<client::TlsStream<DuplexStream>>>,
) {
    let (near, far) = duplex(64 * 1024);
    let handshake = TlsConnector::from(Arc::new(config)).connect(name(host), near);
    (far, tokio::spawn(handshake))
}

/// Sniffs as the front door does and returns the connection with the bytes replayed.
async fn sniffed(mut io: DuplexStream) -> (ClientHello, impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = BytesMut::new();
    let Sniffed::Hello(hello) = sniff::read(&mut io, &mut buffer).await.unwrap() else {
        panic!("no ClientHello")
    };
    let (read, write) = split(io);
    (hello, join(io::Cursor::new(buffer).chain(read), write))
}

/// Makes the handshake with `config`'s server as for a client with `sni` that offers `alpn`.
async fn meet(
    tls: &Tls,
    config: Arc<ServerConfig>,
    host: &str,
    sni: Option<&str>,
    alpn: &[&str],
) -> (
    Result<(client::TlsStream<DuplexStream>, TlsInfo), TlsFailure>,
    io::Result<server::TlsStream<DuplexStream>>,
) {
    let (near, far) = duplex(64 * 1024);
    let origin = tokio::spawn(async move { TlsAcceptor::from(config).accept(far).await });
    let met = tls
        .connect_upstream(near, host, sni, &super::testing::protocols(alpn))
        .await;
    (met, origin.await.unwrap())
}

/// Why the handshake with `origin` failed.
async fn refusal(tls: &Tls, origin: &TestOrigin, host: &str) -> String {
    let (met, _) = meet(tls, origin.config(), host, None, &[]).await;
    let failure = met.expect_err("the origin is refused");
    assert_eq!(failure.code, proxyplane_record::error_code::UPSTREAM_TLS_FAILED);
    failure.detail
}
