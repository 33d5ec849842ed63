//! Where values come from.

use std::{
    collections::HashMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use super::{
    Config, ConfigError, ServeArguments,
    settings::{self, Setting},
    values,
};

/// The environment as it was at the start.
#[derive(Clone, Debug, Default)]
pub struct Environment(HashMap<String, String>);

impl Environment {
    /// That of this process. Variables that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                .collect(),
        )
    }

    /// The value of `name`; an empty one counts as unset.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Variables that look like settings and are none: misspelt ones. Not those that are passed to workers, nor what
    /// Kubernetes sets where there is a service called proxyplane.
    pub fn unknown(&self) -> Vec<&str> {
        let is_setting = |name: &str| settings::ALL.into_iter().any(|setting| setting.variable() == name);
        let names = self.0.keys().map(String::as_str);
        let mut unknown: Vec<_> = names
            .filter(|name| {
                let own = name.strip_prefix("PROXYPLANE_");
                own.is_some_and(|own| {
                    !["WORKER_", "PORT", "SERVICE_"]
                        .iter()
                        .any(|other| own.starts_with(other))
                })
            })
            .filter(|name| !is_setting(name))
            .collect();
        unknown.sort_unstable();
        unknown
    }

    /// The directory that `variable` names, else `below` in the home directory (XDG base directory specification).
    pub fn xdg(&self, variable: &str, below: &str) -> Option<PathBuf> {
        let named = self.get(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        named.or_else(|| Some(Path::new(self.get("HOME")?).join(below)))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// A `PROXYPLANE_…` variable.
    Environment,
    /// This file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment => f.write_str("environment"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value that was read, for `--print-config`.
#[derive(Debug)]
pub(super) struct Read {
    /// `key = value` as TOML.
    pub(super) line: String,
    pub(super) origin: Origin,
}

/// Flags, environment and file, and what was taken from which.
pub(super) struct Sources<'a> {
    flags: &'a ServeArguments,
    environment: &'a Environment,
    file: Option<(PathBuf, toml::Table)>,
    origins: HashMap<&'static str, Origin>,
}

impl<'a> Sources<'a> {
    pub(super) fn new(flags: &'a ServeArguments, environment: &'a Environment) -> Self {
        Self {
            flags,
            environment,
            file: None,
            origins: HashMap::new(),
        }
    }

    /// Finds the file of settings and checks its keys. A file that was named must exist; the others may.
    pub(super) fn load_file(&mut self, data_dir: &Path) -> Result<(), ConfigError> {
        let named = self.lookup(&settings::CONFIG);
        let candidates = match &named {
            Some((text, _)) => vec![PathBuf::from(text)],
            None => self.usual_places(data_dir),
        };
        let origin = named.map_or(Origin::Default, |(_, origin)| origin);
        for path in candidates {
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if is_absent(&error) && origin == Origin::Default => continue,
                Err(error) => {
                    return Err(refused(
                        &settings::CONFIG,
                        origin,
                        format!("{}: {error}", path.display()),
                    ));
                }
            };
            self.origins.insert(settings::CONFIG.key, origin);
            let table = parse_file(&path, &text)?;
            if path.starts_with(data_dir) && table.contains_key(settings::DATA_DIR.key) {
                let reason = "a file in the data directory cannot say where that is";
                return Err(refused(&settings::DATA_DIR, Origin::File(path), reason));
            }
            self.file = Some((path, table));
            break;
        }
        Ok(())
    }

    fn usual_places(&self, data_dir: &Path) -> Vec<PathBuf> {
        let own = self
            .environment
            .xdg("XDG_CONFIG_HOME", ".config")
            .map(|config| config.join("proxyplane"));
        let directories = [Some(data_dir.to_owned()), own];
        directories
            .into_iter()
            .flatten()
            .map(|directory| directory.join("proxyplane.toml"))
            .collect()
    }

    /// The value of `setting` from the first source that has it, or its default.
    pub(super) fn read<T>(
        &mut self,
        setting: &'static Setting,
        parse: impl FnOnce(&str) -> Result<T, String>,
        default: impl FnOnce() -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let found = self.lookup(setting);
        let origin = found.as_ref().map_or(Origin::Default, |(_, origin)| origin.clone());
        let value = found.map_or_else(default, |(text, _)| parse(&text));
        self.origins.insert(setting.key, origin.clone());
        value.map_err(|reason| refused(setting, origin, reason))
    }

    fn lookup(&self, setting: &Setting) -> Option<(String, Origin)> {
        if let Some(text) = self.flags.get(setting) {
            return Some((text, Origin::Flag));
        }
        if let Some(text) = self.environment.get(&setting.variable()) {
            return Some((text.to_owned(), Origin::Environment));
        }
        let (path, table) = self.file.as_ref()?;
        Some((file_value(table.get(setting.key)?), Origin::File(path.clone())))
    }

    /// Every setting as a line of TOML; those without a value as a comment.
    pub(super) fn into_report(mut self, config: &Config) -> Vec<Read> {
        let file = self.file.as_ref().map(|(path, _)| path.display().to_string());
        let lines = settings::ALL
            .into_iter()
            .filter(|setting| setting.key != settings::PRINT_CONFIG.key);
        lines
            .map(|setting| {
                let value = if setting.key == settings::CONFIG.key {
                    file.clone().map(toml::Value::String)
                } else {
                    values::shown(config, setting)
                };
                let line = match value {
                    Some(value) if setting.in_file => format!("{} = {value}", setting.key),
                    Some(value) => format!("# {} = {value}", setting.key),
                    None => format!("# {} is not set", setting.key),
                };
                Read {
                    line,
                    origin: self.origins.remove(setting.key).unwrap_or(Origin::Default),
                }
            })
            .collect()
    }
}

/// There can be no file there: its directory is missing, or is none. Whatever else needs that directory says so.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn parse_file(path: &Path, text: &str) -> Result<toml::Table, ConfigError> {
    let origin = || Origin::File(path.to_owned());
    // Only the message, not the excerpt that Display adds: it may hold a password.
    let table: toml::Table = toml::from_str(text).map_err(|error: toml::de::Error| {
        let line = error
            .span()
            .map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        refused(&settings::CONFIG, origin(), format!("line {line}: {}", error.message()))
    })?;
    for (key, value) in &table {
        let known = settings::ALL
            .into_iter()
            .any(|setting| setting.in_file && setting.key == key);
        let plain = match value {
            toml::Value::Array(items) => items.iter().all(toml::Value::is_str),
            other => !other.is_table(),
        };
        if !known || !plain {
            let reason = if known {
                "must be a plain value or a list of strings"
            } else {
                "there is no such setting"
            };
            return Err(ConfigError {
                setting: key.clone(),
                origin: origin(),
                reason: reason.into(),
            });
        }
    }
    Ok(table)
}

/// A value of the file as the text that a flag would have.
fn file_value(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(items) => items.iter().map(file_value).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn refused(setting: &Setting, origin: Origin, reason: impl Into<String>) -> ConfigError {
    let spelled = match origin {
        Origin::Flag | Origin::Default => setting.flag(),
        Origin::Environment => setting.variable(),
        Origin::File(_) => setting.key.to_owned(),
    };
    ConfigError {
        setting: spelled,
        origin,
        reason: reason.into(),
    }
}
