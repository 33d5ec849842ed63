//! A clock that the control plane and its workers read alike, and that nobody sets.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC`, in microseconds: the same in every process of the machine, unlike an `Instant`, which no message
/// can hold.
pub fn monotonic_us() -> u64 {
    // Every Linux has this clock (clock_gettime(2)).
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::monotonic_us;

    #[test]
    fn it_goes_as_instants_go() {
        let (since, began) = (monotonic_us(), Instant::now());
        while began.elapsed() < Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        let passed = began.elapsed();
        assert!(u128::from(monotonic_us() - since) >= passed.as_micros());
    }
}
