//! The log against the rows.

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant},
};

use super::{
    Asked, Line, Outcome, Struck,
    line::{percentile, spread},
    rows::Stored,
    stage::Outcomes,
};

/// A killed worker may lose what ended this long before the kill, at most,
const WINDOW: Duration = Duration::from_millis(20);
/// and of those at most one in a hundred so long before.
const WINDOW_P99: Duration = Duration::from_millis(5);

/// What a killed worker may take with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// What it had in its hands, and what ended just before the kill.
    InFlight,
    /// Nothing that a client got completely: the service is `durable_before_end`.
    Nothing,
}

/// What became of the requests of a run.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Requests.
    pub asked: usize,
    /// Those whose response came completely.
    pub complete: usize,
    /// Stored more than once.
    pub doubled: Vec<String>,
    /// Complete, not stored, and not in the hands of a killed worker.
    pub lost: Vec<String>,
    /// Complete and not stored, because the worker was killed so soon after: how soon.
    pub windows: Vec<Duration>,
    /// Complete and not stored: not ended when the worker was killed. The last bytes came from what the system still
    /// had of them.
    pub unfinished: usize,
    /// Failed on a connection that no killed worker had.
    pub failed: Vec<String>,
    /// Failed on connections of killed workers.
    pub cut: usize,
    /// Crossed the close of an idle connection of a worker that was replaced, and sent again.
    pub crossed: usize,
    /// From the end of the load until everything was stored.
    pub caught_up: Duration,
    /// What is judged and told.
    pub lines: Vec<Line>,
}

impl Verdict {
    pub(super) fn new(outcomes: &Outcomes, struck: &[Struck], allowed: Allowed) -> Self {
        let Outcomes {
            asked,
            stored,
            caught_up,
        } = outcomes;
        let mut verdict = Self {
            asked: asked.len(),
            caught_up: *caught_up,
            ..Self::default()
        };
        let begin = asked.iter().map(|asked| asked.began).min();
        let since = |at: Instant| begin.map_or(Duration::ZERO, |begin| at.saturating_duration_since(begin));
        let mut connections: HashMap<(usize, usize), Vec<&Asked>> = HashMap::new();
        for asked in asked {
            connections.entry(asked.connection).or_default().push(asked);
        }
        for requests in connections.values() {
            verdict.connection(requests, stored, struck, &since);
        }
        for (path, stored) in stored.iter().filter(|(_, stored)| stored.rows > 1) {
            verdict.doubled.push(format!("{path}: {stored:?}"));
        }
        verdict.lines = verdict.judged(allowed);
        verdict
    }

    /// One connection's requests, in their order.
    fn connection(
        &mut self,
        requests: &[&Asked],
        stored: &HashMap<String, Stored>,
        struck: &[Struck],
        since: &impl Fn(Instant) -> Duration,
    ) {
        let is_stored = |asked: &Asked| stored.get(&asked.path).is_some_and(|stored| stored.whole > 0);
        let kill = killed_with(requests, struck);
        // What a worker loses when it dies is the newest it has, of each connection: never something older.
        let last_stored = requests.iter().rposition(|asked| is_stored(asked));
        for (index, asked) in requests.iter().enumerate() {
            let when = || format!("{} at {:.3} s", asked.path, since(asked.ended).as_secs_f64());
            match &asked.outcome {
                Outcome::Complete => {
                    self.complete += 1;
                    if is_stored(asked) {
                        continue;
                    }
                    let newest = last_stored.is_none_or(|last| last < index);
                    match kill.filter(|_| newest).map(|kill| kill.at) {
                        Some(at) if asked.ended >= at => self.unfinished += 1,
                        Some(at) if at - asked.ended < WINDOW => self.windows.push(at - asked.ended),
                        _ => self.lost.push(when()),
                    }
                }
                _ if kill.is_some() => self.cut += 1,
                Outcome::Crossed if struck.iter().any(|struck| struck.replaced(asked)) => self.crossed += 1,
                Outcome::Crossed => self.failed.push(format!("{}: closed before an answer", when())),
                Outcome::Failed(why) => self.failed.push(format!("{}: {why}", when())),
            }
        }
    }

    fn judged(&self, allowed: Allowed) -> Vec<Line> {
        let mut windows = self.windows.clone();
        windows.sort_unstable();
        let mut lines = vec![
            Line::told("requests, complete", format!("{}, {}", self.asked, self.complete)),
            Line::none("complete, but not stored", self.lost.len()),
            Line::none("stored more than once", self.doubled.len()),
            Line::none("failed on connections that no killed worker had", self.failed.len()),
            Line::told("failed on connections of killed workers", self.cut),
        ];
        if self.crossed > 0 {
            lines.push(Line::told(
                "crossed the close of an idle connection, sent again",
                self.crossed,
            ));
        }
        match allowed {
            Allowed::InFlight if windows.is_empty() && self.unfinished == 0 => {}
            Allowed::InFlight => lines.extend([
                Line::told("lost with a killed worker: not ended at the kill", self.unfinished),
                Line::told("lost with a killed worker: ended just before it", windows.len()),
                Line {
                    measured: spread(windows.iter().copied()),
                    ..Line::within("… how long before, 99 of 100", WINDOW_P99, percentile(&windows, 99))
                },
            ]),
            Allowed::Nothing => lines.push(Line::none("lost with a killed worker", windows.len() + self.unfinished)),
        }
        lines.push(Line::told(
            "caught up after the load in",
            format!("{:.1?}", self.caught_up),
        ));
        lines
    }

    /// Is nothing lost, doubled or failed? Tells nothing of figures that depend on the machine's speed.
    pub fn is_sound(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.failed.is_empty()
    }

    /// Is everything as it must be?
    pub fn is_clean(&self) -> bool {
        self.lines.iter().all(|line| line.met)
    }
}

/// The kill that ended a connection, if one did: it was there by then, it broke then or later, and nothing that was
/// asked on it afterwards was answered. One that waited for its worker's successor is none of the killed worker's.
fn killed_with<'s>(requests: &[&Asked], struck: &'s [Struck]) -> Option<&'s Struck> {
    let broke = requests.iter().find(|asked| asked.outcome != Outcome::Complete)?;
    let kills = struck.iter().filter(|struck| struck.fault.kills_worker());
    let kill = kills
        .filter(|kill| kill.began <= broke.ended)
        .max_by_key(|kill| kill.began)?;
    let answered_after = |asked: &&Asked| asked.outcome == Outcome::Complete && asked.began > kill.done;
    (broke.connected <= kill.done && !requests.iter().any(answered_after)).then_some(kill)
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "  {line}")?;
        }
        for (what, list) in [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("failed", &self.failed),
        ] {
            for one in list.iter().take(10) {
                writeln!(f, "    {what}: {one}")?;
            }
        }
        Ok(())
    }
}
