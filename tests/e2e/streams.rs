//! Answers that go on for long: each piece passes at once, and the row is there meanwhile.

use std::sync::{
    Mutex,
    mpsc::{self, Sender},
};

use proxyplane_tests::{Authority, Proxy, RawClient, RawOrigin, Side, World, eventually};
use serde_json::Value;

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n";

#[test]
fn an_event_stream_passes_event_by_event() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("events").start();
    let (events, origin) = event_source(None);
    let mut client = proxy.connect();
    ask(&mut client, &origin.http("/events"), &origin.address());
    follow(&proxy, &mut client, &events);
}

#[test]
fn an_event_stream_over_tls_passes_event_by_event() {
    let workspace = World::shared().workspace();
    let authority = Authority::new(&workspace.world().directory().join(workspace.code()));
    let proxy = workspace.proxy("events").trusting(&authority).start();
    let (events, origin) = event_source(Some(&authority));
    let ca = std::fs::read_to_string(workspace.world().ca_file()).unwrap();
    let tunnel = proxy.connect().tunnel(&format!("localhost:{}", origin.port()));
    let mut client = tunnel.into_tls("localhost", &ca, &["http/1.1"]);
    ask(&mut client, "/events", "localhost");
    follow(&proxy, &mut client, &events);
}

/// Sends events one at a time, each once the one before has arrived, with an update of the proxy in between.
#[track_caller]
fn follow(proxy: &Proxy<'_>, client: &mut RawClient, events: &Sender<String>) {
    let mut pass = |number: u32| {
        events.send(format!("data: {number}\n\n")).unwrap();
        let expected = format!("9\r\ndata: {number}\n\n\r\n");
        assert_eq!(client.read_exactly(expected.len()), expected.as_bytes());
    };
    (0..5).for_each(&mut pass);
    let open = eventually("the open stream is a row", || proxy.stored().pop());
    assert_eq!((&open["state"], &open["status"]), (&"open".into(), &200.into()));
    assert_eq!(
        (&open["duration_us"], &open["response_size"]),
        (&Value::Null, &Value::Null)
    );
    let shown = proxy.world().proxyctl(["traffic", "list", "--proxy", proxy.id()]).ok();
    assert!(shown.text().contains(" pending "), "{}", shown.text());
    proxy.update(["--capture-limit", "20"]);
    (5..10).for_each(&mut pass);
    events.send(String::new()).unwrap();
    assert_eq!(client.read_exactly(5), b"0\r\n\r\n");
    let row = proxy.exchange();
    assert_eq!(
        (row.id(), &row["state"], &row["response_size"]),
        (open.id(), &"complete".into(), &90.into())
    );
    let whole = (0..10)
        .map(|number| format!("data: {number}\n\n"))
        .collect::<Vec<_>>()
        .concat();
    assert_eq!(
        proxy.body(&row, Side::Response),
        whole.as_bytes(),
        "it keeps the limit it began with"
    );
}

#[track_caller]
fn ask(client: &mut RawClient, target: &str, host: &str) {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    let head = client.read_head();
    assert!(head.starts_with(HEAD), "{head}");
}

/// An origin that sends what it is given, each as a chunk; nothing ends it.
fn event_source(authority: Option<&Authority>) -> (Sender<String>, RawOrigin) {
    let (events, given) = mpsc::channel::<String>();
    let given = Mutex::new(given);
    let serve = move |peer: &mut proxyplane_tests::Peer| {
        peer.read_head()?;
        peer.send(format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n"))?;
        for event in given.lock().unwrap().iter() {
            peer.send(format!("{:x}\r\n{event}\r\n", event.len()))?;
            if event.is_empty() {
                break;
            }
        }
        Ok(())
    };
    let origin = match authority {
        Some(authority) => RawOrigin::serving_tls(&authority.leaf(&["localhost"]), &["http/1.1"], serve),
        None => RawOrigin::serving(serve),
    };
    (events, origin)
}
