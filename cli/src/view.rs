//! What the API's messages look like as JSON and in tables. Names of fields are a contract: scripts read them.

mod change;
mod detail;
mod draining;
mod event;
mod exchange;
mod head;
mod proxy;
mod revision;
mod websocket;
mod workspace;

pub(crate) use change::{Change, Configuration};
pub(crate) use detail::Detail;
pub(crate) use event::Event;
pub(crate) use exchange::Exchange;
pub(crate) use proxy::Proxy;
pub(crate) use revision::Revision;
pub(crate) use websocket::{Connection, Message};
pub(crate) use workspace::Workspace;

use prost_types::Timestamp;

use crate::{names::DEFAULT_WORKSPACE, when};

/// RFC 3339, or null.
fn time(at: Option<&Timestamp>) -> Option<String> {
    at.and_then(when::rfc3339)
}

/// What the API says with an empty text, JSON says with null.
fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// How a proxy is named on the command line: those of other workspaces than the default one may have the same name.
fn proxy_path(workspace: Option<&str>, proxy: Option<&str>) -> Option<String> {
    let proxy = proxy?;
    let elsewhere = workspace.filter(|code| *code != DEFAULT_WORKSPACE);
    Some(elsewhere.map_or_else(|| proxy.to_owned(), |code| format!("{code}/{proxy}")))
}

/// The name of a setting, of its path in an update mask: those of the kind of proxy stand beside the others.
fn setting(path: &str) -> &str {
    path.strip_prefix("capture.").unwrap_or(path)
}

/// The last part of an enum's name in lower case: `PROXY_STATE_RUNNING` without its prefix is `running`.
fn variant(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}
