//! Times, as they are given and shown: given as RFC 3339 or as an age, shown in UTC.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339, macros::format_description};

/// Parses `2026-11-21T09:30:00Z`, `2026-11-21` or an age such as `10m` or `1h 30m`.
pub(crate) fn parse_since(text: &str) -> Result<SystemTime, String> {
    parse_since_at(text, SystemTime::now())
}

fn parse_since_at(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(at.into());
    }
    if let Ok(date) = time::Date::parse(text, format_description!("[year]-[month]-[day]")) {
        return Ok(date.midnight().assume_utc().into());
    }
    let age = humantime::parse_duration(text)
        .map_err(|_| "expected a time such as 2026-11-21T09:30:00Z or an age such as 10m, 2h or 1d".to_owned())?;
    now.checked_sub(age).ok_or_else(|| "the age is too large".to_owned())
}

/// Parses a duration such as `30s`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// RFC 3339 in UTC, to the microsecond.
pub(crate) fn rfc3339(at: &Timestamp) -> Option<String> {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    utc(at)?.format(format).ok()
}

/// `09:30:00.123` for lines of a live view, in UTC.
pub(crate) fn clock(at: Option<&Timestamp>) -> String {
    let format = format_description!("[hour]:[minute]:[second].[subsecond digits:3]");
    at.and_then(utc)
        .and_then(|at| at.format(format).ok())
        .unwrap_or_else(|| "-".to_owned())
}

/// `11-21 09:30:00` for tables, in UTC.
pub(crate) fn short(at: Option<&Timestamp>) -> String {
    let format = format_description!("[month]-[day] [hour]:[minute]:[second]");
    at.and_then(utc)
        .and_then(|at| at.format(format).ok())
        .unwrap_or_else(|| "-".to_owned())
}

/// Microseconds as `850 µs`, `12.3 ms` or `4.56 s`.
pub(crate) fn micros(us: i64) -> String {
    match us {
        ..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

/// Seconds as `42s`, `3m 5s`, `2h 7m` or `9d 4h`.
pub(crate) fn uptime(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m {}s", seconds % 60),
        3_600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// Bytes as `512 B`, `1.5 KiB`, `3.0 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1_024.0 {
            break;
        }
        value /= 1_024.0;
        unit = next;
    }
    if unit == "B" {
        format!("{count} B")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// Parses a number of bytes: `1048576`, `64KiB`, `10M`, `1.5GiB` (powers of 1,024 throughout). Exact: what is no whole
/// number of bytes is refused.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || "expected a number of bytes such as 1048576, 64KiB, 10M or 1.5GiB".to_owned();
    let end = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let (number, unit) = text.split_at(text.len() - end.len());
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    // As a fraction of integers: the digits without the point, over a power of ten.
    let parse = |digits: &str| digits.parse::<u128>().map_err(|_| wrong());
    let (whole, places, fraction) = (parse(whole)?, fraction.len(), parse(fraction)?);
    let too_large = || "that is more than can be counted".to_owned();
    let ten_to = u32::try_from(places)
        .ok()
        .and_then(|places| 10_u128.checked_pow(places));
    let ten_to = ten_to.ok_or_else(too_large)?;
    let scaled = whole.checked_mul(ten_to).and_then(|whole| whole.checked_add(fraction));
    let bytes = scaled
        .and_then(|scaled| scaled.checked_mul(1 << shift))
        .ok_or_else(too_large)?;
    if bytes % ten_to != 0 {
        return Err("that is no whole number of bytes".to_owned());
    }
    u64::try_from(bytes / ten_to).map_err(|_| too_large())
}

fn utc(at: &Timestamp) -> Option<OffsetDateTime> {
    let nanos = i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    Some(
        OffsetDateTime::from_unix_timestamp_nanos(nanos)
            .ok()?
            .to_offset(UtcOffset::UTC),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ages_are_understood() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(parse_since_at("10m", now).unwrap(), now - Duration::from_mins(10));
        let noon = SystemTime::UNIX_EPOCH + Duration::from_hours(12);
        assert_eq!(parse_since_at("1970-01-01T12:00:00Z", now).unwrap(), noon);
        assert_eq!(parse_since_at("1970-01-01T14:00:00+02:00", now).unwrap(), noon);
        assert_eq!(
            parse_since_at("1970-01-02", now).unwrap(),
            noon + Duration::from_hours(12)
        );
        assert!(parse_since_at("yesterday", now).is_err());
    }

    #[test]
    fn times_are_shown_in_utc() {
        let at = Timestamp {
            seconds: 43_200,
            nanos: 1_500_000,
        };
        assert_eq!(rfc3339(&at).unwrap(), "1970-01-01T12:00:00.001500Z");
        assert_eq!(clock(Some(&at)), "12:00:00.001");
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(parse_bytes("10M").unwrap(), 10 << 20);
        assert_eq!(parse_bytes("64 KiB").unwrap(), 64 << 10);
        assert_eq!(parse_bytes("64TiB").unwrap(), 64 << 40);
        assert_eq!(parse_bytes("1.5GiB").unwrap(), 3 << 29);
        assert_eq!(parse_bytes("0.1k").unwrap_err(), "that is no whole number of bytes");
        assert_eq!(
            parse_bytes("16777215.9990234375 T").unwrap(),
            u64::MAX - ((1 << 30) - 1)
        );
        for bad in [
            "",
            "M",
            "-1",
            "1X",
            "99999999999G",
            ".",
            "1.",
            ".5M",
            "1.5.5M",
            "1.5",
            "1e3",
            "+1",
            "1,5M",
            "0.00000000000000000000000000000000000000000001T",
        ] {
            assert!(parse_bytes(bad).is_err(), "{bad:?}");
        }
        assert_eq!((bytes(1_023), bytes(1_536)), ("1023 B".into(), "1.5 KiB".into()));
    }
}
