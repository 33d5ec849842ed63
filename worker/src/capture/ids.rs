//! Ids of exchanges: UUIDv7 (RFC 9562 §5.7) of the wall time at which an exchange began.
//!
//! They ascend, so that a list by id is in order within a millisecond, too. But unlike those of the `uuid` crate, which
//! never descend, they follow a clock that is put back: a row would otherwise be filed under a day that is not its own
//! until the clock is where it once was.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use uuid::{Builder, Uuid};

/// Bits of the count within a millisecond; what is more goes on into the next.
const COUNT_BITS: u32 = 20;
/// An exchange that seems to have begun so much before the last one shows that the clock was put back, not that threads
/// overtake each other.
const PUT_BACK_MS: u64 = 1_000;

/// Gives out ids.
pub(super) struct Ids {
    /// Milliseconds since 1970, then the count: those of the last one.
    last: AtomicU64,
}

impl Ids {
    pub(super) const fn new() -> Self {
        Self {
            last: AtomicU64::new(0),
        }
    }

    /// The id of an exchange that began at this time, in microseconds since 1970.
    pub(super) fn next(&self, began_at_us: i64) -> Uuid {
        let ms = u64::try_from(began_at_us / 1_000).unwrap_or_default();
        let next = |last: u64| {
            let last_ms = last >> COUNT_BITS;
            let fresh = ms > last_ms || ms + PUT_BACK_MS < last_ms;
            if fresh { ms << COUNT_BITS } else { last + 1 }
        };
        let last = self.last.fetch_update(Relaxed, Relaxed, |last| Some(next(last)));
        let stamp = next(last.unwrap_or_else(|last| last));
        // The count first, as RFC 9562 §6.2 has it (method 1), then randomness: 20 and 54 bits of 74, without the
        // version's and the variant's.
        let count = stamp & ((1 << COUNT_BITS) - 1);
        let mut bytes: [u8; 10] = rand::random();
        [bytes[0], bytes[1]] = ((count >> 8) as u16).to_be_bytes();
        bytes[2] = (count >> 2 & 0x3f) as u8;
        bytes[3] = (count << 6) as u8 | bytes[3] & 0x3f;
        Builder::from_unix_timestamp_millis(stamp >> COUNT_BITS, &bytes).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const NOW: i64 = 1_800_000_000_123_456;

    fn ms(id: Uuid) -> i64 {
        let (seconds, nanos) = id.get_timestamp().unwrap().to_unix();
        i64::try_from(seconds).unwrap() * 1_000 + i64::from(nanos / 1_000_000)
    }

    #[test]
    fn ids_ascend_within_a_millisecond_and_beyond() {
        let ids = Ids::new();
        let given: Vec<Uuid> = (0..10_000).map(|count| ids.next(NOW + count / 10)).collect();
        assert!(given.is_sorted_by(|a, b| a < b));
        assert!(given.iter().all(|id| id.get_version_num() == 7));
        assert_eq!(ms(given[0]), NOW / 1_000);
        let earlier = ids.next(NOW - 500_000);
        assert!(
            earlier > *given.last().unwrap(),
            "threads that overtake each other do not matter"
        );
    }

    #[test]
    fn ids_follow_a_clock_that_is_put_forward_and_back() {
        const DAY: i64 = 86_400_000_000;
        let ids = Ids::new();
        for jump in [0, DAY, 1_000, -DAY / 24, 5_000] {
            assert_eq!(ms(ids.next(NOW + jump)), (NOW + jump) / 1_000, "{jump}");
        }
    }

    #[test]
    fn ids_of_several_workers_differ() {
        let workers = [Ids::new(), Ids::new(), Ids::new()];
        let ids: HashSet<Uuid> = (0..3_000).map(|count| workers[count % 3].next(NOW)).collect();
        assert_eq!(ids.len(), 3_000);
    }

    #[test]
    fn a_time_before_1970_is_no_panic() {
        assert_eq!(ms(Ids::new().next(-5)), 0);
    }
}
