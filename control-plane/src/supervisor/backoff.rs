//! How long to wait before a worker that died is replaced, and when to give up.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// A worker that had been READY for this long is replaced at once, however it died, and its death is no sign of a crash loop.
pub(crate) const STABLE_AFTER: Duration = Duration::from_secs(5);
/// This many early deaths within [`BREAKER_WINDOW`] open the breaker.
pub(crate) const BREAKER_DEATHS: usize = 5;
/// The breaker looks back this far.
pub(crate) const BREAKER_WINDOW: Duration = Duration::from_mins(1);

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// The early deaths of a service's workers since one of them was last stable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deaths {
    consecutive: u32,
    recent: VecDeque<Instant>,
}

/// What a worker that died had done before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// It was never READY.
    Never,
    /// It was READY for this long. `killed`: until somebody else sent it SIGKILL.
    For { time: Duration, killed: bool },
}

/// What to do about a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Start another worker at this time.
    RespawnAt(Instant),
    /// It is a crash loop: start no more.
    GiveUp,
}

impl Deaths {
    /// Counts a death. `jitter` is in 0..1.
    ///
    /// A kill of a worker that was READY says nothing about the worker: it is replaced at once, and what was counted
    /// before stays as it is. One that was never READY has not shown that it can be: its death counts, whatever it died
    /// of.
    pub(crate) fn count(&mut self, served: Served, now: Instant, jitter: f64) -> Verdict {
        match served {
            Served::For { time, .. } if time >= STABLE_AFTER => {
                *self = Self::default();
                return Verdict::RespawnAt(now);
            }
            Served::For { killed: true, .. } => return Verdict::RespawnAt(now),
            Served::For { killed: false, .. } | Served::Never => {}
        }
        self.recent.push_back(now);
        while self
            .recent
            .front()
            .is_some_and(|death| now.duration_since(*death) > BREAKER_WINDOW)
        {
            self.recent.pop_front();
        }
        if self.recent.len() >= BREAKER_DEATHS {
            return Verdict::GiveUp;
        }
        let delay = delay(self.consecutive, FIRST_DELAY, LONGEST_DELAY, jitter);
        self.consecutive = self.consecutive.saturating_add(1);
        Verdict::RespawnAt(now + delay)
    }
}

/// `first`·2ⁿ, spread by a quarter to both sides so that services that died together do not come back together, and
/// never over `longest`.
pub(crate) fn delay(n: u32, first: Duration, longest: Duration, jitter: f64) -> Duration {
    let doubled = first
        .saturating_mul(1_u32.checked_shl(n.min(31)).unwrap_or(u32::MAX))
        .min(longest);
    doubled.mul_f64(0.75 + 0.5 * jitter.clamp(0.0, 1.0)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: f64 = 0.5;
    const KILLED: Served = Served::For {
        time: Duration::ZERO,
        killed: true,
    };

    fn crashed_after(time: Duration) -> Served {
        Served::For { time, killed: false }
    }

    #[test]
    fn a_worker_that_was_stable_is_replaced_at_once() {
        let (mut deaths, now) = (Deaths::default(), Instant::now());
        deaths.count(Served::Never, now, MIDDLE);
        assert_eq!(
            deaths.count(crashed_after(STABLE_AFTER), now, MIDDLE),
            Verdict::RespawnAt(now)
        );
        assert_eq!(deaths, Deaths::default());
    }

    #[test]
    fn a_worker_that_was_killed_is_replaced_at_once_and_neither_counts_nor_excuses_others() {
        let (mut deaths, now) = (Deaths::default(), Instant::now());
        for _ in 0..4 {
            deaths.count(Served::Never, now, MIDDLE);
            let before = deaths.clone();
            for _ in 0..12 {
                assert_eq!(deaths.count(KILLED, now, MIDDLE), Verdict::RespawnAt(now));
            }
            assert_eq!(deaths, before);
        }
        assert_eq!(deaths.count(Served::Never, now, MIDDLE), Verdict::GiveUp);
    }

    #[test]
    fn early_deaths_double_the_delay() {
        let (mut deaths, now) = (Deaths::default(), Instant::now());
        for expected in [100, 200, 400, 800] {
            let at = now + Duration::from_millis(expected);
            assert_eq!(
                deaths.count(crashed_after(Duration::from_secs(1)), now, MIDDLE),
                Verdict::RespawnAt(at)
            );
        }
    }

    #[test]
    fn the_fifth_early_death_within_a_minute_opens_the_breaker() {
        let (mut deaths, mut now) = (Deaths::default(), Instant::now());
        for _ in 0..4 {
            assert_ne!(deaths.count(Served::Never, now, MIDDLE), Verdict::GiveUp);
            now += Duration::from_secs(14);
        }
        assert_eq!(deaths.count(Served::Never, now, MIDDLE), Verdict::GiveUp);
    }

    #[test]
    fn deaths_further_apart_are_retried_for_ever_up_to_thirty_seconds() {
        let (mut deaths, mut now) = (Deaths::default(), Instant::now());
        for _ in 0..100 {
            let Verdict::RespawnAt(at) = deaths.count(Served::Never, now, 1.0) else {
                panic!("gave up")
            };
            assert!(at - now <= LONGEST_DELAY);
            now += Duration::from_secs(16);
        }
    }

    #[test]
    fn jitter_spreads_by_a_quarter() {
        let delay = |jitter| delay(1, FIRST_DELAY, LONGEST_DELAY, jitter).as_millis();
        assert_eq!((delay(0.0), delay(1.0)), (150, 250));
    }
}
