//! A workspace.

use proxyplane_proto::v1;
use serde::Serialize;

use super::{some, time};
use crate::output::{Row, Text, Tone};

#[derive(Serialize)]
pub(crate) struct Workspace {
    pub(crate) id: String,
    pub(crate) code: String,
    title: Option<String>,
    description: Option<String>,
    pub(crate) proxy_count: i32,
    etag: String,
    created_at: Option<String>,
    updated_at: Option<String>,
}

impl From<v1::Workspace> for Workspace {
    fn from(from: v1::Workspace) -> Self {
        Self {
            id: from.id,
            code: from.code,
            title: some(from.title),
            description: some(from.description),
            proxy_count: from.proxy_count,
            etag: from.etag,
            created_at: time(from.created_at.as_ref()),
            updated_at: time(from.updated_at.as_ref()),
        }
    }
}

impl Row for Workspace {
    const COLUMNS: &'static [&'static str] = &["CODE", "PROXIES", "*TITLE", "ID"];

    fn cells(&self) -> Vec<Text> {
        vec![
            Text::plain(&self.code),
            Text::plain(self.proxy_count.to_string()),
            Text::plain(self.title.as_deref().unwrap_or("-")),
            Text::new(&self.id, Tone::Faint),
        ]
    }
}
