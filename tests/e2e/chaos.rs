//! The short form of `make chaos`: a few faults of every kind that must cost nobody anything.

use std::time::Duration;

use clap::ValueEnum as _;
use proxyplane_tests::chaos::{Fault, Plan};

#[test]
fn kills_and_freezes_under_load_lose_nothing_and_double_nothing() {
    let verdict = Plan {
        seed: 7,
        faults: 6,
        kinds: Fault::value_variants().to_vec(),
        pause: (Duration::from_millis(100), Duration::from_secs(1)),
        rate: 300,
        clients: 8,
        settings: Vec::new(),
    }
    .run();
    assert!(verdict.is_clean(), "{verdict}");
    assert!(verdict.complete > 0, "{verdict}");
}
