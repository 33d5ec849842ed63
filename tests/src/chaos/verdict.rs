//! The log against the rows.

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant},
};

use super::{Asked, Outcome, Struck};

/// A killed worker may lose what ended this long before the kill, at most.
const WINDOW: Duration = Duration::from_millis(20);

/// What came out of a run.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// To run it again.
    pub seed: u64,
    /// The faults, in order, with the time since the first request ended.
    pub faults: Vec<String>,
    /// Requests.
    pub asked: usize,
    /// Those whose response came completely.
    pub complete: usize,
    /// Complete and stored more than once.
    pub doubled: Vec<String>,
    /// Complete, not stored, and not in the hands of a killed worker.
    pub lost: Vec<String>,
    /// Complete and not stored, because the worker was killed so soon after: how soon, ascending.
    pub windows: Vec<Duration>,
    /// Failed on a connection that no killed worker had.
    pub failed: Vec<String>,
    /// Failed on connections of killed workers.
    pub cut: usize,
    /// From the end of the load until everything was stored.
    pub caught_up: Duration,
    /// How often the worker was replaced, as the product counts it.
    pub restarts: String,
}

impl Verdict {
    pub(super) fn new(
        seed: u64,
        asked: &[Asked],
        struck: &[Struck],
        rows: &HashMap<String, u32>,
        caught_up: Duration,
        restarts: &str,
    ) -> Self {
        let of_workers = struck.iter().filter(|struck| struck.fault.kills_worker());
        let kills: Vec<(Instant, Instant)> = of_workers.map(|struck| (struck.at, struck.done)).collect();
        let begin = asked.iter().map(|asked| asked.ended).min();
        let since = |at: Instant| begin.map_or(Duration::ZERO, |begin| at.saturating_duration_since(begin));
        let mut verdict = Self {
            seed,
            faults: struck
                .iter()
                .map(|struck| format!("{:.1} s {:?}", since(struck.at).as_secs_f64(), struck.fault))
                .collect(),
            asked: asked.len(),
            complete: 0,
            doubled: Vec::new(),
            lost: Vec::new(),
            windows: Vec::new(),
            failed: Vec::new(),
            cut: 0,
            caught_up,
            restarts: restarts.to_owned(),
        };
        for asked in asked {
            let when = format!("{} at {:.3} s", asked.path, since(asked.ended).as_secs_f64());
            match &asked.outcome {
                Outcome::Complete => {
                    verdict.complete += 1;
                    match rows.get(&asked.path) {
                        Some(1) => {}
                        Some(_) => verdict.doubled.push(when),
                        None => match window(asked, &kills) {
                            Some(window) => verdict.windows.push(window),
                            None => verdict.lost.push(when),
                        },
                    }
                }
                Outcome::Failed(why) => {
                    // The first request that ends after the kill on a connection from before it.
                    let cut = |&(kill, done): &(Instant, Instant)| asked.connected <= done && asked.ended >= kill;
                    if kills.iter().any(cut) {
                        verdict.cut += 1;
                    } else {
                        verdict.failed.push(format!("{when}: {why}"));
                    }
                }
            }
        }
        verdict.windows.sort();
        verdict
    }

    /// Is everything as it must be?
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.failed.is_empty()
    }
}

/// How long before a kill it ended, if that is short enough to have been lost with the worker.
fn window(asked: &Asked, kills: &[(Instant, Instant)]) -> Option<Duration> {
    kills
        .iter()
        .filter_map(|(kill, _)| kill.checked_duration_since(asked.ended))
        .filter(|before| *before < WINDOW)
        .min()
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} (replay: --seed {})", self.seed, self.seed)?;
        writeln!(f, "faults ({}):", self.faults.len())?;
        for fault in &self.faults {
            writeln!(f, "  {fault}")?;
        }
        writeln!(f, "requests {}, complete {}", self.asked, self.complete)?;
        writeln!(f, "complete, but not stored: {} (wanted 0)", self.lost.len())?;
        writeln!(f, "stored more than once: {} (wanted 0)", self.doubled.len())?;
        writeln!(
            f,
            "failed on connections that no killed worker had: {} (wanted 0)",
            self.failed.len()
        )?;
        writeln!(f, "failed on connections of killed workers: {}", self.cut)?;
        let at = |of: usize| {
            let last = self.windows.len().saturating_sub(1);
            self.windows.get(last * of / 100).copied().unwrap_or_default()
        };
        writeln!(
            f,
            "lost with a killed worker: {} (ended at most {:?} before the kill, p99 {:?}; wanted <20 ms, p99 ≤5 ms)",
            self.windows.len(),
            at(100),
            at(99)
        )?;
        writeln!(
            f,
            "worker replaced {} times; caught up {:.1?} after the load",
            self.restarts, self.caught_up
        )?;
        for (what, list) in [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("failed", &self.failed),
        ] {
            for one in list.iter().take(10) {
                writeln!(f, "  {what}: {one}")?;
            }
        }
        Ok(())
    }
}
