//! Workers and control planes of the release before, beside those of this one.

use std::{collections::HashSet, fs, path::Path};

use nix::sys::signal::Signal;
use proxyplane_tests::{Load, Previous, Proxy, RawOrigin, UnsureLoad, World, eventually, nginx, relink};

use crate::{
    adoption::echoes,
    overlap::{echo, tunnel},
};

const NONE: [&str; 0] = [];

#[test]
fn an_older_worker_serves_under_this_control_plane_and_is_replaced_by_a_present_one() {
    let Some(previous) = Previous::programs() else { return };
    let mut world = World::prepared(&[]);
    let link = world.install_worker();
    relink(&link, &previous.worker());
    world.serve();
    let workspace = world.workspace();
    let proxy = workspace.proxy("old-build").start();
    assert!(runs(proxy.worker(), &previous.worker()));
    serves_and_changes(&proxy);

    // A respawn runs the build that died, whatever is at the path by then.
    relink(&link, &World::program("proxyplane-worker"));
    let died = proxy.worker();
    proxy.signal_worker(Signal::SIGKILL);
    let old = eventually("it is replaced", || {
        let now = proxy.get();
        (now["state"] == "running" && now["pid"] != died).then(|| proxy.worker())
    });
    assert!(runs(old, &previous.worker()));

    let echoing = RawOrigin::serving(echo);
    let mut tunnel = tunnel(&proxy, &echoing);
    assert!(proxy.get()["open_tunnels"].is_null(), "it does not count them");
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    // It closes idle connections at once when it drains, so a client may find one closed: it asks again then.
    let load = UnsureLoad::on(&proxy.address(), &origin.address(), 3);
    let upgraded = proxy.ctl("upgrade", ["--drain-timeout", "1h"]).json();
    let new = proxy.worker();
    assert!(runs(new, &World::program("proxyplane-worker")));
    assert_eq!(upgraded["draining"][0]["pid"], old);
    assert_eq!(upgraded["draining"][0]["open_tunnels"], serde_json::Value::Null);
    echoes(&mut tunnel, "still here");
    tunnel.finish();
    eventually("the old worker has ended", || {
        (!Path::new(&format!("/proc/{old}")).exists()).then_some(())
    });
    let answered: HashSet<String> = load.stop().into_iter().map(|answered| answered.path).collect();
    proxy.drained();
    let rows = world.sql(&format!(
        "SELECT path FROM exchanges WHERE service_id = '{}' AND state = 2 AND port = {}",
        proxy.id(),
        origin.port()
    ));
    let rows: Vec<&str> = rows.lines().collect();
    let stored: HashSet<&str> = rows.iter().copied().collect();
    assert_eq!(stored.len(), rows.len(), "none twice");
    let missing: Vec<_> = answered.iter().filter(|path| !stored.contains(path.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(proxy.get()["open_tunnels"], 0, "the present one counts them");
}

#[test]
fn a_present_worker_serves_under_an_older_control_plane_and_is_adopted_by_it_and_by_its_successor() {
    let Some(previous) = Previous::programs() else { return };
    let mut world = World::prepared(&[]);
    let program = world.install();
    world.install_worker();
    relink(&program, &previous.control_plane());
    world.serve();
    assert!(runs(world.pid(), &previous.control_plane()));
    let workspace = world.workspace();
    let proxy = workspace.proxy("new-build").start();
    let worker = proxy.worker();
    assert!(runs(worker, &World::program("proxyplane-worker")));
    let before = serves_and_changes(&proxy);

    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let (url, host) = (origin.http("/"), origin.address());
    let load = Load::on(&proxy.address(), &format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    world.kill();
    world.serve();
    assert_eq!(proxy.worker(), worker, "adopted by the older one");

    relink(&program, &World::program("proxyplane"));
    let _ = world.proxyctl(["system", "upgrade"]).ok();
    eventually("everything is ready again", || {
        (world.proxyctl(["system", "status"]).code == 0).then_some(())
    });
    assert_eq!(proxy.worker(), worker, "adopted by the present one");
    assert_ne!(proxy.ctl("upgrade", NONE).json()["pid"], worker);
    proxy.exactly_once(before + load.stop());
    assert_eq!(proxy.stop()["state"], "stopped");
}

/// Carries, records and is changed while it runs: how many exchanges that were.
#[track_caller]
fn serves_and_changes(proxy: &Proxy<'_>) -> usize {
    let worker = proxy.worker();
    assert_eq!(proxy.curl().get(&nginx().http("/hello")).text(), "hello from nginx\n");
    let row = proxy.exchange();
    assert_eq!((&row["state"], &row["status"]), (&"complete".into(), &200.into()));
    assert_eq!(row["response_captured"], "hello from nginx\n".len());
    let changed = proxy.update(["--capture-limit", "7"]);
    assert_eq!(
        (&changed["pid"], &changed["applied_revision"]),
        (&worker.into(), &2.into())
    );
    proxy.curl().get(&nginx().http("/hello"));
    assert_eq!(proxy.exchanges(2)[1]["response_captured"], 7);
    2
}

/// Is it this program that the process runs?
fn runs(process: i32, program: &Path) -> bool {
    let running = fs::canonicalize(format!("/proc/{process}/exe")).unwrap();
    running == program.canonicalize().unwrap()
}
