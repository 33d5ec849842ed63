//! WebSockets: carried unchanged, recorded while they are open.

use std::io;

use proxyplane_tests::{
    Authority, Exchange, Frame, Peer, Proxy, RawClient, RawOrigin, SWITCHING, World, eventually, nginx,
};
use serde_json::Value;

/// "Hello" and "Hello" again, compressed with context takeover (RFC 7692 §7.2.3.2).
const HELLO: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
const HELLO_AGAIN: [u8; 5] = [0xf2, 0x00, 0x11, 0x00, 0x00];

#[test]
fn a_websocket_is_carried_and_its_messages_are_stored_in_order() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("ws").start();
    let origin = RawOrigin::serving(echo);
    let mut client = open(&proxy, &origin, "Sec-WebSocket-Protocol: chat, superchat\r\n");
    let large = "large ".repeat(20_000);
    for frame in [
        Frame::text("grüße"),
        Frame::binary([0, 255, 1, 254]),
        Frame::text(""),
        Frame::text(&large),
    ] {
        client.send_frame(&frame);
        assert_eq!(client.read_frame(), frame);
    }
    client.send_frame(&Frame::text("in ").unfinished());
    client.send_frame(&Frame::ping("between"));
    client.send_frame(&Frame::continuation("pieces"));
    assert_eq!(client.read_frame(), Frame::text("in ").unfinished());
    assert_eq!(client.read_frame(), Frame::pong("between"));
    assert_eq!(client.read_frame(), Frame::continuation("pieces"));
    client.send_frame(&Frame::close(4321, "enough"));
    assert_eq!(client.read_frame(), Frame::close(4321, "enough"));
    client.finish();
    assert!(client.is_closed());

    let row = proxy.exchange();
    let expected = [
        ("kind", Value::from("websocket")),
        ("state", "complete".into()),
        ("status", 101.into()),
        ("url", format!("ws://{}/chat", origin.address()).into()),
        ("error", Value::Null),
    ];
    for (field, value) in expected {
        assert_eq!(row[field], value, "{field}: {row:?}");
    }
    let connection = proxy.websockets().remove(0);
    let expected = [
        ("id", Value::from(row.id())),
        ("subprotocol", "chat".into()),
        ("extensions", Value::Null),
        ("close_code", 4321.into()),
        ("close_reason", "enough".into()),
        ("messages_from_client", 7.into()),
        ("messages_from_server", 7.into()),
    ];
    for (field, value) in expected {
        assert_eq!(connection[field], value, "{field}: {connection}");
    }
    assert!(connection["closed_at"].is_string());
    assert_eq!(proxy.get()["websockets"], 1);

    let messages = proxy.messages(row.id());
    let mut sent: Vec<_> = messages
        .iter()
        .filter(|one| one["direction"] == "client_to_server")
        .map(told)
        .collect();
    let mut got: Vec<_> = messages
        .iter()
        .filter(|one| one["direction"] == "server_to_client")
        .map(told)
        .collect();
    let pong = got.iter().position(|one| one == "pong between").unwrap();
    got[pong] = "ping between".to_owned();
    // A control frame in the middle of a message may stand before or behind it.
    sent.sort();
    got.sort();
    assert_eq!(sent, got);
    let mut expected = [
        "text grüße",
        "binary 4 bytes",
        "text ",
        "text large large larg",
        "text in pieces",
        "ping between",
        "close 8 bytes",
    ];
    expected.sort_unstable();
    assert_eq!(sent, expected);
    let whole = messages.iter().find(|one| one["size"] == large.len()).unwrap();
    let sequence = whole["sequence"].to_string();
    let payload = workspace.proxyctl(["websocket", "payload", row.id(), &sequence]).ok();
    assert_eq!(payload.stdout, large.as_bytes());
}

#[test]
fn a_websocket_over_tls_is_intercepted() {
    let workspace = World::shared().workspace();
    let authority = Authority::new(&workspace.world().directory().join("wss"));
    let origin = RawOrigin::serving_tls(&authority.leaf(&["localhost"]), &["http/1.1"], echo);
    let proxy = workspace.proxy("wss").trusting(&authority).start();
    let ca = std::fs::read_to_string(workspace.world().ca_file()).unwrap();
    let host = format!("localhost:{}", origin.port());
    let mut client = proxy.connect().tunnel(&host).into_tls("localhost", &ca, &["http/1.1"]);
    assert!(client.handshake("/live?x=<y>", &host, "").starts_with("HTTP/1.1 101"));
    client.send_frame(&Frame::text("secret"));
    assert_eq!(client.read_frame(), Frame::text("secret"));
    client.send_frame(&Frame::close(1000, ""));
    client.read_frame();
    client.finish();
    let row = proxy.exchange();
    assert_eq!(
        (&row["url"], &row["state"]),
        (&format!("wss://{host}/live?x=<y>").into(), &"complete".into()),
        "{row:?}"
    );
    assert_eq!(proxy.detail(&row)["client_tls"]["sni"], "localhost");
    assert_eq!(told(&proxy.messages(row.id())[0]), "text secret");
    assert_eq!(proxy.websockets()[0]["close_code"], 1000);
}

#[test]
fn an_open_websocket_has_a_row_and_its_messages_can_be_listed() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("open").start();
    let origin = RawOrigin::serving(echo);
    let mut client = open(&proxy, &origin, "");
    client.send_frame(&Frame::text("are you there"));
    assert_eq!(client.read_frame(), Frame::text("are you there"));
    let row = open_row(&proxy);
    assert_eq!((&row["kind"], &row["status"]), (&"websocket".into(), &101.into()));
    stored_messages(&proxy, row.id(), 2);
    let connection = proxy.websockets().remove(0);
    assert_eq!(connection["closed_at"], Value::Null);
    assert_eq!(connection["workspace"], workspace.code());
}

#[test]
fn a_websocket_lives_through_an_update_which_is_in_force_at_once() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("updated").trusting_nginx().start();
    let origin = RawOrigin::serving(echo);
    let mut client = open(&proxy, &origin, "");
    let own = proxyplane_tests::Curl::direct()
        .trusting(&nginx().authority().file())
        .through(&proxy.address());
    assert_ne!(
        own.fetch(&nginx().https("/hello")).code,
        0,
        "intercepted, and curl does not know our CA"
    );
    let worker = proxy.worker();
    for _ in 0..3 {
        proxy.update(["--passthrough", "localhost"]);
        assert_eq!(own.fetch(&nginx().https("/hello")).text(), "hello from nginx\n");
        client.send_frame(&Frame::text("still here"));
        assert_eq!(client.read_frame(), Frame::text("still here"));
        proxy.update(["--no-passthrough"]);
        assert_eq!(proxy.curl().get(&nginx().https("/hello")).text(), "hello from nginx\n");
    }
    assert_eq!(proxy.worker(), worker);
    let row = open_row(&proxy);
    stored_messages(&proxy, row.id(), 6);
}

#[test]
fn compressed_messages_are_carried_as_they_are_and_stored_inflated() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("deflate").start();
    let origin = RawOrigin::serving(|peer| {
        peer.read_head()?;
        peer.send(format!(
            "{SWITCHING}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        ))?;
        while let Ok(frame) = peer.read_frame() {
            peer.send_frame(&frame)?;
        }
        Ok(())
    });
    let mut client = open(&proxy, &origin, "Sec-WebSocket-Extensions: permessage-deflate\r\n");
    for frame in [
        Frame::text("plain"),
        Frame::binary(HELLO).compressed(),
        Frame::binary(HELLO_AGAIN).compressed(),
    ] {
        client.send_frame(&frame);
        assert_eq!(client.read_frame(), frame);
    }
    let row = open_row(&proxy);
    let messages = stored_messages(&proxy, row.id(), 6);
    for direction in ["client_to_server", "server_to_client"] {
        let texts: Vec<_> = messages
            .iter()
            .filter(|one| one["direction"] == direction)
            .map(|one| &one["text"])
            .collect();
        assert_eq!(texts, ["plain", "Hello", "Hello"]);
    }
    assert!(
        messages.iter().all(|one| one["compressed"] == (one["text"] == "Hello")),
        "{messages:?}"
    );
    assert_eq!(proxy.websockets()[0]["extensions"], "permessage-deflate");
}

#[test]
fn a_handshake_that_the_origin_refuses_is_an_ordinary_exchange() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("refused").start();
    let origin = RawOrigin::answering("HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nnever");
    let mut client = proxy.connect();
    for _ in 0..2 {
        let answer = client.handshake(&origin.http("/chat"), &origin.address(), "");
        assert!(answer.starts_with("HTTP/1.1 403 No\r\n"), "{answer}");
        assert_eq!(client.read_exactly(5), b"never");
    }
    let rows = proxy.exchanges(2);
    assert!(
        rows.iter()
            .all(|row| row["kind"] == "http" && row["status"] == 403 && row["error"].is_null()),
        "{rows:?}"
    );
    assert_eq!(proxy.websockets(), Vec::<Value>::new());
}

#[test]
fn a_websocket_that_breaks_off_says_who_left() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("broken").start();
    let origin = RawOrigin::serving(|peer| {
        peer.read_head()?;
        peer.send(format!("{SWITCHING}\r\n"))?;
        peer.read_frame()?;
        peer.reset()
    });
    let mut client = open(&proxy, &origin, "");
    client.send_frame(&Frame::text("goodbye?"));
    assert!(client.is_closed());
    let row = proxy.exchange();
    assert_eq!(
        (&row["error"], &row["error_detail"]),
        (&"upstream_aborted".into(), &"the origin reset the connection".into())
    );
    assert_eq!(told(&proxy.messages(row.id())[0]), "text goodbye?");
}

#[test]
fn what_is_no_websocket_after_all_is_carried_all_the_same() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("nonsense").start();
    let origin = RawOrigin::serving(|peer| {
        peer.read_head()?;
        peer.send(format!("{SWITCHING}\r\n"))?;
        peer.read_exactly(5)?;
        peer.send([0x0f, 0xff, 0xee, 0x01])
    });
    let mut client = open(&proxy, &origin, "");
    client.send([0x7f, 1, 2, 3, 4]);
    assert_eq!(client.read_to_end(), [0x0f, 0xff, 0xee, 0x01]);
    client.finish();
    assert_eq!(proxy.exchange()["error"], "websocket_unparsable");
}

#[test]
fn a_stop_closes_websockets_with_going_away() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("stopping").start();
    let origin = RawOrigin::serving(echo);
    let mut client = open(&proxy, &origin, "");
    client.send_frame(&Frame::text("hold the line"));
    client.read_frame();
    let row = open_row(&proxy);
    std::thread::scope(|scope| {
        scope.spawn(|| proxy.stop());
        let close = client.read_frame();
        assert_eq!((close.opcode, &close.payload[..2]), (8, &1001_u16.to_be_bytes()[..]));
        client.send_frame(&close).finish();
    });
    let ended = proxy.exchange();
    assert_eq!((ended.id(), &ended["error"]), (row.id(), &"drained".into()));
    assert_eq!(proxy.websockets()[0]["close_code"], 1001);
}

/// An origin that gives every frame back, a Pong for a Ping, and ends after a Close.
fn echo(peer: &mut Peer) -> io::Result<()> {
    let head = peer.read_head()?;
    let chat = if head.windows(4).any(|four| four == b"chat") {
        "Sec-WebSocket-Protocol: chat\r\n"
    } else {
        ""
    };
    let chat = if head.windows(22).any(|name| name == b"Sec-WebSocket-Protocol") {
        chat
    } else {
        ""
    };
    peer.send(format!("{SWITCHING}{chat}\r\n"))?;
    while let Ok(frame) = peer.read_frame() {
        match frame.opcode {
            9 => peer.send_frame(&Frame { opcode: 10, ..frame })?,
            8 => return peer.send_frame(&frame),
            _ => peer.send_frame(&frame)?,
        }
    }
    Ok(())
}

#[track_caller]
fn open(proxy: &Proxy<'_>, origin: &RawOrigin, fields: &str) -> RawClient {
    let mut client = proxy.connect();
    let answer = client.handshake(&origin.http("/chat"), &origin.address(), fields);
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
    client
}

/// The proxy's open WebSocket, once it is stored.
#[track_caller]
fn open_row(proxy: &Proxy<'_>) -> Exchange {
    eventually("an open WebSocket is a row", || {
        proxy
            .stored()
            .into_iter()
            .find(|row| row["kind"] == "websocket" && row["state"] == "open")
    })
}

#[track_caller]
fn stored_messages(proxy: &Proxy<'_>, websocket: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} messages are stored"), || {
        let messages = proxy.messages(websocket);
        (messages.len() == count).then_some(messages)
    })
}

/// A message in words.
fn told(message: &Value) -> String {
    let kind = message["type"].as_str().unwrap();
    match message["text"].as_str() {
        Some(text) if kind != "binary" && kind != "close" => {
            format!("{kind} {}", text.chars().take(16).collect::<String>())
        }
        _ => format!("{kind} {} bytes", message["size"]),
    }
}
