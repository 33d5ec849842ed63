//! Wall time as the store keeps it.

use time::OffsetDateTime;

/// Now, in UTC and whole microseconds: Postgres keeps no more, and a value that was written must equal the one that is
/// read back.
pub fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_microsecond(now.microsecond()).unwrap_or(now)
}

/// For people: to the second.
pub fn shown(at: OffsetDateTime) -> String {
    let (hour, minute, second) = at.to_hms();
    format!("{} {hour:02}:{minute:02}:{second:02} UTC", at.date())
}

#[cfg(test)]
mod tests {
    #[test]
    fn now_has_no_more_than_microseconds() {
        assert_eq!(super::now().nanosecond() % 1_000, 0);
    }
}
