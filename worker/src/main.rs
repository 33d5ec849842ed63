//! `proxyplane-worker`: carries the traffic of one ProxyService. Started by the control plane, never by hand.

use std::{io, os::fd::AsFd as _, process::ExitCode, thread};

use clap::Parser;
use proxyplane_proto::LINK_PROTOCOL;
use proxyplane_spec::{HANDOFF_VERSION, Sandbox};
use proxyplane_worker::{
    alarms,
    app::{self, Fatal},
    forward,
    handoff::{self, Handoff, HandoffError},
    link::FEATURES,
    panics, sandbox,
};
use tracing_subscriber::{Layer as _, filter::LevelFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Exit statuses, sysexits(3).
const EX_USAGE: u8 = 64;
const EX_SOFTWARE: u8 = 70;

/// Most data-plane threads unless told otherwise: beyond two, a capture proxy waits for its records, not for a core.
const THREADS_MAX: usize = 2;

/// Carries the traffic of one ProxyService. The control plane starts it, with a handoff socket as standard input.
#[derive(Debug, Parser)]
#[command(name = "proxyplane-worker", version)]
struct Args {
    /// Data-plane threads [default: one per core, at most 2]
    #[arg(long, env = "PROXYPLANE_WORKER_THREADS", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Option<u16>,
    /// Keep records in memory alone: what is not committed is gone with this process. For measuring what the spool costs
    #[arg(long, env = "PROXYPLANE_WORKER_NO_SPOOL")]
    no_spool: bool,
    /// What is logged: off, error, warn, info, debug or trace
    #[arg(long, env = "PROXYPLANE_LOG_LEVEL", default_value = "info")]
    log_level: LevelFilter,
    /// Carry nothing: send what a worker that is gone has left in its spool, then exit
    #[arg(long)]
    drain_only: bool,
    /// Print version, protocol versions and features as JSON and exit
    #[arg(long)]
    version_json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.version_json {
        print_version();
        return ExitCode::SUCCESS;
    }
    // Standard error is the worker's log file.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(false);
    tracing_subscriber::registry()
        .with(alarms::layer())
        .with(lines.with_filter(args.log_level))
        .init();
    panics::log();
    // The first handoff comes before any thread: the descriptors have an owner before anything can go wrong.
    let handoff = match handoff::receive(io::stdin().as_fd()) {
        Ok(handoff) => handoff,
        Err(error) => {
            tracing::error!(%error, "no handoff");
            return ExitCode::from(if matches!(error, HandoffError::NotASocket) {
                EX_USAGE
            } else {
                EX_SOFTWARE
            });
        }
    };
    // Asked before the sandbox: the answer is read from the control groups' files.
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or(cores.min(THREADS_MAX), usize::from);
    let sandbox = match sandbox::enter(handoff.manifest.account, handoff.manifest.spool.as_deref()) {
        Ok(sandbox) => sandbox,
        Err(error) => {
            tracing::error!(%error, "no sandbox");
            return ExitCode::from(EX_SOFTWARE);
        }
    };
    tracing::info!(%sandbox, "sandbox in force");
    match run(&args, handoff, sandbox, threads) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the worker ends");
            ExitCode::from(EX_SOFTWARE)
        }
    }
}

fn run(args: &Args, mut handoff: Handoff, sandbox: Sandbox, threads: usize) -> Result<(), Fatal> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()?;
    if args.drain_only {
        return runtime.block_on(app::drain_only(handoff, sandbox));
    }
    if args.no_spool {
        tracing::warn!("records are kept in memory alone, as --no-spool asks");
        handoff.manifest.spool = None;
    }
    runtime.block_on(app::run(handoff, sandbox, threads, forward::serve))
}

#[expect(clippy::print_stdout, reason = "the answer to --version-json is data")]
fn print_version() {
    let version = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "link_protocol": LINK_PROTOCOL,
        "handoff_version": HANDOFF_VERSION,
        "features": FEATURES,
    });
    println!("{version}");
}
