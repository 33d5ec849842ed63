//! Exchanges over loopback, both ends of them played by the test, byte for byte.

mod failures;
mod framing;
mod interception;
mod upgrades;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use proxyplane_record::{Complete, Exchange, ExchangeState, Flags, Kind};
use proxyplane_spec::CaptureSpec;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    forward,
    service::{Service, ServiceConfig},
    testing,
    tls::{Tls, testing::TestCa},
};

/// Longer than anything here takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy, an origin that the test plays, and a client's connection.
struct Scene {
    service: Arc<Service>,
    proxy: SocketAddr,
    origin: TcpListener,
    /// `127.0.0.1:port` of the origin.
    host: String,
    client: Peer,
}

/// One end of a connection, played by the test.
struct Peer(TcpStream);

impl Scene {
    async fn begin() -> Self {
        Self::with(CaptureSpec::default()).await
    }

    async fn with(spec: CaptureSpec) -> Self {
        Self::certified_by(&TestCa::new("Test root"), spec).await
    }

    async fn certified_by(ca: &TestCa, spec: CaptureSpec) -> Self {
        let (capture, drain) = testing::capture();
        let tls = Tls::build(&spec, ca.authority()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        let config = ServiceConfig {
            revision: 1,
            name: "test".into(),
            verbose: false,
            spec,
            control_addresses: Vec::new(),
            tls,
        };
        let service = Service::new(config, capture, drain, vec![proxy]);
        tokio::spawn(accept(Arc::clone(&service), listener));
        let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = origin.local_addr().unwrap().to_string();
        let client = Peer(TcpStream::connect(proxy).await.unwrap());
        Self {
            service,
            proxy,
            origin,
            host,
            client,
        }
    }

    /// Sends a head: `{host}` stands for the origin's address.
    async fn ask(&mut self, text: &str) {
        let text = text.replace("{host}", &self.host);
        self.client.say(text).await;
    }

    /// The origin's next connection.
    async fn accept(&self) -> Peer {
        Peer(
            timeout(PATIENCE, self.origin.accept())
                .await
                .expect("the proxy connects")
                .unwrap()
                .0,
        )
    }

    /// Sends a plain GET and plays the origin up to its answer.
    async fn get(&mut self) -> Peer {
        self.ask("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n").await;
        let mut origin = self.accept().await;
        origin
            .hear(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", self.host))
            .await;
        origin
    }

    /// What was recorded, once as many exchanges have ended.
    async fn rows(&self, count: usize) -> Vec<Complete> {
        let written = async {
            while self.service.capture.queue().next_seq() < count as u64 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, written).await.expect("the exchanges end");
        let complete = |record| match record {
            Kind::Complete(complete) => Some(complete),
            Kind::End(exchange) => Some(Complete {
                exchange,
                ..Complete::default()
            }),
            _ => None,
        };
        testing::records(&self.service.capture)
            .into_iter()
            .filter_map(complete)
            .collect()
    }

    /// The only row.
    async fn row(&self) -> Complete {
        let mut rows = self.rows(1).await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows.remove(0)
    }
}

async fn accept(service: Arc<Service>, listener: TcpListener) {
    let local = listener.local_addr().unwrap();
    while let Ok((stream, peer)) = listener.accept().await {
        tokio::spawn(forward::serve(Arc::clone(&service), stream, peer, local));
    }
}

impl Peer {
    async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The next bytes are exactly these.
    async fn hear(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let mut heard = vec![0; expected.len()];
        let mut count = 0;
        while count < heard.len() {
            let read = timeout(PATIENCE, self.0.read(&mut heard[count..])).await;
            match read
                .unwrap_or_else(|_| panic!("only came: {:?}", text(&heard[..count])))
                .unwrap()
            {
                0 => break,
                more => count += more,
            }
        }
        assert_eq!(text(&heard[..count]), text(expected));
    }

    /// Nothing comes any more, in order.
    async fn hear_end(&mut self) {
        let mut rest = Vec::new();
        timeout(PATIENCE, self.0.read_to_end(&mut rest))
            .await
            .expect("the connection ends")
            .unwrap();
        assert_eq!(text(&rest), "");
    }

    /// Everything until the end.
    async fn hear_all(&mut self) -> String {
        let mut all = Vec::new();
        timeout(PATIENCE, self.0.read_to_end(&mut all))
            .await
            .expect("the connection ends")
            .unwrap();
        text(&all)
    }

    /// The connection ends with an error.
    async fn hear_reset(&mut self) {
        let mut rest = Vec::new();
        let ended = timeout(PATIENCE, self.0.read_to_end(&mut rest))
            .await
            .expect("the connection ends");
        assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn error(exchange: &Exchange) -> &str {
    std::str::from_utf8(&exchange.error).unwrap()
}

fn has(exchange: &Exchange, flag: u32) -> bool {
    exchange.flags & flag != 0
}

#[track_caller]
fn assert_complete(exchange: &Exchange) {
    assert_eq!(exchange.state, i32::from(ExchangeState::Complete), "{exchange:?}");
}

#[tokio::test]
async fn a_connection_carries_exchange_after_exchange_and_keeps_its_upstream() {
    let mut scene = Scene::begin().await;
    let mut origin = scene.get().await;
    let head = "HTTP/1.1 200 OK\r\nX-oDd: 1\r\nx-odd: 2\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n";
    origin
        .say(format!(
            "{head}Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\nhello"
        ))
        .await;
    scene.client.hear(format!("{head}\r\nhello")).await;
    scene
        .ask("POST http://{host}/p?q=<b>&\u{ff} HTTP/1.1\r\nhost: {host}\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    origin
        .hear(format!(
            "POST /p?q=<b>&\u{ff} HTTP/1.1\r\nhost: {}\r\nContent-Length: 3\r\n\r\nabc",
            scene.host
        ))
        .await;
    origin.say("HTTP/1.1 204 No Content\r\n\r\n").await;
    scene.client.hear("HTTP/1.1 204 No Content\r\n\r\n").await;
    let rows = scene.rows(2).await;
    let [first, second] = &rows[..] else { panic!("{rows:?}") };
    assert_complete(&first.exchange);
    assert_eq!(
        (
            first.exchange.status,
            first.exchange.response_size,
            &first.response_body[..]
        ),
        (200, 5, &b"hello"[..])
    );
    assert_eq!(text(&first.exchange.response_content_type), "text/plain");
    assert!(first.exchange.timings.connect_us.is_some() && first.exchange.timings.first_byte_us.is_some());
    assert_eq!(
        (&second.exchange.path[..], second.exchange.query.as_deref()),
        (&b"/p"[..], Some("q=<b>&\u{ff}".as_bytes()))
    );
    assert_eq!(
        (&second.request_body[..], second.exchange.request_size),
        (&b"abc"[..], 3)
    );
    assert!(has(&second.exchange, Flags::REUSED_UPSTREAM) && second.exchange.timings.connect_us.is_none());
    assert!(
        second.exchange.request_head.starts_with(b"POST http://"),
        "the row has what came"
    );
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let mut scene = Scene::begin().await;
    scene
        .ask("GET http://{host}/1 HTTP/1.1\r\nHost: {host}\r\n\r\nGET http://{host}/2 HTTP/1.1\r\nHost: {host}\r\n\r\n")
        .await;
    let mut origin = scene.accept().await;
    for number in ["1", "2"] {
        origin
            .hear(format!("GET /{number} HTTP/1.1\r\nHost: {}\r\n\r\n", scene.host))
            .await;
        origin
            .say(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}"))
            .await;
        scene
            .client
            .hear(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}"))
            .await;
    }
    assert_eq!(scene.rows(2).await.len(), 2);
}

#[tokio::test]
async fn a_stopping_service_closes_after_the_answer() {
    let mut scene = Scene::begin().await;
    let mut origin = scene.get().await;
    let mut idle = Peer(TcpStream::connect(scene.proxy).await.unwrap());
    scene.service.drain.begin(Duration::from_secs(30));
    origin.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    scene
        .client
        .hear("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        .await;
    scene.client.hear_end().await;
    idle.hear_end().await;
    assert_complete(&scene.row().await.exchange);
}

#[tokio::test]
async fn the_ca_page_and_a_request_for_a_path_are_answered_here() {
    let mut scene = Scene::begin().await;
    scene
        .ask("GET http://proxyplane.local/ca.pem HTTP/1.1\r\nHost: proxyplane.local\r\n\r\n")
        .await;
    assert!(scene.client.hear_all().await.contains("-----BEGIN CERTIFICATE-----"));
    let mut browser = Peer(TcpStream::connect(scene.proxy).await.unwrap());
    browser
        .say(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", scene.proxy))
        .await;
    let answer = browser.hear_all().await;
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("this is a proxy"),
        "{answer}"
    );
    let rows = scene.rows(2).await;
    assert!(rows.iter().all(|row| has(&row.exchange, Flags::LOCAL_ANSWER)));
    assert_complete(&rows[0].exchange);
    assert_eq!(error(&rows[1].exchange), "request_refused");
}
