//! `proxyctl proxy upgrade`

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use proxyplane_proto::v1::{ProxyService, UpgradeProxyServiceRequest};
use serde::Serialize;

use super::{
    super::{Context, present},
    progress::{self, DrainTimeout},
};
use crate::{
    completion,
    error::Error,
    names,
    output::{self, Text, Tone},
    view::Proxy,
};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// NAME, WORKSPACE/NAME or id.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(completion::proxies), required_unless_present = "all")]
    name: Option<String>,
    /// Every proxy that runs, of all workspaces or of --workspace, one after the other; stops at the first that fails.
    #[arg(long, conflicts_with = "name")]
    all: bool,
    /// With --all, go on after one that failed.
    #[arg(long, requires = "all")]
    keep_going: bool,
    #[command(flatten)]
    drain: DrainTimeout,
}

/// What became of one of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Upgraded,
    /// It does not run; its next start runs the binary as it is now.
    NotRunning,
    Failed,
    /// One before it failed.
    NotTried,
}

#[derive(Serialize)]
struct Upgraded {
    id: String,
    name: String,
    workspace: String,
    outcome: Outcome,
    pid: Option<i32>,
    /// Of the worker that was replaced.
    former_pid: Option<i32>,
    error: Option<String>,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<(), Error> {
    let Some(name) = &arguments.name else {
        return all(context, arguments).await;
    };
    let former = names::proxy(&context.client, name, context.workspace()).await?;
    let (proxy, _) = one(context, &former, arguments.drain).await?;
    context.output.changed(&proxy)
}

async fn one(context: &Context, former: &ProxyService, drain: DrainTimeout) -> Result<(Proxy, Outcome), Error> {
    let request = UpgradeProxyServiceRequest {
        id: former.id.clone(),
        drain_timeout: drain.value()?,
    };
    let mut proxies = context.client.proxies();
    let answer = progress::told(
        context,
        &former.id,
        proxies.upgrade_proxy_service(request),
        progress::open,
    )
    .await?;
    let proxy = Proxy::from(present(answer.into_inner().proxy_service)?);
    let name = proxy.full_name();
    let Some(pid) = proxy.pid else {
        output::talk(&format!(
            "proxy '{name}' does not run; its next start runs the worker binary as it is now"
        ));
        return Ok((proxy, Outcome::NotRunning));
    };
    let rest = proxy.draining().map_or_else(String::new, |(pid, open)| {
        format!("; worker {pid} finishes {}{}", open.what, open.until())
    });
    output::talk(&format!("proxy '{name}' upgraded: worker {pid} serves{rest}"));
    Ok((proxy, Outcome::Upgraded))
}

async fn all(context: &Context, arguments: &Arguments) -> Result<(), Error> {
    let (workspace_id, _) = names::scope(&context.client, None, context.workspace()).await?;
    let mut first_error = None;
    let mut results = Vec::new();
    let mut proxies = names::proxies(&context.client, &workspace_id).await?;
    // Those that run come first: they show what the binary is worth.
    proxies.sort_by_key(|proxy| proxy.status.as_ref().is_none_or(|status| status.pid == 0));
    for former in proxies {
        let before = Proxy::from(former.clone());
        let mut result = Upgraded {
            id: former.id.clone(),
            name: former.name.clone(),
            workspace: former.workspace_code.clone(),
            outcome: Outcome::NotTried,
            pid: before.pid,
            former_pid: None,
            error: None,
        };
        // A binary that failed is not left to the next start of another.
        if first_error.is_some() && !(arguments.keep_going && before.pid.is_some()) {
            results.push(result);
            continue;
        }
        match one(context, &former, arguments.drain).await {
            Ok((proxy, outcome)) => {
                result.outcome = outcome;
                (result.pid, result.former_pid) = (proxy.pid, before.pid);
            }
            Err(error) => {
                result.outcome = Outcome::Failed;
                result.error = Some(error.to_string());
                output::talk_error(&format!("proxy '{}' was not upgraded: {error}", before.full_name()));
                first_error.get_or_insert(error);
            }
        }
        results.push(result);
    }
    tell(&results);
    if !context.output.is_table() {
        context
            .output
            .items(&results, |result| vec![vec![Text::new(&result.name, Tone::Plain)]])?;
    }
    first_error.map_or(Ok(()), Err)
}

/// Which were done, which not.
fn tell(results: &[Upgraded]) {
    let count = |outcome| results.iter().filter(|result| result.outcome == outcome).count();
    let mut parts = vec![format!("{} upgraded", count(Outcome::Upgraded))];
    for (outcome, what) in [
        (Outcome::NotRunning, "not running"),
        (Outcome::Failed, "failed"),
        (Outcome::NotTried, "not tried"),
    ] {
        let named: Vec<String> = results
            .iter()
            .filter(|result| result.outcome == outcome)
            .map(|result| format!("{}/{}", result.workspace, result.name))
            .collect();
        if !named.is_empty() {
            parts.push(format!("{what}: {}", named.join(", ")));
        }
    }
    output::talk(&parts.join("; "));
}
