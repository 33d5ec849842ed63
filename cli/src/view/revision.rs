//! A configuration that a proxy has or had.

use proxyplane_proto::v1;
use serde::Serialize;

use super::{setting, time, variant};
use crate::{
    output::{Row, Text, Tone},
    when,
};

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "as the API names them")]
pub(crate) struct Revision {
    revision: i64,
    /// Is it the present one?
    current: bool,
    created_at: Option<String>,
    /// `create`, `update` or `rollback`.
    cause: String,
    /// What a rollback brought back.
    from_revision: Option<i64>,
    /// Fields, as a proxy has them.
    changed: Vec<String>,
    #[serde(skip)]
    when: String,
}

impl Revision {
    /// `current` is the number of the present one.
    pub(crate) fn new(from: &v1::ProxyServiceRevision, current: i64) -> Self {
        Self {
            revision: from.revision,
            current: from.revision == current,
            created_at: time(from.created_at.as_ref()),
            cause: variant(from.cause().as_str_name(), "REVISION_CAUSE_"),
            from_revision: (from.from_revision != 0).then_some(from.from_revision),
            changed: from.changed.iter().map(|path| setting(path).to_owned()).collect(),
            when: when::short(from.created_at.as_ref()),
        }
    }
}

impl Row for Revision {
    const COLUMNS: &'static [&'static str] = &["REVISION", "WHEN", "*CHANGED", "BY"];

    fn cells(&self) -> Vec<Text> {
        let number = self.revision.to_string();
        let changed = if self.changed.is_empty() {
            "-".to_owned()
        } else {
            self.changed.join(", ")
        };
        let by = match self.from_revision {
            Some(from) => format!("{} to {from}", self.cause),
            None => self.cause.clone(),
        };
        vec![
            if self.current {
                Text::new(format!("{number} (current)"), Tone::Good)
            } else {
                Text::plain(number)
            },
            Text::plain(&self.when),
            Text::plain(changed),
            Text::plain(by),
        ]
    }
}
