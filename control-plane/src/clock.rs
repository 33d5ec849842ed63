//! Wall time as the store keeps it.

use time::OffsetDateTime;

/// Now, in UTC and whole microseconds: Postgres keeps no more, and a value that was written must equal the one that is
/// read back.
pub fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_microsecond(now.microsecond()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    #[test]
    fn now_has_no_more_than_microseconds() {
        assert_eq!(super::now().nanosecond() % 1_000, 0);
    }
}
