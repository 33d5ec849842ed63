//! What a worker can still do in its sandbox, tried from inside.
//!
//! A sandbox cannot be left, so each test starts this program again: the copy enters the sandbox, tries everything, and
//! prints a line for each thing it tried.

#![expect(clippy::unwrap_used, reason = "a test that meets something else has failed")]

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Read as _},
    net::{TcpListener, TcpStream, ToSocketAddrs as _},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::{PermissionsExt as _, chown},
            net::{SocketAddr, UnixListener, UnixStream},
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    sys::signal::kill,
    unistd::{Pid, geteuid},
};
use proxyplane_spec::Account;
use proxyplane_worker::{panics, sandbox};

/// Where the copy finds its data directory; without it, it is no copy.
const DATA_DIR: &str = "SANDBOX_TEST_DATA_DIR";
/// The account that the copy changes to.
const ACCOUNT: &str = "SANDBOX_TEST_ACCOUNT";

/// A data directory whose modes forbid nothing: what is refused in it is refused by the sandbox.
struct Data(tempfile::TempDir);

impl Data {
    fn new(owner: Option<u32>) -> Self {
        let data = Self(tempfile::tempdir().unwrap());
        for directory in ["secrets", "spool", "spool/mine", "spool/other", "run"] {
            fs::create_dir(data.path(directory)).unwrap();
        }
        fs::write(data.path("secrets/ca.key"), "secret").unwrap();
        fs::write(data.path("spool/mine/old"), "kept").unwrap();
        for path in [
            "",
            "secrets",
            "secrets/ca.key",
            "spool",
            "spool/mine",
            "spool/mine/old",
            "spool/other",
            "run",
        ] {
            let path = data.path(path);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
            chown(path, owner, owner).unwrap();
        }
        data
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// What the copy found out: `ok`, or the error.
struct Tried {
    found: BTreeMap<String, String>,
    output: String,
}

impl Tried {
    #[track_caller]
    fn can(&self, thing: &str) {
        assert_eq!(
            self.found.get(thing).map(String::as_str),
            Some("ok"),
            "{thing}\n{}",
            self.output
        );
    }

    #[track_caller]
    fn cannot(&self, thing: &str) {
        let found = self.found.get(thing).map_or("not tried", String::as_str);
        assert!(
            ["EACCES", "EPERM"].contains(&found),
            "{thing}: {found}\n{}",
            self.output
        );
    }

    fn value(&self, thing: &str) -> &str {
        &self.found[thing]
    }
}

/// Starts the copy as `start_as`, which becomes `account`, and reads what it found.
fn tried(data: &Data, start_as: Option<u32>, account: Option<u32>) -> Tried {
    let socket = data.path("run/link.sock");
    let _link = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
    let name = format!("sandbox-test-{}", uuid::Uuid::now_v7());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["--exact", "the_copy", "--nocapture", "--test-threads=1"])
        .env(DATA_DIR, data.path(""))
        .env("SANDBOX_TEST_ABSTRACT", name)
        .env("SANDBOX_TEST_PARENT", std::process::id().to_string())
        .env_remove(ACCOUNT);
    if let Some(account) = account {
        command.env(ACCOUNT, account.to_string());
    }
    if let Some(uid) = start_as {
        command.uid(uid).gid(uid);
    }
    let output = command.output().unwrap();
    let output = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let found = output
        .lines()
        .filter_map(|line| line.strip_prefix("tried ")?.split_once(": "))
        .map(|(thing, found)| (thing.to_owned(), found.to_owned()))
        .collect();
    Tried { found, output }
}

/// The copy's part; nothing when it is run as a test.
#[test]
fn the_copy() {
    let Some(data) = env::var_os(DATA_DIR).map(PathBuf::from) else {
        return;
    };
    let account = env::var(ACCOUNT).ok().map(|uid| uid.parse().unwrap());
    let account = account.map(|uid| Account { uid, gid: uid });
    let sandbox = sandbox::enter(account, Some(&data.join("spool/mine"))).unwrap();
    report("landlock abi", &sandbox.landlock_abi.to_string());
    report("sandbox", &sandbox.to_string());
    report("uid", &geteuid().to_string());
    try_files(&data);
    try_reaching_others(&data);
    try_what_a_worker_needs(&data);
    backtrace();
}

fn try_files(data: &Path) {
    attempt("read the CA's key", fs::read(data.join("secrets/ca.key")));
    attempt("list the secrets", fs::read_dir(data.join("secrets")));
    attempt("list the data directory", fs::read_dir(data));
    attempt("read another's spool", fs::read_dir(data.join("spool/other")));
    attempt("write beside its spool", fs::write(data.join("spool/x"), ""));
    attempt("write into another's spool", fs::write(data.join("spool/other/x"), ""));
    attempt("write into /tmp", fs::write(env::temp_dir().join("sandbox-test"), ""));
    attempt("remove a secret", fs::remove_file(data.join("secrets/ca.key")));
    attempt(
        "move a secret into its spool",
        fs::rename(data.join("secrets/ca.key"), data.join("spool/mine/ca.key")),
    );
    attempt("read another's environment", fs::read("/proc/1/environ"));
}

fn try_reaching_others(data: &Path) {
    let parent = env::var("SANDBOX_TEST_PARENT").unwrap().parse().unwrap();
    attempt(
        "signal another",
        kill(Pid::from_raw(parent), None).map_err(io::Error::from),
    );
    attempt("signal itself", kill(Pid::this(), None).map_err(io::Error::from));
    let name = env::var("SANDBOX_TEST_ABSTRACT").unwrap();
    let address = SocketAddr::from_abstract_name(name).unwrap();
    attempt("reach an abstract socket", UnixStream::connect_addr(&address));
    attempt("reach the link", UnixStream::connect(data.join("run/link.sock")));
    attempt("bind a port", TcpListener::bind("127.0.0.1:0"));
    attempt("run a program", Command::new("/bin/true").status());
    attempt("become root", nix::unistd::setuid(0.into()).map_err(io::Error::from));
}

fn try_what_a_worker_needs(data: &Path) {
    let spool = data.join("spool/mine");
    attempt("write into its spool", fs::write(spool.join("new"), "new"));
    attempt("read its spool", fs::read(spool.join("old")));
    attempt("make a directory in its spool", fs::create_dir(spool.join("epoch")));
    attempt(
        "move in its spool",
        fs::rename(spool.join("new"), spool.join("epoch/new")),
    );
    attempt("shorten in its spool", fs::write(spool.join("old"), ""));
    attempt("clear its spool", fs::remove_dir_all(spool.join("epoch")));
    attempt("read resolv.conf", fs::read("/etc/resolv.conf"));
    attempt("resolve a name", "localhost:80".to_socket_addrs());
    let mut byte = [0];
    attempt(
        "read random bytes",
        fs::File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut byte)),
    );
    attempt("write to /dev/null", fs::write("/dev/null", "x"));
    let certificates = rustls_native_certs::load_native_certs();
    let loaded = if certificates.errors.is_empty() {
        Ok(())
    } else {
        Err(io::Error::other("not read"))
    };
    attempt("read the system's certificates", loaded);
    let refused = TcpStream::connect("127.0.0.1:1").map_or_else(
        |error| {
            if error.kind() == io::ErrorKind::ConnectionRefused {
                Ok(())
            } else {
                Err(error)
            }
        },
        |_| Ok(()),
    );
    attempt("dial", refused);
}

/// Panics with names in its backtrace although the program's own directory may not be read.
fn backtrace() {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    panics::log();
    let _ = std::panic::catch_unwind(|| panic!("on purpose"));
}

fn attempt<T>(thing: &str, result: io::Result<T>) {
    let found = match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.raw_os_error().map_or_else(
            || error.to_string(),
            |number| format!("{:?}", nix::errno::Errno::from_raw(number)),
        ),
    };
    report(thing, &found);
}

/// On a line of its own: the test harness leaves one open.
#[expect(clippy::print_stdout, reason = "the copy's answer")]
fn report(thing: &str, found: &str) {
    println!("\ntried {thing}: {found}");
}

/// What holds whatever the kernel has.
fn needs_are_met(tried: &Tried) {
    for need in [
        "signal itself",
        "reach the link",
        "write into its spool",
        "read its spool",
        "make a directory in its spool",
        "move in its spool",
        "shorten in its spool",
        "clear its spool",
        "read resolv.conf",
        "resolve a name",
        "read random bytes",
        "write to /dev/null",
        "read the system's certificates",
        "dial",
    ] {
        tried.can(need);
    }
    tried.cannot("become root");
    assert!(tried.output.contains(": on purpose"), "{}", tried.output);
    assert!(
        tried.output.contains("sandbox::backtrace"),
        "no names: {}",
        tried.output
    );
}

/// What Landlock refuses, as far as this kernel has it.
fn nothing_else_is_reached(tried: &Tried) {
    let abi: u32 = tried.value("landlock abi").parse().unwrap();
    let refused = [
        (1, "read the CA's key"),
        (1, "list the secrets"),
        (1, "list the data directory"),
        (1, "read another's spool"),
        (1, "write beside its spool"),
        (1, "write into another's spool"),
        (1, "write into /tmp"),
        (1, "remove a secret"),
        (1, "run a program"),
        (4, "bind a port"),
        (6, "signal another"),
        (6, "reach an abstract socket"),
    ];
    for (since, thing) in refused {
        if abi >= since {
            tried.cannot(thing);
        }
    }
    if abi > 0 {
        assert_ne!(tried.value("move a secret into its spool"), "ok");
        tried.cannot("read another's environment");
    }
}

#[test]
fn a_worker_of_root_becomes_its_account_and_reaches_only_its_spool() {
    if !geteuid().is_root() {
        return;
    }
    let data = Data::new(Some(61_070));
    let tried = tried(&data, None, Some(61_070));
    assert_eq!(tried.value("uid"), "61070");
    assert!(
        tried.value("sandbox").starts_with("uid 61070, no_new_privs, "),
        "{}",
        tried.output
    );
    needs_are_met(&tried);
    nothing_else_is_reached(&tried);
    // By its account alone.
    tried.cannot("signal another");
    tried.cannot("read another's environment");
}

#[test]
fn a_plain_users_worker_stays_who_it_is_and_reaches_only_its_spool() {
    let user = geteuid().is_root().then_some(61_071);
    let data = Data::new(user);
    let tried = tried(&data, user, None);
    assert_eq!(tried.value("uid"), user.unwrap_or(geteuid().as_raw()).to_string());
    needs_are_met(&tried);
    nothing_else_is_reached(&tried);
}

#[test]
fn root_without_another_account_is_refused() {
    if !geteuid().is_root() {
        return;
    }
    let data = Data::new(None);
    let tried = tried(&data, None, None);
    assert!(
        tried.found.is_empty() && tried.output.contains("Root"),
        "{}",
        tried.output
    );
}
