//! Replacing a worker by another that serves before the old one stops accepting: `proxy upgrade`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use proxyplane_tests::{Load, Peer, Proxy, RawClient, RawOrigin, World, eventually, kernel::has_ended, nginx, relink};
use serde_json::Value;

use crate::adoption::echoes;

const NONE: [&str; 0] = [];

#[test]
fn a_worker_is_replaced_under_load_and_no_request_fails() {
    const TIMES: usize = 5;
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("busy").start();
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let request = |fields: &str| {
        let (url, host) = (origin.http("/"), origin.address());
        format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")
    };
    // On connections that are kept, and on a new one for each request.
    let requests = [request(""), request(""), request("Connection: close\r\n")];
    let loads = requests.map(|request| Load::on(&proxy.address(), &request));
    for _ in 0..TIMES {
        let before = proxy.worker();
        let upgraded = proxy.ctl("upgrade", NONE).json();
        assert_ne!(upgraded["pid"], before);
        assert_eq!(upgraded["state"], "running");
        for load in &loads {
            let seen = load.served();
            eventually("requests are answered", || (load.served() > seen).then_some(()));
        }
        has_ended(before);
    }
    let served: usize = loads.into_iter().map(Load::stop).sum();
    proxy.exactly_once(served);
    let now = proxy.get();
    assert_eq!((&now["restarts"], &now["draining"]), (&0.into(), &Value::Array(vec![])));
}

#[test]
fn what_is_open_stays_with_the_old_worker_and_is_shown_until_it_is_over() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("patient").start();
    let (gate, slow) = gated_origin();
    let echoing = RawOrigin::serving(echo);
    let mut tunnel = tunnel(&proxy, &echoing);
    let mut fetch = proxy.connect();
    fetch.send(format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
        slow.http("/slow"),
        slow.address()
    ));
    assert!(fetch.read_head().starts_with("HTTP/1.1 200"));
    let old = proxy.worker();

    let ran = proxy.ctl("upgrade", ["--drain-timeout", "60s"]);
    assert!(
        ran.stderr
            .contains(&format!("worker {old} finishes 2 connections (1 request, 1 tunnel)")),
        "{}",
        ran.stderr
    );
    let upgraded = ran.json();
    assert_ne!(upgraded["pid"], old);
    assert_eq!(upgraded["open_tunnels"], 0);
    let draining = &upgraded["draining"][0];
    assert_eq!(draining["pid"], old);
    assert_eq!(
        (
            &draining["open_requests"],
            &draining["open_websockets"],
            &draining["open_tunnels"]
        ),
        (&1.into(), &0.into(), &1.into())
    );
    assert!(draining["deadline"].is_string(), "{draining}");

    proxy.curl().get(&nginx().http("/hello"));
    echoes(&mut tunnel, "still here");
    gate.send(()).unwrap();
    assert_eq!(fetch.read_exactly(4), b"slow");
    assert!(fetch.is_closed(), "it is told that this was the last answer");
    tunnel.finish();
    nobody_drains(&proxy);
    has_ended(old);
    assert!(proxy.exchanges(3).iter().all(|row| row["state"] == "complete"));

    let events = events_of(&proxy, "worker_upgraded", 1);
    assert_eq!(events[0]["details"]["former_pid"], old.to_string());
    assert_eq!(events[0]["details"]["pid"], upgraded["pid"].to_string());
}

#[test]
fn a_new_worker_that_does_not_come_to_serve_leaves_the_old_one_serving() {
    let (world, link) = world_with_a_link();
    let workspace = world.workspace();
    let proxy = workspace.proxy("guarded").start();
    let old = proxy.worker();
    let served_by = |pid: i32| {
        proxy.curl().get(&nginx().http("/hello"));
        let now = proxy.get();
        assert_eq!((&now["pid"], &now["state"]), (&pid.into(), &"running".into()));
        assert_eq!(
            (&now["draining"], &now["last_error"]),
            (&Value::Array(vec![]), &Value::Null)
        );
        assert_eq!(records(&world, &proxy), [format!("{}.json", proxy.id())]);
    };
    relink(&link, Path::new("/bin/true"));
    proxy.ctl("upgrade", NONE).fails(1, "--version-json");
    served_by(old);
    for (behaviour, code, words) in [
        ("dies", 1, "died: exit status 3; the old one serves on"),
        ("refuses", 2, "is not to the fake worker's liking"),
        ("hangs", 1, "was not ready within 10 s; the old one serves on"),
    ] {
        fake(&world, &link, behaviour);
        proxy.ctl("upgrade", NONE).fails(code, words);
        served_by(old);
    }
    events_of(&proxy, "upgrade_failed", 4);

    // What replaces a worker that dies is what it was, not what is at the path.
    proxy.signal_worker(Signal::SIGKILL);
    let respawned = eventually("it is replaced", || {
        let now = proxy.get();
        (now["state"] == "running" && now["pid"] != old).then_some(now)
    });
    assert_eq!(respawned["worker_version"], proxy.restart()["worker_version"]);

    let before = proxy.worker();
    relink(&link, &World::program("proxyplane-worker"));
    assert_ne!(proxy.ctl("upgrade", NONE).json()["pid"], before);
}

#[test]
fn an_old_worker_that_dies_meanwhile_is_replaced_whatever_becomes_of_the_new_one() {
    let (world, link) = world_with_a_link();
    let workspace = world.workspace();
    let proxy = workspace.proxy("unlucky").start();
    let old = proxy.worker();
    fake(&world, &link, "hangs");
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| proxy.ctl("upgrade", NONE));
        is_recorded(&world, &proxy, "next");
        for verb in ["start", "stop", "restart", "delete", "upgrade"] {
            // Two upgrades are not under way at once: one waits for the other.
            if verb != "upgrade" {
                proxy.ctl(verb, NONE).fails(5, "being replaced");
            }
        }
        kill(Pid::from_raw(old), Signal::SIGKILL).unwrap();
        upgrade.join().unwrap().fails(1, "was not ready within");
    });
    let now = proxy.becomes("running");
    assert_ne!(now["pid"], old);
    assert_eq!(now["enabled"], true);
    proxy.curl().get(&nginx().http("/hello"));
}

#[test]
fn two_replaced_workers_may_drain_and_a_third_is_a_named_conflict() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("crowded").start();
    let echoing = RawOrigin::serving(echo);
    let mut tunnels = Vec::new();
    for _ in 0..2 {
        tunnels.push(tunnel(&proxy, &echoing));
        let _ = proxy.ctl("upgrade", ["--drain-timeout", "1h"]).ok();
    }
    let now = proxy.get();
    assert_eq!(now["draining"].as_array().unwrap().len(), 2, "{now}");
    assert_eq!(now["open_connections"], 2);
    proxy.ctl("upgrade", NONE).fails(5, "still finishing");
    for tunnel in &mut tunnels {
        echoes(tunnel, "still here");
    }
    tunnels.remove(0).finish();
    eventually("one has ended", || {
        (proxy.get()["draining"].as_array()?.len() == 1).then_some(())
    });
    let _ = proxy.ctl("upgrade", NONE).ok();
    // A stop ends them all.
    let stopped = proxy.ctl("stop", ["--drain-timeout", "0s"]).json();
    assert_eq!(
        (&stopped["state"], &stopped["draining"]),
        (&"stopped".into(), &Value::Array(vec![]))
    );
    assert!(tunnels[0].is_closed());
}

#[test]
fn while_the_old_worker_drains_the_new_one_is_changed_dies_and_is_stopped_like_any_other() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("lively").start();
    let echoing = RawOrigin::serving(echo);
    let mut tunnel = tunnel(&proxy, &echoing);
    let old = proxy.worker();
    let new = proxy.ctl("upgrade", ["--drain-timeout", "1h"]).json()["pid"].clone();

    assert_eq!(proxy.update(["--capture-limit", "7"])["pid"], new);
    proxy.curl().get(&nginx().http("/hello"));
    proxy.signal_worker(Signal::SIGKILL);
    let respawned = eventually("it is replaced", || {
        let now = proxy.get();
        (now["state"] == "running" && now["pid"] != new).then_some(now)
    });
    assert_eq!(respawned["draining"][0]["pid"], old);
    let restarted = proxy.restart();
    assert_ne!(restarted["pid"], respawned["pid"]);
    echoes(&mut tunnel, "still here");

    let stop = proxy.ctl("stop", ["--drain-timeout", "2s"]).ok();
    assert!(
        stop.stderr.contains("finishes 1 connection (1 tunnel)"),
        "{}",
        stop.stderr
    );
    assert_eq!(proxy.state(), "stopped");
    assert!(tunnel.is_closed());
    has_ended(old);
    let rows = proxy.exchanges(2);
    assert_eq!(
        (&rows[0]["kind"], &rows[0]["error"]),
        (&"tunnel".into(), &"drained".into())
    );
    assert_eq!(rows[1]["response_captured"], 7);
}

#[test]
fn a_deletion_waits_for_the_worker_that_was_replaced() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("short-lived").start();
    let echoing = RawOrigin::serving(echo);
    let mut tunnel = tunnel(&proxy, &echoing);
    let old = proxy.worker();
    let _ = proxy.ctl("upgrade", ["--drain-timeout", "1h"]).ok();
    let _ = proxy.ctl("delete", ["--yes", "--purge", "--drain-timeout", "1s"]).ok();
    assert!(tunnel.is_closed());
    has_ended(old);
    assert_eq!(proxy.ctl("get", NONE).code, 4);
    assert!(proxy.stored().is_empty(), "its last record was waited for, and removed");
}

#[test]
fn a_control_plane_that_is_killed_while_the_old_worker_drains_is_followed_by_one_that_knows_both() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("steady").start();
    let echoing = RawOrigin::serving(echo);
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut tunnel = tunnel(&proxy, &echoing);
    let old = proxy.worker();
    let new = proxy.ctl("upgrade", ["--drain-timeout", "1h"]).json()["pid"].clone();
    let (url, host) = (origin.http("/"), origin.address());
    let load = Load::on(&proxy.address(), &format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n"));

    world.kill();
    echoes(&mut tunnel, "still here");
    world.serve();
    let adopted = proxy.get();
    assert_eq!((&adopted["state"], &adopted["pid"]), (&"running".into(), &new));
    assert_eq!(adopted["draining"][0]["pid"], old, "{adopted}");
    let seen = load.served();
    eventually("requests are answered", || (load.served() > seen).then_some(()));
    echoes(&mut tunnel, "and here");
    tunnel.finish();
    nobody_drains(&proxy);
    has_ended(old);
    assert_eq!(records(&world, &proxy), [format!("{}.json", proxy.id())]);
    proxy.exactly_once(load.stop() + 1);
    assert_eq!(proxy.get()["pid"], new);
}

#[test]
fn a_control_plane_that_is_killed_before_the_new_worker_serves_leaves_the_old_one() {
    let (world, link) = world_with_a_link();
    let workspace = world.workspace();
    let proxy = workspace.proxy("undecided").start();
    let old = proxy.worker();
    fake(&world, &link, "hangs");
    let next = thread::scope(|scope| {
        scope.spawn(|| proxy.ctl("upgrade", NONE));
        let next = is_recorded(&world, &proxy, "next");
        world.kill();
        next
    });
    world.serve();
    let now = proxy.get();
    assert_eq!((&now["pid"], &now["state"]), (&old.into(), &"running".into()));
    // It never dials, and is not waited for.
    has_ended(next);
    nobody_drains(&proxy);
    assert_eq!(records(&world, &proxy), [format!("{}.json", proxy.id())]);
    // The build that the adopted worker has is known: that one at the path would not come to serve.
    proxy.signal_worker(Signal::SIGKILL);
    eventually("it is replaced", || {
        let now = proxy.get();
        (now["state"] == "running" && now["pid"] != old).then_some(())
    });
}

#[test]
fn a_successor_that_is_left_alone_is_the_worker() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("heir").start();
    let worker = proxy.worker();
    world.kill();
    // As it is when the old worker dies with the control plane, the new one being READY.
    let record = world.run_record(proxy.id());
    let epoch = read_record(&record)["epoch"].as_str().unwrap().to_owned();
    fs::rename(&record, record.with_extension(format!("{epoch}.next"))).unwrap();
    world.serve();
    let now = proxy.get();
    assert_eq!((&now["pid"], &now["state"]), (&worker.into(), &"running".into()));
    assert_eq!(records(&world, &proxy), [format!("{}.json", proxy.id())]);
}

#[test]
fn all_are_upgraded_one_after_the_other_up_to_the_first_that_fails() {
    let (world, link) = world_with_a_link();
    let workspace = world.workspace();
    let proxies = ["a", "b"].map(|name| workspace.proxy(name).start());
    let _idle = workspace.proxy("c").create();
    let all = |more: &[&str]| {
        let mut arguments = vec!["-o", "json", "proxy", "upgrade", "--all"];
        arguments.extend(more);
        world.proxyctl(arguments)
    };
    let outcomes = |ran: &proxyplane_tests::Ran| -> Vec<String> {
        let results: Value = serde_json::from_slice(&ran.stdout).unwrap();
        let outcome = |result: &Value| format!("{} {}", result["name"], result["outcome"]).replace('"', "");
        results.as_array().unwrap().iter().map(outcome).collect()
    };
    fake(&world, &link, "dies");
    let ran = all(&[]).exits(1);
    assert_eq!(outcomes(&ran), ["a failed", "b not_tried", "c not_tried"]);
    assert!(ran.stderr.contains("0 upgraded; failed: "), "{}", ran.stderr);
    let ran = all(&["--keep-going"]).exits(1);
    assert_eq!(outcomes(&ran), ["a failed", "b failed", "c not_tried"]);

    let before = proxies.each_ref().map(Proxy::worker);
    relink(&link, &World::program("proxyplane-worker"));
    let ran = all(&[]).ok();
    assert_eq!(outcomes(&ran), ["a upgraded", "b upgraded", "c not_running"]);
    let after = proxies.each_ref().map(Proxy::worker);
    assert!(before.iter().zip(&after).all(|(before, after)| before != after));
}

/// A world that starts workers by a link, and that link.
fn world_with_a_link() -> (World, PathBuf) {
    let mut world = World::prepared(&[]);
    let link = world.install_worker();
    world.serve();
    (world, link)
}

/// What is at the worker's path from now on only looks like one.
fn fake(world: &World, link: &Path, behaviour: &str) {
    fs::write(world.directory().join("fake-worker"), behaviour).unwrap();
    relink(link, &World::program("fake-worker"));
}

/// File names of a proxy's run records.
fn records(world: &World, proxy: &Proxy<'_>) -> Vec<String> {
    let entries = fs::read_dir(world.data_dir().join("run")).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(proxy.id())).collect()
}

fn read_record(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// Waits for a record of this kind: the process that it is of.
#[track_caller]
fn is_recorded(world: &World, proxy: &Proxy<'_>, extension: &str) -> i32 {
    eventually("the worker is recorded", || {
        let name = records(world, proxy)
            .into_iter()
            .find(|name| name.ends_with(extension))?;
        let record = read_record(&world.data_dir().join("run").join(name));
        i32::try_from(record["pid"].as_i64()?).ok()
    })
}

#[track_caller]
fn nobody_drains(proxy: &Proxy<'_>) {
    eventually("the old worker has ended", || {
        proxy.get()["draining"].as_array()?.is_empty().then_some(())
    });
}

/// A proxy's events of a kind, once that many are stored.
#[track_caller]
fn events_of(proxy: &Proxy<'_>, kind: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{kind} is an event"), || {
        let arguments = ["-o", "json", "event", "list", "--proxy", proxy.id(), "--kind", kind];
        let events = proxy.world().proxyctl(arguments).json();
        let events = events.as_array()?.clone();
        (events.len() >= count).then_some(events)
    })
}

pub(crate) fn echo(peer: &mut Peer) -> io::Result<()> {
    loop {
        match peer.read_exactly(1)? {
            byte if byte.is_empty() => return Ok(()),
            byte => peer.send(byte)?,
        }
    }
}

pub(crate) fn tunnel(proxy: &Proxy<'_>, origin: &RawOrigin) -> RawClient {
    let mut client = proxy.connect().tunnel(&origin.address());
    echoes(&mut client, "\0first");
    client
}

/// An origin that sends the rest of its one answer when it is told to.
fn gated_origin() -> (std::sync::mpsc::Sender<()>, RawOrigin) {
    let (gate, wait) = std::sync::mpsc::channel();
    let wait = std::sync::Mutex::new(wait);
    let origin = RawOrigin::serving(move |peer| {
        peer.read_head()?;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")?;
        let _ = wait.lock().unwrap().recv();
        peer.send("slow")
    });
    (gate, origin)
}
