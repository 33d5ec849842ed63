//! Tunnels, by CONNECT and by upgrade, and what is found in them.

use proxyplane_record::{ExchangeKind, error_code};

use super::*;

impl Scene {
    /// A tunnel to the origin.
    async fn connect(&mut self) -> Peer {
        self.ask("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").await;
        let origin = self.accept().await;
        self.client.hear("HTTP/1.1 200 Connection established\r\n\r\n").await;
        origin
    }
}

#[tokio::test]
async fn an_upgrade_that_is_no_websocket_becomes_a_tunnel() {
    let mut scene = Scene::begin().await;
    scene
        .ask("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        .await;
    let mut origin = scene.accept().await;
    origin
        .hear(format!(
            "GET / HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
            scene.host
        ))
        .await;
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    origin.say(format!("{switch}first")).await;
    scene.client.hear(format!("{switch}first")).await;
    scene.client.say("ping").await;
    origin.hear("ping").await;
    scene.client.0.shutdown().await.unwrap();
    origin.hear_end().await;
    origin.say("last").await;
    drop(origin);
    scene.client.hear("last").await;
    scene.client.hear_end().await;
    let exchange = scene.rows(2).await.remove(0).exchange;
    assert_complete(&exchange);
    assert_eq!((exchange.kind, exchange.status), (ExchangeKind::Tunnel.into(), 101));
    assert_eq!((exchange.request_size, exchange.response_size), (4, 9));
}

#[tokio::test]
async fn a_websocket_is_carried_and_recorded_as_one() {
    let mut scene = Scene::begin().await;
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    scene
        .ask(&format!(
            "GET http://{{host}}/ HTTP/1.1\r\nHost: {{host}}\r\n{fields}\r\n"
        ))
        .await;
    let mut origin = scene.accept().await;
    origin
        .hear(format!("GET / HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", scene.host))
        .await;
    let switch = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}Sec-WebSocket-Protocol: chat\r\n\r\n");
    origin.say([switch.as_bytes(), b"\x81\x02hi"].concat()).await;
    scene.client.hear([switch.as_bytes(), b"\x81\x02hi"].concat()).await;
    scene.client.say(b"\x88\x82\0\0\0\0\x03\xe8").await;
    origin.hear(b"\x88\x82\0\0\0\0\x03\xe8").await;
    drop((origin, scene.client.0.shutdown().await));
    scene.client.hear_end().await;
    let rows = scene.rows(4).await;
    let websocket = rows[0].exchange.websocket.clone().unwrap();
    assert_eq!((&websocket.subprotocol[..], websocket.close_code), (&b"chat"[..], 1000));
    assert_eq!(
        (&rows[0].exchange.scheme[..], rows[0].exchange.kind),
        (&b"ws"[..], ExchangeKind::WebSocket.into())
    );
}

#[tokio::test]
async fn http_in_a_tunnel_is_recorded_as_http() {
    let mut scene = Scene::begin().await;
    let mut origin = scene.connect().await;
    scene
        .client
        .say(format!("GET /in?x HTTP/1.1\r\nHost: {}\r\n\r\n", scene.host))
        .await;
    origin
        .hear(format!("GET /in?x HTTP/1.1\r\nHost: {}\r\n\r\n", scene.host))
        .await;
    origin
        .say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        .await;
    drop(origin);
    // Both connections belong together: the origin's end is the client's.
    let answer = scene.client.hear_all().await;
    assert_eq!(
        answer,
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    );
    let row = scene.row().await;
    assert_complete(&row.exchange);
    assert_eq!(
        (&row.exchange.method[..], &row.exchange.scheme[..]),
        (&b"GET"[..], &b"http"[..])
    );
    assert!(row.exchange.timings.connect_us.is_some());
}

#[tokio::test]
async fn a_server_that_speaks_first_gets_a_raw_tunnel() {
    let mut scene = Scene::begin().await;
    let mut origin = scene.connect().await;
    origin.say("220 hello\r\n").await;
    scene.client.hear("220 hello\r\n").await;
    scene.client.say("GET / looks like HTTP but is not first").await;
    origin.hear("GET / looks like HTTP but is not first").await;
    drop(origin);
    scene.client.hear_end().await;
    scene.client.0.shutdown().await.unwrap();
    let exchange = scene.rows(2).await.remove(0).exchange;
    assert_complete(&exchange);
    assert_eq!(
        (exchange.kind, &exchange.method[..]),
        (ExchangeKind::Tunnel.into(), &b"CONNECT"[..])
    );
    assert_eq!((exchange.request_size, exchange.response_size), (38, 11));
}

#[tokio::test]
async fn unknown_bytes_get_a_raw_tunnel() {
    let mut scene = Scene::begin().await;
    let mut origin = scene.connect().await;
    scene.client.say(b"\x00\x01binary").await;
    origin.hear(b"\x00\x01binary").await;
    drop(origin);
    scene.client.hear_end().await;
}

#[tokio::test]
async fn a_tunnel_that_is_closed_unused_is_a_row() {
    let mut scene = Scene::begin().await;
    let mut origin = scene.connect().await;
    scene.client.0.shutdown().await.unwrap();
    origin.hear_end().await;
    assert_eq!(error(&scene.row().await.exchange), error_code::CLIENT_SENT_NOTHING);
}
