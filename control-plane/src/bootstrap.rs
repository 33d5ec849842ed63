//! `serve --bootstrap`: a ready capture proxy on an empty database, and how to use it.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    path::Path,
};

use crate::{
    client::reachable,
    store::services::ServiceRow,
};

/// Code of the workspace that is made.
pub(crate) const WORKSPACE: &str = "default";
/// Name of the capture proxy that is made.
pub(crate) const PROXY: &str = "capture";
/// Where it listens: on the first of these that is free.
pub(crate) const PORTS: std::ops::RangeInclusive<u16> = 8080..=8099;
/// The page that every capture proxy serves by itself; it needs no network.
const OWN_PAGE: &str = "http://proxyplane.local/";

/// What is told at every start.
#[derive(Debug)]
pub struct Greeting<'a> {
    /// The capture proxy, if there is one.
    pub proxy: Option<&'a ServiceRow>,
    /// Why it does not run; empty if it does.
    pub trouble: &'a str,
    /// The CA certificate.
    pub ca: &'a Path,
    /// The API.
    pub api: SocketAddr,
    /// What `proxyctl` reads, if it could be written.
    pub client: Option<&'a Path>,
}

impl Greeting<'_> {
    /// Says it on standard output, for people.
    pub fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(self.text().as_bytes())?;
        out.flush()
    }

    fn text(&self) -> String {
        let ca = quoted(self.ca);
        let mut lines = vec![String::new()];
        match self.proxy {
            Some(row) => {
                let proxy = proxy_url(row);
                let state = if self.trouble.is_empty() { String::new() } else { format!("  (not running: {})", self.trouble) };
                lines.push(format!("  Capture proxy   {proxy}  ({}/{}){state}", row.workspace_code, row.name));
                lines.push(format!("  CA certificate  {}", self.ca.display()));
                lines.push("  Try it".to_owned());
                lines.push(format!("    curl --proxy {proxy} --cacert {ca} {OWN_PAGE}"));
                lines.push(format!("    curl --proxy {proxy} --cacert {ca} https://example.com/"));
            }
            None => {
                lines.push("  Capture proxy   none; make one with: proxyctl proxy create NAME --start".to_owned());
                lines.push(format!("  CA certificate  {}", self.ca.display()));
            }
        }
        lines.push(format!("  API             http://{}  (gRPC, grpc-web, /health, /ready)", reachable(self.api)));
        lines.push(match self.client {
            Some(path) => format!("  proxyctl        is logged in ({}); watch with: proxyctl traffic tail", path.display()),
            None => "  proxyctl        give it --server and --token".to_owned(),
        });
        lines.push(String::new());
        lines.join("\n") + "\n"
    }
}

/// How a client on this machine names the proxy.
fn proxy_url(row: &ServiceRow) -> String {
    let address = row.host.addresses().first().map(|ip| reachable(SocketAddr::new(*ip, row.port)));
    address.map_or_else(|| format!("http://localhost:{}", row.port), |address| format!("http://{address}"))
}

/// The path as a word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+".contains(&b));
    if plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_blanks_can_be_pasted() {
        assert_eq!(quoted(Path::new("/var/lib/proxyplane/ca.pem")), "/var/lib/proxyplane/ca.pem");
        assert_eq!(quoted(Path::new("/home/a b/it's")), r"'/home/a b/it'\''s'");
    }
}
