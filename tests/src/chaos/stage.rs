//! A world with one proxy, and clients that use it.

use std::{
    collections::HashMap,
    fs, thread,
    time::{Duration, Instant},
};

use postgres::Config;

use super::{
    Asked, Outcome,
    clients::Clients,
    rows::{self, Stored},
};
use crate::{LONG_ENOUGH, OwnPostgres, RawOrigin, World, eventually, eventually_within, watchdog};

/// Bytes of an answer's body.
const BODY: usize = 1_024;
/// Between looks at how much is stored.
const LOOK: Duration = Duration::from_millis(200);

/// What clients do.
#[derive(Clone, Debug)]
pub struct Load {
    /// Requests a second, of all clients.
    pub rate: u32,
    /// Clients, a connection each.
    pub clients: usize,
    /// More arguments of `proxyctl proxy create`.
    pub settings: Vec<String>,
}

/// The proxy under test and everything around it.
pub(super) struct Stage {
    pub(super) world: World,
    /// The proxy's id.
    pub(super) proxy: String,
    database: Config,
    clients: Option<Clients>,
    _origin: RawOrigin,
}

/// What is left when the clients are gone and everything is stored.
pub(super) struct Outcomes {
    pub(super) asked: Vec<Asked>,
    pub(super) stored: HashMap<String, Stored>,
    /// From the last request until everything was stored.
    pub(super) caught_up: Duration,
}

impl Stage {
    /// Everything runs, and the clients are at work. The run may take so long.
    pub(super) fn start(world: World, own: Option<&OwnPostgres>, load: &Load, limit: Duration) -> Self {
        watchdog::watch_for(limit + watchdog::LIMIT);
        let origin = RawOrigin::answering(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n{}",
            "x".repeat(BODY)
        ));
        let (proxy, address) = create(&world, &load.settings);
        let database = own.map_or_else(|| private(&world), |own| own.url().parse().expect("it is a URL"));
        let clients = Clients::start(load.clients, load.rate, &address, &origin);
        Self {
            world,
            proxy,
            database,
            clients: Some(clients),
            _origin: origin,
        }
    }

    /// The worker by its run record, which can be read while nobody answers. Waits for one that lives.
    pub(super) fn worker(&self) -> i32 {
        eventually("there is a worker", || {
            let pid = i32::try_from(self.run_record()?["pid"].as_i64()?).ok()?;
            is_alive(pid).then_some(pid)
        })
    }

    fn run_record(&self) -> Option<serde_json::Value> {
        let record = fs::read(self.world.run_record(&self.proxy)).ok()?;
        serde_json::from_slice(&record).ok()
    }

    /// How many workers came after the first, once everything runs.
    pub(super) fn replaced(&self) -> usize {
        self.settled();
        eventually("the worker that serves has sent records", || {
            let serves = self.run_record()?["epoch"].as_str()?.parse().ok()?;
            let epochs = rows::epochs(&self.database, &self.proxy).ok()?;
            epochs.contains(&serves).then_some(epochs.len() - 1)
        })
    }

    /// The private Postgres. Waits for one that lives.
    pub(super) fn postmaster(&self) -> i32 {
        eventually("there is a postmaster", || {
            self.world.postmaster().filter(|&pid| is_alive(pid))
        })
    }

    /// Waits until everything runs and answers.
    fn settled(&self) {
        eventually("everything runs again", || {
            let now = self.world.proxyctl(["-o", "json", "proxy", "get", &self.proxy]);
            (now.code == 0 && now.json()["state"] == "running").then_some(())
        });
    }

    /// Ends the load and waits until everything is stored, or nothing has come for a while.
    pub(super) fn end(&mut self) -> Outcomes {
        let asked = self.clients.take().expect("it is ended once").stop();
        let ended = Instant::now();
        let expected = asked.iter().filter(|asked| asked.outcome == Outcome::Complete).count();
        let mut newest = (0_usize, ended);
        let stored = eventually_within(LONG_ENOUGH * 10, "ingest has come to its end", || {
            thread::sleep(LOOK);
            let stored = rows::read(&self.database, &self.proxy).ok()?;
            let whole: usize = stored.values().map(|stored| stored.whole as usize).sum();
            if whole != newest.0 {
                newest = (whole, Instant::now());
            }
            let settled = newest.1.elapsed() > LONG_ENOUGH / 3;
            (whole >= expected || settled).then_some(stored)
        });
        Outcomes {
            asked,
            stored,
            caught_up: newest.1.duration_since(ended),
        }
    }
}

/// Its id and address. Not through the DSL's `Proxy`, which would keep the world from being killed.
fn create(world: &World, settings: &[String]) -> (String, String) {
    let _ = world.proxyctl(["workspace", "create", "chaos"]).ok();
    let create = ["-o", "json", "proxy", "create", "target", "-w", "chaos", "--start"];
    let made = world
        .proxyctl(create.into_iter().chain(settings.iter().map(String::as_str)))
        .json();
    let id = made["id"].as_str().expect("a proxy has an id").to_owned();
    (id, format!("127.0.0.1:{}", made["port"]))
}

fn private(world: &World) -> Config {
    let password = fs::read_to_string(world.data_dir().join("secrets/database.password"));
    let mut config = Config::new();
    config
        .host_path(world.data_dir().join("run/pg"))
        .user("proxyplane")
        .dbname("proxyplane")
        .password(password.expect("there is a password").trim());
    config
}

fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|status| !status.contains(") Z "))
}
