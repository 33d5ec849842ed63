//! A row of the history.

use std::ops::Deref;

use serde_json::Value;

/// Which body.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    /// The request's.
    Request,
    /// The response's.
    Response,
}

impl Side {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

/// A row of the history: fields are read as of JSON, `exchange["status"]`.
#[derive(Clone, Debug)]
pub struct Exchange {
    row: Value,
}

impl Exchange {
    pub(crate) fn new(workspace: &str, row: Value) -> Self {
        assert!(row["id"].is_string(), "an exchange of {workspace} without an id: {row}");
        Self { row }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        self.row["id"].as_str().unwrap_or_default()
    }

    /// Is it complete or failed?
    pub fn has_ended(&self) -> bool {
        self.row["state"] != "open"
    }

    /// `METHOD status`, or the error in place of the status.
    pub fn summary(&self) -> String {
        let outcome = if self.row["error"].is_string() {
            &self.row["error"]
        } else {
            &self.row["status"]
        };
        let outcome = outcome.as_str().map_or_else(|| outcome.to_string(), str::to_owned);
        format!("{} {outcome}", self.row["method"].as_str().unwrap_or("-"))
    }
}

impl Deref for Exchange {
    type Target = Value;
    fn deref(&self) -> &Value {
        &self.row
    }
}
