//! Tunnels: CONNECT for what is not TLS, and upgrades to what is not WebSocket.

use proxyplane_tests::{Exchange, Proxy, RawOrigin, World, eventually};

#[test]
fn a_server_may_speak_first() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("ssh").start();
    let origin = RawOrigin::serving(|peer| {
        peer.send("220 ready\r\n")?;
        peer.read_until(b"\r\n")?;
        peer.send("250 pleased to meet you\r\n")
    });
    let mut client = proxy.connect().tunnel(&origin.address());
    assert_eq!(client.read_until(b"\n"), b"220 ready\r\n");
    client.send("EHLO me\r\n");
    assert_eq!(client.read_to_end(), b"250 pleased to meet you\r\n");
    client.finish();
    let row = proxy.exchange();
    assert_eq!(tunnel_facts(&row), (9, 36), "{row:?}");
    assert_eq!(
        (&row["state"], &row["error"], &row["status"]),
        (&"complete".into(), &serde_json::Value::Null, &200.into())
    );
    assert_eq!(row["port"], origin.port());
}

#[test]
fn an_unknown_protocol_is_carried_byte_by_byte() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("raw").start();
    let origin = RawOrigin::serving(|peer| {
        loop {
            match peer.read_exactly(1)? {
                byte if byte.is_empty() => return Ok(()),
                byte => peer.send(byte)?,
            }
        }
    });
    let mut client = proxy.connect().tunnel(&origin.address());
    for byte in 0..=255 {
        client.send([byte]);
        assert_eq!(client.read_exactly(1), [byte]);
    }
    client.finish();
    assert!(client.is_closed());
    assert_eq!(tunnel_facts(&proxy.exchange()), (256, 256));
}

#[test]
fn either_side_may_close_its_half_first() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("half").start();
    let asks = RawOrigin::serving(|peer| {
        let question = peer.read_to_end()?;
        peer.send([b"you said ", &question[..]].concat())
    });
    let mut client = proxy.connect().tunnel(&asks.address());
    client.send(".question").finish();
    assert_eq!(client.read_to_end(), b"you said .question");
    assert_eq!(tunnel_facts(&proxy.exchange()), (9, 18));

    let tells = RawOrigin::serving(|peer| {
        peer.send("that is all")?;
        peer.finish()?;
        peer.read_until(b"noted").map(drop)
    });
    let mut client = proxy.connect().tunnel(&tells.address());
    assert_eq!(client.read_to_end(), b"that is all");
    client.send("noted").finish();
    tells.gets(b"noted");
    assert_eq!(tunnel_facts(&proxy.exchanges(2)[1]), (5, 11));
}

#[test]
fn an_open_tunnel_has_a_row_and_lives_through_an_update() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("long").start();
    let origin = RawOrigin::serving(|peer| {
        while !peer.read_until(b"\n")?.is_empty() {
            peer.send("ok\n")?;
        }
        Ok(())
    });
    let mut client = proxy.connect().tunnel(&origin.address());
    client.send("*1\n");
    assert_eq!(client.read_until(b"\n"), b"ok\n");
    let open = open_row(&proxy);
    assert_eq!((&open["kind"], &open["method"]), (&"tunnel".into(), &"CONNECT".into()));
    proxy.update(["--capture-limit", "1000"]);
    client.send("*2\n");
    assert_eq!(client.read_until(b"\n"), b"ok\n");
    client.finish();
    let row = proxy.exchange();
    assert_eq!((row.id(), tunnel_facts(&row)), (open.id(), (6, 6)));
}

#[test]
fn plain_http_inside_of_a_tunnel_is_recorded_as_http() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("plain").start();
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let curl = proxy.curl().with(["--proxytunnel"]);
    for method in ["GET", "PURGE"] {
        let got = curl.clone().with(["-X", method]).get(&origin.http("/inside?q=<b>"));
        assert_eq!(got.text(), "ok");
    }
    let rows = proxy.exchanges(2);
    for row in &rows {
        let expected = origin.http("/inside?q=<b>");
        assert_eq!(
            (&row["kind"], &row["url"]),
            (&"http".into(), &expected.into()),
            "{row:?}"
        );
    }
    assert_eq!(
        rows.iter().map(Exchange::summary).collect::<Vec<_>>(),
        ["GET 200", "PURGE 200"]
    );
}

#[test]
fn a_tunnel_to_a_passthrough_host_is_not_looked_into() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("private").with(["--passthrough", "127.0.0.1"]).start();
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let got = proxy.curl().with(["--proxytunnel"]).get(&origin.http("/secret"));
    assert_eq!(got.text(), "ok");
    let row = proxy.exchange();
    assert!(tunnel_facts(&row).1 > 0, "{row:?}");
    assert!(row["flags"].to_string().contains("passthrough"), "{row:?}");
}

#[test]
fn an_upgrade_to_another_protocol_becomes_a_tunnel() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("upgrade").start();
    let origin = RawOrigin::serving(|peer| {
        peer.read_head()?;
        peer.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: morse/1\r\nConnection: Upgrade\r\n\r\n-.-.")?;
        peer.read_until(b"...---...")?;
        peer.send(".-.")
    });
    let mut client = proxy.connect();
    client.send(format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: morse/1\r\n\r\n",
        origin.http("/key"),
        origin.address()
    ));
    assert!(client.read_head().starts_with("HTTP/1.1 101"));
    assert_eq!(client.read_exactly(4), b"-.-.");
    let open = open_row(&proxy);
    client.send("...---...");
    assert_eq!(client.read_to_end(), b".-.");
    client.finish();
    let row = proxy.exchange();
    assert_eq!((row.id(), tunnel_facts(&row)), (open.id(), (9, 7)), "{row:?}");
    assert_eq!(
        (&row["method"], &row["status"], &row["url"]),
        (&"GET".into(), &101.into(), &origin.http("/key").into())
    );
    origin.gets(b"\r\nUpgrade: morse/1\r\n");
}

#[test]
fn a_tunnel_that_a_side_tears_down_is_a_failed_row() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("torn").start();
    let origin = RawOrigin::serving(|peer| {
        peer.read_until(b"\n")?;
        peer.reset()
    });
    let mut client = proxy.connect().tunnel(&origin.address());
    client.send("+hello\n");
    assert!(client.is_closed());
    let row = proxy.exchange();
    assert_eq!(
        (&row["error"], &row["error_detail"]),
        (&"upstream_aborted".into(), &"the origin reset the connection".into())
    );
}

#[test]
fn a_tunnel_in_which_nobody_says_anything_is_a_row() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("silent").start();
    let origin = RawOrigin::serving(|peer| peer.read_to_end().map(drop));
    drop(proxy.connect().tunnel(&origin.address()));
    let row = proxy.exchange();
    assert_eq!(row["error"], "client_sent_nothing", "{row:?}");
}

/// Bytes up and down of what must be a tunnel.
#[track_caller]
fn tunnel_facts(row: &Exchange) -> (u64, u64) {
    assert_eq!(row["kind"], "tunnel", "{row:?}");
    (
        row["request_size"].as_u64().unwrap(),
        row["response_size"].as_u64().unwrap(),
    )
}

#[track_caller]
fn open_row(proxy: &Proxy<'_>) -> Exchange {
    eventually("an open tunnel is a row", || {
        proxy.stored().into_iter().find(|row| row["state"] == "open")
    })
}
