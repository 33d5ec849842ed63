//! `make chaos`: what faults cost under load. Prints a table of what is wanted and what was measured; fails if something
//! is missed.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::{
    process::ExitCode,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Parser, ValueEnum};
use proxyplane_tests::chaos::{Allowed, Fault, Load, Outage, OutagePlan, Plan, Verdict};

/// Between two faults: at least this, and at most so much more.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));
/// What a full disk may then cost is waiting, not records.
const BLOCKS: [&str; 2] = ["--spool-full", "block"];

/// Faults under load; afterwards the load generator's log is compared with Postgres, row by row.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to run; may be repeated. Everything, unless given.
    #[arg(long = "scenario", value_enum)]
    scenarios: Vec<Scenario>,
    /// Chooses faults and moments; printed by every run.
    #[arg(long)]
    seed: Option<u64>,
    /// How many faults strike, in scenarios that have more than one.
    #[arg(long, default_value_t = 50)]
    faults: usize,
    /// How long an outage lasts.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "60s")]
    outage: Duration,
    /// Requests a second.
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
    /// Connections.
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// Choose from these faults only; may be repeated.
    #[arg(long = "fault", value_enum)]
    kinds: Vec<Fault>,
    /// More arguments for `proxyctl proxy create`.
    #[arg(last = true)]
    settings: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// SIGKILL of worker, control plane, postmaster, and pairs of them.
    Kills,
    /// The same kills of a service that is `durable_before_end`.
    Durable,
    /// Faults of every kind.
    Faults,
    /// The control plane is down.
    ControlPlaneDown,
    /// Postgres is down.
    PostgresDown,
    /// Postgres is stopped in its tracks.
    PostgresHung,
}

impl Arguments {
    fn run(&self, scenario: Scenario, seed: u64) -> Verdict {
        match scenario {
            Scenario::Kills => self.plan(seed, &Fault::KILLS, Allowed::InFlight, &[]).run(),
            Scenario::Durable => {
                let settings = ["--durable-before-end"];
                self.plan(seed, &Fault::KILLS, Allowed::Nothing, &settings).run()
            }
            Scenario::Faults => self
                .plan(seed, Fault::value_variants(), Allowed::InFlight, &BLOCKS)
                .run(),
            Scenario::ControlPlaneDown => self.outage(Outage::ControlPlaneDown).run(),
            Scenario::PostgresDown => self.outage(Outage::PostgresDown).run(),
            Scenario::PostgresHung => self.outage(Outage::PostgresHung).run(),
        }
    }

    fn plan(&self, seed: u64, kinds: &[Fault], allowed: Allowed, settings: &[&str]) -> Plan {
        Plan {
            seed,
            faults: self.faults,
            kinds: if self.kinds.is_empty() {
                kinds.to_vec()
            } else {
                self.kinds.clone()
            },
            pause: PAUSE,
            load: self.load(settings),
            allowed,
        }
    }

    fn outage(&self, outage: Outage) -> OutagePlan {
        OutagePlan {
            outage,
            length: self.outage,
            load: self.load(&[]),
        }
    }

    fn load(&self, settings: &[&str]) -> Load {
        let settings = settings.iter().map(|&setting| setting.to_owned());
        Load {
            rate: self.rate,
            clients: self.clients,
            settings: settings.chain(self.settings.iter().cloned()).collect(),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = arguments.seed.unwrap_or(u64::from(now.subsec_nanos()));
    let mut scenarios = arguments.scenarios.clone();
    if scenarios.is_empty() {
        scenarios = Scenario::value_variants().to_vec();
    }
    println!("seed {seed} (replay: --seed {seed}), {} requests/s", arguments.rate);
    let mut table = Vec::new();
    for scenario in scenarios {
        println!("{scenario:?} …");
        // A thread of its own: what takes too long is ended by its thread's name and time.
        let ran = thread::scope(|scope| {
            let run = thread::Builder::new().name(format!("{scenario:?}"));
            let run = run.spawn_scoped(scope, || arguments.run(scenario, seed));
            run.ok().and_then(|run| run.join().ok())
        });
        if let Some(verdict) = &ran {
            print!("{verdict}");
        }
        table.push((scenario, ran));
    }
    println!("\nwanted and measured:");
    for (scenario, ran) in &table {
        println!("{scenario:?}");
        let judged = ran.iter().flat_map(|verdict| &verdict.lines);
        for line in judged.filter(|line| !line.wanted.is_empty()) {
            println!("  {line}");
        }
        if ran.is_none() {
            println!("  did not come to its end");
        }
    }
    if table.iter().all(|(_, ran)| ran.as_ref().is_some_and(Verdict::is_clean)) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
