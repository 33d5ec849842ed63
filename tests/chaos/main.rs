//! `make chaos`: faults at random moments under load, and what they cost. Prints the verdict; fails unless it is clean.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::{
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Parser, ValueEnum as _};
use proxyplane_tests::chaos::{Fault, Plan};

/// Faults under load; afterwards the load generator's log is compared with Postgres, row by row.
#[derive(Debug, Parser)]
struct Arguments {
    /// Chooses faults and moments; printed by every run.
    #[arg(long)]
    seed: Option<u64>,
    /// How many faults strike.
    #[arg(long, default_value_t = 50)]
    faults: usize,
    /// Requests a second.
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
    /// Connections.
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// Choose from these faults only; may be repeated.
    #[arg(long = "fault", value_enum)]
    faults_of: Vec<Fault>,
    /// More arguments for `proxyctl proxy create`.
    #[arg(last = true)]
    settings: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = arguments.seed.unwrap_or(u64::from(now.subsec_nanos()));
    println!("seed {seed}");
    let mut kinds = arguments.faults_of;
    if kinds.is_empty() {
        kinds = Fault::value_variants().to_vec();
    }
    let verdict = Plan {
        seed,
        faults: arguments.faults,
        kinds,
        pause: (Duration::from_millis(200), Duration::from_secs(3)),
        rate: arguments.rate,
        clients: arguments.clients,
        settings: arguments.settings,
    }
    .run();
    print!("{verdict}");
    if verdict.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
