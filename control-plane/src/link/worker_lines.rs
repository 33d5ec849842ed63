//! Log lines of workers, let through as events at a rate that no worker can exceed: a broken one must not push
//! everybody else's out of the event log.

use std::time::{Duration, Instant};

use proxyplane_proto::worker::{LogLevel, LogLine};

use crate::events::Severity;

/// Lines at once after a pause.
const BURST: u32 = 20;
/// Then one line in this time.
const EVERY: Duration = Duration::from_secs(3);

/// What one worker may still say.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    /// When `left` last grew.
    since: Instant,
    withheld: u64,
}

/// A line that is let through.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) severity: Severity,
    pub(super) text: String,
    /// Lines before it that were not.
    pub(super) withheld: u64,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
            withheld: 0,
        }
    }

    /// The line, unless there were too many.
    pub(super) fn admit(&mut self, line: LogLine, now: Instant) -> Option<Told> {
        let severity = match line.level() {
            LogLevel::Error => Severity::Error,
            LogLevel::Warning | LogLevel::Unspecified => Severity::Warning,
        };
        let due = now.saturating_duration_since(self.since).as_nanos() / EVERY.as_nanos();
        let due = u32::try_from(due).unwrap_or(u32::MAX);
        self.since += EVERY * due.min(BURST);
        self.left = self.left.saturating_add(due).min(BURST);
        if self.left == BURST {
            self.since = now;
        }
        if self.left == 0 {
            self.withheld += 1;
            return None;
        }
        self.left -= 1;
        Some(Told {
            severity,
            text: line.text,
            withheld: std::mem::take(&mut self.withheld),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: LogLevel) -> LogLine {
        LogLine {
            level: level.into(),
            text: "it broke".into(),
        }
    }

    fn told(severity: Severity, withheld: u64) -> Told {
        Told {
            severity,
            text: "it broke".into(),
            withheld,
        }
    }

    #[test]
    fn a_flood_is_let_through_at_a_rate_and_what_is_withheld_is_counted() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        for _ in 0..BURST {
            assert_eq!(
                allowance.admit(line(LogLevel::Error), start),
                Some(told(Severity::Error, 0))
            );
        }
        for _ in 0..7 {
            assert_eq!(allowance.admit(line(LogLevel::Error), start), None);
        }
        let later = start + EVERY;
        assert_eq!(
            allowance.admit(line(LogLevel::Warning), later),
            Some(told(Severity::Warning, 7))
        );
        assert_eq!(allowance.admit(line(LogLevel::Warning), later + EVERY / 2), None);
    }

    #[test]
    fn a_pause_gives_no_more_than_a_burst() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let later = start + EVERY * 10_000;
        let admitted = (0..100).filter_map(|_| allowance.admit(line(LogLevel::Warning), later));
        assert_eq!(admitted.count(), BURST as usize);
    }
}
