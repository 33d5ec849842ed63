//! Revisions of a proxy: listed, compared, brought back.

use std::{fs, path::PathBuf};

use proxyplane_proto::v1::{
    GetProxyServiceRevisionRequest, ListProxyServiceRevisionsRequest, RevisionCause, RollbackProxyServiceRequest,
};
use proxyplane_tests::{Api, Authority, Proxy, RawOrigin, Workspace, World, blamed, free_port, metadata, reason};
use serde_json::{Value, json};
use tonic::Code;

const NONE: [&str; 0] = [];

/// Newest first.
fn revisions(proxy: &Proxy) -> Vec<Value> {
    proxy.ctl("revisions", NONE).json().as_array().unwrap().clone()
}

fn numbers(proxy: &Proxy) -> Vec<i64> {
    let numbers = revisions(proxy)
        .into_iter()
        .map(|row| row["revision"].as_i64().unwrap());
    numbers.collect()
}

/// What `proxyctl proxy VERB` says to people.
fn shown(workspace: &Workspace, verb: &str, proxy: &Proxy) -> String {
    workspace.proxyctl(["proxy", verb, proxy.id()]).ok().text()
}

/// A PEM frame around bytes that are no certificate.
fn not_a_ca(workspace: &Workspace) -> PathBuf {
    let file = workspace
        .world()
        .directory()
        .join(format!("no-ca-{}.pem", workspace.code()));
    fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    file
}

#[test]
fn three_updates_are_four_revisions() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("counted").create();
    proxy.update(["--no-verbose"]);
    proxy.update(["--capture-limit", "64KiB", "--passthrough", "bank.example"]);
    proxy.update(["--rename", "renamed"]);

    let rows = revisions(&proxy);
    let told = rows
        .iter()
        .map(|row| (&row["revision"], &row["cause"], &row["changed"], &row["current"]));
    let told: Vec<_> = told.map(|(a, b, c, d)| json!([a, b, c, d])).collect();
    let expected = [
        json!([4, "update", ["name"], true]),
        json!([3, "update", ["capture_limit", "passthrough_hosts"], false]),
        json!([2, "update", ["verbose"], false]),
        json!([1, "create", [], false]),
    ];
    assert_eq!(told, expected);
    assert!(rows[0]["created_at"].as_str().unwrap().ends_with('Z'));

    let table = shown(&workspace, "revisions", &proxy);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["REVISION", "WHEN", "CHANGED", "BY"]
    );
    assert!(lines[1].contains("4 (current)") && lines[1].contains("name"), "{table}");
    assert_eq!(lines.len(), 5, "{table}");
}

#[test]
fn a_rollback_of_a_running_proxy_is_in_force_when_the_command_returns() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("back").with(["--capture-limit", "2"]).start();
    let worker = proxy.worker();
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    proxy.update(["--capture-limit", "4"]);

    let back = proxy.ctl("rollback", NONE).json();
    assert_eq!((&back["revision"], &back["applied_revision"]), (&3.into(), &3.into()));
    assert_eq!(back["capture_limit"], 2);
    assert_eq!(proxy.curl().get(&origin.http("/")).body, b"hello");
    assert_eq!(proxy.exchange()["response_captured"], 2);
    assert_eq!(proxy.worker(), worker, "the same worker");

    let newest = &revisions(&proxy)[0];
    assert_eq!(
        (&newest["cause"], &newest["from_revision"], &newest["changed"]),
        (&"rollback".into(), &1.into(), &json!(["capture_limit"]))
    );
    assert!(shown(&workspace, "revisions", &proxy).contains("rollback to 1"));
}

#[test]
fn a_rollback_brings_back_every_field_of_a_stopped_proxy() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("whole").create();
    let port = free_port().to_string();
    proxy.update([
        "--rename",
        "other",
        "--port",
        &port,
        "--host",
        "localhost",
        "--no-verbose",
    ]);
    proxy.update(["--insecure-upstream"]);
    let ran = proxy.ctl("rollback", ["1"]).ok();
    assert!(ran.stderr.contains("rolled back to revision 1"), "{}", ran.stderr);
    let now = proxy.get();
    let fields = ["name", "port", "host", "verbose", "insecure_upstream", "revision"];
    let expected = json!(["whole", proxy.port(), "127.0.0.1", true, false, 4]);
    assert_eq!(Value::from(fields.map(|field| now[field].clone()).to_vec()), expected);
    assert_eq!(proxy.start()["state"], "running", "on its old port");
}

#[test]
fn a_change_that_changes_nothing_is_no_revision_and_no_event() {
    let workspace = World::shared().workspace();
    let proxy = workspace
        .proxy("same")
        .with(["--capture-limit", "64KiB", "--passthrough", "a.example"])
        .start();
    let before = proxy.get();
    let port = proxy.port().to_string();
    let same = [
        "--capture-limit",
        "64KiB",
        "--passthrough",
        "a.example",
        "--port",
        &port,
    ];
    let ran = proxy.ctl("update", same).ok();
    assert!(ran.stderr.contains("is so already"), "{}", ran.stderr);
    let after = proxy.get();
    for field in [
        "etag",
        "revision",
        "updated_at",
        "applied_revision",
        "applied_at",
        "pid",
    ] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(numbers(&proxy), [1]);
    let events = workspace.proxyctl(["-o", "json", "event", "list"]).json();
    let kinds: Vec<_> = events.as_array().unwrap().iter().map(|event| &event["kind"]).collect();
    assert_eq!(kinds, ["worker_started"]);
    proxy.update(["--capture-limit", "64KiB", "--no-verbose"]);
    assert_eq!(revisions(&proxy)[0]["changed"], json!(["verbose"]));
}

#[test]
fn a_refused_change_leaves_no_revision() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("guarded").start();
    let file = not_a_ca(&workspace);
    let bad = ["--extra-ca", file.to_str().unwrap()];
    proxy.ctl("update", bad).fails(2, "--extra-ca");
    assert_eq!(numbers(&proxy), [1]);
    proxy.stop();
    proxy.ctl("update", bad).fails(2, "--extra-ca");
    proxy.ctl("rollback", NONE).fails(4, "before");
    proxy.ctl("diff", NONE).fails(4, "before");
    assert_eq!((numbers(&proxy), &proxy.get()["revision"]), (vec![1], &1.into()));
}

#[test]
fn a_rollback_to_another_port_moves_a_running_proxy() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("rooted").create();
    proxy.update(["--port", &free_port().to_string(), "--no-verbose"]);
    let moved = proxy.start();
    let back = proxy.ctl("rollback", ["1"]).json();
    assert_eq!(
        (&back["port"], &back["verbose"], &back["pid"]),
        (&proxy.port().into(), &true.into(), &moved["pid"])
    );
    assert_eq!(back["listening"], json!([proxy.address()]));
    assert_eq!(numbers(&proxy), [3, 2, 1]);
    assert_eq!(proxy.curl().get("http://proxyplane.local/").status, 200);
}

#[test]
fn a_rollback_to_a_name_or_port_that_another_has_now_is_a_conflict() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("first").create();
    proxy.update(["--rename", "second", "--port", &free_port().to_string()]);
    let heir = workspace.proxy("first").create();
    proxy.ctl("rollback", NONE).fails(5, "'first' is taken");
    heir.update(["--rename", "heir", "--port", &proxy.port().to_string()]);
    proxy.ctl("rollback", NONE).fails(5, "in use by proxy 'heir'");
    assert_eq!(numbers(&proxy), [2, 1]);
}

#[test]
fn a_difference_is_told_field_by_field() {
    let workspace = World::shared().workspace();
    let authority = Authority::new(&workspace.world().directory().join(workspace.code()));
    let proxy = workspace
        .proxy("compared")
        .with(["--passthrough", "a.example"])
        .create();
    let ca = authority.file();
    proxy.update([
        "--no-verbose",
        "--extra-ca",
        ca.to_str().unwrap(),
        "--passthrough",
        "b.example",
    ]);

    let told = workspace.proxyctl(["proxy", "diff", proxy.id()]).ok();
    assert!(told.stderr.contains("revision 1 → 2"), "{}", told.stderr);
    let text = told.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "verbose: yes → no");
    assert_eq!(lines[1], "extra_ca_pem:");
    assert!(
        lines[2].starts_with("  + CN=Proxyplane test origins") && lines[2].contains("SHA-256"),
        "{text}"
    );
    assert_eq!(lines[3..], ["passthrough_hosts:", "  - a.example", "  + b.example"]);
    assert!(!text.contains("CERTIFICATE"), "{text}");

    let changes = proxy.ctl("diff", NONE).json();
    let expected = json!([
        { "field": "verbose", "old": true, "new": false },
        { "field": "extra_ca_pem", "old": null, "new": authority.pem().trim() },
        { "field": "passthrough_hosts", "old": ["a.example"], "new": ["b.example"] },
    ]);
    assert_eq!(changes, expected);
    let backwards = proxy.ctl("diff", ["2", "1"]).json();
    assert_eq!(backwards[0], json!({ "field": "verbose", "old": false, "new": true }));
    assert_eq!(proxy.ctl("diff", ["2"]).json(), json!([]), "with the current one");
    proxy.ctl("diff", ["1", "9"]).fails(4, "there is no revision 9");
    proxy.ctl("rollback", ["9"]).fails(4, "there is no revision 9");
    proxy.ctl("rollback", ["0"]).fails(2, "REVISION");
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_are_paged() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("paged").create();
    for limit in ["1", "2", "3", "4"] {
        proxy.update(["--capture-limit", limit]);
    }
    let mut proxies = Api::of(workspace.world()).await.proxies();
    let mut request = ListProxyServiceRevisionsRequest {
        id: proxy.id().to_owned(),
        page_size: 2,
        page_token: String::new(),
    };
    let mut pages = Vec::new();
    loop {
        let page = proxies
            .list_proxy_service_revisions(request.clone())
            .await
            .unwrap()
            .into_inner();
        assert!(page.revisions.iter().all(|revision| revision.configuration.is_none()));
        pages.push(
            page.revisions
                .iter()
                .map(|revision| revision.revision)
                .collect::<Vec<_>>(),
        );
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, [vec![5, 4], vec![3, 2], vec![1]]);
    request.page_token = "nonsense".into();
    let refused = proxies.list_proxy_service_revisions(request).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_PAGE_TOKEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_is_checked_as_every_change_is() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("checked").start();
    let old_etag = proxy.get()["etag"].as_str().unwrap().to_owned();
    proxy.update(["--no-verbose"]);
    let mut proxies = Api::of(workspace.world()).await.proxies();
    let wanted = RollbackProxyServiceRequest {
        id: proxy.id().to_owned(),
        revision: 1,
        etag: String::new(),
        validate_only: true,
    };

    let tried = proxies
        .rollback_proxy_service(wanted.clone())
        .await
        .unwrap()
        .into_inner();
    assert!(tried.proxy_service.unwrap().verbose);
    assert_eq!(
        (&proxy.get()["verbose"], numbers(&proxy)),
        (&false.into(), vec![2, 1]),
        "validate_only changes nothing"
    );

    let late = RollbackProxyServiceRequest {
        etag: old_etag,
        validate_only: false,
        ..wanted.clone()
    };
    let refused = proxies.rollback_proxy_service(late).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Aborted, "ETAG_MISMATCH")
    );

    let unknown = RollbackProxyServiceRequest {
        revision: 7,
        ..wanted.clone()
    };
    let refused = proxies.rollback_proxy_service(unknown).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::NotFound, "NOT_FOUND")
    );
    assert_eq!(
        (metadata(&refused)["kind"].as_str(), metadata(&refused)["id"].as_str()),
        ("revision", "7")
    );

    let nonsense = RollbackProxyServiceRequest {
        id: "x".into(),
        revision: 0,
        ..wanted
    };
    let refused = proxies.rollback_proxy_service(nonsense).await.unwrap_err();
    assert_eq!(
        (refused.code(), blamed(&refused)),
        (Code::InvalidArgument, vec!["id".to_owned(), "revision".to_owned()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_proxys_revisions_are_gone() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("gone").create();
    let id = proxy.id().to_owned();
    let mut proxies = Api::of(workspace.world()).await.proxies();
    let wanted = GetProxyServiceRevisionRequest {
        id: id.clone(),
        revision: 1,
    };
    let first = proxies
        .get_proxy_service_revision(wanted.clone())
        .await
        .unwrap()
        .into_inner()
        .revision
        .unwrap();
    assert_eq!((first.cause(), first.from_revision), (RevisionCause::Create, 0));
    assert_eq!(first.configuration.unwrap().name, "gone");

    let _ = proxy.ctl("delete", NONE).ok();
    let request = ListProxyServiceRevisionsRequest {
        id,
        ..Default::default()
    };
    let listed = proxies.list_proxy_service_revisions(request).await.unwrap_err();
    let read = proxies.get_proxy_service_revision(wanted).await.unwrap_err();
    for refused in [listed, read] {
        assert_eq!(
            (reason(&refused).as_str(), metadata(&refused)["kind"].as_str()),
            ("NOT_FOUND", "proxy")
        );
    }
}
