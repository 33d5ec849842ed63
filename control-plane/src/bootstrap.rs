//! `serve --bootstrap`: a ready capture proxy on an empty database, and how to use it.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    path::Path,
};

use proxyplane_spec::{OnPortConflict, RawCapture};

use crate::{
    client::reachable,
    services::{Error, NewProxy, NewWorkspace, Proxy, Services},
    store::{page::Page, services::ServiceFilter, workspaces::WorkspaceRow},
    supervisor::ServiceState,
};

/// Code of the workspace that is made.
const WORKSPACE: &str = "default";
/// Name of the capture proxy that is made.
const PROXY: &str = "capture";
/// Where it listens: on the first of these that is free, else on any.
const PORTS: std::ops::RangeInclusive<u32> = 8080..=8099;
/// The page that every capture proxy serves by itself; it needs no network.
const OWN_PAGE: &str = "http://proxyplane.local/";

/// Makes workspace and capture proxy if there is no workspace at all. Returns the capture proxy; where the user has
/// removed it, the first proxy there is.
pub async fn proxy(services: &Services) -> Result<Option<Proxy>, Error> {
    let workspaces = services.list_workspaces(&Page::new(1, "")).await?;
    if workspaces.rows.is_empty() {
        return make(services).await.map(Some);
    }
    let named = ServiceFilter {
        workspace_id: None,
        name: Some(PROXY.to_owned()),
    };
    for filter in [named, ServiceFilter::default()] {
        let found = services.list_proxies(&filter, &Page::new(100, "")).await?.rows;
        let default = found
            .iter()
            .position(|proxy| proxy.row.workspace_code == WORKSPACE)
            .unwrap_or(0);
        if let Some(proxy) = found.into_iter().nth(default) {
            return Ok(Some(proxy));
        }
    }
    Ok(None)
}

async fn make(services: &Services) -> Result<Proxy, Error> {
    let new = NewWorkspace {
        code: WORKSPACE.to_owned(),
        title: "Default".to_owned(),
        description: String::new(),
    };
    let workspace = services.create_workspace(new).await?;
    let made = make_proxy(services, &workspace).await;
    if made.is_err() {
        // The database is left as empty as it was, so that the next start tries again.
        services.delete_workspace(workspace.id, "", true).await?;
    }
    made
}

async fn make_proxy(services: &Services, workspace: &WorkspaceRow) -> Result<Proxy, Error> {
    let new = |port| NewProxy {
        workspace_id: workspace.id,
        name: PROXY.to_owned(),
        host: String::new(),
        port,
        on_port_conflict: OnPortConflict::default(),
        verbose: None,
        log_out_of_scope: None,
        capture: RawCapture::default(),
        start: true,
        validate_only: false,
    };
    for port in PORTS {
        match services.create_proxy(new(port)).await {
            Err(Error::PortInUse { .. }) => {}
            other => return other,
        }
    }
    services.create_proxy(new(0)).await
}

/// What is told at every start.
#[derive(Debug)]
pub struct Greeting<'a> {
    /// The capture proxy, if there is one.
    pub proxy: Option<Proxy>,
    /// Why there is none, if that is a failure.
    pub trouble: String,
    /// The CA certificate.
    pub ca: &'a Path,
    /// The API.
    pub api: SocketAddr,
    /// File of the API token.
    pub token: &'a Path,
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
        if let Some(proxy) = &self.proxy {
            let url = proxy_url(proxy);
            let place = format!("{}/{}", proxy.row.workspace_code, proxy.row.name);
            lines.push(format!("  Capture proxy   {url}  ({place}{})", trouble(proxy)));
            lines.push(format!("  CA certificate  {}", self.ca.display()));
            lines.push("  Try it".to_owned());
            lines.push(format!("    curl --proxy {url} --cacert {ca} {OWN_PAGE}"));
            lines.push(format!("    curl --proxy {url} --cacert {ca} https://example.com/"));
        } else {
            let how = if self.trouble.is_empty() {
                "proxyctl proxy create NAME --start"
            } else {
                &self.trouble
            };
            lines.push(format!("  Capture proxy   none: {how}"));
            lines.push(format!("  CA certificate  {}", self.ca.display()));
        }
        lines.push(format!(
            "  API             http://{}  (gRPC, grpc-web, /health, /ready)",
            reachable(self.api)
        ));
        lines.push(match self.client {
            Some(path) => format!(
                "  proxyctl        is logged in ({}); watch with: proxyctl traffic tail",
                path.display()
            ),
            None => format!(
                "  proxyctl        export PROXYCTL_SERVER=http://{} PROXYCTL_TOKEN=\"$(cat {})\"",
                reachable(self.api),
                quoted(self.token)
            ),
        });
        lines.push(String::new());
        lines.join("\n") + "\n"
    }
}

/// How a client on this machine names the proxy.
fn proxy_url(proxy: &Proxy) -> String {
    let (host, port) = (proxy.row.host, proxy.row.port);
    let address = host.addresses().first().map(|ip| reachable(SocketAddr::new(*ip, port)));
    address.map_or_else(
        || format!("http://localhost:{port}"),
        |address| format!("http://{address}"),
    )
}

/// Why it does not serve, as a remark; empty if it does.
fn trouble(proxy: &Proxy) -> String {
    let status = &proxy.status;
    match status.state {
        ServiceState::Running => String::new(),
        _ if !proxy.row.enabled => ", stopped: proxyctl proxy start".to_owned(),
        _ if status.last_error.is_empty() => ", not running yet".to_owned(),
        _ => format!(", not running: {}", status.last_error),
    }
}

/// The path as a word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+".contains(&b));
    if plain {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_blanks_can_be_pasted() {
        assert_eq!(
            quoted(Path::new("/var/lib/proxyplane/ca.pem")),
            "/var/lib/proxyplane/ca.pem"
        );
        assert_eq!(quoted(Path::new("/home/a b/it's")), r"'/home/a b/it'\''s'");
    }
}
