//! What is wanted, what was measured, and whether that will do.

use std::{fmt, time::Duration};

/// One line of the table at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What is measured.
    pub what: String,
    /// What it is to be; empty for what is told and not judged.
    pub wanted: String,
    /// What it is.
    pub measured: String,
    /// Is it as wanted?
    pub met: bool,
}

impl Line {
    /// A figure that nobody judges.
    pub(super) fn told(what: &str, measured: impl fmt::Display) -> Self {
        Self {
            what: what.to_owned(),
            wanted: String::new(),
            measured: measured.to_string(),
            met: true,
        }
    }

    /// A count that is to be zero.
    pub(super) fn none(what: &str, count: usize) -> Self {
        Self {
            what: what.to_owned(),
            wanted: "0".to_owned(),
            measured: count.to_string(),
            met: count == 0,
        }
    }

    /// A number that is to be no larger than this.
    pub(super) fn at_most(what: &str, most: u64, count: u64, unit: &str) -> Self {
        Self {
            what: what.to_owned(),
            wanted: format!("≤{most}{unit}"),
            measured: format!("{count}{unit}"),
            met: count <= most,
        }
    }

    /// A time that is to be no longer than this.
    pub(super) fn within(what: &str, most: Duration, time: Duration) -> Self {
        Self {
            what: what.to_owned(),
            wanted: format!("≤{most:?}"),
            measured: format!("{time:.1?}"),
            met: time <= most,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.met, self.wanted.is_empty()) {
            (true, true) => "",
            (true, false) => "ok",
            (false, _) => "MISSED",
        };
        write!(
            f,
            "{:<62} {:<10} {:<34} {verdict}",
            self.what, self.wanted, self.measured
        )
    }
}

/// The value below which this share, in hundredths, of the sorted times lies.
pub(super) fn percentile(sorted: &[Duration], share: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last * share).div_ceil(100)).copied().unwrap_or_default()
}

/// `p50 … p99 … max …` of times in any order.
pub(super) fn spread(times: impl IntoIterator<Item = Duration>) -> String {
    let mut times: Vec<Duration> = times.into_iter().collect();
    times.sort_unstable();
    let [p50, p99, max] = [50, 99, 100].map(|share| percentile(&times, share));
    format!("p50 {p50:.1?} p99 {p99:.1?} max {max:.1?}")
}
