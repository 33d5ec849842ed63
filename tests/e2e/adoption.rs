//! Workers outlive their control plane: the next one adopts them, and nobody who is being served notices.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use proxyplane_tests::{
    Frame, Frozen, Load, Peer, Proxy, RawClient, RawOrigin, SWITCHING, World, eventually,
    kernel::{self, has_ended},
    nginx,
};
use serde_json::Value;

use crate::events::kinds_of;

const NONE: [&str; 0] = [];

#[test]
fn a_killed_control_plane_is_followed_by_one_that_adopts_its_workers_unnoticed() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("steady").start();
    let worker = proxy.worker();
    let traffic = Traffic::through(&proxy);
    let killed_at = world.sql("SELECT now()");

    world.kill();
    traffic.flows();
    world.serve();
    let adopted = proxy.get();
    assert_eq!(
        (&adopted["state"], &adopted["pid"]),
        (&"running".into(), &worker.into())
    );
    let started_at = adopted["started_at"].as_str().unwrap();
    let older = format!("SELECT '{started_at}'::timestamptz < '{killed_at}'::timestamptz");
    assert_eq!(world.sql(&older), "t", "its uptime goes on");
    traffic.flows();

    let carried = traffic.end();
    proxy.exactly_once(carried);
    assert_eq!(proxy.worker(), worker);
}

#[test]
fn an_upgrade_in_place_goes_unnoticed_and_inherits_nothing() {
    let mut world = World::prepared(&[]);
    let program = world.install();
    world.serve();
    let workspace = world.workspace();
    let proxy = workspace.proxy("steady").start();
    let (server, worker, postmaster) = (world.pid(), proxy.worker(), world.postmaster());
    let traffic = Traffic::through(&proxy);
    traffic.flows();

    let built = fs::read_link(&program).unwrap();

    relink(&program, Path::new("/bin/false"));
    let refused = world.proxyctl(["system", "upgrade"]);
    refused.fails(1, "not fit to take over: exit status: 1");
    relink(&program, Path::new("/bin/true"));
    world.proxyctl(["system", "upgrade"]).fails(1, "not fit to take over");
    assert_eq!(proxy.state(), "running", "nothing changed");
    relink(&program, &built);
    eventually("the refusals are events", || {
        let list = world.proxyctl(["-o", "json", "event", "list", "--severity", "warning"]);
        let told = list.json_if_there()?;
        let messages = told
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["message"].to_string());
        let of_refusals = |message: &String| message.contains("not upgraded") && message.contains("not fit");
        (messages.filter(of_refusals).count() == 2).then_some(())
    });

    let (before, kept) = (descriptors(server), inheritable(server));
    let upgraded = world.proxyctl(["-o", "json", "system", "upgrade"]).json();
    assert_eq!(upgraded["version"], upgraded["before"]);
    let _ = world.proxyctl(["system", "status"]).ok();
    assert_eq!(
        (world.pid(), proxy.worker(), world.postmaster()),
        (server, worker, postmaster)
    );
    // Only the listener is the same: it came through, and back from the worker.
    let lent = descriptors(worker);
    let mut inherited = descriptors(server);
    inherited.retain(|one| before.contains(one) && !lent.contains(one));
    assert_eq!(inherited, NONE, "sockets and pipes of the program before");
    traffic.flows();
    proxy.exactly_once(traffic.end());

    // Nor does it get more from one upgrade to the next, or is anything left for its children.
    for _ in 0..3 {
        let mut listeners = descriptors(server);
        listeners.retain(|one| lent.contains(one));
        assert_eq!(listeners.len(), 1, "{listeners:?}");
        assert_eq!(inheritable(server), kept);
        let _ = world.proxyctl(["system", "upgrade"]).ok();
    }

    // Workers are still its children: it is told how they end, and reaps them.
    proxy.signal_worker(Signal::SIGKILL);
    let next = eventually("it is replaced", || {
        let now = proxy.get();
        (now["state"] == "running" && now["pid"] != worker).then_some(now)
    });
    assert_eq!(next["last_exit"], "signal 9 (SIGKILL)");
    assert!(!Path::new(&format!("/proc/{worker}")).exists(), "no zombie is left");
    assert_eq!(world.stop(), 0);
}

#[test]
fn a_stop_during_an_upgrade_is_a_stop() {
    let world = World::start();
    let workspace = world.workspace();
    let worker = workspace.proxy("p").start().worker();
    let mut call = world.proxyctl_command(["system", "upgrade"]);
    let mut call = call.stderr(Stdio::null()).spawn().unwrap();
    eventually("it begins", || world.log().contains("upgrading").then_some(()));
    assert_eq!(world.stop(), 0);
    has_ended(worker);
    assert_eq!(world.postmaster(), None);
    let _ = call.kill();
    let _ = call.wait();
}

#[test]
fn an_adopted_worker_is_changed_restarted_and_stopped_like_any_other() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("any").start();
    let address = proxy.address();
    world.kill();
    world.serve();

    let worker = proxy.worker();
    let changed = proxy.update(["--capture-limit", "7"]);
    assert_eq!(
        (&changed["pid"], &changed["state"]),
        (&worker.into(), &"running".into())
    );
    proxy.curl().get(&nginx().http("/query?limited"));
    assert_eq!(proxy.exchange()["response_captured"], 7);

    let restarted = proxy.restart();
    assert_ne!(restarted["pid"], worker);
    proxy.curl().get(&nginx().http("/hello"));
    world.kill();
    world.serve();
    let worker = proxy.worker();
    assert_eq!(restarted["pid"], worker);
    assert_eq!(proxy.stop()["state"], "stopped");
    has_ended(worker);
    assert!(std::net::TcpStream::connect(&address).is_err(), "nobody listens");
    proxy.start();

    world.kill();
    world.serve();
    let worker = proxy.worker();
    assert_eq!(world.stop(), 0, "a planned stop ends adopted workers");
    has_ended(worker);
}

#[test]
fn an_adopted_worker_that_dies_is_replaced_on_its_listener() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("mortal").start();
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    world.kill();
    world.serve();
    let worker = proxy.worker();
    let frozen = Frozen::tree(worker);
    // In the queue of a listener that the new control plane was given.
    let mut waiting = proxy.connect();
    let (url, host) = (origin.http("/"), origin.address());
    waiting.send(format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    proxy.signal_worker(Signal::SIGKILL);
    drop(frozen);
    assert!(waiting.read_head().starts_with("HTTP/1.1 200"));
    let now = proxy.becomes("running");
    assert_ne!(now["pid"], worker);
    assert!(
        ["signal 9 (SIGKILL)", "unknown (adopted)"].contains(&now["last_exit"].as_str().unwrap()),
        "{now}"
    );
}

#[test]
fn a_worker_that_died_with_its_control_plane_is_replaced_and_its_open_rows_are_closed() {
    let world = World::start();
    let workspace = world.workspace();
    let (proxy, other) = (workspace.proxy("doomed").start(), workspace.proxy("lucky").start());
    let (dead, alive) = (proxy.worker(), other.worker());
    let origin = RawOrigin::serving(echo);
    let (mut lost, mut kept) = (tunnel(&proxy, &origin), tunnel(&other, &origin));
    for proxy in [&proxy, &other] {
        eventually("the tunnel is a row", || (proxy.stored().len() == 1).then_some(()));
    }

    world.kill();
    kill(Pid::from_raw(dead), Signal::SIGKILL).unwrap();
    assert!(lost.is_closed());
    world.serve();
    let now = proxy.get();
    assert_ne!(now["pid"], dead);
    let exit = now["last_exit"].as_str().unwrap();
    assert!(exit.starts_with("unknown (") || exit == "signal 9 (SIGKILL)", "{now}");
    assert_eq!(now["restarts"], 1);
    assert_eq!(
        kinds_of(&proxy, 3),
        ["worker_respawned", "worker_crashed", "worker_started"]
    );
    proxy.curl().get(&nginx().http("/hello"));
    let closed = eventually("its row is closed", || {
        proxy
            .stored()
            .into_iter()
            .find(|row| row["kind"] == "tunnel" && row.has_ended())
    });
    assert_eq!(closed["error"], "worker_lost");

    assert_eq!((other.worker(), &other.get()["restarts"]), (alive, &0.into()));
    assert!(!other.stored()[0].has_ended(), "an adopted worker's row stays open");
    echoes(&mut kept, "still here");
    kept.finish();
    assert_eq!(other.exchange()["state"], "complete");
}

#[test]
fn a_worker_that_ended_as_it_was_told_or_went_with_the_machine_did_not_crash() {
    let world = World::start();
    let workspace = world.workspace();
    let [rebooted, told] = ["rebooted", "told"].map(|name| workspace.proxy(name).start());
    let worker = rebooted.worker();
    world.kill();
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    edit(&world.run_record(rebooted.id()), |record| {
        record["boot_id"] = "before".into();
    });
    world.serve();
    assert_eq!(rebooted.get()["restarts"], 0);
    assert_eq!(kinds_of(&rebooted, 2), ["worker_started"; 2]);

    // A stop of the control plane that is cut short, while its workers are on their way out.
    assert_eq!(kinds_of(&told, 2), ["worker_adopted", "worker_started"]);
    let (release, origin) = slow_origin();
    let mut fetch = get(&told, &origin);
    let workers = [&rebooted, &told].map(Proxy::worker);
    kill(Pid::from_raw(world.pid()), Signal::SIGTERM).unwrap();
    for proxy in [&rebooted, &told] {
        eventually("the workers drain", || {
            std::net::TcpStream::connect(proxy.address()).err()
        });
    }
    world.kill();
    release.open();
    assert_eq!(fetch.read_exactly(4), b"slow");
    for worker in workers {
        has_ended(worker);
    }
    assert!(world.run_record(told.id()).exists(), "nobody saw its end");
    world.serve();
    assert_eq!(told.get()["restarts"], 0);
    let kinds = kinds_of(&told, 3);
    assert!(kinds.iter().all(|kind| kind != "worker_crashed"), "{kinds:?}");
}

#[test]
fn workers_of_proxies_that_are_not_to_run_any_more_are_drained() {
    let world = World::start();
    let workspace = world.workspace();
    let [disabled, deleted] = ["disabled", "deleted"].map(|name| workspace.proxy(name).start());
    let workers = [&disabled, &deleted].map(Proxy::worker);
    let (release, origin) = slow_origin();
    let fetches = [&disabled, &deleted].map(|proxy| get(proxy, &origin));

    world.kill();
    // As if somebody had used another control plane on the same database.
    world.sql(&format!(
        "UPDATE services SET enabled = false WHERE id = '{}'",
        disabled.id()
    ));
    world.sql(&format!("DELETE FROM services WHERE id = '{}'", deleted.id()));
    world.spawn();
    for proxy in [&disabled, &deleted] {
        eventually("nobody new is let in", || {
            std::net::TcpStream::connect(proxy.address()).err()
        });
    }
    release.open();
    for mut fetch in fetches {
        assert_eq!(fetch.read_exactly(4), b"slow", "what is open is finished");
    }
    for worker in workers {
        has_ended(worker);
    }
    eventually("the server is ready", || {
        (world.proxyctl(["system", "status"]).code == 0).then_some(())
    });
    assert_eq!(disabled.state(), "stopped");
    assert_eq!(disabled.exchange()["state"], "complete", "and recorded");
    let rows = world.sql(&format!(
        "SELECT state FROM exchanges WHERE service_id = '{}'",
        deleted.id()
    ));
    assert_eq!(rows.lines().count(), 1, "traffic outlives its proxy: {rows}");
}

#[test]
fn a_worker_that_is_draining_when_its_control_plane_is_killed_goes_on_draining() {
    let world = World::start();
    let workspace = world.workspace();
    let [stopping, restarting] = ["stopping", "restarting"].map(|name| workspace.proxy(name).start());
    let workers = [&stopping, &restarting].map(Proxy::worker);
    let (release, origin) = slow_origin();
    let fetches = [&stopping, &restarting].map(|proxy| get(proxy, &origin));
    let mut calls = [("stop", &stopping), ("restart", &restarting)].map(|(verb, proxy)| {
        let mut command = world.proxyctl_command(["proxy", verb, proxy.id()]);
        command.stderr(Stdio::null()).spawn().unwrap()
    });
    for proxy in [&stopping, &restarting] {
        proxy.becomes("draining");
    }
    world.kill();
    for call in &mut calls {
        assert!(!call.wait().unwrap().success(), "the call is cut");
    }
    world.spawn();
    for proxy in [&stopping, &restarting] {
        eventually("it is adopted as draining", || {
            let now = proxy.ctl("get", NONE);
            (now.code == 0 && now.json()["state"] == "draining").then_some(())
        });
    }
    release.open();
    for mut fetch in fetches {
        assert_eq!(fetch.read_exactly(4), b"slow");
    }
    stopping.becomes("stopped");
    let restarted = restarting.becomes("running");
    assert_ne!(restarted["pid"], workers[1]);
    for proxy in [&stopping, &restarting] {
        assert_eq!(proxy.exchange()["state"], "complete");
    }
}

#[test]
fn a_control_plane_that_is_killed_in_the_middle_of_a_start_leaves_nothing_undecided() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("newborn").create();
    let record = world.run_record(proxy.id());
    thread::scope(|scope| {
        scope.spawn(|| proxy.ctl("start", NONE));
        eventually("the worker is recorded", || record.exists().then_some(()));
        world.kill();
    });
    world.serve();
    let now = eventually("it is settled", || {
        let now = proxy.get();
        ["running", "stopped"]
            .contains(&now["state"].as_str().unwrap())
            .then_some(now)
    });
    assert_eq!(now["enabled"], now["state"] == "running", "{now}");
    assert_eq!(record.exists(), now["state"] == "running");
    assert_eq!(proxy.start()["state"], "running");
}

#[test]
fn control_planes_that_are_killed_while_they_adopt_change_nothing() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("steady").start();
    let worker = proxy.worker();
    let traffic = Traffic::through(&proxy);
    for _ in 0..3 {
        let told = world.log().matches("a former worker still runs").count();
        world.kill();
        world.spawn();
        eventually("it has found the worker", || {
            (world.log().matches("a former worker still runs").count() > told).then_some(())
        });
    }
    world.kill();
    world.serve();
    traffic.flows();
    proxy.exactly_once(traffic.end());
    assert_eq!(proxy.worker(), worker);
}

#[test]
fn a_worker_that_does_not_come_back_is_killed_and_replaced() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("stuck").start();
    let worker = proxy.worker();
    world.kill();
    let frozen = Frozen::tree(worker);
    world.spawn();
    eventually("the API answers meanwhile", || {
        (world.proxyctl(["proxy", "list"]).code == 0).then_some(())
    });
    let replaced = eventually("it is replaced", || {
        let now = proxy.ctl("get", NONE);
        let now = (now.code == 0).then(|| now.json())?;
        (now["state"] == "running").then_some(now)
    });
    assert_ne!(replaced["pid"], worker);
    drop(frozen);
    assert!(world.log().contains("did not come back"), "{}", world.log());
    proxy.curl().get(&nginx().http("/hello"));
}

#[test]
fn a_process_that_is_no_worker_of_ours_is_neither_adopted_nor_killed() {
    let world = World::start();
    let workspace = world.workspace();
    let proxies = ["reused", "foreign"].map(|name| workspace.proxy(name).start());
    let workers = proxies.each_ref().map(Proxy::worker);
    let mut strangers = [0, 1].map(|_| Command::new("sleep").arg("600").spawn().unwrap());
    world.kill();
    for worker in workers {
        kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    }
    // The pid is another process's by now; and a record that fits that process, but for what it is.
    edit(&world.run_record(proxies[0].id()), |record| {
        record["pid"] = strangers[0].id().into();
    });
    edit(&world.run_record(proxies[1].id()), |record| {
        record["pid"] = strangers[1].id().into();
        record["start_time"] = start_time(strangers[1].id()).into();
    });
    world.serve();
    for proxy in &proxies {
        proxy.curl().get(&nginx().http("/hello"));
    }
    for stranger in &mut strangers {
        assert!(stranger.try_wait().unwrap().is_none(), "it lives");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}

#[test]
fn a_worker_that_cannot_prove_itself_is_left_alone_and_named() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("impostor").start();
    let worker = proxy.worker();
    world.kill();
    edit(&world.run_record(proxy.id()), |record| {
        record["nonce_sha256"] = "ab".repeat(32).into();
    });
    world.spawn();
    let waiting = eventually("its port is waited for", || {
        let now = proxy.ctl("get", NONE);
        let now = (now.code == 0).then(|| now.json())?;
        now["last_error"].as_str()?.contains(&worker.to_string()).then_some(now)
    });
    assert_ne!(waiting["state"], "running", "{waiting}");
    assert!(world.log().contains("cannot prove itself"), "{}", world.log());
    proxy.curl().get(&nginx().http("/hello"));
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    assert_ne!(proxy.becomes("running")["pid"], worker);
}

#[test]
fn the_systemd_unit_keeps_workers_alive() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/proxyplane.service");
    let unit = fs::read_to_string(unit).unwrap();
    let setting = |name: &str| {
        let prefix = format!("{name}=");
        unit.lines()
            .find_map(|line| line.strip_prefix(prefix.as_str()))
            .unwrap_or_default()
    };
    assert_eq!(setting("KillMode"), "process", "a stop signals the control plane alone");
    assert_eq!(setting("Restart"), "on-failure");
    assert_eq!(
        setting("PrivateTmp"),
        "",
        "workers and the next control plane must see the same sockets"
    );
    let patience: u64 = setting("TimeoutStopSec").parse().unwrap();
    assert!(patience > 30, "longer than the default drain: {patience}");

    let world = World::prepared(&[]);
    let start: Vec<&str> = setting("ExecStart").split_whitespace().collect();
    assert!(start[0].ends_with("/proxyplane"));
    let checked = world
        .run("proxyplane", start[1..].iter().copied().chain(["--print-config"]))
        .ok()
        .text();
    assert!(checked.contains("data_dir"), "{checked}");
    let reload: Vec<&str> = setting("ExecReload").split_whitespace().collect();
    assert!(reload[0].ends_with("/proxyctl"));
    let _ = world
        .run("proxyctl", reload[1..].iter().copied().chain(["--help"]))
        .ok();
}

/// All that may be under way: requests on three connections, a WebSocket, a tunnel and a download.
pub(crate) struct Traffic {
    _origins: [RawOrigin; 2],
    loads: Vec<Load>,
    websocket: Mutex<RawClient>,
    tunnel: Mutex<RawClient>,
    download: Mutex<RawClient>,
}

const LOADS: usize = 3;
/// A piece of the download.
const PIECE: &str = "more";

impl Traffic {
    pub(crate) fn through(proxy: &Proxy<'_>) -> Self {
        let origin = RawOrigin::serving(serve);
        let (address, echoing) = (origin.address(), RawOrigin::serving(echo));
        let request = |path: &str| format!("GET {} HTTP/1.1\r\nHost: {address}\r\n\r\n", origin.http(path));
        let mut websocket = proxy.connect();
        let answer = websocket.handshake(&origin.http("/chat"), &address, "");
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        let mut download = proxy.connect();
        download.send(request("/download"));
        assert!(download.read_head().starts_with("HTTP/1.1 200"));
        let loads = (0..LOADS).map(|_| Load::on(&proxy.address(), &request("/load")));
        let traffic = Self {
            loads: loads.collect(),
            websocket: Mutex::new(websocket),
            tunnel: Mutex::new(tunnel(proxy, &echoing)),
            download: Mutex::new(download),
            _origins: [origin, echoing],
        };
        traffic.flows();
        traffic
    }

    /// Each of them goes on.
    #[track_caller]
    pub(crate) fn flows(&self) {
        let mut websocket = self.websocket.lock().unwrap();
        websocket.send_frame(&Frame::text("on"));
        assert_eq!(websocket.read_frame(), Frame::text("on"));
        echoes(&mut self.tunnel.lock().unwrap(), "on");
        let piece = self.download.lock().unwrap().read_exactly(PIECE.len());
        assert_eq!(piece, PIECE.as_bytes());
        for load in &self.loads {
            let seen = load.served();
            eventually("requests are answered", || (load.served() > seen).then_some(()));
        }
    }

    /// Ends it in order: how many exchanges that were.
    #[track_caller]
    pub(crate) fn end(self) -> usize {
        let served: usize = self.loads.into_iter().map(Load::stop).sum();
        let mut websocket = self.websocket.into_inner().unwrap();
        websocket.send_frame(&Frame::close(1000, ""));
        assert_eq!(websocket.read_frame(), Frame::close(1000, ""));
        websocket.finish();
        self.tunnel.into_inner().unwrap().finish();
        self.download.into_inner().unwrap().vanish();
        served + 3
    }
}

fn serve(peer: &mut Peer) -> io::Result<()> {
    loop {
        let head = peer.read_head()?;
        let head = String::from_utf8_lossy(&head).into_owned();
        match head.split(' ').nth(1) {
            Some("/chat") => {
                peer.send(format!("{SWITCHING}\r\n"))?;
                while let Ok(frame) = peer.read_frame() {
                    peer.send_frame(&frame)?;
                }
                return Ok(());
            }
            Some("/download") => {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")?;
                // As much as is read.
                loop {
                    peer.send(PIECE)?;
                }
            }
            Some(_) => peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?,
            None => return Ok(()),
        }
    }
}

fn echo(peer: &mut Peer) -> io::Result<()> {
    loop {
        match peer.read_exactly(1)? {
            byte if byte.is_empty() => return Ok(()),
            byte => peer.send(byte)?,
        }
    }
}

fn tunnel(proxy: &Proxy<'_>, origin: &RawOrigin) -> RawClient {
    let mut client = proxy.connect().tunnel(&origin.address());
    echoes(&mut client, "\0first");
    client
}

#[track_caller]
pub(crate) fn echoes(client: &mut RawClient, text: &str) {
    client.send(text);
    assert_eq!(client.read_exactly(text.len()), text.as_bytes());
}

/// Holds the second half of each answer back until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(open, |open| !*open).unwrap());
    }
}

fn slow_origin() -> (Gate, RawOrigin) {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = RawOrigin::serving(move |peer| {
        peer.read_head()?;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")?;
        held.wait();
        peer.send("slow")
    });
    (gate, origin)
}

/// A request whose answer has begun.
fn get(proxy: &Proxy<'_>, origin: &RawOrigin) -> RawClient {
    let mut client = proxy.connect();
    client.send(format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
        origin.http("/slow"),
        origin.address()
    ));
    assert!(client.read_head().starts_with("HTTP/1.1 200"));
    client
}

fn relink(link: &Path, program: &Path) {
    let fresh = link.with_extension("new");
    symlink(program, &fresh).unwrap();
    fs::rename(fresh, link).unwrap();
}

/// What a process's children get, by number.
fn inheritable(process: i32) -> Vec<u64> {
    const CLOSE_ON_EXEC: u32 = 0o2_000_000;
    let mut numbers = kernel::descriptors(process);
    numbers.retain(|number| {
        // It may just have been closed.
        let info = fs::read_to_string(format!("/proc/{process}/fdinfo/{number}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        flags.is_some_and(|flags| u32::from_str_radix(flags.trim(), 8).unwrap() & CLOSE_ON_EXEC == 0)
    });
    numbers.sort_unstable();
    numbers
}

/// Sockets and pipes of a process, but for those that it has of ours: standard streams, and what we were left with.
fn descriptors(process: i32) -> Vec<String> {
    let open = |directory: String| {
        let entries = fs::read_dir(directory).unwrap().flatten();
        let targets =
            entries.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()));
        targets.collect::<Vec<_>>()
    };
    let ours = open("/proc/self/fd".to_owned());
    let mut theirs = open(format!("/proc/{process}/fd"));
    theirs.retain(|target| (target.starts_with("socket:") || target.starts_with("pipe:")) && !ours.contains(target));
    theirs
}

fn edit(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut record: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    change(&mut record);
    fs::write(file, record.to_string()).unwrap();
}

/// Field 22 of proc_pid_stat(5).
fn start_time(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let behind_name = stat.rsplit_once(')').unwrap().1;
    behind_name.split_whitespace().nth(19).unwrap().parse().unwrap()
}
