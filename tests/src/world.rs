//! A running Proxyplane.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use nix::sys::signal::Signal;

use crate::{Follow, Held, Process, Ran, SmallDisk, Workspace, eventually, free_port, plain_user::PlainUser, watchdog};

/// A control plane with its own data, home and port.
pub struct World {
    directory: PathBuf,
    listen: String,
    arguments: Vec<String>,
    /// More of the server's environment.
    environment: Vec<(&'static str, OsString)>,
    /// Whom the server runs as, if not as the tests do.
    user: Option<PlainUser>,
    /// What is started; `None` means the program of this build.
    program: Option<PathBuf>,
    server: Mutex<Option<Process>>,
    /// Unmounted once nothing runs on them any more.
    disks: Mutex<Vec<Arc<SmallDisk>>>,
}

impl World {
    /// The one that tests share; it is up. Keep to a workspace of your own in it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<World> = OnceLock::new();
        watchdog::watch();
        SHARED.get_or_init(Self::start)
    }

    /// One of its own, with nothing in it; it is up, and stopped when it is dropped.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// One of its own with more arguments for `serve`.
    pub fn start_with(arguments: &[&str]) -> Self {
        let world = Self::prepared(arguments);
        world.serve();
        world
    }

    /// One that was not started yet.
    pub fn prepared(arguments: &[&str]) -> Self {
        watchdog::watch();
        Self {
            directory: new_directory("world"),
            listen: format!("127.0.0.1:{}", free_port()),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment: Vec::new(),
            user: None,
            program: None,
            server: Mutex::new(None),
            disks: Mutex::default(),
        }
    }

    /// One of its own whose server is no root: it runs as another account if the tests are. It is up.
    pub fn of_a_plain_user() -> Self {
        let mut world = Self::prepared(&[]);
        if let Some(user) = PlainUser::other() {
            let programs = [binary("proxyplane"), binary("proxyplane-worker")];
            world.program = Some(user.move_in(&world.directory, &programs));
            world.user = Some(user);
        }
        world.serve();
        world
    }

    /// More arguments for `serve`, from its next start on.
    pub fn argue(&mut self, arguments: &[&str]) {
        self.arguments
            .extend(arguments.iter().map(|argument| (*argument).to_owned()));
    }

    /// One more variable of the server's environment, from its next start on.
    pub fn set(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.environment.push((name, value.into()));
    }

    /// Starts the server and waits until everything is ready.
    pub fn serve(&self) {
        self.spawn();
        eventually("the server is ready", || {
            if let Some(status) = self.lock().as_mut().and_then(Process::exited) {
                panic!("proxyplane ended with {status}:\n{}", self.log());
            }
            (self.proxyctl(["system", "status"]).code == 0).then_some(())
        });
    }

    /// Starts the server and does not wait.
    pub fn spawn(&self) {
        let built = || binary("proxyplane");
        let mut command = self.command(&self.program.clone().unwrap_or_else(built));
        if let Some(user) = &self.user {
            user.run(&mut command);
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("the log can be opened");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg("serve").args(&self.arguments);
        let data_dir = self.data_dir().display().to_string();
        let usual = [
            ("--listen", self.listen.as_str()),
            ("--data-dir", &data_dir),
            ("--log-format", "text"),
            ("--shutdown-timeout", "5s"),
        ];
        for (flag, value) in usual {
            if !self.arguments.iter().any(|argument| argument == flag) {
                command.args([flag, value]);
            }
        }
        command
            .stdout(log.try_clone().expect("a descriptor can be duplicated"))
            .stderr(log);
        *self.lock() = Some(Process::start("proxyplane", &mut command, &self.directory));
    }

    /// Stops the server with SIGTERM: its exit code. The data stays.
    pub fn stop(&self) -> i32 {
        let mut server = self.lock().take().expect("the server was started");
        server.stop()
    }

    /// Kills the server on the spot. Workers and Postgres live on, as they should.
    pub fn kill(&self) {
        let mut server = self.lock().take().expect("the server was started");
        server.signal(Signal::SIGKILL);
        server.ended();
    }

    /// The server's process.
    pub fn server(&mut self) -> &mut Process {
        let server = self.server.get_mut().unwrap_or_else(PoisonError::into_inner);
        server.as_mut().expect("the server was started")
    }

    /// The server's process id.
    pub fn pid(&self) -> i32 {
        self.lock().as_ref().expect("the server was started").pid()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server is to be started by a link of this world's own, as packages install it: its path. To be called before
    /// [`Self::serve`].
    pub fn install(&mut self) -> PathBuf {
        let link = self.directory.join("proxyplane");
        std::os::unix::fs::symlink(binary("proxyplane"), &link).expect("the link can be made");
        self.program = Some(link.clone());
        link
    }

    /// The server is to start workers by a link of this world's own: its path. To be called before [`Self::serve`].
    pub fn install_worker(&mut self) -> PathBuf {
        let link = self.directory.join("proxyplane-worker");
        std::os::unix::fs::symlink(Self::program("proxyplane-worker"), &link).expect("the link can be made");
        self.argue(&["--worker-bin", &link.display().to_string()]);
        link
    }

    /// The path of a program of this build.
    pub fn program(name: &str) -> PathBuf {
        binary(name)
    }

    /// Has the private Postgres carry out a statement, past the server: what it printed.
    #[track_caller]
    pub fn sql(&self, statement: &str) -> String {
        let output = self.psql(statement).output().expect("psql can be started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statement}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The command that does so, to start it and go on meanwhile.
    #[track_caller]
    pub fn psql(&self, statement: &str) -> Command {
        let password = fs::read_to_string(self.data_dir().join("secrets/database.password"));
        let mut command = Command::new("psql");
        command
            .args([
                "-X",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "proxyplane",
                "-d",
                "proxyplane",
                "-c",
                statement,
            ])
            .arg("-h")
            .arg(self.data_dir().join("run/pg"))
            .env("PGPASSWORD", password.expect("there is a password").trim());
        command
    }

    /// From now on nothing is written to a table, which can be read all the same, until this is dropped.
    #[track_caller]
    pub fn hold(&self, table: &str) -> Held<'_> {
        Held::of(self, table, "EXCLUSIVE")
    }

    /// The same, and it cannot be read either.
    #[track_caller]
    pub fn hide(&self, table: &str) -> Held<'_> {
        Held::of(self, table, "ACCESS EXCLUSIVE")
    }

    /// Runs `proxyctl` with this world's home.
    pub fn proxyctl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        let mut command = self.proxyctl_command(arguments);
        let shown = shown(&command);
        Ran::new(shown, command.output().expect("proxyctl can be started"))
    }

    /// Runs a program of this build with this world's home.
    pub fn run<A: AsRef<OsStr>>(&self, program: &str, arguments: impl IntoIterator<Item = A>) -> Ran {
        let mut command = self.command(&binary(program));
        command.args(arguments).stdin(Stdio::null());
        let output = command.output().expect("it can be started");
        Ran::new(program.to_owned(), output)
    }

    /// The command itself, to change it or to start it and read along.
    pub fn proxyctl_command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.command(&binary("proxyctl"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Starts a `proxyctl` command that stays, and waits until it watches.
    #[track_caller]
    pub fn follow<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Follow {
        let mut follow = self.begin(arguments);
        follow.says("watching");
        follow
    }

    /// Starts a `proxyctl` command that takes its time.
    pub fn begin<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Follow {
        Follow::start(&mut self.proxyctl_command(arguments))
    }

    /// A workspace of its own, named after the test.
    pub fn workspace(&self) -> Workspace<'_> {
        Workspace::create(self)
    }

    /// `http://address:port` of the API.
    pub fn api(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// `address:port` of the API.
    pub fn listen(&self) -> &str {
        &self.listen
    }

    /// The API token.
    pub fn token(&self) -> String {
        let client = fs::read(self.home().join(".config/proxyplane/client.json")).expect("serve left client.json");
        let client: serde_json::Value = serde_json::from_slice(&client).expect("client.json is JSON");
        let file = client["token_file"].as_str().expect("it names the token's file");
        fs::read_to_string(file)
            .expect("the token can be read")
            .trim()
            .to_owned()
    }

    /// The installation's CA certificate in a file.
    pub fn ca_file(&self) -> PathBuf {
        let file = self.directory.join("ca.pem");
        if !file.exists() {
            // Whole or not there: tests share the world and look at the same time.
            let own = self.directory.join(format!("ca-{}.pem", uuid::Uuid::now_v7()));
            let _ = self
                .proxyctl([OsStr::new("ca"), "export".as_ref(), "-f".as_ref(), own.as_ref()])
                .ok();
            fs::rename(own, &file).expect("the certificate was written");
        }
        file
    }

    /// Where this world keeps things; gone with it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What `serve` was given as its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// A disk of so many MiB at `place` in the data directory. `None`, which is said, where the tests may not mount.
    pub fn small_disk(&self, place: &str, mib: u32) -> Option<Arc<SmallDisk>> {
        let disk = Arc::new(SmallDisk::mount(&self.data_dir().join(place), mib)?);
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        disks.push(Arc::clone(&disk));
        Some(disk)
    }

    /// What the server printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn home(&self) -> PathBuf {
        self.directory.join("home")
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("serve.log")
    }

    /// A command in this world's environment and in no other.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", self.home())
            .env("PATH", env::var_os("PATH").unwrap_or_default());
        for kept in ["LANG", "LLVM_PROFILE_FILE", "RUST_BACKTRACE", "TMPDIR"] {
            if let Some(value) = env::var_os(kept) {
                command.env(kept, value);
            }
        }
        command
    }

    /// The pid of the private Postgres.
    pub fn postmaster(&self) -> Option<i32> {
        let pid_file = fs::read_to_string(self.data_dir().join("pg/data/postmaster.pid")).ok()?;
        pid_file.lines().next()?.parse().ok()
    }

    /// The run record of a proxy's worker.
    pub fn run_record(&self, proxy: &str) -> PathBuf {
        self.data_dir().join(format!("run/{proxy}.json"))
    }

    /// Workers outlive a control plane that was killed.
    fn stop_workers(&self) {
        for entry in fs::read_dir(self.data_dir().join("run"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let record = fs::read(entry.path()).unwrap_or_default();
            let record = serde_json::from_slice::<serde_json::Value>(&record).unwrap_or_default();
            let Some(pid) = record["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()) else {
                continue;
            };
            // It may be gone, and its id somebody else's.
            let name = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if name.starts_with("proxyplane-worker") {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    /// A private Postgres outlives a control plane that was killed.
    fn stop_postgres(&self) {
        if let Some(pid) = self.postmaster() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGQUIT);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the server's log ---\n{}", self.log());
        }
        drop(self.lock().take());
        self.stop_workers();
        self.stop_postgres();
        self.disks.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Has `link` lead to `program`, from one moment to the next.
pub fn relink(link: &Path, program: &Path) {
    let fresh = link.with_extension("new");
    std::os::unix::fs::symlink(program, &fresh).expect("the link can be made");
    fs::rename(fresh, link).expect("it can be renamed");
}

fn shown(command: &Command) -> String {
    let words = command
        .get_args()
        .map(|argument| argument.to_string_lossy().into_owned());
    format!("proxyctl {}", words.collect::<Vec<_>>().join(" "))
}

/// A new directory that every user may enter: the private Postgres runs as a user of its own.
pub(crate) fn new_directory(name: &str) -> PathBuf {
    let directory = env::temp_dir().join(format!("proxyplane-{name}-{}", uuid::Uuid::now_v7().simple()));
    fs::create_dir_all(directory.join("home")).expect("the directory can be made");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("its mode can be set");
    directory
}

/// A program of this build: where the test's own executable is, or beside the directory `deps` that it is in.
pub(crate) fn binary(name: &str) -> PathBuf {
    let test = env::current_exe().expect("a test knows its own path");
    let mut places = test.ancestors().skip(1).take(2).map(|directory| directory.join(name));
    places.find(|program| program.is_file()).unwrap_or_else(|| {
        panic!(
            "{name} is missing beside {}; `cargo build --workspace` (or `make test`) builds it",
            test.display()
        )
    })
}
