//! How each setting's text becomes a value, its default, and how it is shown.

use std::{
    fmt,
    io::{self, IsTerminal as _},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr as _,
    time::Duration,
};

use proxyplane_spec::{Account, limits};
use sqlx::postgres::PgConnectOptions;

use super::{Config, Environment, Setting, WebOrigin};
use crate::supervisor::account;

/// URL of a Postgres. Its password never appears in `Debug` or `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The whole URL, password included.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked(&self.0))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl LogFormat {
    /// Text on a terminal, else JSON.
    pub(super) fn for_stderr() -> Self {
        if io::stderr().is_terminal() {
            Self::Text
        } else {
            Self::Json
        }
    }
}

/// Which log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// And what may fail.
    Warn,
    /// And what changed.
    Info,
    /// And each step, with file and line.
    Debug,
    /// And everything else.
    Trace,
}

impl LogLevel {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Error, "error"),
        (Self::Warn, "warn"),
        (Self::Info, "info"),
        (Self::Debug, "debug"),
        (Self::Trace, "trace"),
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .into_iter()
            .find(|(level, _)| *level == self)
            .map_or("info", |(_, name)| name)
    }
}

pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse()
        .map_err(|_| format!("'{text}' must be address:port, such as 127.0.0.1:7070 or [::1]:7070"))
}

pub(super) fn directory(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|error| format!("'{text}': {error}"))
}

pub(super) fn default_data_dir(environment: &Environment) -> Result<PathBuf, String> {
    if nix::unistd::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/proxyplane"));
    }
    let home = environment.xdg("XDG_DATA_HOME", ".local/share");
    home.map(|home| home.join("proxyplane"))
        .ok_or_else(|| "there is no HOME; give a directory".into())
}

pub(super) fn database_url(text: &str) -> Result<Option<DatabaseUrl>, String> {
    if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
        return Err("must be postgres://user:password@host:port/database".into());
    }
    // sqlx's message may repeat a part of the URL, so it is not passed on.
    PgConnectOptions::from_str(text).map_err(|_| format!("{} is no valid URL of a Postgres", masked(text)))?;
    Ok(Some(DatabaseUrl(text.to_owned())))
}

pub(super) fn program(text: &str) -> Result<PathBuf, String> {
    let path = directory(text)?;
    if is_program(&path) {
        Ok(path)
    } else {
        Err(format!("'{}' is no executable file", path.display()))
    }
}

pub(super) fn default_worker_bin() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("this program's own path is unknown: {error}"))?;
    let path = own.with_file_name("proxyplane-worker");
    let missing = || {
        format!(
            "there is no worker program at {}; build it or say where it is",
            path.display()
        )
    };
    if is_program(&path) { Ok(path) } else { Err(missing()) }
}

fn is_program(path: &Path) -> bool {
    path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
}

pub(super) fn worker_user(text: &str) -> Result<Option<Account>, String> {
    account::parse(text).map(Some)
}

pub(super) fn shutdown_timeout(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' must be a duration from 0s to 1h, such as 30s or 2m");
    let seconds = text.parse::<u64>().ok().map(Duration::from_secs);
    let value = seconds
        .or_else(|| humantime::parse_duration(text).ok())
        .ok_or_else(wrong)?;
    if value <= limits::DRAIN_TIMEOUT_MAX {
        Ok(value)
    } else {
        Err(wrong())
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("'{text}' must be text or json")),
    }
}

pub(super) fn log_level(text: &str) -> Result<LogLevel, String> {
    let found = LogLevel::ALL
        .into_iter()
        .find(|(_, name)| text.eq_ignore_ascii_case(name));
    found
        .map(|(level, _)| level)
        .ok_or_else(|| format!("'{text}' must be error, warn, info, debug or trace"))
}

pub(super) fn origins(text: &str) -> Result<Vec<WebOrigin>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(str::parse)
        .collect()
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("'{text}' must be true or false")),
    }
}

/// The value in force, as `--print-config` shows it.
pub(super) fn shown(config: &Config, setting: &Setting) -> Option<toml::Value> {
    let text = match setting.key {
        "listen" => config.listen.to_string(),
        "data_dir" => config.data_dir.display().to_string(),
        "database_url" => config.database_url.as_ref()?.to_string(),
        "worker_bin" => config.worker_bin.display().to_string(),
        "worker_user" => {
            let Account { uid, gid } = config.worker_user?;
            format!("{uid}:{gid}")
        }
        "shutdown_timeout" => humantime::format_duration(config.shutdown_timeout).to_string(),
        "log_format" => if config.log_format == LogFormat::Json {
            "json"
        } else {
            "text"
        }
        .to_owned(),
        "log_level" => config.log_level.as_str().to_owned(),
        "allowed_origin" => {
            return Some(
                config
                    .allowed_origins
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .into(),
            );
        }
        "bootstrap" => return Some(config.bootstrap.into()),
        _ => return None,
    };
    Some(toml::Value::String(text))
}

/// The URL with `***` for its password, in the authority and in its query.
fn masked(url: &str) -> String {
    let (base, query) = url
        .split_once('?')
        .map_or((url, None), |(base, query)| (base, Some(query)));
    let mut shown = match base.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((user, host)) => {
                let name = user.split(':').next().unwrap_or_default();
                let password = if user.contains(':') { ":***" } else { "" };
                format!("{scheme}://{name}{password}@{host}")
            }
            None => base.to_owned(),
        },
        None => "***".to_owned(),
    };
    for (index, pair) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        shown.push(if index == 0 { '?' } else { '&' });
        let key = pair.split('=').next().unwrap_or_default();
        if key.to_ascii_lowercase().contains("password") {
            shown.push_str(key);
            shown.push_str("=***");
        } else {
            shown.push_str(pair);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for url in [
            "postgres://u:s3cret@h:5432/d",
            "postgres://u:s3:cr@s3cret@h/d",
            "postgres://u@h/d?sslmode=disable&password=s3cret",
        ] {
            assert!(!masked(url).contains("s3c"), "{}", masked(url));
        }
        assert_eq!(masked("postgres://u:p@h/d?a=b"), "postgres://u:***@h/d?a=b");
        assert_eq!(masked("postgres:///d?host=/run"), "postgres:///d?host=/run");
    }

    #[test]
    fn durations_are_seconds_or_have_a_unit() {
        assert_eq!(shutdown_timeout("5"), Ok(Duration::from_secs(5)));
        assert_eq!(shutdown_timeout("1m 30s"), Ok(Duration::from_secs(90)));
        for bad in ["-1s", "soon", "2h", ""] {
            assert!(shutdown_timeout(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_origin_is_compared_as_browsers_send_it() {
        assert!(
            "http://LOCALHOST:5173"
                .parse::<WebOrigin>()
                .unwrap()
                .matches(b"http://localhost:5173")
        );
        assert!(
            "https://a.example:443"
                .parse::<WebOrigin>()
                .unwrap()
                .matches(b"https://a.example")
        );
        for bad in [
            "localhost:5173",
            "http://a/b",
            "null",
            "*",
            "ftp://a",
            "http://u@a",
            "http://a/",
        ] {
            assert!(bad.parse::<WebOrigin>().is_err(), "{bad}");
        }
    }
}
