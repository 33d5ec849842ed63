//! `proxyctl proxy …`

mod create;
mod delete;
mod diff;
mod lifecycle;
mod logs;
mod progress;
mod read;
mod revisions;
mod rollback;
mod settings;
mod update;
mod upgrade;
mod watch;

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use proxyplane_proto::v1::ProxyService;

use super::Context;
use crate::{completion, error::Error, names};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a proxy.
    Create(create::Arguments),
    /// List proxies, of all workspaces or of one.
    #[command(visible_alias = "ls")]
    List,
    /// Show one with what is observed of it.
    Get(Named),
    /// Change one; a running one has the change in force when this returns.
    Update(update::Arguments),
    /// Stop and delete one. Its traffic stays, unless purged.
    #[command(visible_alias = "rm")]
    Delete(delete::Arguments),
    /// Start one and enable it; returns once it serves.
    Start(Named),
    /// Stop one and disable it; open exchanges may finish.
    Stop(lifecycle::Stopping),
    /// Stop and start one; it ends running and enabled, whatever came before.
    Restart(lifecycle::Stopping),
    /// Replace a running proxy's worker by one of the worker binary as it is now, without a pause; returns once it serves.
    Upgrade(upgrade::Arguments),
    /// Show a proxy's log.
    Logs(logs::Arguments),
    /// Show a proxy's state and every change of it.
    Watch(watch::Arguments),
    /// List the configurations it has had, newest first; the last 100 are kept.
    Revisions(revisions::Arguments),
    /// Show what differs between two revisions, field by field.
    Diff(diff::Arguments),
    /// Bring back the configuration of an earlier revision, name and address too; in force when this returns.
    Rollback(rollback::Arguments),
}

/// The proxy a command is about.
#[derive(Args, Debug)]
pub(crate) struct Named {
    /// NAME, WORKSPACE/NAME or id.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(completion::proxies))]
    name: String,
}

impl Named {
    async fn resolve(&self, context: &Context) -> Result<ProxyService, Error> {
        names::proxy(&context.client, &self.name, context.workspace()).await
    }
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Error> {
    match verb {
        Verb::Create(arguments) => create::run(context, arguments).await,
        Verb::List => read::list(context).await,
        Verb::Get(named) => read::get(context, &named).await,
        Verb::Update(arguments) => update::run(context, arguments).await,
        Verb::Delete(arguments) => delete::run(context, &arguments).await,
        Verb::Start(named) => lifecycle::start(context, &named).await,
        Verb::Stop(stopping) => lifecycle::stop(context, &stopping).await,
        Verb::Restart(stopping) => lifecycle::restart(context, &stopping).await,
        Verb::Upgrade(arguments) => upgrade::run(context, &arguments).await,
        Verb::Logs(arguments) => logs::run(context, &arguments).await,
        Verb::Watch(arguments) => watch::run(context, &arguments).await,
        Verb::Revisions(arguments) => revisions::run(context, &arguments).await,
        Verb::Diff(arguments) => diff::run(context, &arguments).await,
        Verb::Rollback(arguments) => rollback::run(context, &arguments).await,
    }
}
