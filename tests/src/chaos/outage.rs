//! Something is away for long: nobody who is served notices, and afterwards everything is stored.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    Line, Load, Outcome, Verdict,
    line::spread,
    sampler::{Most, Sampler, Watched},
    stage::{Outcomes, Stage},
    verdict::Allowed,
};
use crate::{Frozen, OwnPostgres, World, eventually};

/// Load before the outage: what is usual,
const BEFORE: Duration = Duration::from_secs(8);
/// of which the first is left out.
const WARM: Duration = Duration::from_secs(2);
/// Load after it.
const AFTER: Duration = Duration::from_secs(5);
/// A control plane that starts answers by then, and one without a database says so by then.
const ANSWERS: Duration = Duration::from_secs(2);
/// Between questions to a control plane without a database.
const ASK: Duration = Duration::from_secs(1);
/// Resident memory that no process may exceed, MiB: what issue 3 gives a worker with 1 GiB in its spool.
const MEMORY: u64 = 150;
/// Connections to the database at once, also those that were given up and wait in its queue until it goes on: the private
/// server's `max_connections`. More would be refused then, and with them some that are wanted.
const CONNECTIONS: u64 = 64;
/// Attempts to connect in a second, at most.
const ATTEMPTS: u64 = 4;

/// What is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// The control plane was killed and nobody starts it.
    ControlPlaneDown,
    /// Postgres, which is not the control plane's own, was stopped and nobody starts it.
    PostgresDown,
    /// The private Postgres does nothing and keeps its connections: SIGSTOP.
    PostgresHung,
}

/// An outage under load.
#[derive(Clone, Debug)]
pub struct OutagePlan {
    /// What is away.
    pub outage: Outage,
    /// For how long.
    pub length: Duration,
    /// What clients do meanwhile.
    pub load: Load,
}

/// What was seen of an outage, apart from requests.
struct Seen {
    began: Instant,
    ended: Instant,
    /// From the start of what was away until the control plane answered that all is well.
    answered: Duration,
    /// The longest that the control plane took to say that its database is away.
    refused: Option<Duration>,
    /// Attempts to connect to a database that hung.
    attempts: Option<usize>,
}

impl OutagePlan {
    /// Runs it in a world of its own, which it starts.
    pub fn run(&self) -> Verdict {
        let mut own = (self.outage == Outage::PostgresDown).then(OwnPostgres::start);
        let world = match &own {
            Some(own) => World::start_with(&["--database-url", &own.url()]),
            None => World::start(),
        };
        let mut stage = Stage::start(world, own.as_ref(), &self.load, self.length);
        let began = Instant::now();
        thread::sleep(BEFORE);
        let control_plane = Arc::new(AtomicI32::new(stage.world.pid()));
        let sampler = Sampler::start(Watched {
            worker: stage.worker(),
            control_plane: Arc::clone(&control_plane),
            database: socket(&stage),
        });
        let seen = match self.outage {
            Outage::ControlPlaneDown => self.control_plane_down(&stage, &control_plane),
            Outage::PostgresDown => self.postgres_down(&stage, own.as_mut().expect("it was started")),
            Outage::PostgresHung => self.postgres_hung(&stage),
        };
        thread::sleep(AFTER);
        let outcomes = stage.end();
        let most = sampler.stop();
        let replaced = stage.replaced();
        let mut verdict = Verdict::new(&outcomes, &[], Allowed::Nothing);
        verdict.lines.extend(self.lines(&outcomes, &seen, began, most));
        verdict.lines.push(Line::none("workers that died", replaced));
        verdict
    }

    fn control_plane_down(&self, stage: &Stage, control_plane: &AtomicI32) -> Seen {
        let began = Instant::now();
        control_plane.store(0, Ordering::Relaxed);
        stage.world.kill();
        thread::sleep(self.length);
        let ended = Instant::now();
        stage.world.spawn();
        control_plane.store(stage.world.pid(), Ordering::Relaxed);
        Seen {
            began,
            ended,
            answered: answers(stage, ended),
            refused: None,
            attempts: None,
        }
    }

    fn postgres_down(&self, stage: &Stage, own: &mut OwnPostgres) -> Seen {
        let began = Instant::now();
        own.stop();
        let refused = refuses(stage, self.length);
        own.resume();
        let ended = Instant::now();
        Seen {
            began,
            ended,
            answered: answers(stage, ended),
            refused: Some(refused),
            attempts: None,
        }
    }

    fn postgres_hung(&self, stage: &Stage) -> Seen {
        let world = &stage.world;
        let _ = world.sql("ALTER SYSTEM SET log_connections = on");
        let _ = world.sql("SELECT pg_reload_conf()");
        let log = world.data_dir().join("log/postgres.log");
        let received = || {
            let log = fs::read_to_string(&log).expect("the database has a log");
            log.matches("connection received").count()
        };
        // One that shows that they are logged by now.
        eventually("connections are logged", || {
            let _ = world.sql("SELECT 1");
            (received() > 0).then_some(())
        });
        let began = Instant::now();
        let frozen = Frozen::tree(stage.postmaster());
        let before = received();
        let refused = refuses(stage, self.length);
        let ended = Instant::now();
        drop(frozen);
        let answered = answers(stage, ended);
        Seen {
            began,
            ended,
            answered,
            refused: Some(refused),
            attempts: Some(received() - before),
        }
    }

    fn lines(&self, outcomes: &Outcomes, seen: &Seen, load_began: Instant, most: Most) -> Vec<Line> {
        let asked = |from: Instant, to: Instant| {
            let all = outcomes.asked.iter();
            all.filter(move |asked| (from..to).contains(&asked.began))
        };
        let took = |from, to| {
            let complete = asked(from, to).filter(|asked| asked.outcome == Outcome::Complete);
            spread(complete.map(|asked| asked.ended - asked.began))
        };
        let away = u128::from(asked(seen.began, seen.ended).count() as u64);
        let rate = away * 1_000 / (seen.ended - seen.began).as_millis().max(1);
        let mut lines = vec![
            Line::told("requests a second while it was away", rate),
            Line::told("a request took, before", took(load_began + WARM, seen.began)),
            Line::told("a request took, while it was away", took(seen.began, seen.ended)),
            Line::told(
                "a request took, while it caught up",
                took(seen.ended, seen.ended + AFTER),
            ),
            Line::within("status was answered after its start in", ANSWERS, seen.answered),
        ];
        lines.extend(
            seen.refused
                .map(|refused| Line::within("meanwhile a call was refused with a reason in", ANSWERS, refused)),
        );
        lines.extend([
            Line::at_most("resident memory of the worker, most", MEMORY, most.worker >> 20, " MiB"),
            Line::at_most(
                "resident memory of the control plane, most",
                MEMORY,
                most.control_plane >> 20,
                " MiB",
            ),
        ]);
        if let Some(attempts) = seen.attempts {
            lines.extend([
                Line::at_most(
                    "connections to the database at once, also given up, most",
                    CONNECTIONS,
                    most.connections as u64,
                    "",
                ),
                Line::at_most(
                    "attempts to connect while it hung",
                    ATTEMPTS * self.length.as_secs().max(1),
                    attempts as u64,
                    "",
                ),
            ]);
        }
        lines
    }
}

/// The private database's socket; of another nobody counts connections.
fn socket(stage: &Stage) -> String {
    stage
        .world
        .data_dir()
        .join("run/pg/.s.PGSQL.5432")
        .display()
        .to_string()
}

/// Until the control plane says that all is well.
fn answers(stage: &Stage, since: Instant) -> Duration {
    eventually("the control plane answers", || {
        let status = stage.world.proxyctl(["system", "status"]);
        (status.code == 0).then(|| since.elapsed())
    })
}

/// Asks for the proxies for so long: the longest that one answer took, which must name the reason.
fn refuses(stage: &Stage, length: Duration) -> Duration {
    let end = Instant::now() + length;
    let mut longest = Duration::ZERO;
    while Instant::now() < end {
        let asked = Instant::now();
        let refused = stage.world.proxyctl(["proxy", "list"]);
        longest = longest.max(asked.elapsed());
        assert!(
            refused.code != 0 && refused.stderr.contains("database"),
            "{}: {}",
            refused.command,
            refused.stderr
        );
        thread::sleep(ASK.min(end.saturating_duration_since(Instant::now())));
    }
    longest
}
