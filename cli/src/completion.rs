//! Completion of names, asked of the server while the user types.

use std::{ffi::OsStr, time::Duration};

use clap::CommandFactory as _;
use clap_complete::{CompleteEnv, engine::CompletionCandidate};
use proxyplane_proto::v1::{ListProxyServicesRequest, Workspace};

use crate::{
    args::{Cli, Format, Global},
    client::Client,
    error::Error,
    names::{self, DEFAULT_WORKSPACE, PAGE},
    settings::Settings,
};

/// Variable by which a shell's script asks for completions.
pub(crate) const VARIABLE: &str = "PROXYCTL_COMPLETE";
/// Nobody waits longer for a completion; without an answer there is none.
const PATIENCE: Duration = Duration::from_millis(800);

/// Answers and exits if it was a shell that started this program.
pub(crate) fn answer_the_shell() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).complete();
}

/// Names of proxies: bare in the default workspace, `WORKSPACE/NAME` elsewhere.
pub(crate) fn proxies(typed: &OsStr) -> Vec<CompletionCandidate> {
    candidates(typed, async |client: Client| {
        let request = ListProxyServicesRequest {
            page_size: PAGE,
            ..Default::default()
        };
        let page = client.proxies().list_proxy_services(request).await?.into_inner();
        Ok(page
            .proxy_services
            .into_iter()
            .map(|proxy| {
                if proxy.workspace_code == DEFAULT_WORKSPACE {
                    proxy.name
                } else {
                    format!("{}/{}", proxy.workspace_code, proxy.name)
                }
            })
            .collect())
    })
}

/// Codes of workspaces.
pub(crate) fn workspaces(typed: &OsStr) -> Vec<CompletionCandidate> {
    candidates(typed, async |client: Client| {
        Ok(names::workspaces(&client)
            .await?
            .into_iter()
            .map(|Workspace { code, .. }| code)
            .collect())
    })
}

fn candidates(typed: &OsStr, ask: impl AsyncFnOnce(Client) -> Result<Vec<String>, Error>) -> Vec<CompletionCandidate> {
    let given = |name: &str| std::env::var(name).ok();
    let global = Global {
        server: given("PROXYCTL_SERVER"),
        token: given("PROXYCTL_TOKEN"),
        workspace: None,
        output: Format::Table,
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let answer = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, async {
            ask(Client::connect(&Settings::load(&global)?).await?).await
        })
        .await
    });
    // A shell in the middle of a command line is no place for an error.
    let Ok(Ok(names)) = answer else { return Vec::new() };
    let typed = typed.to_string_lossy();
    names
        .into_iter()
        .filter(|name| name.starts_with(&*typed))
        .map(CompletionCandidate::new)
        .collect()
}
