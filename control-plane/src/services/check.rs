//! Checks of raw values that both kinds of resource need.

use std::time::Duration;

use proxyplane_spec::{Violation, limits};

use super::Error;

/// Collects violations: every field is looked at before a request is refused.
#[derive(Debug, Default)]
pub(super) struct Checks(Vec<Violation>);

impl Checks {
    /// The value, or a note of what is wrong with it.
    pub(super) fn take<T>(&mut self, checked: Result<T, Violation>) -> Option<T> {
        checked.map_err(|violation| self.0.push(violation)).ok()
    }

    /// The same for a value that has several fields.
    pub(super) fn take_all<T>(&mut self, checked: Result<T, Vec<Violation>>) -> Option<T> {
        checked.map_err(|violations| self.0.extend(violations)).ok()
    }

    /// `value` if nothing at all was wrong.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, Error> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(Error::Invalid(self.0)),
        }
    }
}

/// What is wrong with values that were checked.
pub(super) fn violations<T>(checked: Result<T, Error>) -> Vec<Violation> {
    checked
        .err()
        .map(|error| error.violations().to_vec())
        .unwrap_or_default()
}

/// A port number; `zero` says whether 0 may be given, for a free one.
pub(super) fn port(field: &str, port: u32, zero: bool) -> Result<u16, Violation> {
    match u16::try_from(port) {
        Ok(port) if port > 0 || zero => Ok(port),
        _ if zero => Err(Violation::new(field, "must be 1 to 65535, or 0 for a free one")),
        _ => Err(Violation::new(field, "must be 1 to 65535")),
    }
}

/// How long a drain may take.
pub(super) fn drain(drain: Option<Duration>) -> Result<Option<Duration>, Error> {
    if drain.is_some_and(|drain| drain > limits::DRAIN_TIMEOUT_MAX) {
        return Err(Error::Invalid(vec![Violation::new(
            "drain_timeout",
            "must be at most 1 hour",
        )]));
    }
    Ok(drain)
}

/// Paths of an update mask: at least one, each among `known`.
pub(super) fn mask(mask: &[String], known: &[&str]) -> Result<(), Vec<Violation>> {
    if mask.is_empty() {
        return Err(vec![Violation::new(
            "update_mask",
            format!("must name what changes: {}", known.join(", ")),
        )]);
    }
    let unknown = mask.iter().filter(|path| !known.contains(&path.as_str()));
    let violations: Vec<_> = unknown
        .map(|path| {
            Violation::new(
                "update_mask",
                format!("has no updatable field '{}'", path.escape_debug()),
            )
        })
        .collect();
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}

/// The etag that a change is based on; empty means any.
pub(super) fn etag(etag: String) -> Option<String> {
    (!etag.is_empty()).then_some(etag)
}

/// The same violations with paths below `parent`.
pub(super) fn below(parent: &str, violations: Vec<Violation>) -> Vec<Violation> {
    violations
        .into_iter()
        .map(|v| Violation::new(format!("{parent}.{}", v.field), v.description))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_in_range_and_zero_only_where_one_is_picked() {
        assert_eq!(port("port", 0, true), Ok(0));
        assert!(port("port", 0, false).is_err());
        assert_eq!(port("port", 65_535, false), Ok(65_535));
        assert!(port("port", 65_536, true).is_err());
    }

    #[test]
    fn a_mask_names_known_fields() {
        let known = ["name", "port"];
        assert!(mask(&["port".into()], &known).is_ok());
        assert!(mask(&[], &known).is_err());
        assert_eq!(
            mask(&["a".into(), "b".into(), "name".into()], &known)
                .unwrap_err()
                .len(),
            2
        );
    }
}
