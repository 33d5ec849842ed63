//! The short form of `make chaos`: a few faults of every kind, and short outages, that must cost nobody anything.

use std::time::Duration;

use clap::ValueEnum as _;
use proxyplane_tests::chaos::{Allowed, Fault, Load, Outage, OutagePlan, Plan};

fn load(settings: &[&str]) -> Load {
    Load {
        rate: 300,
        clients: 8,
        settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
    }
}

#[test]
fn kills_and_freezes_under_load_lose_nothing_and_double_nothing() {
    let verdict = Plan {
        seed: 7,
        faults: 6,
        kinds: Fault::value_variants().to_vec(),
        pause: (Duration::from_millis(100), Duration::from_secs(1)),
        load: load(&["--spool-full", "block"]),
        allowed: Allowed::InFlight,
    }
    .run();
    assert!(verdict.is_sound(), "{verdict}");
    assert!(verdict.complete > 0, "{verdict}");
}

#[test]
fn a_killed_worker_that_is_durable_before_the_end_loses_nothing_at_all() {
    let verdict = Plan {
        seed: 11,
        faults: 5,
        kinds: vec![Fault::KillWorker],
        pause: (Duration::from_millis(100), Duration::from_millis(500)),
        load: load(&["--durable-before-end"]),
        allowed: Allowed::Nothing,
    }
    .run();
    assert!(verdict.is_clean(), "{verdict}");
    assert!(verdict.cut > 0, "{verdict}");
}

#[test]
fn a_database_that_is_away_is_noticed_by_no_client() {
    let verdict = OutagePlan {
        outage: Outage::PostgresDown,
        length: Duration::from_secs(3),
        load: load(&[]),
    }
    .run();
    assert!(verdict.is_sound(), "{verdict}");
    assert!(verdict.complete > 0, "{verdict}");
}
