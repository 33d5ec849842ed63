//! `proxyctl event …`

mod list;
mod watch;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use proxyplane_proto::v1::{EventFilter, EventSeverity};

use super::Context;
use crate::{completion, error::Error};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List what happened, newest first.
    #[command(visible_alias = "ls")]
    List(list::Arguments),
    /// Show events as they happen, one line each; reconnects by itself and misses none.
    Watch(watch::Arguments),
}

/// Which events; together with `--workspace`.
#[derive(Args, Debug)]
struct Which {
    /// Only those this severe, or more.
    #[arg(short, long, value_enum)]
    severity: Option<Severity>,
    /// Only those about this proxy: NAME, WORKSPACE/NAME or id.
    #[arg(short, long, value_name = "PROXY", add = ArgValueCompleter::new(completion::proxies))]
    proxy: Option<String>,
    /// Only this kind, such as worker_crashed; may be given several times.
    #[arg(short, long, value_name = "KIND")]
    kind: Vec<String>,
}

/// How bad an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Severity {
    /// As wished.
    Info,
    /// Something failed and is being made up for.
    Warning,
    /// Something is lost, or waits for a person.
    Error,
}

impl Which {
    /// The filter, once names are looked up: `workspace_id` and `proxy_id`.
    fn filter(self, (workspace_id, proxy_id): (String, String)) -> EventFilter {
        let severity = self
            .severity
            .map_or(EventSeverity::Unspecified, |severity| match severity {
                Severity::Info => EventSeverity::Info,
                Severity::Warning => EventSeverity::Warning,
                Severity::Error => EventSeverity::Error,
            });
        EventFilter {
            severity_min: severity.into(),
            kinds: self.kind,
            proxy_id,
            workspace_id,
        }
    }
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Error> {
    match verb {
        Verb::List(arguments) => list::run(context, arguments).await,
        Verb::Watch(arguments) => watch::run(context, arguments).await,
    }
}
