//! What strikes, and when.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Asked, Outcome, link, stage::Stage};
use crate::{Dice, Frozen, SmallDisk, eventually, kill_tree};

/// A frozen process is frozen for this long at most.
const FROZEN_MS: u64 = 3_000;
/// A killed control plane is away for this long at most.
const AWAY_MS: u64 = 2_000;
/// A slow database does nothing for so long,
const STALLED: Duration = Duration::from_millis(90);
/// then works for so long.
const WORKING: Duration = Duration::from_millis(10);
/// A worker tries a full disk again every 500 ms. Until then a kill would cost what the disk did not take: two faults at
/// once, of which nobody promises anything.
const DISK_TRIED_AGAIN: Duration = Duration::from_secs(1);
/// The smallest spool that can be set.
const SPOOL_MIN: &str = "1MiB";
const SPOOL_USUAL: &str = "1GiB";

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Fault {
    /// SIGKILL of the worker.
    KillWorker,
    /// SIGKILL of the control plane; started again after a moment.
    KillControlPlane,
    /// SIGKILL of the postmaster and its processes.
    KillPostgres,
    /// Worker and control plane at once.
    KillWorkerAndControlPlane,
    /// Worker and Postgres at once.
    KillWorkerAndPostgres,
    /// Control plane and Postgres at once.
    KillControlPlaneAndPostgres,
    /// SIGSTOP of the worker for up to three seconds.
    FreezeWorker,
    /// SIGSTOP of Postgres for up to three seconds.
    FreezePostgres,
    /// SIGSTOP of the control plane for up to three seconds: a worker link that hangs.
    FreezeControlPlane,
    /// Postgres gets a tenth of its time, for up to three seconds.
    SlowPostgres,
    /// Every connection of the worker link is cut.
    CutLink,
    /// The disk of the spool is full, for up to three seconds. Without root there is none that may be filled: the spool
    /// itself may then hold little.
    FillDisk,
    /// An accepted update.
    Update,
    /// The worker is replaced by another.
    Restart,
    /// The control plane executes itself anew.
    Upgrade,
}

impl Fault {
    /// Every kill.
    pub const KILLS: [Self; 6] = [
        Self::KillWorker,
        Self::KillControlPlane,
        Self::KillPostgres,
        Self::KillWorkerAndControlPlane,
        Self::KillWorkerAndPostgres,
        Self::KillControlPlaneAndPostgres,
    ];

    /// Does it end a worker?
    pub fn kills_worker(self) -> bool {
        matches!(
            self,
            Self::KillWorker | Self::KillWorkerAndControlPlane | Self::KillWorkerAndPostgres
        )
    }

    fn kills_control_plane(self) -> bool {
        matches!(
            self,
            Self::KillControlPlane | Self::KillWorkerAndControlPlane | Self::KillControlPlaneAndPostgres
        )
    }

    fn kills_postgres(self) -> bool {
        matches!(
            self,
            Self::KillPostgres | Self::KillWorkerAndPostgres | Self::KillControlPlaneAndPostgres
        )
    }
}

/// A fault that struck.
#[derive(Clone, Copy, Debug)]
pub struct Struck {
    /// Which.
    pub fault: Fault,
    /// When it began.
    pub began: Instant,
    /// When a killed worker was as good as gone: the signal had been sent. What ended before had until then to be stored.
    pub at: Instant,
    /// When everything that it kills was gone, and what it does was done. A client that connects in between, to a
    /// listener whose last holder is about to die, is cut off like one whose worker was killed: nobody else holds it.
    pub done: Instant,
}

impl Struck {
    /// Was the worker that a request was sent to being replaced at the time?
    pub(super) fn replaced(&self, asked: &Asked) -> bool {
        self.fault == Fault::Restart
            && asked.outcome == Outcome::Crossed
            && (self.began..=self.done).contains(&asked.ended)
    }
}

/// The faults of a run.
pub(super) struct Faults {
    struck: Vec<Struck>,
    disk: Option<Arc<SmallDisk>>,
    limit: u64,
}

impl Faults {
    pub(super) fn new(disk: Option<Arc<SmallDisk>>) -> Self {
        Self {
            struck: Vec::new(),
            disk,
            limit: 10_000_000,
        }
    }

    pub(super) fn strike(&mut self, fault: Fault, stage: &mut Stage, dice: &mut Dice) {
        let worker = fault.kills_worker().then(|| stage.worker());
        let postmaster = fault.kills_postgres().then(|| stage.postmaster());
        let began = Instant::now();
        if let Some(worker) = worker {
            kill(Pid::from_raw(worker), Signal::SIGKILL).expect("a worker that lives can be killed");
        }
        let at = Instant::now();
        if fault.kills_control_plane() {
            stage.world.kill();
        }
        if let Some(postmaster) = postmaster {
            kill_tree(postmaster);
        }
        let gone = Instant::now();
        if fault.kills_control_plane() {
            away(dice, AWAY_MS);
            stage.world.serve();
        }
        self.hinder(fault, stage, dice);
        let done = match fault {
            Fault::KillWorkerAndControlPlane => gone,
            Fault::Restart => Instant::now(),
            _ => at,
        };
        self.struck.push(Struck { fault, began, at, done });
    }

    /// What is no kill.
    fn hinder(&mut self, fault: Fault, stage: &mut Stage, dice: &mut Dice) {
        match fault {
            Fault::FreezeWorker => freeze(&Frozen::tree(stage.worker()), dice),
            Fault::FreezePostgres => freeze(&Frozen::tree(stage.postmaster()), dice),
            Fault::FreezeControlPlane => freeze(&Frozen::alone(stage.world.pid()), dice),
            Fault::SlowPostgres => {
                let postmaster = stage.postmaster();
                let end = Instant::now() + Duration::from_millis(dice.below(FROZEN_MS));
                while Instant::now() < end {
                    let stalled = Frozen::tree(postmaster);
                    thread::sleep(STALLED);
                    drop(stalled);
                    thread::sleep(WORKING);
                }
            }
            Fault::CutLink => link::cut(stage.world.pid()),
            Fault::FillDisk => {
                if let Some(disk) = &self.disk {
                    let full = disk.fill(0);
                    away(dice, FROZEN_MS);
                    drop(full);
                    thread::sleep(DISK_TRIED_AGAIN);
                } else {
                    update(stage, "--spool-limit", SPOOL_MIN);
                    away(dice, FROZEN_MS);
                    update(stage, "--spool-limit", SPOOL_USUAL);
                }
            }
            Fault::Update => {
                self.limit += 1;
                update(stage, "--capture-limit", &self.limit.to_string());
            }
            Fault::Restart => accepted(stage, &["proxy", "restart", &stage.proxy]),
            Fault::Upgrade => {
                accepted(stage, &["system", "upgrade"]);
                eventually("the control plane is back", || {
                    (stage.world.proxyctl(["system", "status"]).code == 0).then_some(())
                });
            }
            _ => {}
        }
    }

    pub(super) fn into_struck(self) -> Vec<Struck> {
        self.struck
    }
}

fn update(stage: &Stage, flag: &str, value: &str) {
    accepted(stage, &["proxy", "update", &stage.proxy, flag, value]);
}

/// The database, or the worker, may still be coming back from the fault before.
fn accepted(stage: &Stage, command: &[&str]) {
    eventually(&format!("{command:?} succeeds"), || {
        (stage.world.proxyctl(command).code == 0).then_some(())
    });
}

fn freeze(_frozen: &Frozen, dice: &mut Dice) {
    away(dice, FROZEN_MS);
}

fn away(dice: &mut Dice, at_most: u64) {
    thread::sleep(Duration::from_millis(dice.below(at_most)));
}
