//! Between the wire and the domain: ids, times, pages and enums are parsed here, once, and encoded here.

pub(super) mod events;
pub(super) mod proxies;
pub(super) mod revisions;
pub(super) mod traffic;
pub(super) mod workspaces;

use prost_types::Timestamp;
use proxyplane_spec::Violation;
use time::OffsetDateTime;
use uuid::Uuid;

use super::status::Refusal;
use crate::store::page::Page;

/// The fields of one request: every one is looked at before the request is refused.
#[derive(Default)]
pub(super) struct Fields(Vec<Violation>);

impl Fields {
    /// The value of a field, or a note of what is wrong with it.
    pub(super) fn take<T>(&mut self, field: Result<T, Violation>) -> Option<T> {
        field.map_err(|violation| self.0.push(violation)).ok()
    }

    /// Notes a wrong field.
    pub(super) fn wrong(&mut self, field: &str, description: &str) {
        self.0.push(Violation::new(field, description));
    }

    /// The same for a request whose id may be wrong: if anything was, what else is wrong with its values is named as well.
    pub(super) fn finish_values<T>(
        mut self,
        request: T,
        rest: impl FnOnce(&T) -> Vec<Violation>,
    ) -> Result<T, Refusal> {
        if !self.0.is_empty() {
            self.0.extend(rest(&request));
        }
        self.finish(Some(request))
    }

    /// The request if nothing was wrong with it.
    pub(super) fn finish<T>(self, request: Option<T>) -> Result<T, Refusal> {
        match request {
            Some(request) if self.0.is_empty() => Ok(request),
            _ => Err(Refusal::invalid(self.0)),
        }
    }
}

/// An id, which must be given.
pub(super) fn id<T: From<Uuid>>(field: &str, text: &str) -> Result<T, Violation> {
    let uuid = (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten();
    uuid.map(T::from)
        .ok_or_else(|| Violation::new(field, "must be a UUID such as 01939c5e-8f4a-7b4e-9d7c-5a3f8f1f2a6b"))
}

/// An id, or nothing.
pub(super) fn optional_id<T: From<Uuid>>(field: &str, text: &str) -> Result<Option<T>, Violation> {
    if text.is_empty() {
        Ok(None)
    } else {
        id(field, text).map(Some)
    }
}

/// Which page; 0 rows means the usual number, more than the most means the most.
pub(super) fn page(size: i32, token: &str) -> Result<Page, Violation> {
    let size = u32::try_from(size).map_err(|_| Violation::new("page_size", "must not be negative"))?;
    Ok(Page::new(size, token))
}

/// A time on the wire.
pub(super) fn timestamp(time: OffsetDateTime) -> Timestamp {
    Timestamp {
        seconds: time.unix_timestamp(),
        nanos: time.nanosecond().cast_signed(),
    }
}

/// A time from the wire.
pub(super) fn time(field: &str, timestamp: Timestamp) -> Result<OffsetDateTime, Violation> {
    let nanos = i128::from(timestamp.seconds) * 1_000_000_000 + i128::from(timestamp.nanos);
    let valid = (0..1_000_000_000)
        .contains(&timestamp.nanos)
        .then(|| OffsetDateTime::from_unix_timestamp_nanos(nanos));
    valid
        .and_then(Result::ok)
        .ok_or_else(|| Violation::new(field, "must be a time between the years 1 and 9999"))
}

#[cfg(test)]
mod tests {
    use proxyplane_spec::ServiceId;

    use super::*;

    #[test]
    fn an_id_is_a_bare_uuid() {
        assert!(id::<ServiceId>("id", "01939c5e-8f4a-7b4e-9d7c-5a3f8f1f2a6b").is_ok());
        for bad in [
            "",
            "1",
            "{01939c5e-8f4a-7b4e-9d7c-5a3f8f1f2a6b}",
            "01939c5e8f4a7b4e9d7c5a3f8f1f2a6b",
            "../../etc/passwd",
        ] {
            assert_eq!(id::<ServiceId>("id", bad).unwrap_err().field, "id", "{bad}");
        }
        assert_eq!(optional_id::<ServiceId>("id", ""), Ok(None));
    }

    #[test]
    fn times_survive_the_wire() {
        let now = OffsetDateTime::now_utc();
        assert_eq!(time("since", timestamp(now)), Ok(now));
        let before = OffsetDateTime::from_unix_timestamp_nanos(-1).unwrap();
        assert_eq!(time("since", timestamp(before)), Ok(before));
        for bad in [
            Timestamp {
                seconds: i64::MAX,
                nanos: 0,
            },
            Timestamp { seconds: 0, nanos: -1 },
        ] {
            assert!(time("since", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        let mut fields = Fields::default();
        let a = fields.take(id::<ServiceId>("a", "x"));
        fields.take(page(-1, ""));
        let refusal = fields.finish(a).unwrap_err();
        assert!(
            refusal.message().contains("a:") && refusal.message().contains("page_size:"),
            "{}",
            refusal.message()
        );
    }
}
