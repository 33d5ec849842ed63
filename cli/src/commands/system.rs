//! `proxyctl system …`

use std::time::{Duration, Instant};

use clap::Subcommand;
use proxyplane_proto::v1::{
    ErrorReason, GetSystemStatusRequest, GetSystemStatusResponse, ListErrorReasonsRequest, SystemPart, UpgradeRequest,
};
use serde::Serialize;

use super::Context;
use crate::{
    error::Error,
    output::{self, Row, Text, Tone},
};

/// For the program that takes over to answer.
const BACK_WITHIN: Duration = Duration::from_secs(30);
/// Between questions whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Health of each part: exits 0 once everything is ready, 1 otherwise, 3 if the server cannot be reached.
    Status,
    /// Execute the program that is now at the server's own path, in place: proxies and Postgres run on.
    Upgrade,
    /// The table of error reasons: reason, gRPC code, HTTP equivalent, exit code.
    Reasons,
}

#[derive(Serialize)]
struct Status {
    ready: bool,
    version: String,
    parts: Vec<Part>,
}

#[derive(Serialize)]
struct Part {
    name: String,
    ready: bool,
    detail: String,
}

impl From<SystemPart> for Part {
    fn from(from: SystemPart) -> Self {
        Self {
            name: from.name,
            ready: from.ready,
            detail: from.detail,
        }
    }
}

impl Row for Part {
    const COLUMNS: &'static [&'static str] = &["PART", "STATE", "*DETAIL"];

    fn cells(&self) -> Vec<Text> {
        let state = if self.ready {
            Text::new("ready", Tone::Good)
        } else {
            Text::new("not ready", Tone::Bad)
        };
        vec![Text::plain(&self.name), state, Text::plain(&self.detail)]
    }
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "JSON calls it reason, as ErrorInfo does")]
struct Reason {
    reason: String,
    grpc_code: String,
    http_status: i32,
    exit_code: i32,
    meaning: String,
}

impl From<ErrorReason> for Reason {
    fn from(from: ErrorReason) -> Self {
        Self {
            reason: from.reason,
            grpc_code: from.grpc_code,
            http_status: from.http_status,
            exit_code: from.exit_code,
            meaning: from.meaning,
        }
    }
}

impl Row for Reason {
    const COLUMNS: &'static [&'static str] = &["REASON", "GRPC", "HTTP", "EXIT", "*MEANING"];

    fn cells(&self) -> Vec<Text> {
        vec![
            Text::plain(&self.reason),
            Text::plain(&self.grpc_code),
            Text::plain(self.http_status.to_string()),
            Text::plain(self.exit_code.to_string()),
            Text::plain(&self.meaning),
        ]
    }
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Error> {
    match verb {
        Verb::Status => status(context).await,
        Verb::Upgrade => upgrade(context).await,
        Verb::Reasons => reasons(context).await,
    }
}

async fn status(context: &Context) -> Result<(), Error> {
    let answer = context
        .client
        .system()
        .get_system_status(GetSystemStatusRequest {})
        .await?
        .into_inner();
    let parts = answer.parts.into_iter().map(Part::from).collect();
    let status = Status {
        ready: answer.ready,
        version: answer.version,
        parts,
    };
    let waiting: Vec<_> = status
        .parts
        .iter()
        .filter(|part| !part.ready)
        .map(|part| part.name.clone())
        .collect();
    let ready = status.ready;
    if context.output.is_table() {
        let mut list = context.output.list();
        for part in status.parts {
            list.push(part)?;
        }
        list.finish("the server names no parts")?;
    } else {
        context.output.object(&status)?;
    }
    if ready { Ok(()) } else { Err(Error::NotReady(waiting)) }
}

#[derive(Serialize)]
struct Upgraded {
    before: String,
    version: String,
}

/// Asks for the upgrade, and waits until the program that took over is ready, as the one before it was.
async fn upgrade(context: &Context) -> Result<(), Error> {
    let status = || async {
        let mut system = context.client.system();
        Ok::<_, Error>(system.get_system_status(GetSystemStatusRequest {}).await?.into_inner())
    };
    let before = status().await?;
    context.client.system().upgrade(UpgradeRequest {}).await?;
    let deadline = Instant::now() + BACK_WITHIN;
    let after = loop {
        match status().await {
            Ok(after) if after.run_id != before.run_id && (after.ready || !before.ready && !is_starting(&after)) => {
                break after;
            }
            // Still the old one, on its way out, or the new one is at its beginning.
            Ok(_) if Instant::now() < deadline => {}
            Ok(after) if after.run_id != before.run_id => {
                let waiting = after.parts.into_iter().filter(|part| !part.ready);
                return Err(Error::NotReady(waiting.map(|part| part.name).collect()));
            }
            Ok(_) => return Err(Error::NotReady(vec!["the program that takes over".to_owned()])),
            Err(error) if !error.is_lost_connection() || Instant::now() >= deadline => return Err(error),
            Err(_) => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    if context.output.is_table() {
        output::talk(&format!(
            "upgraded from {} to {}; proxies ran on",
            before.version, after.version
        ));
        return Ok(());
    }
    context.output.object(&Upgraded {
        before: before.version,
        version: after.version,
    })
}

fn is_starting(status: &GetSystemStatusResponse) -> bool {
    status.parts.iter().any(|part| part.name == "start")
}

async fn reasons(context: &Context) -> Result<(), Error> {
    let answer = context
        .client
        .system()
        .list_error_reasons(ListErrorReasonsRequest {})
        .await?
        .into_inner();
    let mut list = context.output.list();
    for reason in answer.reasons {
        list.push(Reason::from(reason))?;
    }
    list.finish("the server names no reasons")
}
