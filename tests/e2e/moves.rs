//! A running proxy is told to listen elsewhere: the same worker goes there, and nobody who is being served notices.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use nix::sys::signal::Signal;
use proxyplane_tests::{Curl, Dice, Frozen, LONG_ENOUGH, Proxy, RawOrigin, World, eventually, free_port, nginx};
use serde_json::json;

use crate::adoption::Traffic;

const NONE: [&str; 0] = [];

#[test]
fn a_running_proxy_moves_under_load_without_a_failed_request() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("nomad").start();
    let worker = proxy.worker();
    let traffic = Traffic::through(&proxy);
    let visitors = Visitors::of(&proxy);
    let mut from = proxy.port();
    for _ in 0..10 {
        let to = free_port();
        let moved = proxy.update(["--port", &to.to_string()]);
        visitors.go_to(to);
        assert_eq!(
            (&moved["port"], &moved["listening"], &moved["pid"]),
            (&to.into(), &json!([format!("127.0.0.1:{to}")]), &worker.into())
        );
        assert_eq!(moved["applied_revision"], moved["revision"]);
        drop(TcpListener::bind(("127.0.0.1", from)).expect("the old port is free when the command returns"));
        traffic.flows();
        visitors.come();
        from = to;
    }
    proxy.exactly_once(traffic.end() + visitors.end());
    assert_eq!(proxy.worker(), worker);
}

#[test]
fn a_port_that_is_taken_is_a_conflict_and_changes_nothing() {
    let workspace = World::shared().workspace();
    let (proxy, other) = (workspace.proxy("mover").start(), workspace.proxy("settled").start());
    let before = proxy.get();
    let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
    let foreign_port = foreign.local_addr().unwrap().port().to_string();
    proxy
        .ctl("update", ["--port", &foreign_port, "--no-verbose"])
        .fails(5, &std::process::id().to_string());
    proxy
        .ctl("update", ["--port", &other.port().to_string()])
        .fails(5, "proxy 'settled'");
    let now = proxy.get();
    for field in ["port", "listening", "revision", "applied_revision", "verbose", "pid"] {
        assert_eq!(now[field], before[field], "{field}");
    }
    proxy.curl().get(&nginx().http("/hello"));
}

#[test]
fn a_change_that_the_worker_refuses_leaves_the_new_port_free() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("guarded").start();
    let not_a_ca = workspace.world().directory().join(format!("no-ca-{}.pem", proxy.id()));
    std::fs::write(
        &not_a_ca,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let port = free_port();
    proxy
        .ctl(
            "update",
            ["--port", &port.to_string(), "--extra-ca", not_a_ca.to_str().unwrap()],
        )
        .fails(2, "--extra-ca");
    assert_eq!(proxy.get()["port"], proxy.port());
    drop(TcpListener::bind(("127.0.0.1", port)).expect("nobody listens there"));
    proxy.curl().get(&nginx().http("/hello"));
}

#[test]
fn a_port_that_others_may_bind_is_a_warning_that_names_the_proxy() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("wider").start();
    // The kernel is made to forget with a socket on the same port; here is no room for it.
    let _ipv6 = TcpListener::bind(("::1", proxy.port()));
    proxy.update(["--host", "0.0.0.0"]);
    let told = eventually("the warning is an event", || {
        let list = [
            "-o",
            "json",
            "event",
            "list",
            "--severity",
            "warning",
            "--proxy",
            proxy.id(),
        ];
        workspace.proxyctl(list).json().as_array().unwrap().first().cloned()
    });
    assert!(told["message"].as_str().unwrap().contains("SO_REUSEPORT"), "{told}");
    assert_eq!(told["subject"], format!("{}/wider", workspace.code()));
}

#[test]
fn two_proxies_swap_their_ports() {
    let workspace = World::shared().workspace();
    let [one, two] = ["one", "two"].map(|name| workspace.proxy(name).start());
    let workers = [&one, &two].map(Proxy::worker);
    let visitors = Visitors::of(&one);
    let aside = free_port();
    one.update(["--port", &aside.to_string()]);
    visitors.go_to(aside);
    two.update(["--port", &one.port().to_string()]);
    one.update(["--port", &two.port().to_string()]);
    visitors.go_to(two.port());
    visitors.come();
    // Some may have come to the old address when it was the other's already.
    let carried = visitors.end();
    eventually("everything is stored", || {
        let stored = [&one, &two].map(|proxy| proxy.get()["stored"].as_u64().unwrap());
        (stored.iter().sum::<u64>() == carried as u64).then_some(())
    });
    let before = two.get()["stored"].as_u64().unwrap();
    Curl::direct().through(&one.address()).get(&nginx().http("/hello"));
    eventually("it has the other's port", || {
        (two.get()["stored"] == before + 1).then_some(())
    });
    assert_eq!([&one, &two].map(Proxy::worker), workers);
}

#[test]
fn an_address_that_both_hosts_have_is_never_closed() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("wider").start();
    let worker = proxy.worker();
    let visitors = Visitors::of(&proxy);
    for host in ["localhost", "127.0.0.1", "localhost"] {
        let now = proxy.update(["--host", host]);
        assert_eq!((&now["host"], &now["pid"]), (&host.into(), &worker.into()));
        let both = host == "localhost" && TcpListener::bind("[::1]:0").is_ok();
        assert_eq!(now["listening"].as_array().unwrap().len(), if both { 2 } else { 1 });
        assert_eq!(TcpStream::connect(("::1", proxy.port())).is_ok(), both);
        visitors.come();
    }
    assert_eq!(visitors.refused(), 0);
    proxy.exactly_once(visitors.end());
}

#[test]
fn a_wider_host_and_back_is_no_moment_without_a_listener() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("opened").start();
    let worker = proxy.worker();
    let visitors = Visitors::of(&proxy);
    for host in ["0.0.0.0", "127.0.0.1", "0.0.0.0"] {
        let now = proxy.update(["--host", host]);
        assert_eq!((&now["host"], &now["pid"]), (&host.into(), &worker.into()));
        assert_eq!(now["listening"], json!([format!("{host}:{}", proxy.port())]));
        let from_outside = TcpStream::connect(("127.0.0.2", proxy.port()));
        assert_eq!(from_outside.is_ok(), host == "0.0.0.0");
        visitors.come();
    }
    assert_eq!(visitors.refused(), 0);
    let carried = visitors.end();
    eventually("everything is stored", || {
        (proxy.get()["stored"] == carried).then_some(())
    });
    assert_eq!(proxy.worker(), worker);
}

#[test]
fn a_proxy_that_answers_503_moves_too() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("doomed").start();
    eventually("it is given up", || {
        let now = proxy.get();
        if let Some(worker) = now["pid"].as_i64() {
            // It may just have died by itself: then there is nothing to kill.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker as i32), Signal::SIGKILL);
        }
        (now["state"] == "failed").then_some(())
    });
    let port = free_port();
    let moved = proxy.update(["--port", &port.to_string()]);
    assert_eq!((&moved["state"], &moved["port"]), (&"failed".into(), &port.into()));
    let there = Curl::direct().through(&format!("127.0.0.1:{port}"));
    assert_eq!(there.get(&nginx().http("/hello")).status, 503);
    drop(TcpListener::bind(proxy.address()).expect("the old port is free"));
    proxy.start();
    assert_eq!(there.get(&nginx().http("/hello")).status, 200);
}

#[test]
fn an_adopted_worker_moves() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("adopted").start();
    let worker = proxy.worker();
    let traffic = Traffic::through(&proxy);
    world.kill();
    world.serve();
    let visitors = Visitors::of(&proxy);
    let port = free_port();
    proxy.update(["--port", &port.to_string()]);
    visitors.go_to(port);
    visitors.come();
    // It has given back what it listens on now.
    world.kill();
    world.serve();
    visitors.come();
    traffic.flows();
    proxy.exactly_once(traffic.end() + visitors.end());
    assert_eq!(proxy.worker(), worker);
}

#[test]
fn a_worker_whose_proxy_was_moved_while_no_control_plane_was_there_follows() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("followed").start();
    let worker = proxy.worker();
    let traffic = Traffic::through(&proxy);
    let port = free_port();
    world.kill();
    // As if somebody had used another control plane on the same database.
    world.sql(&format!(
        "UPDATE listeners SET port = {port} WHERE service_id = '{}'",
        proxy.id()
    ));
    world.serve();
    assert_eq!(proxy.get()["listening"], json!([format!("127.0.0.1:{port}")]));
    assert!(TcpStream::connect(proxy.address()).is_err(), "nobody listens there");
    traffic.flows();
    proxy.exactly_once(traffic.end());
    assert_eq!(proxy.worker(), worker);
}

#[test]
fn a_worker_that_cannot_follow_is_drained_and_its_port_is_waited_for() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("shut out").start();
    let worker = proxy.worker();
    let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = foreign.local_addr().unwrap().port();
    world.kill();
    world.sql(&format!(
        "UPDATE listeners SET port = {port} WHERE service_id = '{}'",
        proxy.id()
    ));
    world.spawn();
    let waiting = eventually("its port is waited for", || {
        let now = proxy.ctl("get", NONE);
        let now = (now.code == 0).then(|| now.json())?;
        now["last_error"]
            .as_str()?
            .contains(&std::process::id().to_string())
            .then_some(now)
    });
    assert_ne!(waiting["state"], "running", "{waiting}");
    assert!(TcpStream::connect(proxy.address()).is_err(), "nobody listens there");
    drop(foreign);
    assert_ne!(proxy.becomes("running")["pid"], worker);
    Curl::direct()
        .through(&format!("127.0.0.1:{port}"))
        .get(&nginx().http("/hello"));
}

#[test]
fn a_worker_that_dies_before_a_move_is_stored_changes_nothing() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("mortal").start();
    let port = free_port();
    let frozen = Frozen::tree(proxy.worker());
    let update = started(&proxy, port);
    // Made in a transaction that is open until the worker has built it.
    eventually("the change waits for the worker", || {
        let changing =
            "SELECT count(*) FROM pg_locks WHERE relation = 'listeners'::regclass AND mode = 'RowExclusiveLock'";
        (world.sql(changing) != "0").then_some(())
    });
    proxy.signal_worker(Signal::SIGKILL);
    drop(frozen);
    refused(update, "not connected");
    assert_eq!(proxy.becomes("running")["port"], proxy.port());
    drop(TcpListener::bind(("127.0.0.1", port)).expect("nobody listens there"));
    proxy.curl().get(&nginx().http("/hello"));
}

#[test]
fn a_move_that_cannot_be_stored_changes_nothing() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("unstored").start();
    world.sql(
        "CREATE FUNCTION refused() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this time'; END $$;
         CREATE CONSTRAINT TRIGGER refused AFTER UPDATE ON listeners DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION refused();",
    );
    let port = free_port();
    refused(started(&proxy, port), "");
    eventually("nobody listens there", || TcpListener::bind(("127.0.0.1", port)).ok());
    assert_eq!(proxy.get()["port"], proxy.port());
    proxy.curl().get(&nginx().http("/hello"));
    world.sql("DROP TRIGGER refused ON listeners");
    proxy.update(["--port", &port.to_string()]);
    Curl::direct()
        .through(&format!("127.0.0.1:{port}"))
        .get(&nginx().http("/hello"));
}

#[test]
fn a_move_that_is_stored_when_its_worker_dies_is_made_by_the_next_one() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("mortal").start();
    let port = free_port();
    let held = HeldCommit::of(&world);
    let update = started(&proxy, port);
    HeldCommit::reached(&world);
    let frozen = Frozen::tree(proxy.worker());
    // In the queue of the old listener, with nobody who accepts.
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut waiting = proxy.connect();
    waiting.send(format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
        origin.http("/"),
        origin.address()
    ));
    held.release(&world);
    eventually("it is stored", || {
        let stored = format!("SELECT port FROM listeners WHERE service_id = '{}'", proxy.id());
        (world.sql(&stored) == port.to_string()).then_some(())
    });
    proxy.signal_worker(Signal::SIGKILL);
    drop(frozen);
    refused(update, "the change is stored");
    assert!(waiting.read_head().starts_with("HTTP/1.1 200"), "who waited is served");
    eventually("the next worker listens there", || {
        let now = proxy.get();
        let there = now["listening"] == json!([format!("127.0.0.1:{port}")]);
        (there && now["state"] == "running").then_some(())
    });
    Curl::direct()
        .through(&format!("127.0.0.1:{port}"))
        .get(&nginx().http("/hello"));
    assert!(TcpStream::connect(proxy.address()).is_err(), "nobody listens there");
}

#[test]
fn a_move_that_is_stored_when_its_control_plane_dies_is_made_by_the_next_one() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("steady").start();
    let worker = proxy.worker();
    let traffic = Traffic::through(&proxy);
    let port = free_port();
    let held = HeldCommit::of(&world);
    let update = started(&proxy, port);
    HeldCommit::reached(&world);
    world.kill();
    held.release(&world);
    refused(update, "");
    traffic.flows();
    world.serve();
    let now = proxy.get();
    assert_eq!(now["port"], port, "the database wins");
    assert_eq!(now["listening"], json!([format!("127.0.0.1:{port}")]));
    assert!(TcpStream::connect(proxy.address()).is_err(), "nobody listens there");
    traffic.flows();
    proxy.exactly_once(traffic.end());
    assert_eq!(proxy.worker(), worker);
}

#[test]
fn a_control_plane_that_is_killed_at_any_moment_of_a_move_leaves_what_is_stored_in_force() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("steady").start();
    let worker = proxy.worker();
    let traffic = Traffic::through(&proxy);
    let seed = std::process::id().into();
    let mut dice = Dice::new(seed);
    for round in 0..4 {
        let update = started(&proxy, free_port());
        // Not a wait for something: the moment of the kill.
        thread::sleep(std::time::Duration::from_millis(dice.below(60)));
        world.kill();
        let _ = update.wait_with_output().unwrap();
        world.serve();
        let now = proxy.get();
        let listening = json!([format!("127.0.0.1:{}", now["port"])]);
        assert_eq!(now["listening"], listening, "seed {seed}, round {round}");
        let there = Curl::direct().through(listening[0].as_str().unwrap());
        assert_eq!(there.get("http://proxyplane.local/").status, 200);
        traffic.flows();
    }
    let _ = traffic.end();
    assert_eq!(proxy.worker(), worker, "seed {seed}");
}

/// `proxyctl proxy update --port` that goes on meanwhile.
fn started(proxy: &Proxy<'_>, port: u16) -> Child {
    let port = port.to_string();
    let mut command = proxy
        .world()
        .proxyctl_command(["proxy", "update", proxy.id(), "--port", &port]);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// It ends with an error that says so.
#[track_caller]
fn refused(update: Child, why: &str) {
    let ended = update.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success() && said.contains(why), "{said}");
}

/// Changes of services are held up at their commit, until it is released.
struct HeldCommit(Child);

impl HeldCommit {
    const LOCK: u32 = 4_711;

    fn of(world: &World) -> Self {
        world.sql(&format!(
            "CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock({0}); RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER held AFTER UPDATE ON listeners DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION held();",
            Self::LOCK
        ));
        let hold = format!("SELECT pg_advisory_lock({}), pg_sleep(60)", Self::LOCK);
        let holder = Self(
            world
                .psql(&hold)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
        Self::wait_for_lock(world, true);
        holder
    }

    /// Waits until a commit is held up.
    #[track_caller]
    fn reached(world: &World) {
        Self::wait_for_lock(world, false);
    }

    #[track_caller]
    fn wait_for_lock(world: &World, granted: bool) {
        let query = format!(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = {} AND granted = {granted}",
            Self::LOCK
        );
        eventually("the lock is there", || (world.sql(&query) != "0").then_some(()));
    }

    fn release(mut self, world: &World) {
        world.sql(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = {} AND granted",
            Self::LOCK
        ));
        self.0.wait().unwrap();
    }
}

/// Clients that come anew for each request, to where the proxy is said to be. Whoever gets in is answered; to be refused
/// is only for who was told the old address.
struct Visitors {
    state: Arc<State>,
    threads: Vec<JoinHandle<usize>>,
}

struct State {
    /// How often it was told, and what.
    address: Mutex<(usize, u16)>,
    done: AtomicBool,
    served: AtomicUsize,
    refused: AtomicUsize,
    origin: RawOrigin,
}

const VISITORS: usize = 3;

impl Visitors {
    fn of(proxy: &Proxy<'_>) -> Self {
        let state = Arc::new(State {
            address: Mutex::new((0, proxy.port())),
            done: AtomicBool::new(false),
            served: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            origin: RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        });
        let threads = (0..VISITORS).map(|_| {
            let state = Arc::clone(&state);
            thread::spawn(move || state.visit())
        });
        Self {
            threads: threads.collect(),
            state,
        }
    }

    /// This is where it is now.
    fn go_to(&self, port: u16) {
        let mut address = self.state.address.lock().unwrap();
        *address = (address.0 + 1, port);
    }

    /// Each of them is served some more.
    #[track_caller]
    fn come(&self) {
        let seen = self.state.served.load(Ordering::Relaxed);
        eventually("visitors are served", || {
            assert!(!self.threads.iter().any(JoinHandle::is_finished), "one was not served");
            (self.state.served.load(Ordering::Relaxed) > seen + 3 * VISITORS).then_some(())
        });
    }

    fn refused(&self) -> usize {
        self.state.refused.load(Ordering::Relaxed)
    }

    /// How many requests were answered; all were.
    #[track_caller]
    fn end(self) -> usize {
        self.state.done.store(true, Ordering::Relaxed);
        let served = self
            .threads
            .into_iter()
            .map(|thread| thread.join().expect("every request is answered"));
        served.sum()
    }
}

impl State {
    fn visit(&self) -> usize {
        let mut served = 0;
        while !self.done.load(Ordering::Relaxed) {
            let (told, port) = *self.address.lock().unwrap();
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(client) => {
                    self.request(client);
                    served += 1;
                    self.served.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    eventually("it is told where to go", || {
                        let ended = self.done.load(Ordering::Relaxed);
                        (ended || self.address.lock().unwrap().0 > told).then_some(())
                    });
                }
            }
        }
        served
    }

    fn request(&self, mut client: TcpStream) {
        client.set_read_timeout(Some(LONG_ENOUGH)).unwrap();
        let (url, host) = (self.origin.http("/"), self.origin.address());
        let request = format!("GET {url} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).expect("who gets in can ask");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("who gets in is answered");
        assert!(
            answer.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
}
