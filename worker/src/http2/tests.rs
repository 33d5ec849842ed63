//! A client, the proxy and an origin, all in this process, over loopback TCP.

mod bodies;
mod connections;
mod failures;

use std::net::SocketAddr;

use h2::{SendStream, client::SendRequest, ext::RawTarget, server::SendResponse};
use http::{HeaderMap, Response, StatusCode};
use proxyplane_h1::Scheme;
use proxyplane_record::{Exchange, Kind};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::{service::Service, testing, upstream};

/// Starts an origin; `serve` is called with every connection to it.
async fn origin<F>(serve: impl Fn(server::Connection<TcpStream, Bytes>) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let connection = server::Builder::new()
                .initial_window_size(STREAM_WINDOW)
                .handshake(stream)
                .await
                .unwrap();
            tokio::spawn(serve(connection));
        }
    });
    address
}

/// An origin that serves every stream with `answer`.
async fn answering<F>(
    answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    origin(move |mut connection| {
        let answer = answer.clone();
        async move {
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(answer(request, respond));
            }
        }
    })
    .await
}

/// A client connected through the proxy.
struct Bench {
    service: Arc<Service>,
    client: SendRequest<Bytes>,
    address: SocketAddr,
    serving: tokio::task::JoinHandle<bool>,
    connection: tokio::task::AbortHandle,
}

impl Bench {
    async fn new(address: SocketAddr) -> Self {
        let service = testing::service();
        let target = Origin::new(Scheme::Http, &Bytes::from(address.ip().to_string()), address.port());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let local = listener.local_addr().unwrap();
        let stream = TcpStream::connect(local).await.unwrap();
        let (accepted, peer) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        accepted.set_nodelay(true).unwrap();
        let ctx = Connection::new(Arc::clone(&service), peer, local);
        let upstream = upstream::dial(&service, &target).await.unwrap();
        let serving = tokio::spawn(serve(ctx, target, accepted, Some(upstream)));
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Self {
            service,
            client,
            address,
            serving,
            connection,
        }
    }

    /// A request to be sent, without fields.
    fn request(&self, method: &str, path: &'static [u8]) -> Request<()> {
        let mut request = Request::builder().method(method).body(()).unwrap();
        let authority = Some(Bytes::from(format!("origin.test:{}", self.address.port())));
        let scheme = Bytes::from_static(b"http");
        request.extensions_mut().insert(RawTarget {
            scheme,
            authority,
            path: Bytes::from_static(path),
        });
        request
    }

    async fn send(&self, request: Request<()>, last: bool) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        self.client
            .clone()
            .ready()
            .await
            .unwrap()
            .send_request(request, last)
            .unwrap()
    }

    async fn get(&self, path: &'static [u8]) -> Result<Answer, h2::Error> {
        let (response, _) = self.send(self.request("GET", path), true).await;
        Answer::read(response.await?).await
    }

    /// Ends the client and gives the records.
    async fn records(self) -> Vec<Kind> {
        self.connection.abort();
        self.serving.await.unwrap();
        testing::records(&self.service.capture)
    }

    /// The rows, in the order of their ends.
    async fn rows(self) -> Vec<Exchange> {
        testing::ended(&self.records().await)
    }

    /// The same for a single exchange whose bodies are small.
    async fn complete(self) -> proxyplane_record::Complete {
        match self.records().await.remove(0) {
            Kind::Complete(complete) => complete,
            other => panic!("not complete: {other:?}"),
        }
    }
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
}

impl Answer {
    async fn read(response: Response<RecvStream>) -> Result<Self, h2::Error> {
        let (parts, mut stream) = response.into_parts();
        let body = read_all(&mut stream).await?;
        let trailers = stream.trailers().await?;
        Ok(Self {
            status: parts.status,
            headers: parts.headers,
            body,
            trailers,
        })
    }
}

async fn read_all(stream: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    Ok(body)
}

fn ok() -> Response<()> {
    Response::new(())
}
