//! Where the server is and which token it takes.
//!
//! Order: flag, environment (both through clap), what `proxyplane serve` left for this account, default. The token that
//! `serve` left is sent to the server that `serve` named and to no other.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{args::Global, error::Error};

/// Where `serve` listens unless told otherwise.
const DEFAULT_SERVER: &str = "http://127.0.0.1:7070";

/// Server and token in force.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) server: String,
    pub(crate) token: Option<String>,
}

/// What `serve` leaves in `${XDG_CONFIG_HOME:-$HOME/.config}/proxyplane/client.json`.
#[derive(Debug, Deserialize)]
struct Discovery {
    server: String,
    token_file: PathBuf,
}

impl Settings {
    /// Reads what is not given by flag or environment.
    pub(crate) fn load(global: &Global) -> Result<Self, Error> {
        let found = match discovery_path() {
            Some(path) => read_discovery(&path)?,
            None => None,
        };
        Self::choose(
            given(global.server.as_ref()),
            given(global.token.as_ref()),
            found.as_ref(),
        )
    }

    fn choose(server: Option<String>, token: Option<String>, found: Option<&Discovery>) -> Result<Self, Error> {
        let server = normal_url(
            &server
                .or_else(|| found.map(|f| f.server.clone()))
                .unwrap_or(DEFAULT_SERVER.into()),
        )?;
        let token = match (token, found) {
            (Some(token), _) => Some(token),
            (None, Some(found)) if normal_url(&found.server)? == server => read_token(&found.token_file)?,
            _ => None,
        };
        Ok(Self { server, token })
    }
}

/// An empty variable means that nothing was said.
fn given(value: Option<&String>) -> Option<String> {
    value.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn normal_url(text: &str) -> Result<String, Error> {
    let text = text.trim_end_matches('/');
    match text.split_once("://") {
        None => Ok(format!("http://{text}")),
        Some(("http", _)) => Ok(text.to_owned()),
        Some((scheme, _)) => Err(Error::Usage(format!("--server: the scheme must be http, not {scheme}"))),
    }
}

fn discovery_path() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
    Some(config.join("proxyplane").join("client.json"))
}

fn read_discovery(path: &Path) -> Result<Option<Discovery>, Error> {
    let Some(text) = read_if_there(path)? else {
        return Ok(None);
    };
    let found = serde_json::from_str(&text).map_err(|error| Error::File {
        context: path.display().to_string(),
        source: io::Error::new(io::ErrorKind::InvalidData, error),
    })?;
    Ok(Some(found))
}

fn read_token(path: &Path) -> Result<Option<String>, Error> {
    // Without the file the server's own answer says best what is missing.
    Ok(read_if_there(path)?.map(|text| text.trim().to_owned()))
}

fn read_if_there(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(None),
        Err(source) => Err(Error::File {
            context: path.display().to_string(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(dir: &str) -> Discovery {
        let token_file = env::temp_dir().join(format!("proxyctl-settings-{}-{dir}", std::process::id()));
        fs::write(&token_file, "from-file\n").unwrap();
        Discovery {
            server: "http://127.0.0.1:7171".into(),
            token_file,
        }
    }

    #[test]
    fn the_token_left_by_serve_goes_to_its_own_server_only() {
        let found = found("own");
        let own = Settings::choose(None, None, Some(&found)).unwrap();
        assert_eq!(
            own,
            Settings {
                server: "http://127.0.0.1:7171".into(),
                token: Some("from-file".into())
            }
        );
        let same = Settings::choose(Some("127.0.0.1:7171/".into()), None, Some(&found)).unwrap();
        assert_eq!(same.token.as_deref(), Some("from-file"));
        let other = Settings::choose(Some("http://example.com".into()), None, Some(&found)).unwrap();
        assert_eq!(other.token, None);
        fs::remove_file(&found.token_file).unwrap();
    }

    #[test]
    fn what_is_given_wins() {
        let found = found("given");
        let chosen = Settings::choose(None, Some("mine".into()), Some(&found)).unwrap();
        assert_eq!(chosen.token.as_deref(), Some("mine"));
        fs::remove_file(&found.token_file).unwrap();
        assert_eq!(Settings::choose(None, None, None).unwrap().server, DEFAULT_SERVER);
    }

    #[test]
    fn only_http_is_spoken() {
        assert_eq!(
            Settings::choose(Some("https://x".into()), None, None)
                .unwrap_err()
                .exit_code(),
            2
        );
    }
}
