//! How fast records are sent that waited on disk: what is passing through meanwhile comes first.
//!
//! As fast as they are taken, records that are read back keep Postgres, the control plane and the link busy without a
//! pause, and on a machine with few cores each request then waits for one of them, on every hop. So they are sent at a
//! steady rate, unless nothing passes and CPUs are to be had.

use std::time::Duration;

use tokio::time::Instant;

use super::pressure::Pressure;

/// Records a second, of small ones.
const RECORDS: f64 = 17_000.0;
/// Bytes a second, of large ones.
const BYTES: f64 = 64.0 * 1024.0 * 1024.0;
/// At least this many times what comes in is sent: however much that is, what waits becomes less.
const GAIN: f64 = 2.0;
/// How much may be sent at once, after a pause too.
const BURST: Duration = Duration::from_millis(10);
/// Between two looks at how much comes in.
const LOOK: Duration = Duration::from_millis(25);
/// Fewer records a second than this are nobody's load.
const QUIET: f64 = 100.0;
/// The share of the time in which somebody waits for a CPU, from which on CPUs are scarce.
const SCARCE: f64 = 0.6;

/// Paces one sender.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When what was sent is paid for.
    due: Option<Instant>,
    /// When was looked at what comes in, what the next number was then, and how many came a second before.
    looked: Option<(Instant, u64)>,
    arrivals: Option<f64>,
    pressure: Pressure,
    /// The records are another instance's: what passes is not known here.
    recovered: bool,
}

impl Pace {
    /// Of a queue whose records are written before they are sent.
    pub(super) fn spooling(pressure: Pressure) -> Self {
        Self {
            pressure,
            ..Self::default()
        }
    }

    /// Of what another instance left.
    pub(super) fn recovered() -> Self {
        Self {
            recovered: true,
            ..Self::default()
        }
    }

    /// Until when the next batch has to wait.
    pub(super) fn rest(&self, now: Instant) -> Option<Instant> {
        self.due
            .and_then(|due| due.checked_sub(BURST))
            .filter(|until| *until > now)
    }

    /// Looks at what comes in, now and then: `next_seq` is the number that the next new record gets.
    fn look(&mut self, now: Instant, next_seq: u64) {
        let Some((at, seq)) = self.looked else {
            self.looked = Some((now, next_seq));
            return;
        };
        let since = now.saturating_duration_since(at);
        if since >= LOOK {
            self.arrivals = Some(next_seq.saturating_sub(seq) as f64 / since.as_secs_f64());
            self.looked = Some((now, next_seq));
            self.pressure.look(now);
        }
    }

    /// A batch is sent; `next_seq` is the number that the next new record gets.
    pub(super) fn sent(&mut self, now: Instant, records: u64, bytes: usize, next_seq: u64) {
        self.look(now, next_seq);
        let takes = if self.is_free() {
            0.0
        } else {
            self.takes(records as f64, bytes as f64)
        };
        let due = self.due.map_or(now, |due| due.max(now));
        self.due = Some(due + Duration::from_secs_f64(takes));
    }

    /// Is there nobody whom it would hold up?
    fn is_free(&self) -> bool {
        let nothing_passes = self.arrivals.is_some_and(|arrivals| arrivals < QUIET) && !self.recovered;
        nothing_passes && self.pressure.share().is_some_and(|share| share < SCARCE)
    }

    /// Seconds.
    fn takes(&self, records: f64, bytes: f64) -> f64 {
        let steady = records / RECORDS + bytes / BYTES;
        match self.arrivals {
            Some(arrivals) if arrivals > 0.0 => steady.min(records / (arrivals * GAIN)),
            _ => steady,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long it takes until `batches` of 100 records of `size` bytes each are sent while `arrivals` a second come in.
    fn time_for(mut pace: Pace, batches: u64, size: usize, arrivals: f64) -> f64 {
        let begin = Instant::now();
        let mut now = begin;
        for _ in 0..batches {
            now = pace.rest(now).unwrap_or(now);
            let new = now.duration_since(begin).as_secs_f64() * arrivals;
            pace.sent(now, 100, 100 * size, new as u64);
        }
        now.duration_since(begin).as_secs_f64()
    }

    /// It has looked, and found that so many come in a second.
    fn pace(share: f64, arrivals: f64) -> Pace {
        Pace {
            arrivals: Some(arrivals),
            ..Pace::spooling(Pressure::of(share))
        }
    }

    #[test]
    fn what_waited_is_sent_at_a_steady_rate_while_something_passes_or_cpus_are_scarce() {
        let not_yet_looked = Pace::spooling(Pressure::of(0.1));
        for steady in [Pace::default(), Pace::recovered(), pace(0.9, 0.0), not_yet_looked] {
            // Over before it looks.
            let small = time_for(steady, 5, 0, 0.0);
            assert!((0.01..=0.024).contains(&small), "{small}");
        }
        for steady in [Pace::default(), Pace::recovered(), pace(0.9, 0.0), pace(0.1, 1_000.0)] {
            let arrivals = steady.arrivals.unwrap_or_default();
            let small = time_for(steady, 1_000, 0, arrivals);
            assert!((5.8..=5.9).contains(&small), "{small}");
        }
        let large = time_for(Pace::default(), 1_000, 64 * 1024, 0.0);
        assert!((100.0..=110.0).contains(&large), "{large}");
    }

    #[test]
    fn what_waited_becomes_less_however_much_comes_in() {
        let time = time_for(Pace::default(), 10_000, 1_500, 40_000.0);
        assert!(1_000_000.0 / time > 60_000.0, "{time}");
    }

    #[test]
    fn while_nothing_passes_what_waited_is_sent_as_fast_as_it_is_taken() {
        assert!(time_for(pace(0.1, 0.0), 1_000, 1_500, 0.0) < 0.001);
    }

    #[test]
    fn after_a_pause_no_more_is_sent_at_once() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        pace.sent(begin, 20_000, 0, 0);
        let later = begin + Duration::from_secs(10);
        assert_eq!(pace.rest(later), None);
        pace.sent(later, 20_000, 0, 0);
        assert!(pace.rest(later).is_some());
    }
}
