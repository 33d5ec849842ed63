//! Leaves the server's address and the path of its token where `proxyctl` of the same account finds them.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::config::Environment;

/// What `proxyctl` reads. The last control plane that started wins; the file stays when it stops.
#[derive(Serialize)]
struct Client<'a> {
    server: &'a str,
    token_file: &'a Path,
}

/// Does `proxyctl` find a server, of whatever state?
pub fn is_announced(environment: &Environment) -> bool {
    file(environment).is_ok_and(|file| file.exists())
}

/// The server that `proxyctl` finds, of whatever state.
pub fn announced(environment: &Environment) -> Option<String> {
    let text = fs::read_to_string(file(environment).ok()?).ok()?;
    let client: serde_json::Value = serde_json::from_str(&text).ok()?;
    client["server"].as_str().map(str::to_owned)
}

/// Writes `proxyplane/client.json` in the account's configuration directory and returns its path.
pub fn announce(environment: &Environment, server: &str, token_file: &Path) -> io::Result<PathBuf> {
    let path = file(environment)?;
    let unfinished = path.with_extension(format!("json.{}", std::process::id()));
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    let text = serde_json::to_string_pretty(&Client { server, token_file }).map_err(io::Error::other)?;
    file.write_all(format!("{text}\n").as_bytes())?;
    fs::rename(&unfinished, &path)?;
    Ok(path)
}

fn file(environment: &Environment) -> io::Result<PathBuf> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "neither XDG_CONFIG_HOME nor HOME is set");
    let directory = environment.xdg("XDG_CONFIG_HOME", ".config").ok_or_else(missing)?;
    Ok(directory.join("proxyplane/client.json"))
}

/// `address` as a client on this machine calls it: a wildcard means loopback.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn proxyctl_finds_address_and_token() {
        let home = std::env::temp_dir().join(format!("proxyplane-client-{}", uuid::Uuid::now_v7()));
        let environment = Environment::from_iter([("HOME", home.to_str().unwrap())]);
        assert!(!is_announced(&environment));
        assert_eq!(announced(&environment), None);
        let path = announce(
            &environment,
            "http://127.0.0.1:7070",
            Path::new("/data/secrets/api.token"),
        )
        .unwrap();
        assert_eq!(path, home.join(".config/proxyplane/client.json"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(is_announced(&environment));
        assert_eq!(announced(&environment).as_deref(), Some("http://127.0.0.1:7070"));
        let found: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(found["server"], "http://127.0.0.1:7070");
        assert_eq!(found["token_file"], "/data/secrets/api.token");
        fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn a_wildcard_is_reached_by_loopback() {
        assert_eq!(reachable("0.0.0.0:1".parse().unwrap()).to_string(), "127.0.0.1:1");
        assert_eq!(reachable("[::]:1".parse().unwrap()).to_string(), "[::1]:1");
        assert_eq!(reachable("10.0.0.1:1".parse().unwrap()).to_string(), "10.0.0.1:1");
    }
}
