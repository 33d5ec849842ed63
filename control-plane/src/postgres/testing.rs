//! A real Postgres for tests: one server per test process, a database of its own for each test.

use std::{
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgPool, postgres::PgConnectOptions};
use tokio::sync::OnceCell;

use super::{Places, Postgres};
use crate::store::{self, Db};

/// Databases for tests are copies of this one, which is migrated once.
const TEMPLATE: &str = "template_migrated";

/// Until a test gives up.
const LONG_ENOUGH: Duration = Duration::from_secs(20);
/// Between looks.
const PAUSE: Duration = Duration::from_millis(20);

static SERVER: OnceCell<Server> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

struct Server {
    options: PgConnectOptions,
    /// Stops the server and removes its files once this process is gone and the pipe to it is closed.
    _undertaker: Child,
}

/// An empty, migrated database.
pub(crate) async fn database() -> Db {
    let options = SERVER.get_or_init(serve).await.options.clone();
    let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    create(&options, &name, TEMPLATE).await;
    PgPool::connect_with(options.database(&name)).await.unwrap()
}

/// Looks until it is so; panics, naming `what`, if that takes too long.
pub(crate) async fn eventually(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + LONG_ENOUGH;
    while !look().await {
        assert!(Instant::now() < end, "not within {LONG_ENOUGH:?}: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Places for a server in a new temporary directory.
pub(crate) fn places() -> (tempfile::TempDir, Places) {
    let directory = tempfile::Builder::new()
        .prefix("proxyplane-test")
        .tempdir_in("/tmp")
        .unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).unwrap();
    let sub = |name: &str, mode| {
        let path = directory.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    let (run, log, secrets) = (sub("run", 0o711), sub("log", 0o700), sub("secrets", 0o700));
    let places = Places {
        root: directory.path().to_owned(),
        run,
        log,
        secrets,
    };
    (directory, places)
}

/// The private server of these places, which lets us in.
pub(crate) async fn started(places: &Places) -> Postgres {
    let postgres = Postgres::open(places).await.unwrap();
    postgres.run().await.unwrap();
    postgres.admit().await.unwrap();
    postgres
}

async fn serve() -> Server {
    let (directory, places) = places();
    let postgres = started(&places).await;
    let undertaker = undertaker(&places);
    let _ = directory.keep();
    let options = postgres.options().clone().disable_statement_logging();
    create(&options, TEMPLATE, "template0").await;
    let template = PgPool::connect_with(options.clone().database(TEMPLATE)).await.unwrap();
    store::migrate(&template).await.unwrap();
    template.close().await;
    Server {
        options,
        _undertaker: undertaker,
    }
}

fn undertaker(places: &Places) -> Child {
    let script = r#"read -r _; kill -INT "$(head -n 1 "$0/pg/data/postmaster.pid")"
        while [ -e "$0/pg/data/postmaster.pid" ]; do sleep 0.05; done; rm -rf "$0""#;
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(script)
        .arg(&places.root)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().flush().unwrap();
    child
}

async fn create(options: &PgConnectOptions, name: &str, template: &str) {
    let mut connection = options.clone().database("postgres").connect().await.unwrap();
    let create = AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE {template}"));
    sqlx::query(create).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}
