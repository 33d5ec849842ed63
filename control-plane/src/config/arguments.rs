//! The command line.
//!
//! Values stay text here: [`super::Config::load`] parses them together with those from the environment and the file,
//! so that each is checked by the same code and refused in the same words.

use super::settings::Setting;

/// Runs and controls many HTTP proxies from one control plane.
#[derive(Debug, clap::Parser)]
#[command(name = "proxyplane", version, about, propagate_version = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run the control plane: API, proxies, and a private Postgres unless --database-url is given
    ///
    /// Each flag is also read from the environment (PROXYPLANE_LISTEN for --listen) and from a file of TOML
    /// (listen = "…"): flag, environment, file, default, in this order.
    ///
    /// Exit status: 0 stopped as asked, 1 failure, 64 a setting is wrong, 69 address or data directory in use,
    /// 73 data directory unusable.
    Serve(Box<ServeArguments>),
    /// Print what this program can do for the one that it is to take over from, a word per line
    ///
    /// Asked by `proxyctl system upgrade`.
    #[command(hide = true)]
    Features,
}

/// Flags of `serve`, unparsed.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServeArguments {
    /// Address of the API: gRPC, grpc-web, /health and /ready [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Directory of everything that is kept [default: $XDG_DATA_HOME/proxyplane, /var/lib/proxyplane for root]
    #[arg(long, value_name = "DIRECTORY")]
    pub data_dir: Option<String>,
    /// A Postgres to use instead of a private one, postgres://user:password@host/database
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// The worker program [default: proxyplane-worker beside this program]
    #[arg(long, value_name = "FILE")]
    pub worker_bin: Option<String>,
    /// Whom workers run as when the server runs as root: name, uid or uid:gid [default: proxyplane-worker, else 61070]
    #[arg(long, value_name = "ACCOUNT")]
    pub worker_user: Option<String>,
    /// How long open exchanges may take to finish when the control plane stops [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub shutdown_timeout: Option<String>,
    /// text or json [default: text on a terminal, else json]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Origin of a web page that may call the API, such as http://localhost:5173; may be repeated
    #[arg(long, value_name = "ORIGIN")]
    pub allowed_origin: Vec<String>,
    /// On an empty database, make workspace `default` and capture proxy `capture`; print how to use it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub bootstrap: Option<String>,
    /// Print every setting with its origin, and exit
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub print_config: Option<String>,
    /// File of settings [default: proxyplane.toml in the data directory, else in $XDG_CONFIG_HOME/proxyplane]
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
}

impl ServeArguments {
    /// What was given for `setting`; repeated values are joined by commas, as in the environment.
    pub(super) fn get(&self, setting: &Setting) -> Option<String> {
        match setting.key {
            "listen" => self.listen.clone(),
            "data_dir" => self.data_dir.clone(),
            "database_url" => self.database_url.clone(),
            "worker_bin" => self.worker_bin.clone(),
            "worker_user" => self.worker_user.clone(),
            "shutdown_timeout" => self.shutdown_timeout.clone(),
            "log_format" => self.log_format.clone(),
            "log_level" => self.log_level.clone(),
            "allowed_origin" if self.allowed_origin.is_empty() => None,
            "allowed_origin" => Some(self.allowed_origin.join(",")),
            "bootstrap" => self.bootstrap.clone(),
            "print_config" => self.print_config.clone(),
            "config" => self.config.clone(),
            other => unreachable!("setting {other} has no flag"),
        }
    }
}
