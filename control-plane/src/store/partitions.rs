//! Partitions of the traffic tables: one per day, by the time in the UUIDv7 of the exchange (RFC 9562 §5.7).

use std::fmt;

use sqlx::{AssertSqlSafe, PgConnection, PgExecutor};
use time::{Date, OffsetDateTime, macros::date};
use uuid::Uuid;

use super::StoreError;

/// The partitioned tables. All have the same bounds, so that whole days can be detached together.
pub const TABLES: [&str; 5] = [
    "exchanges",
    "heads",
    "body_chunks",
    "websocket_connections",
    "websocket_messages",
];
/// Days before and after today for which an exchange is believed. More is a broken clock or a forged id.
pub const DAYS_BELIEVED: i32 = 366;
/// Serialises those who make partitions: an arbitrary number of ours.
const LOCK: i64 = 0x7070_6172_7473;

const MS_PER_DAY: i64 = 86_400_000;
const EPOCH: Date = date!(1970 - 01 - 01);

/// A day (UTC), counted from 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Day(i32);

impl Day {
    /// The day of a time.
    pub fn of(time: OffsetDateTime) -> Self {
        Self(i32::try_from(time.unix_timestamp().div_euclid(86_400)).unwrap_or(i32::MAX))
    }

    /// The day of a UUIDv7, from its 48-bit count of milliseconds.
    pub fn of_id(id: &[u8; 16]) -> Self {
        let ms = id[..6].iter().fold(0_i64, |ms, byte| ms << 8 | i64::from(*byte));
        Self(i32::try_from(ms / MS_PER_DAY).unwrap_or(i32::MAX))
    }

    /// So many days later.
    #[must_use]
    pub fn plus(self, days: i32) -> Self {
        Self(self.0.saturating_add(days))
    }

    /// May there be traffic of this day, if it is `today`?
    pub fn is_believed(self, today: Self) -> bool {
        self.0 >= 0 && self.0.abs_diff(today.0) <= DAYS_BELIEVED.unsigned_abs()
    }

    /// The lowest id of the day; the partition has this up to, not including, the next day's.
    pub fn first_id(self) -> Uuid {
        id_at_ms(i64::from(self.0) * MS_PER_DAY)
    }

    /// `20261121`.
    fn suffix(self) -> String {
        let date = EPOCH
            .checked_add(time::Duration::days(i64::from(self.0)))
            .unwrap_or(Date::MAX);
        format!("{:04}{:02}{:02}", date.year(), u8::from(date.month()), date.day())
    }
}

/// The lowest id that can have been made at `time` or later; `None` before 1970.
pub fn first_id_at(time: OffsetDateTime) -> Option<Uuid> {
    let ms = i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()?;
    (0..1 << 48).contains(&ms).then(|| id_at_ms(ms))
}

/// All else is zero, even the version, so that it is below every id of that millisecond.
fn id_at_ms(ms: i64) -> Uuid {
    Uuid::from_u128(u128::from(ms.cast_unsigned()) << 80)
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffix())
    }
}

/// Makes the partitions of a day that are missing, in the caller's transaction. Answers whether any was. One that was
/// detached is attached again: nothing of its day could be stored otherwise.
///
/// LIKE + ATTACH, not `CREATE … PARTITION OF`: that one waits for every reader of the table.
pub async fn ensure(db: &mut PgConnection, day: Day) -> Result<bool, StoreError> {
    let mut made = false;
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", LOCK)
        .execute(&mut *db)
        .await?;
    let suffix = day.suffix();
    let (from, to) = (day.first_id(), day.plus(1).first_id());
    for table in TABLES {
        let name = format!("{table}_{suffix}");
        let found = find(&mut *db, &name).await?;
        if found == Found::Attached {
            continue;
        }
        // Nothing in these statements comes from outside.
        if found == Found::Nothing {
            let create = format!("CREATE TABLE {name} (LIKE {table} INCLUDING ALL)");
            sqlx::query(AssertSqlSafe(create)).execute(&mut *db).await?;
        }
        let attach = format!("ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{from}') TO ('{to}')");
        sqlx::query(AssertSqlSafe(attach)).execute(&mut *db).await?;
        made = true;
    }
    Ok(made)
}

/// What there is of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// A table that is not part of its parent.
    Detached,
    Attached,
}

async fn find(db: impl PgExecutor<'_>, name: &str) -> Result<Found, StoreError> {
    let row = sqlx::query!(
        r#"SELECT to_regclass($1) IS NOT NULL AS "exists!",
                  EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass($1)) AS "attached!""#,
        name
    )
    .fetch_one(db)
    .await?;
    Ok(match (row.exists, row.attached) {
        (false, _) => Found::Nothing,
        (true, false) => Found::Detached,
        (true, true) => Found::Attached,
    })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_day_holds_its_ids_and_no_others() {
        let midnight = datetime!(2026-11-21 00:00 UTC);
        let day = Day::of(midnight);
        assert_eq!(day.suffix(), "20261121");
        for (time, inside) in [
            (midnight, true),
            (datetime!(2026-11-21 23:59:59.999 UTC), true),
            (datetime!(2026-11-20 23:59:59.999 UTC), false),
            (datetime!(2026-11-22 00:00 UTC), false),
        ] {
            let ms = (time.unix_timestamp_nanos() / 1_000_000) as u64;
            let lowest = uuid::Builder::from_unix_timestamp_millis(ms, &[0; 10]).into_uuid();
            let highest = uuid::Builder::from_unix_timestamp_millis(ms, &[0xff; 10]).into_uuid();
            for id in [lowest, highest] {
                assert_eq!(id >= day.first_id() && id < day.plus(1).first_id(), inside, "{id}");
                assert_eq!(Day::of_id(id.as_bytes()) == day, inside, "{id}");
            }
        }
    }

    #[test]
    fn forged_times_are_not_believed() {
        let today = Day::of(datetime!(2026-11-21 12:00 UTC));
        assert!(today.plus(DAYS_BELIEVED).is_believed(today) && today.plus(-DAYS_BELIEVED).is_believed(today));
        assert!(!Day::of_id(&[0xff; 16]).is_believed(today) && !Day::of_id(&[0; 16]).is_believed(today));
    }
}
