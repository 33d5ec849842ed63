//! `proxyctl traffic …`

mod body;
mod list;
mod tail;

pub(crate) use body::BodySink;

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use proxyplane_proto::v1::GetExchangeRequest;

use super::{Context, present};
use crate::{completion, error::Error, output, view::Detail};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List exchanges, newest first.
    #[command(visible_alias = "ls")]
    List(list::Arguments),
    /// Show one with its heads, timings and TLS.
    Get {
        /// The exchange's id.
        id: String,
    },
    /// Write a captured body to standard output.
    Body(body::Arguments),
    /// Show exchanges as they are stored, one line each; reconnects by itself and misses none.
    Tail(tail::Arguments),
}

/// Whose traffic; together with `--workspace`.
#[derive(Args, Debug)]
pub(crate) struct OfProxy {
    /// Only this proxy's: NAME, WORKSPACE/NAME or id.
    #[arg(short, long, value_name = "PROXY", add = ArgValueCompleter::new(completion::proxies))]
    pub(crate) proxy: Option<String>,
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Error> {
    match verb {
        Verb::List(arguments) => list::run(context, arguments).await,
        Verb::Get { id } => get(context, id).await,
        Verb::Body(arguments) => body::run(context, arguments).await,
        Verb::Tail(arguments) => tail::run(context, &arguments).await,
    }
}

async fn get(context: &Context, id: String) -> Result<(), Error> {
    let answer = context
        .client
        .traffic()
        .get_exchange(GetExchangeRequest { id })
        .await?
        .into_inner();
    let detail = Detail::from(present(answer.exchange)?);
    if !context.output.is_table() {
        return context.output.object(&detail);
    }
    for line in detail.lines() {
        output::write_line(&line)?;
    }
    Ok(())
}
