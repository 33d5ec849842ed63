//! Faults under load, and afterwards the load generator's own log against Postgres, row by row.
//!
//! A [`Plan`] is replayable: its seed chooses faults and moments. Clients send numbered requests at a steady rate, one
//! connection each, and note of every request whether its response came completely, and when. The faults are noted with
//! their moments. At the end a client of its own reads the rows: every complete response must be stored exactly once.
//! What may be missing, and which requests may have failed, is only what a killed worker had in its hands ([`Verdict`]).
//! An [`OutagePlan`] is one fault that lasts.

mod clients;
mod faults;
mod line;
mod link;
mod outage;
mod rows;
mod sampler;
mod stage;
mod verdict;

use std::{collections::BTreeMap, time::Duration};

pub use self::{
    clients::{Asked, Outcome},
    faults::{Fault, Struck},
    line::Line,
    outage::{Outage, OutagePlan},
    stage::Load,
    verdict::{Allowed, Verdict},
};
use self::{faults::Faults, stage::Stage};
use crate::{Dice, World};

/// The spool's disk, where it is to be filled: many times what waits in a run.
const DISK_MIB: u32 = 256;

/// Faults, one after the other.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Chooses faults and moments.
    pub seed: u64,
    /// How many faults strike.
    pub faults: usize,
    /// They are chosen from these.
    pub kinds: Vec<Fault>,
    /// Between the end of one fault and the next: at least this, and at most so much more.
    pub pause: (Duration, Duration),
    /// What clients do meanwhile.
    pub load: Load,
    /// What a killed worker may take with it.
    pub allowed: Allowed,
}

impl Plan {
    /// Runs it in a world of its own, which it starts.
    pub fn run(&self) -> Verdict {
        let world = World::prepared(&[]);
        let fills = self.kinds.contains(&Fault::FillDisk);
        let disk = fills.then(|| world.small_disk("spool", DISK_MIB)).flatten();
        world.serve();
        let (least, more) = self.pause;
        let limit = (least + more) * u32::try_from(self.faults).unwrap_or(u32::MAX) * 4;
        let mut stage = Stage::start(world, None, &self.load, limit);
        let mut dice = Dice::new(self.seed);
        let mut faults = Faults::new(disk);
        for _ in 0..self.faults {
            let more = dice.below(u64::try_from(more.as_millis()).unwrap_or_default() + 1);
            std::thread::sleep(least + Duration::from_millis(more));
            let fault = *dice.of(&self.kinds);
            faults.strike(fault, &mut stage, &mut dice);
        }
        std::thread::sleep(least);
        let outcomes = stage.end();
        let replaced = stage.replaced();
        // What holds its disk goes before the world, which unmounts it and removes the directory that it lies over.
        let struck = faults.into_struck();
        drop(stage);
        let mut verdict = Verdict::new(&outcomes, &struck, self.allowed);
        let mut counts = BTreeMap::new();
        for struck in &struck {
            *counts.entry(struck.fault).or_insert(0) += 1;
        }
        let counts = counts
            .iter()
            .map(|(fault, count)| Line::told(&format!("{fault:?}"), count));
        verdict.lines.splice(0..0, counts);
        verdict
            .lines
            .push(Line::told("worker replaced, by the cursors that are stored", replaced));
        verdict
    }
}
