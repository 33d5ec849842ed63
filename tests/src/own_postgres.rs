//! A Postgres of a test's own, for `--database-url`: nobody but the test starts or stops it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use postgres::NoTls;

use crate::{Process, eventually, free_port, plain_user::PlainUser, world::new_directory};

/// Its superuser, and its database.
const NAME: &str = "proxyplane";

/// A server on a port of 127.0.0.1, with files of its own.
pub struct OwnPostgres {
    directory: PathBuf,
    port: u16,
    bin: PathBuf,
    user: Option<PlainUser>,
    server: Option<Process>,
}

impl OwnPostgres {
    /// A new one; it is up and has an empty database.
    pub fn start() -> Self {
        let mut postgres = Self {
            directory: new_directory("postgres"),
            port: free_port(),
            bin: bin(),
            user: PlainUser::other(),
            server: None,
        };
        if let Some(user) = &postgres.user {
            user.give(&postgres.directory);
        }
        let mut initdb = postgres.command("initdb");
        initdb.args(["--auth", "trust", "--encoding", "UTF8", "--username", NAME, "--no-sync"]);
        let made = initdb.output().expect("initdb can be started");
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        postgres.resume();
        let mut admin = eventually("a new database server answers", || postgres.connect("postgres").ok());
        let create = format!("CREATE DATABASE {NAME}");
        admin.batch_execute(&create).expect("a database can be made");
        postgres
    }

    /// For `--database-url`.
    pub fn url(&self) -> String {
        format!("postgres://{NAME}@127.0.0.1:{}/{NAME}", self.port)
    }

    /// Stops it as its operator would: open transactions are cut off. The data stays.
    pub fn stop(&mut self) {
        let mut server = self.server.take().expect("it was started");
        server.signal(Signal::SIGINT);
        server.ended();
    }

    /// Starts it again; it answers after a moment.
    pub fn resume(&mut self) {
        let mut command = self.command("postgres");
        let port = self.port.to_string();
        command.args(["-h", "127.0.0.1", "-p", &port, "-c", "unix_socket_directories="]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.server = Some(Process::start("postgres", &mut command, &self.directory));
    }

    fn connect(&self, database: &str) -> Result<postgres::Client, postgres::Error> {
        let at = format!("host=127.0.0.1 port={} user={NAME} dbname={database}", self.port);
        postgres::Client::connect(&at, NoTls)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C")
            .current_dir(&self.directory)
            .arg("-D")
            .arg(self.directory.join("data"));
        if let Some(user) = &self.user {
            user.run(&mut command);
        }
        command
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            // SIGTERM, which follows, would wait for its clients.
            server.signal(Signal::SIGINT);
        }
        drop(self.server.take());
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Where the newest server is installed: beside its tools, or where Debian and the PostgreSQL project put it.
fn bin() -> PathBuf {
    let mut places: Vec<PathBuf> = env::var_os("PATH").iter().flat_map(env::split_paths).collect();
    for (parent, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")] {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        places.extend(named.map(|entry| entry.path().join("bin")));
    }
    let has_server = |place: &PathBuf| place.join("initdb").is_file() && place.join("postgres").is_file();
    let mut found: Vec<PathBuf> = places.into_iter().filter(has_server).collect();
    found.sort_by_key(|place| version(place));
    found.pop().expect("a Postgres server is installed")
}

/// The first number in its path, such as 15 in /usr/lib/postgresql/15/bin.
fn version(bin: &Path) -> u32 {
    let path = bin.to_string_lossy();
    let mut numbers = path.split(|c: char| !c.is_ascii_digit());
    numbers.find_map(|number| number.parse().ok()).unwrap_or_default()
}
