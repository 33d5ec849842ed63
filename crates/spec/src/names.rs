//! Names that people give.

use std::fmt;

use crate::Violation;

/// Code of a workspace: 1–63 of a–z, 0–9, `-`, `_`, starting with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkspaceCode(String);

impl WorkspaceCode {
    /// Checks `text`; violations name `field`.
    pub fn parse(field: &str, text: &str) -> Result<Self, Violation> {
        let ok = (1..=63).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
            && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if ok {
            Ok(Self(text.to_owned()))
        } else {
            Err(Violation::new(
                field,
                "must be 1 to 63 of a-z, 0-9, '-' and '_', starting with a letter or digit",
            ))
        }
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Name of a ProxyService: 1–63 characters, no `/`, no control characters, no blanks at its ends, not a UUID.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(String);

impl ServiceName {
    /// Checks `text`; violations name `field`.
    pub fn parse(field: &str, text: &str) -> Result<Self, Violation> {
        let length = text.chars().count();
        if !(1..=63).contains(&length) {
            return Err(Violation::new(field, "must have 1 to 63 characters"));
        }
        if text.trim() != text {
            return Err(Violation::new(field, "must not begin or end with a blank"));
        }
        if text.chars().any(|c| c == '/' || c.is_control()) {
            return Err(Violation::new(field, "must not contain '/' or control characters"));
        }
        if uuid::Uuid::try_parse(text).is_ok() {
            return Err(Violation::new(field, "must not look like an id"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkspaceCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks a title: at most 200 characters, no control characters.
pub fn check_title(field: &str, text: &str) -> Result<String, Violation> {
    if text.chars().count() > 200 {
        return Err(Violation::new(field, "must have at most 200 characters"));
    }
    if text.chars().any(char::is_control) {
        return Err(Violation::new(field, "must not contain control characters"));
    }
    Ok(text.to_owned())
}

/// Checks a description: at most 10,000 characters, no NUL.
pub fn check_description(field: &str, text: &str) -> Result<String, Violation> {
    if text.chars().count() > 10_000 {
        return Err(Violation::new(field, "must have at most 10,000 characters"));
    }
    if text.contains('\0') {
        return Err(Violation::new(field, "must not contain NUL"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_with_their_field() {
        for bad in [
            "",
            " a",
            "a ",
            "a/b",
            "a\u{1b}[31m",
            "0190d2a8-0000-7000-8000-000000000000",
            &"x".repeat(64),
        ] {
            assert_eq!(ServiceName::parse("name", bad).unwrap_err().field, "name", "{bad:?}");
        }
        for good in ["a", "Testing Proxy", "прокси", &"x".repeat(63)] {
            assert!(ServiceName::parse("name", good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn codes_are_lower_case_words() {
        for bad in ["", "A", "-a", "a b", "ä"] {
            assert!(WorkspaceCode::parse("code", bad).is_err(), "{bad:?}");
        }
        assert!(WorkspaceCode::parse("code", "team-1_x").is_ok());
    }
}
