//! An origin that speaks HTTP/2 and serves every stream as a test says.

use std::{future::Future, net::Ipv4Addr, sync::Arc, thread};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::Request;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::Leaf;

/// An HTTP/2 origin on a port of its own.
pub struct Http2Origin {
    port: u16,
}

impl Http2Origin {
    /// Over TLS with this certificate.
    pub fn serving_tls<F>(
        leaf: &Leaf,
        serve: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), h2::Error>> + Send + 'static,
    {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.certificate_der()], leaf.key_der())
            .expect("certificate and key belong together");
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self::listening(Some(TlsAcceptor::from(Arc::new(config))), serve)
    }

    /// With prior knowledge, without TLS.
    pub fn serving<F>(serve: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), h2::Error>> + Send + 'static,
    {
        Self::listening(None, serve)
    }

    fn listening<F>(
        tls: Option<TlsAcceptor>,
        serve: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), h2::Error>> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .expect("some port is free");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        thread::spawn(move || {
            runtime.block_on(async move {
                while let Ok((socket, _)) = listener.accept().await {
                    let (tls, serve) = (tls.clone(), serve.clone());
                    tokio::spawn(async move {
                        match tls {
                            None => connection(socket, serve).await,
                            Some(tls) => {
                                if let Ok(socket) = tls.accept(socket).await {
                                    connection(socket, serve).await;
                                }
                            }
                        }
                    });
                }
            });
        });
        Self { port }
    }

    /// `http://127.0.0.1:port` and `path`.
    pub fn http(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// `https://localhost:port` and `path`.
    pub fn https(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }
}

/// How streams and connections end is for the test to see at the other end.
async fn connection<C, F>(socket: C, serve: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F)
where
    C: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Result<(), h2::Error>> + Send + 'static,
{
    if let Ok(mut connection) = h2::server::handshake(socket).await {
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(serve(request, respond));
        }
    }
}
