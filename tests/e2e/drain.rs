//! What a stop does with what is open.

use std::{
    net::TcpStream,
    process::{Child, Stdio},
    thread,
};

use proxyplane_tests::{Proxy, RawOrigin, Workspace, World, eventually, nginx};

const NONE: [&str; 0] = [];

#[test]
fn a_tunnel_is_cut_when_the_drain_is_over() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("tunnels").start();
    let origin = RawOrigin::serving(|peer| {
        peer.send("hello")?;
        peer.read_to_end().map(drop)
    });
    let mut tunnel = proxy.connect().tunnel(&origin.address());
    assert_eq!(tunnel.read_exactly(5), b"hello");
    stops_in_time(&workspace, &proxy);
    assert!(tunnel.is_closed());
    let row = eventually("the tunnel has ended", || {
        proxy.stored().into_iter().find(proxyplane_tests::Exchange::has_ended)
    });
    assert_eq!(row["kind"], "tunnel", "{row:?}");
}

#[test]
fn an_answer_without_end_is_cut_when_the_drain_is_over() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("endless").start();
    let origin = RawOrigin::serving(|peer| {
        peer.read_head()?;
        peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")?;
        peer.read_to_end().map(drop)
    });
    let mut client = proxy.connect();
    client.send(get(&origin, ""));
    client.read_until(b"data: 1\n\n");
    stops_in_time(&workspace, &proxy);
    assert!(client.is_closed());
    assert_eq!(proxy.exchange()["state"], "failed");
}

#[test]
fn a_websocket_is_told_that_the_proxy_goes_away() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("sockets").start();
    let origin = RawOrigin::serving(|peer| {
        peer.read_head()?;
        peer.send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )?;
        peer.read_to_end().map(drop)
    });
    let mut client = proxy.connect();
    client.send(get(
        &origin,
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    ));
    assert!(client.read_head().starts_with("HTTP/1.1 101"));
    let _ = proxy.ctl("stop", ["--drain-timeout", "5s"]).ok();
    let close = client.read_exactly(4);
    assert_eq!(close[0], 0x88, "a close frame");
    assert_eq!(close[2..4], 1001_u16.to_be_bytes(), "going away");
    assert!(client.is_closed() || client.read_to_end().len() < 200);
}

#[test]
fn an_idle_connection_does_not_hold_a_stop_up() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("idle").start();
    let mut unused = proxy.connect();
    let mut kept_alive = proxy.connect();
    kept_alive.send(format!(
        "GET {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n",
        nginx().http("/status/204"),
        nginx().http_port()
    ));
    assert!(kept_alive.read_head().starts_with("HTTP/1.1 204"));
    // A stop that waited for them would take longer than this test waits for it.
    let mut stop = stopping(&proxy, "1h");
    proxy.becomes("stopped");
    assert!(stop.wait().unwrap().success());
    assert!(unused.is_closed() && kept_alive.is_closed());
}

#[test]
fn while_a_stop_is_under_way_everything_else_is_a_named_conflict() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("leaving").start();
    let origin = RawOrigin::serving(|peer| {
        peer.send("hello")?;
        peer.read_to_end().map(drop)
    });
    let mut tunnel = proxy.connect().tunnel(&origin.address());
    tunnel.read_exactly(5);
    thread::scope(|scope| {
        let stop = scope.spawn(|| proxy.ctl("stop", ["--drain-timeout", "60s"]).ok());
        eventually("it drains", || (proxy.state() == "draining").then_some(()));
        eventually("new clients are refused", || TcpStream::connect(proxy.address()).err());
        for (verb, arguments) in [
            ("start", vec![]),
            ("stop", vec![]),
            ("restart", vec![]),
            ("update", vec!["--no-verbose"]),
            ("delete", vec![]),
        ] {
            proxy.ctl(verb, arguments).fails(5, "stopping");
        }
        drop(tunnel);
        stop.join().unwrap();
    });
    let now = proxy.get();
    assert_eq!(
        (&now["state"], &now["enabled"], &now["revision"]),
        (&"stopped".into(), &false.into(), &1.into())
    );
    let _ = proxy.ctl("delete", NONE).ok();
}

#[test]
fn a_deletion_goes_on_when_its_caller_goes_away() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("abandoned").start();
    let origin = RawOrigin::serving(|peer| {
        peer.send("hello")?;
        peer.read_to_end().map(drop)
    });
    let mut tunnel = proxy.connect().tunnel(&origin.address());
    tunnel.read_exactly(5);
    let mut delete = workspace
        .world()
        .proxyctl_command(["proxy", "delete", "--yes", "--purge", proxy.id()])
        .spawn()
        .unwrap();
    eventually("it drains", || (proxy.state() == "draining").then_some(()));
    delete.kill().unwrap();
    delete.wait().unwrap();
    drop(tunnel);
    eventually("it is deleted", || (proxy.ctl("get", NONE).code == 4).then_some(()));
    eventually("its traffic is removed", || proxy.stored().is_empty().then_some(()));
}

/// The stop ends at its own deadline: one that began before it and may take longer still drains.
#[track_caller]
fn stops_in_time(workspace: &Workspace<'_>, proxy: &Proxy<'_>) {
    let patient = workspace.proxy("patient").start();
    let origin = RawOrigin::serving(|peer| {
        peer.send("hello")?;
        peer.read_to_end().map(drop)
    });
    let mut tunnel = patient.connect().tunnel(&origin.address());
    tunnel.read_exactly(5);
    let mut stop = stopping(&patient, "1h");
    patient.becomes("draining");
    let stopped = proxy.ctl("stop", ["--drain-timeout", "1s"]).json();
    assert_eq!(stopped["state"], "stopped");
    assert_eq!(patient.state(), "draining");
    drop(tunnel);
    assert!(stop.wait().unwrap().success());
}

/// A stop that is under way.
fn stopping(proxy: &Proxy<'_>, drain_timeout: &str) -> Child {
    let arguments = ["proxy", "stop", "--drain-timeout", drain_timeout, proxy.id()];
    let mut command = proxy.world().proxyctl_command(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn get(origin: &RawOrigin, fields: &str) -> String {
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n",
        origin.http("/"),
        origin.address()
    )
}
