//! Names to resources: NAME, WORKSPACE/NAME or id.

use proxyplane_proto::v1::{
    GetProxyServiceRequest, GetWorkspaceRequest, ListProxyServicesRequest, ListWorkspacesRequest, ProxyService,
    Workspace,
};
use uuid::Uuid;

use crate::{client::Client, error::Error};

/// Where bare names are looked up when nothing is said.
pub(crate) const DEFAULT_WORKSPACE: &str = "default";

/// Largest page the server gives.
pub(crate) const PAGE: i32 = 1_000;

/// `WORKSPACE/NAME` in its parts; a bare name has no workspace of its own.
pub(crate) fn split(name: &str) -> (Option<&str>, &str) {
    name.split_once('/')
        .map_or((None, name), |(workspace, name)| (Some(workspace), name))
}

/// The proxy that `name` means. A bare name is looked up in `workspace`, else in the default one.
pub(crate) async fn proxy(client: &Client, name: &str, workspace: Option<&str>) -> Result<ProxyService, Error> {
    if is_id(name) {
        let answer = client
            .proxies()
            .get_proxy_service(GetProxyServiceRequest { id: name.to_owned() })
            .await?;
        return answer
            .into_inner()
            .proxy_service
            .ok_or_else(|| not_found("proxy", name, None));
    }
    let (own, bare) = split(name);
    // An empty name in a query means any.
    if bare.is_empty() || own == Some("") {
        return Err(Error::Usage(format!(
            "'{name}' names no proxy: it is NAME, WORKSPACE/NAME or an id"
        )));
    }
    agree(client, name, workspace).await?;
    let wanted = own.or(workspace).unwrap_or(DEFAULT_WORKSPACE);
    let named = proxies_named(client, bare).await?;
    match pick(named, wanted, own.is_none() && workspace.is_none(), name) {
        Err(Error::NotFound { hint: None, .. }) => Err(explain_missing(client, wanted, bare).await?),
        picked => picked,
    }
}

/// Refuses a `name` of another workspace than the one that was asked for.
pub(crate) async fn agree(client: &Client, name: &str, said: Option<&str>) -> Result<(), Error> {
    if let ((Some(own), _), Some(said)) = (split(name), said)
        && own != said
    {
        let asked = workspace(client, said).await?;
        if own != asked.code && own != asked.id {
            return Err(Error::Usage(format!(
                "'{name}' is of the workspace '{own}', but --workspace says '{said}'"
            )));
        }
    }
    Ok(())
}

/// The workspace with that code or id.
pub(crate) async fn workspace(client: &Client, name: &str) -> Result<Workspace, Error> {
    if is_id(name) {
        let answer = client
            .workspaces()
            .get_workspace(GetWorkspaceRequest { id: name.to_owned() })
            .await?;
        return answer
            .into_inner()
            .workspace
            .ok_or_else(|| not_found("workspace", name, None));
    }
    let all = workspaces(client).await?;
    let hint = closest(name, all.iter().map(|workspace| workspace.code.as_str()))
        .map(|close| format!("did you mean '{close}'?"))
        .or_else(|| Some("`proxyctl workspace list` shows all, `proxyctl workspace create` makes one".to_owned()));
    all.into_iter()
        .find(|workspace| workspace.code == name)
        .ok_or_else(|| not_found("workspace", name, hint))
}

/// Ids of `workspace` and `proxy` for a filter; empty where nothing was asked for.
pub(crate) async fn scope(
    client: &Client,
    proxy_name: Option<&str>,
    workspace_name: Option<&str>,
) -> Result<(String, String), Error> {
    match (proxy_name, workspace_name) {
        (Some(name), workspace) => Ok((String::new(), proxy(client, name, workspace).await?.id)),
        (None, Some(name)) => Ok((workspace(client, name).await?.id, String::new())),
        (None, None) => Ok((String::new(), String::new())),
    }
}

/// As [`scope`], for what is stored: an id is taken as it is, because the traffic of a deleted proxy stays.
pub(crate) async fn stored_scope(
    client: &Client,
    proxy_name: Option<&str>,
    workspace_name: Option<&str>,
) -> Result<(String, String), Error> {
    match proxy_name {
        Some(id) if is_id(id) => Ok((String::new(), id.to_owned())),
        _ => scope(client, proxy_name, workspace_name).await,
    }
}

/// All workspaces.
pub(crate) async fn workspaces(client: &Client) -> Result<Vec<Workspace>, Error> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListWorkspacesRequest {
            page_size: PAGE,
            page_token,
        };
        let page = client.workspaces().list_workspaces(request).await?.into_inner();
        all.extend(page.workspaces);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

fn is_id(name: &str) -> bool {
    Uuid::try_parse(name).is_ok()
}

/// All proxies of a workspace, by its id; of every one if that is empty.
pub(crate) async fn proxies(client: &Client, workspace_id: &str) -> Result<Vec<ProxyService>, Error> {
    matching(client, workspace_id, "").await
}

async fn proxies_named(client: &Client, name: &str) -> Result<Vec<ProxyService>, Error> {
    matching(client, "", name).await
}

async fn matching(client: &Client, workspace_id: &str, name: &str) -> Result<Vec<ProxyService>, Error> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListProxyServicesRequest {
            workspace_id: workspace_id.to_owned(),
            name: name.to_owned(),
            page_size: PAGE,
            page_token,
        };
        let page = client.proxies().list_proxy_services(request).await?.into_inner();
        all.extend(page.proxy_services);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

/// Of all proxies with a name the one in `wanted`. `bare`: nobody said where, so several elsewhere are ambiguous.
fn pick(named: Vec<ProxyService>, wanted: &str, bare: bool, name: &str) -> Result<ProxyService, Error> {
    let at = named
        .iter()
        .position(|proxy| proxy.workspace_code == wanted || proxy.workspace_id == wanted);
    let mut named = named;
    if let Some(at) = at {
        return Ok(named.swap_remove(at));
    }
    let candidates: Vec<_> = named
        .iter()
        .map(|proxy| format!("{}/{}", proxy.workspace_code, proxy.name))
        .collect();
    if bare && candidates.len() > 1 {
        return Err(Error::Ambiguous {
            name: name.to_owned(),
            candidates,
        });
    }
    let hint = (!candidates.is_empty()).then(|| format!("did you mean '{}'?", candidates.join("' or '")));
    Err(not_found("proxy", &format!("{wanted}/{}", split(name).1), hint))
}

/// Nobody has that name anywhere: says whether the workspace or the name is what is missing.
async fn explain_missing(client: &Client, wanted: &str, name: &str) -> Result<Error, Error> {
    let workspace = match workspace(client, wanted).await {
        Ok(workspace) => workspace,
        Err(missing @ Error::NotFound { .. }) => return Ok(missing),
        Err(other) => return Err(other),
    };
    let request = ListProxyServicesRequest {
        workspace_id: workspace.id,
        page_size: PAGE,
        ..Default::default()
    };
    let there = client
        .proxies()
        .list_proxy_services(request)
        .await?
        .into_inner()
        .proxy_services;
    let hint = closest(name, there.iter().map(|proxy| proxy.name.as_str())).map_or_else(
        || "`proxyctl proxy list` shows all".to_owned(),
        |close| format!("did you mean '{wanted}/{close}'?"),
    );
    Ok(not_found("proxy", &format!("{wanted}/{name}"), Some(hint)))
}

/// Nothing has that name.
pub(crate) fn not_found(what: &'static str, name: &str, hint: Option<String>) -> Error {
    Error::NotFound {
        what,
        name: name.to_owned(),
        hint,
    }
}

/// The name that `wanted` was probably meant to be: at most a third of it differs.
fn closest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (wanted.chars().count() / 3).max(1);
    names
        .map(|name| (distance(wanted, name), name))
        .filter(|(far, _)| *far <= limit)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein distance, letters compared without case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let change = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(workspace: &str, name: &str) -> ProxyService {
        ProxyService {
            workspace_code: workspace.into(),
            name: name.into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_bare_name_is_the_default_workspaces() {
        let named = vec![proxy("a", "x"), proxy("default", "x")];
        assert_eq!(pick(named, "default", true, "x").unwrap().workspace_code, "default");
    }

    #[test]
    fn several_elsewhere_are_ambiguous() {
        let error = pick(vec![proxy("a", "x"), proxy("b", "x")], "default", true, "x").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("a/x, b/x"), "{error}");
    }

    #[test]
    fn one_elsewhere_is_a_hint_and_not_taken() {
        let error = pick(vec![proxy("a", "x")], "default", true, "x").unwrap_err();
        assert_eq!(error.exit_code(), 4);
        assert!(matches!(error, Error::NotFound { hint: Some(hint), .. } if hint.contains("a/x")));
        assert_eq!(
            pick(vec![proxy("a", "x"), proxy("b", "x")], "c", false, "c/x")
                .unwrap_err()
                .exit_code(),
            4
        );
    }

    #[test]
    fn a_slip_of_the_finger_is_found() {
        assert_eq!(closest("captrue", ["capture", "other"].into_iter()), Some("capture"));
        assert_eq!(closest("zzz", ["capture", "other"].into_iter()), None);
    }
}
