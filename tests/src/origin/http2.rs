//! An origin that speaks HTTP/2 and serves every stream as a test says.

use std::{future::Future, net::Ipv4Addr, sync::Arc, thread};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, Request};
use rustls::{ServerConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{Leaf, Proxy, tls_client};

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

/// A call under way: one stream that stays open both ways.
pub struct Call {
    up: h2::SendStream<Bytes>,
    down: RecvStream,
}

impl Http2Origin {
    /// Opens a stream to it through `proxy`, which intercepts it. Call it in a runtime that outlives the call.
    pub async fn call_through(&self, proxy: &Proxy<'_>, path: &str) -> Call {
        let socket = proxy
            .connect()
            .tunnel(&format!("localhost:{}", self.port))
            .into_socket();
        socket.set_nonblocking(true).expect("it is a TCP socket");
        let socket = TcpStream::from_std(socket).expect("it is a TCP socket");
        let ca = std::fs::read_to_string(proxy.world().ca_file()).expect("the CA was exported");
        let name = ServerName::try_from("localhost").expect("it is a name");
        let tls = TlsConnector::from(Arc::new(tls_client(&ca, &["h2"])));
        let socket = tls.connect(name, socket).await.expect("the handshake succeeds");
        let (client, connection) = h2::client::handshake(socket).await.expect("both speak HTTP/2");
        tokio::spawn(connection);
        let request = Request::post(self.https(path)).body(()).expect("it is a request");
        let mut client = client.ready().await.expect("the connection is open");
        let (response, up) = client.send_request(request, false).expect("the request can be sent");
        let down = response.await.expect("an answer comes").into_body();
        Call { up, down }
    }
}

impl Call {
    /// Sends a message and gives what comes back.
    pub async fn say(&mut self, message: &str) -> String {
        let message = Bytes::copy_from_slice(message.as_bytes());
        self.up.send_data(message, false).expect("the stream is open");
        let answer = self.down.data().await.expect("the stream is open").expect("data comes");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Ends the request: the answer's trailers.
    pub async fn finish(mut self) -> HeaderMap {
        self.up.send_data(Bytes::new(), true).expect("the stream is open");
        while let Some(data) = self.down.data().await {
            data.expect("data comes");
        }
        let trailers = self.down.trailers().await.expect("the stream ends in order");
        trailers.expect("there are trailers")
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
