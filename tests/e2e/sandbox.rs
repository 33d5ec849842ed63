//! What a worker has given up while it carries traffic. What it can then still do is tried from inside by
//! `worker/tests/sandbox.rs`.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::PathBuf,
};

use nix::unistd::geteuid;
use proxyplane_tests::{Proxy, World, nginx};

/// A process as the kernel sees it.
struct Seen {
    pid: i32,
    status: String,
}

impl Seen {
    fn worker(proxy: &Proxy<'_>) -> Self {
        let pid = proxy.worker();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        Self { pid, status }
    }

    #[track_caller]
    fn field(&self, name: &str) -> Vec<&str> {
        let line = self
            .status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name}: {}", self.status))
            .split_whitespace()
            .collect()
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid)).unwrap()
    }
}

fn spool(proxy: &Proxy<'_>) -> PathBuf {
    proxy.world().data_dir().join("spool").join(proxy.id())
}

/// The directory of its one worker.
fn own_spool(proxy: &Proxy<'_>) -> PathBuf {
    let mut instances = fs::read_dir(spool(proxy)).unwrap();
    instances.next().unwrap().unwrap().path()
}

/// All but whom it runs as.
#[track_caller]
fn is_confined_and_serves(proxy: &Proxy<'_>) {
    assert_eq!(proxy.curl().get(&nginx().http("/hello")).status, 200);
    assert_eq!(proxy.exchange()["status"], 200);

    let worker = Seen::worker(proxy);
    assert_eq!(worker.field("NoNewPrivs"), ["1"]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(worker.field(set), ["0000000000000000"], "{set}");
    }
    let limits = worker.read("limits");
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(limit("Max core file size")[..2], ["0", "0"]);
    assert_ne!(limit("Max data size")[0], "unlimited");
    assert_eq!(
        limit("Max open files")[0],
        limit("Max open files")[1],
        "as many as it may"
    );

    let said = proxy.get()["sandbox"].as_str().unwrap().to_owned();
    let uid = worker.field("Uid")[0].to_owned();
    assert!(said.starts_with(&format!("uid {uid}, no_new_privs, ")), "{said}");
    assert!(said.contains("landlock"), "{said}");
}

#[test]
fn a_worker_of_root_runs_as_an_account_of_its_own_without_rights() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("confined").start();
    is_confined_and_serves(&proxy);

    let worker = Seen::worker(&proxy);
    if geteuid().is_root() {
        let [real, effective, saved, files] = worker.field("Uid")[..] else {
            panic!("{}", worker.status)
        };
        assert!(
            real != "0" && [effective, saved, files] == [real; 3],
            "{}",
            worker.status
        );
        assert!(worker.field("Groups").is_empty(), "{}", worker.status);
        let postmaster = World::shared().postmaster().unwrap();
        let postgres = fs::metadata(format!("/proc/{postmaster}")).unwrap().uid().to_string();
        assert_ne!(real, postgres, "an account of its own");
        let of_spool = fs::metadata(own_spool(&proxy)).unwrap();
        assert_eq!(
            (of_spool.uid().to_string().as_str(), of_spool.mode() & 0o777),
            (real, 0o700)
        );
    }
    assert_eq!(
        worker.field("Name"),
        ["proxyplane-work"],
        "not the number of a descriptor"
    );
    let arguments = worker.read("cmdline");
    let named = format!("proxyplane-worker: {}/confined ", workspace.code());
    assert!(arguments.starts_with(&named), "{arguments}");
}

#[test]
fn a_plain_users_worker_is_confined_as_well() {
    let world = World::of_a_plain_user();
    let workspace = world.workspace();
    let proxy = workspace.proxy("confined").start();
    is_confined_and_serves(&proxy);
    let worker = Seen::worker(&proxy);
    assert_ne!(worker.field("Uid")[0], "0");
    let server = fs::metadata(world.data_dir()).unwrap().uid().to_string();
    assert_eq!(worker.field("Uid"), [server.as_str(); 4], "it stays who its server is");
}

#[test]
fn a_worker_that_crashed_is_confined_again() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("again").start();
    let first = proxy.worker();
    proxy.signal_worker(nix::sys::signal::Signal::SIGKILL);
    proxyplane_tests::eventually("there is another worker", || {
        let now = proxy.get();
        (now["state"] == "running" && now["pid"] != first).then_some(())
    });
    is_confined_and_serves(&proxy);
}

#[test]
fn a_deleted_proxy_leaves_no_spool() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("short-lived").start();
    assert!(spool(&proxy).is_dir());
    let _ = proxy.ctl("delete", [""; 0]).ok();
    assert!(!spool(&proxy).exists());
}

#[test]
fn a_data_directory_that_workers_cannot_reach_is_refused() {
    if !geteuid().is_root() {
        return;
    }
    let mut world = World::prepared(&[]);
    let closed = world.directory().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let data = closed.join("data");
    world.argue(&["--data-dir", data.to_str().unwrap()]);
    world.spawn();
    assert_eq!(world.server().ended().code(), Some(73));
    let log = world.log();
    assert!(
        log.contains("--data-dir") && log.contains(closed.to_str().unwrap()),
        "{log}"
    );
}

#[test]
fn workers_do_not_run_as_root_or_as_postgres() {
    for account in ["root", "0", "nobody"] {
        let mut world = World::prepared(&["--worker-user", account]);
        world.spawn();
        assert_eq!(world.server().ended().code(), Some(64));
        assert!(world.log().contains("--worker-user"), "{}", world.log());
    }
}
