//! What strikes, and when.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Dice, Frozen, World, eventually, kill_tree};

/// A frozen process is frozen for this long at most.
const FROZEN_MS: u64 = 3_000;
/// A killed control plane is away for this long at most.
const AWAY_MS: u64 = 2_000;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// SIGKILL of the worker.
    KillWorker,
    /// SIGKILL of the control plane; started again after a moment.
    KillControlPlane,
    /// SIGKILL of the postmaster and its processes.
    KillPostgres,
    /// Worker and control plane at once.
    KillWorkerAndControlPlane,
    /// Control plane and Postgres at once.
    KillControlPlaneAndPostgres,
    /// SIGSTOP of the worker for up to three seconds.
    FreezeWorker,
    /// SIGSTOP of Postgres for up to three seconds.
    FreezePostgres,
    /// SIGSTOP of the control plane for up to three seconds: a worker link that hangs.
    FreezeControlPlane,
    /// An accepted update.
    Update,
}

impl Fault {
    /// Does it end a worker?
    pub fn kills_worker(self) -> bool {
        matches!(self, Self::KillWorker | Self::KillWorkerAndControlPlane)
    }
}

/// A fault that struck.
#[derive(Clone, Copy, Debug)]
pub struct Struck {
    /// Which.
    pub fault: Fault,
    /// When.
    pub at: Instant,
    /// When everything that it kills was gone. A client that connects in between, to a listener whose last holder is
    /// about to die, is cut off like one whose worker was killed.
    pub done: Instant,
}

/// The faults of a run.
pub(super) struct Faults {
    proxy: String,
    struck: Vec<Struck>,
    limit: u64,
}

impl Faults {
    pub(super) fn new(proxy: &str) -> Self {
        Self {
            proxy: proxy.to_owned(),
            struck: Vec::new(),
            limit: 0,
        }
    }

    pub(super) fn strike(&mut self, fault: Fault, world: &mut World, dice: &mut Dice) {
        let worker = fault.kills_worker().then(|| self.worker(world));
        let at = Instant::now();
        if let Some(worker) = worker {
            let _ = kill(Pid::from_raw(worker), Signal::SIGKILL);
        }
        self.struck.push(Struck { fault, at, done: at });
        match fault {
            Fault::KillWorker => {}
            Fault::KillControlPlane | Fault::KillWorkerAndControlPlane => {
                world.kill();
                self.done();
                away(dice, AWAY_MS);
                world.serve();
            }
            Fault::KillPostgres => {
                if let Some(postmaster) = world.postmaster() {
                    kill_tree(postmaster);
                }
            }
            Fault::KillControlPlaneAndPostgres => {
                world.kill();
                if let Some(postmaster) = world.postmaster() {
                    kill_tree(postmaster);
                }
                away(dice, AWAY_MS);
                world.serve();
            }
            Fault::FreezeWorker => freeze(self.worker(world), dice),
            Fault::FreezePostgres => {
                if let Some(postmaster) = world.postmaster() {
                    freeze(postmaster, dice);
                }
            }
            Fault::FreezeControlPlane => {
                let server = world.server().pid();
                let frozen = Frozen::alone(server);
                away(dice, FROZEN_MS);
                drop(frozen);
            }
            Fault::Update => {
                // The database may still be coming back from the fault before.
                self.limit += 1;
                let limit = (10_000_000 + self.limit).to_string();
                eventually("an update is accepted", || {
                    let update = ["proxy", "update", &self.proxy, "--capture-limit", &limit];
                    (world.proxyctl(update).code == 0).then_some(())
                });
            }
        }
    }

    fn done(&mut self) {
        if let Some(last) = self.struck.last_mut() {
            last.done = Instant::now();
        }
    }

    /// After the load: waits until everything runs again; how often the worker was replaced.
    pub(super) fn settle(&self, world: &mut World) -> String {
        eventually("everything runs again", || {
            let now = world.proxyctl(["-o", "json", "proxy", "get", &self.proxy]);
            (now.code == 0)
                .then(|| now.json())
                .filter(|now| now["state"] == "running")
        })["restarts"]
            .to_string()
    }

    pub(super) fn into_struck(self) -> Vec<Struck> {
        self.struck
    }

    /// The worker by its run record: it can be read while nobody answers. Waits for one that lives.
    fn worker(&self, world: &World) -> i32 {
        eventually("there is a worker", || {
            let record = fs::read(world.data_dir().join(format!("run/{}.json", self.proxy))).ok()?;
            let record: serde_json::Value = serde_json::from_slice(&record).ok()?;
            let pid = i32::try_from(record["pid"].as_i64()?).ok()?;
            let status = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            (!status.contains(") Z ")).then_some(pid)
        })
    }
}

fn freeze(process: i32, dice: &mut Dice) {
    let frozen = Frozen::tree(process);
    away(dice, FROZEN_MS);
    drop(frozen);
}

fn away(dice: &mut Dice, at_most: u64) {
    thread::sleep(Duration::from_millis(dice.below(at_most)));
}
