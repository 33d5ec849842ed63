//! `system upgrade` while workers die: from the program that is left to the one that has adopted them, the listeners are
//! open, and nobody is refused.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use proxyplane_tests::{
    Proxy, RawClient, RawOrigin, UnsureLoad, World, eventually, free_port, kernel::has_ended, relink,
};

use crate::events::kinds_of;

const KILLED: &str = "signal 9 (SIGKILL)";

#[test]
fn workers_that_die_before_they_are_adopted_are_replaced_and_nobody_is_refused() {
    let mut world = World::prepared(&[]);
    let program = world.install();
    world.serve();
    let workspace = world.workspace();
    // What was answered is on disk, whenever its worker dies.
    let proxies =
        ["early", "late", "dead", "steady"].map(|name| workspace.proxy(name).with(["--durable-before-end"]).start());
    let [early, late, dead, steady] = &proxies;
    let workers = proxies.each_ref().map(Proxy::worker);
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let loads = proxies
        .each_ref()
        .map(|proxy| UnsureLoad::on(&proxy.address(), &origin.address(), 2));

    let held = HeldProgram::install(&world, &program, "");
    let upgrade = upgrade(&world);
    held.reached();
    let handed_on = left(&world);
    let [note, listeners @ ..] = handed_on.as_slice() else {
        panic!("nothing")
    };
    assert_eq!(note, "/memfd:proxyplane-listeners (deleted)");
    assert_eq!(listeners.len(), proxies.len(), "{listeners:?}");
    for worker in workers {
        let lent = open(&worker.to_string());
        assert_eq!(listeners.iter().filter(|listener| lent.contains(listener)).count(), 1);
    }

    // The program that takes over has not begun.
    die(workers[0]);
    let mut waiting: Vec<RawClient> = (0..20).map(|_| ask(early, &origin)).collect();
    let services = world.hide("services");
    held.release();
    services.wanted();
    // It has looked at the first ones, and waits for the database: this one it finds dead.
    die(workers[1]);
    die(workers[2]);
    waiting.extend((0..20).flat_map(|_| [early, late, dead].map(|proxy| ask(proxy, &origin))));
    drop(services);
    for client in &mut waiting {
        assert!(client.read_head().starts_with("HTTP/1.1 200"));
    }
    succeeds(upgrade);

    // The shell that stood in for the program may have reaped the first one.
    let unseen = "unknown (no control plane ran)";
    for (proxy, exits) in [(early, [unseen, KILLED]), (late, [KILLED; 2]), (dead, [KILLED; 2])] {
        let now = proxy.becomes("running");
        assert!(!workers.map(serde_json::Value::from).contains(&now["pid"]));
        assert_eq!(now["restarts"], 1);
        assert!(exits.contains(&now["last_exit"].as_str().unwrap()), "{now}");
        assert_eq!(
            kinds_of(proxy, 3),
            ["worker_respawned", "worker_crashed", "worker_started"]
        );
    }
    let now = steady.get();
    assert_eq!((&now["pid"], &now["restarts"]), (&workers[3].into(), &0.into()));
    assert_eq!(kinds_of(steady, 2), ["worker_adopted", "worker_started"]);
    assert_eq!(loads.each_ref().map(UnsureLoad::refused), [0; 4]);
    let answered = loads.map(UnsureLoad::stop);
    for (proxy, answered) in proxies.iter().zip(answered) {
        stored_once(proxy, &answered.into_iter().map(|one| one.path).collect());
    }
    // The next one has them as well.
    let _ = world.proxyctl(["system", "upgrade"]).ok();
    let next = early.worker();
    early.signal_worker(Signal::SIGKILL);
    has_ended(next);
    ask(early, &origin).read_head();
}

#[test]
fn listeners_of_proxies_that_moved_or_are_not_to_run_any_more_are_closed() {
    let mut world = World::prepared(&[]);
    let program = world.install();
    world.serve();
    let workspace = world.workspace();
    let proxies = ["disabled", "deleted", "moved"].map(|name| workspace.proxy(name).start());
    let [disabled, deleted, moved] = &proxies;
    let workers = proxies.each_ref().map(Proxy::worker);

    let held = HeldProgram::install(&world, &program, "");
    let upgrade = upgrade(&world);
    held.reached();
    for worker in workers {
        die(worker);
    }
    for proxy in &proxies {
        drop(proxy.connect());
    }
    let port = free_port();
    // As if somebody had used another control plane on the same database.
    world.sql(&format!(
        "UPDATE services SET enabled = false WHERE id = '{}';
         DELETE FROM services WHERE id = '{}';
         UPDATE listeners SET port = {port} WHERE service_id = '{}'",
        disabled.id(),
        deleted.id(),
        moved.id()
    ));
    held.release();
    succeeds(upgrade);
    for proxy in &proxies {
        let connected = std::net::TcpStream::connect(proxy.address());
        assert_eq!(
            connected.unwrap_err().kind(),
            std::io::ErrorKind::ConnectionRefused,
            "{}",
            proxy.name()
        );
    }
    let now = moved.becomes("running");
    assert_eq!(now["restarts"], 1);
    drop(RawClient::connect(&format!("127.0.0.1:{port}")));
    assert_eq!(disabled.state(), "stopped");
    assert_eq!(kinds_of(disabled, 1), ["worker_started"]);
}

#[test]
fn a_program_that_does_not_take_listeners_is_left_none() {
    let mut world = World::prepared(&[]);
    let program = world.install();
    world.serve();
    let workspace = world.workspace();
    let proxy = workspace.proxy("steady").start();
    let worker = proxy.worker();
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let older = HeldProgram::install(&world, &program, "features) exit 64;;");
    let upgrade = upgrade(&world);
    older.reached();
    assert_eq!(left(&world), [""; 0]);
    older.release();
    succeeds(upgrade);
    assert_eq!(proxy.worker(), worker);
    let _ = ask(&proxy, &origin).read_head();
}

fn upgrade(world: &World) -> Child {
    let mut call = world.proxyctl_command(["system", "upgrade"]);
    call.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[track_caller]
fn succeeds(upgrade: Child) {
    let ended = upgrade.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

fn die(worker: i32) {
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    eventually("it is dead", || {
        // The shell that stands in for the program may reap it.
        let stat = fs::read_to_string(format!("/proc/{worker}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z ")).then_some(())
    });
}

/// What is left to the program that the server executed, apart from standard streams and what we gave the server. It is
/// to have opened nothing yet.
fn left(world: &World) -> Vec<String> {
    let ours = open("self");
    let mut left = open(&world.pid().to_string());
    left.retain(|target| !ours.contains(target) && (target.starts_with("socket:") || target.starts_with("/memfd:")));
    left.sort_unstable();
    left
}

/// What the descriptors of a process lead to.
fn open(process: &str) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
    let targets = entries.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()));
    targets.collect()
}

/// A client that was let in and has asked.
#[track_caller]
fn ask(proxy: &Proxy<'_>, origin: &RawOrigin) -> RawClient {
    let mut client = proxy.connect();
    let (url, host) = (origin.http("/waiting"), origin.address());
    client.send(format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    client
}

/// Every exchange that a client knows of is stored, those in the spool of a worker that died too, and none twice.
#[track_caller]
fn stored_once(proxy: &Proxy<'_>, answered: &HashSet<String>) {
    let query = format!(
        "SELECT path FROM exchanges WHERE service_id = '{}' AND state = 2 AND path <> '/waiting'",
        proxy.id()
    );
    eventually("what was answered is stored", || {
        let rows = proxy.world().sql(&query);
        let rows: Vec<&str> = rows.lines().collect();
        let stored: HashSet<&str> = rows.iter().copied().collect();
        assert_eq!(stored.len(), rows.len(), "none twice");
        answered.iter().all(|path| stored.contains(path.as_str())).then_some(())
    });
}

/// A program at the server's path that answers what it is asked, and, executed to serve, waits before it begins.
struct HeldProgram {
    directory: PathBuf,
}

impl HeldProgram {
    /// Leads `program` there. `answers`: more cases of what it is asked, in the language of the shell.
    fn install(world: &World, program: &Path, answers: &str) -> Self {
        let directory = world.directory().join(format!("held-{}", uuid::Uuid::now_v7()));
        fs::create_dir(&directory).unwrap();
        let (place, real) = (directory.display(), World::program("proxyplane"));
        let script = directory.join("proxyplane");
        let text = format!(
            "#!/bin/sh\n\
             case \"$*\" in {answers} serve*--print-config|--version|features) exec {real} \"$@\";; esac\n\
             : > {place}/reached\n\
             read go < {place}/go\n\
             exec {real} \"$@\"\n",
            real = real.display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        mkfifo(&directory.join("go"), Mode::S_IRWXU).unwrap();
        relink(program, &script);
        Self { directory }
    }

    /// Waits until it was executed.
    #[track_caller]
    fn reached(&self) {
        eventually("the program is executed", || {
            self.directory.join("reached").exists().then_some(())
        });
    }

    fn release(&self) {
        fs::write(self.directory.join("go"), "go\n").unwrap();
    }
}
