//! Workers: started, stopped, killed.

use std::{collections::HashSet, net::TcpStream, thread};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use proxyplane_proto::v1::{RestartProxyServiceRequest, StartProxyServiceRequest, StopProxyServiceRequest};
use proxyplane_tests::{Api, Curl, Frozen, Load, RawOrigin, UnsureLoad, World, eventually, nginx, reason};
use serde_json::Value;

const NONE: [&str; 0] = [];

#[test]
fn a_proxy_serves_from_start_to_stop() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("on-off").create();
    assert!(
        TcpStream::connect(proxy.address()).is_err(),
        "nobody listens before the start"
    );

    let started = proxy.start();
    assert_eq!(
        (&started["state"], &started["enabled"]),
        (&"running".into(), &true.into())
    );
    assert!(started["pid"].as_i64().unwrap() > 0);
    assert_eq!(proxy.curl().get(&nginx().http("/hello")).text(), "hello from nginx\n");

    let stopped = proxy.stop();
    assert_eq!(
        (&stopped["state"], &stopped["enabled"]),
        (&"stopped".into(), &false.into())
    );
    assert!(stopped["pid"].is_null());
    assert!(
        TcpStream::connect(proxy.address()).is_err(),
        "nobody listens after the stop"
    );
}

#[test]
fn starting_what_runs_and_stopping_what_is_stopped_changes_nothing() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("calm").create();
    assert_eq!(proxy.stop()["state"], "stopped");
    let worker = proxy.start()["pid"].clone();
    assert_eq!(proxy.start()["pid"], worker);
    proxy.stop();
    assert_eq!(proxy.stop()["state"], "stopped");
}

#[test]
fn a_restart_ends_running_and_enabled_whatever_came_before() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("again").create();
    let first = proxy.restart();
    assert_eq!((&first["state"], &first["enabled"]), (&"running".into(), &true.into()));
    let second = proxy.restart();
    assert_eq!(second["state"], "running");
    assert_ne!(second["pid"], first["pid"]);
}

#[test]
fn a_killed_worker_is_replaced_on_the_same_listener_and_the_other_serves_on() {
    let workspace = World::shared().workspace();
    let (victim, other) = (workspace.proxy("victim").start(), workspace.proxy("other").start());
    let (worker, untouched) = (victim.worker(), other.worker());

    victim.signal_worker(Signal::SIGKILL);
    let served = other.curl().get(&nginx().http("/hello"));
    assert_eq!(served.text(), "hello from nginx\n");
    // The listener outlives the worker: what connects meanwhile waits for the next one.
    assert_eq!(victim.curl().get(&nginx().http("/hello")).text(), "hello from nginx\n");

    let replaced = victim.becomes("running");
    assert_ne!(replaced["pid"], worker);
    assert_eq!(replaced["enabled"], true);
    assert!(
        replaced["last_exit"].as_str().unwrap().contains("SIGKILL"),
        "{replaced}"
    );
    assert_eq!(replaced["restarts"], 1);
    assert_eq!(other.worker(), untouched);
    assert_eq!(other.get()["restarts"], 0);
}

#[test]
fn a_worker_killed_under_load_is_replaced_and_nobody_else_notices() {
    const QUEUED: usize = 50;
    let workspace = World::shared().workspace();
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let (victim, other) = (workspace.proxy("victim").start(), workspace.proxy("other").start());
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
        origin.http("/"),
        origin.address()
    );
    let load = Load::on(&other.address(), &request);
    // A worker that is stopped accepts nothing: what connects now waits in the listener's queue.
    let worker = victim.worker();
    let frozen = Frozen::tree(worker);
    let mut queued: Vec<_> = (0..QUEUED).map(|_| victim.connect()).collect();
    for client in &mut queued {
        client.send(&request);
    }
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    drop(frozen);
    for client in &mut queued {
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(client.read_exactly(2), b"ok");
    }
    let served = load.stop();
    assert_eq!(
        other.exchanges(served).len(),
        served,
        "every exchange of the other is stored"
    );
    assert_eq!(victim.exchanges(QUEUED).len(), QUEUED);
    let now = victim.get();
    assert_eq!(
        (&now["state"], &now["enabled"], &now["restarts"]),
        (&"running".into(), &true.into(), &1.into())
    );
    let log = workspace.world().proxyctl(["proxy", "logs", victim.id()]).ok().text();
    assert!(log.contains("signal 9 (SIGKILL)"), "the exit status can be read: {log}");
    assert!(log.contains("serving"), "and what the worker said last: {log}");
}

#[test]
fn a_killed_worker_is_back_by_itself() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("phoenix").start();
    // A worker that had been ready for five seconds is replaced at once.
    eventually("it has run for five seconds", || {
        (proxy.get()["uptime_seconds"].as_u64()? > 5).then_some(())
    });
    let worker = i64::from(proxy.worker());
    proxy.signal_worker(Signal::SIGKILL);
    eventually("the worker is back", || {
        let now = proxy.get();
        (now["state"] == "running" && now["pid"].as_i64()? != worker).then_some(())
    });
}

#[test]
fn a_worker_that_dies_again_and_again_is_given_up_and_answers_503() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("doomed").start();
    let failed = eventually("it is given up", || {
        let now = proxy.get();
        if let Some(worker) = now["pid"].as_i64() {
            // What its own abort does to it, not a SIGKILL, which is somebody else's doing. It may just have died.
            let _ = kill(Pid::from_raw(worker as i32), Signal::SIGABRT);
        }
        (now["state"] == "failed").then_some(now)
    });
    assert_eq!(failed["enabled"], true);
    assert!(failed["last_error"].is_string());
    assert_eq!(proxy.curl().get(&nginx().http("/hello")).status, 503);
    assert_eq!(proxy.restart()["state"], "running", "a person may try again");
}

#[test]
fn a_worker_that_exits_by_itself_as_soon_as_it_serves_is_given_up() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("quitter").start();
    let failed = eventually("it is given up", || {
        let now = proxy.get();
        if let (Some(worker), "running") = (now["pid"].as_i64(), now["state"].as_str()?) {
            // It drains, has nothing to finish, and exits with status 0: nobody told the control plane.
            let _ = kill(Pid::from_raw(worker as i32), Signal::SIGTERM);
        }
        (now["state"] == "failed").then_some(now)
    });
    assert_eq!(failed["last_exit"], "exit status 0", "{failed}");
    assert_eq!(proxy.curl().get(&nginx().http("/hello")).status, 503);
}

#[test]
fn kills_of_a_worker_that_serves_are_no_crash_loop_however_fast_they_come() {
    const KILLS: u64 = 12;
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("target").start();
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let load = UnsureLoad::on(&proxy.address(), &origin.address(), 4);
    let mut killed = Value::Null;
    for kills in 1..=KILLS {
        let now = eventually("another worker serves", || {
            let now = proxy.get();
            (now["state"] == "running" && now["pid"] != killed).then_some(now)
        });
        killed = now["pid"].clone();
        kill(Pid::from_raw(killed.as_i64().unwrap() as i32), Signal::SIGKILL).unwrap();
        let now = eventually("the death is noticed", || {
            let now = proxy.get();
            (now["pid"] != killed).then_some(now)
        });
        assert_ne!(now["state"], "failed", "after {kills} kills: {now}");
    }
    let now = proxy.becomes("running");
    assert_eq!(now["restarts"], KILLS, "{now}");
    assert_eq!(proxy.curl().get(&nginx().http("/hello")).text(), "hello from nginx\n");
    assert!(!load.stop().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_starts_and_stops_at_once_end_in_success_or_a_named_conflict() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("contested").create();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Api::of(workspace.world()).await);
    }
    let calls: Vec<_> = (0..100)
        .map(|round| {
            let (mut proxies, id) = (clients[round % 4].proxies(), proxy.id().to_owned());
            tokio::spawn(async move {
                let drain_timeout = Some(prost_types::Duration { seconds: 1, nanos: 0 });
                match round % 3 {
                    0 => {
                        let answer = proxies.start_proxy_service(StartProxyServiceRequest { id }).await;
                        answer.map(drop)
                    }
                    1 => {
                        let stop = StopProxyServiceRequest { id, drain_timeout };
                        proxies.stop_proxy_service(stop).await.map(drop)
                    }
                    _ => {
                        let restart = RestartProxyServiceRequest { id, drain_timeout };
                        proxies.restart_proxy_service(restart).await.map(drop)
                    }
                }
            })
        })
        .collect();
    let mut most = 0;
    while !calls.iter().all(tokio::task::JoinHandle::is_finished) {
        most = most.max(workers_of(proxy.id()).len());
        tokio::task::yield_now().await;
    }
    assert!(most <= 1, "{most} workers at once");
    let (mut succeeded, mut conflicts) = (0, HashSet::new());
    for call in calls {
        match call.await.unwrap() {
            Ok(()) => succeeded += 1,
            Err(status) => {
                conflicts.insert(reason(&status));
            }
        }
    }
    assert!(succeeded > 0);
    assert!(
        conflicts
            .iter()
            .all(|conflict| ["ALREADY_STARTING", "ALREADY_STOPPING"].contains(&conflict.as_str())),
        "{conflicts:?}"
    );
    assert_eq!(proxy.restart()["state"], "running");
    let worker = proxy.worker();
    assert_eq!(workers_of(proxy.id()), [worker], "never two workers");
}

#[test]
fn the_log_of_a_proxy_has_a_line_per_exchange_while_it_is_verbose() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("talkative").start();
    proxy.curl().get(&nginx().http("/hello?loud"));
    let mut follow = workspace.world().follow(["proxy", "logs", "-f", proxy.id()]);
    while !follow.line().contains("/hello?loud") {}
    proxy.update(["--no-verbose"]);
    proxy.curl().get(&nginx().http("/hello?quiet"));
    proxy.update(["--verbose"]);
    proxy.curl().get(&nginx().http("/hello?loud-again"));
    loop {
        let line = follow.line();
        assert!(!line.contains("quiet"), "{line}");
        if line.contains("/hello?loud-again") {
            break;
        }
    }
}

#[test]
fn every_change_of_state_is_watched() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("watched").create();
    let mut watch = workspace.world().follow(["-o", "jsonl", "proxy", "watch", proxy.id()]);
    assert_eq!(watch.json()["state"], "stopped");
    proxy.start();
    watch.json_until(|now| now["state"] == "running");
    proxy.stop();
    watch.json_until(|now| now["state"] == "stopped");
    let _ = proxy.ctl("delete", NONE).ok();
    assert_eq!(watch.json_until(|now| now["deleted"] == true)["id"], proxy.id());
}

#[test]
fn a_stop_lets_an_open_exchange_finish() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("patient").start();
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = RawOrigin::serving(move |peer| {
        peer.read_head()?;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsl")?;
        let _ = wait.lock().unwrap().recv();
        peer.send("ow")
    });
    thread::scope(|scope| {
        let fetch = scope.spawn(|| proxy.curl().get(&origin.http("/slow")));
        origin.gets(b"GET /slow");
        let stop = scope.spawn(|| proxy.stop());
        eventually("it stops accepting", || {
            matches!(proxy.state().as_str(), "draining" | "stopping").then_some(())
        });
        release.send(()).unwrap();
        assert_eq!(fetch.join().unwrap().text(), "slow");
        assert_eq!(stop.join().unwrap()["state"], "stopped");
    });
    assert_eq!(proxy.exchange()["state"], "complete");
    assert!(
        Curl::direct()
            .through(&proxy.address())
            .fetch(&origin.http("/late"))
            .code
            != 0
    );
}

/// Processes whose standard error is the service's log: its workers.
fn workers_of(service: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("proc is mounted").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let log = std::fs::read_link(entry.path().join("fd/2")).unwrap_or_default();
        if log.to_string_lossy().contains(service) {
            found.push(pid);
        }
    }
    found
}
