//! Configuration: flag > environment > file > default, each value with its origin.
//!
//! Every setting is a row of `settings::ALL`; its flag is `--name`, its variable `PROXYPLANE_NAME`, its key in the
//! file `name` with underscores. Values are parsed here, once; a value that does not parse names its setting and
//! where it came from.

mod arguments;
mod origin;
mod settings;
mod sources;
mod values;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

pub use arguments::{Arguments, Command, ServeArguments};
pub use origin::WebOrigin;
use proxyplane_spec::Account;
pub use settings::Setting;
pub use sources::{Environment, Origin};
use sources::{Read, Sources};
pub use values::{DatabaseUrl, LogFormat, LogLevel};

use crate::supervisor::account;

/// Everything `serve` can be told, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the API is served.
    pub listen: SocketAddr,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// A Postgres of the operator's; `None` means the private one.
    pub database_url: Option<DatabaseUrl>,
    /// The worker program.
    pub worker_bin: PathBuf,
    /// Whom workers run as; `None` if as we do, because we are not root.
    pub worker_user: Option<Account>,
    /// How long workers may drain when the control plane stops.
    pub shutdown_timeout: Duration,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_level: LogLevel,
    /// Origins of web pages, apart from our own, that may call the API.
    pub allowed_origins: Vec<WebOrigin>,
    /// Make `default` and `capture` on an empty database, and print how to use them.
    pub bootstrap: bool,
}

/// A configuration with the origin of each value.
#[derive(Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Print them and do nothing else.
    pub print: bool,
    report: Vec<Read>,
}

/// A value that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{setting} ({origin}): {reason}")]
pub struct ConfigError {
    /// The setting as its origin spells it: `--listen`, `PROXYPLANE_LISTEN`, `listen`.
    pub setting: String,
    /// Where the value came from.
    pub origin: Origin,
    /// What is wrong, and what would be right. Never contains a secret.
    pub reason: String,
}

impl Config {
    /// Reads flags, environment and file.
    pub fn load(flags: &ServeArguments, environment: &Environment) -> Result<Loaded, ConfigError> {
        let mut sources = Sources::new(flags, environment);
        let data_dir = sources.read(&settings::DATA_DIR, values::directory, || {
            values::default_data_dir(environment)
        })?;
        sources.load_file(&data_dir)?;
        // The file may name the directory only when it lies elsewhere; read again, now with the file.
        let data_dir = sources.read(&settings::DATA_DIR, values::directory, || Ok(data_dir))?;
        let config = Self {
            listen: sources.read(&settings::LISTEN, values::listen, || values::listen("127.0.0.1:7070"))?,
            data_dir,
            database_url: sources.read(&settings::DATABASE_URL, values::database_url, || Ok(None))?,
            worker_bin: sources.read(&settings::WORKER_BIN, values::program, values::default_worker_bin)?,
            worker_user: sources.read(&settings::WORKER_USER, values::worker_user, || Ok(account::usual()))?,
            shutdown_timeout: sources.read(&settings::SHUTDOWN_TIMEOUT, values::shutdown_timeout, || {
                Ok(proxyplane_spec::limits::DRAIN_TIMEOUT_DEFAULT)
            })?,
            log_format: sources.read(
                &settings::LOG_FORMAT,
                values::log_format,
                || Ok(LogFormat::for_stderr()),
            )?,
            log_level: sources.read(&settings::LOG_LEVEL, values::log_level, || Ok(LogLevel::Info))?,
            allowed_origins: sources.read(&settings::ALLOWED_ORIGIN, values::origins, || Ok(Vec::new()))?,
            bootstrap: sources.read(&settings::BOOTSTRAP, values::switch, || Ok(false))?,
        };
        let print = sources.read(&settings::PRINT_CONFIG, values::switch, || Ok(false))?;
        Ok(Loaded {
            report: sources.into_report(&config),
            config,
            print,
        })
    }
}

impl Loaded {
    /// The configuration as TOML, each value with its origin as a comment; secrets are masked.
    pub fn to_text(&self) -> String {
        let width = self
            .report
            .iter()
            .map(|read| read.line.chars().count())
            .max()
            .unwrap_or(0);
        self.report.iter().fold(String::new(), |text, read| {
            let Read { line, origin } = read;
            text + &format!("{line:width$}  # {origin}\n")
        })
    }
}

#[cfg(test)]
mod tests;
