//! The history and the live view.

use proxyplane_tests::{RawOrigin, World, nginx};

const NONE: [&str; 0] = [];

#[test]
fn the_list_is_newest_first_and_filtered() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("listed").start();
    for path in ["/hello", "/status/404", "/status/500"] {
        proxy.curl().get(&nginx().http(path));
    }
    proxy.curl().with(["--head"]).get(&nginx().http("/hello"));
    proxy.exchanges(4);

    let list = |more: &[&str]| {
        let mut arguments = vec!["-o", "json", "traffic", "list", "--proxy", proxy.id()];
        arguments.extend(more);
        let rows = workspace.proxyctl(arguments).json();
        let summary = |row: &serde_json::Value| format!("{} {}", row["method"].as_str().unwrap(), row["status"]);
        rows.as_array().unwrap().iter().map(summary).collect::<Vec<_>>()
    };
    assert_eq!(list(&[]), ["HEAD 200", "GET 500", "GET 404", "GET 200"]);
    assert_eq!(list(&["--status", "500-599"]), ["GET 500"]);
    assert_eq!(list(&["--status", "4xx"]), ["GET 404"]);
    assert_eq!(list(&["--method", "HEAD"]), ["HEAD 200"]);
    assert_eq!(list(&["--limit", "2"]), ["HEAD 200", "GET 500"]);
    assert_eq!(list(&["--since", "1h"]).len(), 4);
    assert_eq!(list(&["--until", "1h"]), NONE);
    assert_eq!(list(&["--host", "127.0.0.1"]).len(), 4);
    assert_eq!(list(&["--host", "*.example.com"]), NONE);
}

#[test]
fn a_list_pages_by_itself() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("many").start();
    let origin = RawOrigin::answering("HTTP/1.1 204 No Content\r\n\r\n");
    let mut client = proxy.connect();
    for number in 0..1_200 {
        client.send(format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
            origin.http(&format!("/{number}")),
            origin.address()
        ));
        client.read_head();
    }
    let rows = proxy.exchanges(1_200);
    for (number, row) in rows.iter().enumerate() {
        assert_eq!(row["path"], format!("/{number}"));
    }
    assert_eq!(proxy.drained()["stored"], 1_200);
    assert_eq!(proxy.get()["requests"], 1_200);
}

#[test]
fn every_exchange_is_a_line_of_the_live_view_once() {
    let workspace = World::shared().workspace();
    let (watched, other) = (workspace.proxy("watched").start(), workspace.proxy("other").start());
    let mut tail = workspace
        .world()
        .follow(["-o", "jsonl", "traffic", "tail", "--proxy", watched.id()]);
    let mut all = workspace
        .world()
        .follow(["-o", "jsonl", "-w", workspace.code(), "traffic", "tail"]);
    for number in 0..20 {
        other.curl().get(&nginx().http("/hello"));
        watched.curl().get(&nginx().http(&format!("/query?{number}")));
    }
    for number in 0..20 {
        assert_eq!(tail.json()["query"], number.to_string());
    }
    for _ in 0..40 {
        let row = all.json();
        assert_eq!(
            (&row["state"], &row["workspace"]),
            (&"complete".into(), &workspace.code().into())
        );
    }
    assert_eq!(tail.interrupt(), 130);
}

#[test]
fn events_tell_of_an_exchange_while_it_is_open() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("eventful").start();
    let mut events = workspace
        .world()
        .follow(["-o", "jsonl", "traffic", "tail", "--events", "--proxy", proxy.id()]);
    // The worker learns a moment later that somebody watches; an exchange after that is announced when it begins.
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    proxyplane_tests::eventually("an exchange is announced", || {
        proxy.curl().get(&origin.http("/"));
        (events.json_until(|event| event["event"] != "completed")["event"] == "begun").then_some(())
    });
    events.json_until(|event| event["event"] == "completed");
    let stored = events.json_until(|event| event["event"] == "stored");
    assert!(stored["exchange"]["position"].as_i64().unwrap() > 0);
}

#[test]
fn two_proxies_are_kept_apart() {
    let workspace = World::shared().workspace();
    let (one, two) = (workspace.proxy("one").start(), workspace.proxy("two").start());
    let follow = |scope: [&str; 2]| {
        let [flag, value] = scope;
        let tail = ["-o", "jsonl", "traffic", "tail", flag, value];
        workspace.world().follow(tail)
    };
    let (mut of_one, mut of_two) = (follow(["--proxy", one.id()]), follow(["--proxy", two.id()]));
    let mut of_both = follow(["--workspace", workspace.code()]);
    one.curl().get(&nginx().http("/hello?one"));
    two.curl().get(&nginx().http("/hello?two"));
    one.curl().get(&nginx().http("/hello?one-again"));
    assert_eq!(of_one.json()["query"], "one");
    assert_eq!(of_one.json()["query"], "one-again");
    assert_eq!(of_two.json()["query"], "two");
    let mut both = [of_both.json(), of_both.json(), of_both.json()].map(|row| row["query"].to_string());
    both.sort_unstable();
    assert_eq!(both, ["\"one\"", "\"one-again\"", "\"two\""]);
    assert_eq!(one.exchanges(2)[0]["query"], "one");
    assert_eq!(two.exchange()["query"], "two");
}

#[test]
fn traffic_outlives_its_proxy_unless_purged() {
    let workspace = World::shared().workspace();
    let (kept, purged) = (workspace.proxy("kept").start(), workspace.proxy("purged").start());
    for proxy in [&kept, &purged] {
        proxy.curl().get(&nginx().http("/hello"));
    }
    let (kept_row, purged_row) = (kept.exchange(), purged.exchange());
    let _ = kept.ctl("delete", NONE).ok();
    let _ = purged.ctl("delete", ["--purge"]).ok();

    assert_eq!(kept.detail(&kept_row)["id"], kept_row.id());
    workspace.proxyctl(["traffic", "get", purged_row.id()]).fails(4, "");
    let list = workspace.proxyctl(["-o", "json", "traffic", "list"]).json();
    let ids: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, [kept_row.id()]);
}

#[test]
fn no_escape_sequence_of_captured_data_is_printed() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("inert").start();
    // C1 controls as UTF-8 (CSI is one of them), 0xFF, and a right-to-left override.
    let odd = b"/\xc2\x9b31m\xff\xe2\x80\xae";
    let origin =
        RawOrigin::answering(b"HTTP/1.1 200 \xc2\x9b\r\nX-Evil: \xc2\x9b2J\xff\r\nContent-Length: 0\r\n\r\n".to_vec());
    let mut client = proxy.connect();
    client.send(
        [
            b"GET http://",
            origin.address().as_bytes(),
            odd,
            b" HTTP/1.1\r\nHost: ",
            origin.address().as_bytes(),
            b"\r\n\r\n",
        ]
        .concat(),
    );
    client.read_head();
    let exchange = proxy.exchange();
    for format in ["table", "json", "jsonl"] {
        for command in [
            vec!["traffic", "list", "--proxy", proxy.id()],
            vec!["traffic", "get", exchange.id()],
        ] {
            let mut arguments = vec!["-o", format];
            arguments.extend(command);
            let text = workspace.proxyctl(arguments).ok().stdout;
            let text = String::from_utf8(text).expect("output is UTF-8");
            let harmful = text
                .chars()
                .find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
            assert_eq!(harmful, None, "{format}: {text:?}");
        }
    }
    origin.gets(odd);
}
