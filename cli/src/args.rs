//! The command line as a whole: what holds for every command.

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use crate::{
    commands::{ca, completions, event, proxy, system, traffic, websocket, workspace},
    completion,
};

const AFTER_HELP: &str = "\
Proxies are named NAME, WORKSPACE/NAME or by id; a bare NAME is looked up in --workspace, else in 'default'.
Server and token come from the flags, else from the environment, else from what `proxyplane serve` left for this account.

Exit codes: 0 ok, 1 failure, 2 usage or invalid argument, 3 server unreachable, 4 not found, 5 conflict, 130 interrupted.";

/// Manage proxies and look at what passed through them.
#[derive(Debug, Parser)]
#[command(name = "proxyctl", version, after_help = AFTER_HELP, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) noun: Noun,
}

/// Flags of every command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The server's address, such as http://127.0.0.1:7070.
    #[arg(long, global = true, value_name = "URL", env = "PROXYCTL_SERVER")]
    pub(crate) server: Option<String>,
    /// The API token.
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "PROXYCTL_TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
    /// Workspace (code or id): where bare names are looked up, and what lists are limited to.
    #[arg(short, long, global = true, value_name = "W", add = ArgValueCompleter::new(completion::workspaces))]
    pub(crate) workspace: Option<String>,
    /// Format of standard output; streams give a line per item with json as well as with jsonl.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// Formats of standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// A JSON document per line.
    Jsonl,
}

/// What a command is about.
#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// Workspaces, which group proxies.
    #[command(subcommand, visible_alias = "ws")]
    Workspace(workspace::Verb),
    /// Proxies: create, start, stop, look after them.
    #[command(subcommand)]
    Proxy(proxy::Verb),
    /// What passed: history, bodies and the live view.
    #[command(subcommand)]
    Traffic(traffic::Verb),
    /// WebSocket connections and their messages.
    #[command(subcommand)]
    Websocket(websocket::Verb),
    /// What happened: crashes, rejected configurations, stalls; history and live view.
    #[command(subcommand)]
    Event(event::Verb),
    /// The CA that signs for intercepted hosts.
    #[command(subcommand)]
    Ca(ca::Verb),
    /// The installation itself.
    #[command(subcommand)]
    System(system::Verb),
    /// Print the completion script of a shell, for example: source <(proxyctl completions bash)
    Completions(completions::Arguments),
}
