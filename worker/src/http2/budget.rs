//! How often a client may open a stream and reset it before it has an answer.

use tokio::time::Instant;

/// At once: a browser that leaves a page resets what it was loading.
const BURST: f64 = 500.0;
/// From then on.
const PER_SECOND: f64 = 50.0;

/// A token bucket, full at the beginning.
#[derive(Debug, Default)]
pub(super) struct Budget {
    used: f64,
    last: Option<Instant>,
}

impl Budget {
    /// Takes one; false if there is none left.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        if let Some(last) = self.last.replace(now) {
            let refilled = now.duration_since(last).as_secs_f64() * PER_SECOND;
            self.used = (self.used - refilled).max(0.0);
        }
        self.used += 1.0;
        self.used <= BURST
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_a_flood_does_not() {
        let mut budget = Budget::default();
        let now = Instant::now();
        assert!((0..500).all(|_| budget.take(now)));
        assert!(!budget.take(now));
        let later = now + Duration::from_secs(1);
        assert!((0..48).all(|_| budget.take(later)));
        assert!((0..10).any(|_| !budget.take(later)));
    }
}
