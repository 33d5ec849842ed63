//! The event log: what happens to workers, configurations and the database can be read and watched.

use std::net::TcpListener;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proxyplane_proto::v1::{
    EventFilter, ListEventsRequest, WatchEventsRequest, event_service_client::EventServiceClient,
    watch_events_response::Item,
};
use proxyplane_tests::{
    Api, Frozen, LONG_ENOUGH, Proxy, RawOrigin, Workspace, World, blamed, eventually, eventually_within, kill_tree,
    reason,
};
use serde_json::Value;
use tonic::Code;

const NONE: [&str; 0] = [];

#[test]
fn a_killed_worker_is_a_crash_with_its_exit_and_a_respawn() {
    let workspace = World::shared().workspace();
    let (victim, other) = (workspace.proxy("victim").start(), workspace.proxy("other").start());
    let mut watch = watch(&workspace, &["--proxy", victim.id()]);
    let worker = victim.worker();
    victim.signal_worker(Signal::SIGKILL);

    let crashed = watch.json();
    assert_eq!(
        (&crashed["kind"], &crashed["severity"]),
        (&"worker_crashed".into(), &"warning".into())
    );
    assert_eq!(crashed["subject"], format!("{}/victim", workspace.code()));
    assert_eq!(crashed["subject_id"], victim.id());
    assert_eq!(crashed["details"]["pid"], worker.to_string());
    assert_eq!(crashed["details"]["exit"], "signal 9 (SIGKILL)");
    assert!(crashed["message"].as_str().unwrap().contains("SIGKILL"), "{crashed}");
    let respawned = watch.json();
    assert_eq!(
        (&respawned["kind"], &respawned["severity"]),
        (&"worker_respawned".into(), &"info".into())
    );
    assert_ne!(respawned["details"]["pid"], worker.to_string());

    victim.stop();
    assert_eq!(watch.json()["kind"], "worker_stopped");
    assert_eq!(
        kinds_of(&victim, 4),
        ["worker_stopped", "worker_respawned", "worker_crashed", "worker_started"]
    );
    assert_eq!(kinds_of(&other, 1), ["worker_started"]);
    assert_eq!(watch.interrupt(), 130);
}

#[test]
fn a_configuration_that_the_worker_refuses_is_a_warning_with_the_reason() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("guarded").start();
    update_with_no_ca(&proxy);
    let rejected = eventually("the refusal is an event", || {
        list(&workspace, &["--proxy", proxy.id(), "--kind", "config_rejected"]).pop()
    });
    assert_eq!(rejected["severity"], "warning");
    assert_eq!(rejected["subject"], format!("{}/guarded", workspace.code()));
    assert!(
        rejected["message"].as_str().unwrap().contains("extra_ca_pem"),
        "{rejected}"
    );
}

#[test]
fn a_change_of_a_stopped_proxy_that_is_refused_is_a_warning() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("stopped").create();
    update_with_no_ca(&proxy);
    assert_eq!(kinds_of(&proxy, 1), ["config_rejected"]);
    let rejected = list(&workspace, &["--severity", "warning"]).pop().unwrap();
    assert_eq!(rejected["subject"], format!("{}/stopped", workspace.code()));
    let message = rejected["message"].as_str().unwrap();
    assert!(message.contains("extra_ca_pem"), "{rejected}");
}

#[test]
fn a_change_that_the_worker_does_not_answer_is_a_warning_and_its_error_says_what_helps() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("deaf").start();
    let frozen = Frozen::alone(proxy.worker());
    let restart = format!("proxyctl proxy restart --drain-timeout 1s {}", proxy.id());
    proxy.ctl("update", ["--no-verbose"]).fails(1, &restart);
    let told = eventually("the failure is an event", || {
        list(&workspace, &["--proxy", proxy.id(), "--kind", "worker_unresponsive"]).pop()
    });
    assert_eq!(
        (&told["severity"], &told["subject"]),
        (&"warning".into(), &format!("{}/deaf", workspace.code()).into())
    );
    assert!(told["message"].as_str().unwrap().contains("did not answer"), "{told}");
    assert_eq!(proxy.get()["revision"], 1);
    let _ = proxy.ctl("restart", ["--drain-timeout", "1s"]).ok();
    drop(frozen);
    proxy.update(["--no-verbose"]);
}

#[test]
fn a_worker_that_is_adopted_is_told() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("survivor").start();
    let worker = proxy.worker();
    world.kill();
    world.serve();
    let adopted = eventually("the adoption is an event", || {
        list(&workspace, &["--kind", "worker_adopted"]).pop()
    });
    assert_eq!(
        (&adopted["severity"], &adopted["subject_id"]),
        (&"info".into(), &proxy.id().into())
    );
    assert_eq!(adopted["details"]["pid"], worker.to_string());
    assert_eq!(kinds_of(&proxy, 2), ["worker_adopted", "worker_started"]);
}

#[test]
fn a_spool_that_fills_up_is_told_before_it_loses_anything_and_what_it_loses_is_an_error() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("narrow").with(["--spool-limit", "1MiB"]).start();
    let body = "x".repeat(10_000);
    let origin = RawOrigin::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n{body}"));
    let mut watch = world.follow(["-o", "jsonl", "event", "watch", "--proxy", proxy.id()]);
    let mut client = proxy.connect();
    let mut requests = |count: usize| {
        for _ in 0..count {
            client.send(format!(
                "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
                origin.http("/"),
                origin.address()
            ));
            assert!(client.read_head().starts_with("HTTP/1.1 200"));
            client.read_exactly(body.len());
        }
    };
    let hung = Frozen::tree(world.postmaster().unwrap());
    // Enough for four fifths, not for more than there is room for: from there on bodies are not kept.
    requests(110);
    let filling = watch.json();
    assert_eq!(
        (&filling["kind"], &filling["severity"]),
        (&"spool_above_80".into(), &"warning".into())
    );
    assert_eq!(filling["subject_id"], proxy.id());
    let of = |what: &str| filling["details"][what].as_str().unwrap().parse::<u64>().unwrap();
    assert_eq!(of("limit"), 1024 * 1024);
    assert!(of("used") >= of("limit") / 5 * 4, "{filling}");

    requests(6_000);
    drop(hung);
    let lost = watch.json_until(|event| event["kind"] == "gap");
    assert_eq!(
        (&lost["severity"], &lost["subject_id"]),
        (&"error".into(), &proxy.id().into())
    );
    assert_ne!(lost["details"]["exchanges"], "0");
}

#[test]
fn a_breaker_that_opens_is_an_error() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("doomed").start();
    let mut watch = watch(&workspace, &["--severity", "error"]);
    eventually("it is given up", || {
        let now = proxy.get();
        if let Some(worker) = now["pid"].as_i64() {
            // It may just have died by itself: then there is nothing to kill.
            let _ = kill(Pid::from_raw(worker as i32), Signal::SIGKILL);
        }
        (now["state"] == "failed").then_some(())
    });
    let opened = watch.json();
    assert_eq!(
        (&opened["kind"], &opened["severity"]),
        (&"breaker_opened".into(), &"error".into())
    );
    assert_eq!(opened["subject_id"], proxy.id());
    assert!(opened["message"].as_str().unwrap().contains("SIGKILL"), "{opened}");
}

#[test]
fn a_port_taken_at_boot_is_a_warning_that_names_the_holder_and_a_restart_keeps_the_log() {
    let world = World::start();
    let (id, port) = {
        let _ = world.proxyctl(["workspace", "create", "default"]).ok();
        let made = world.proxyctl(["-o", "json", "proxy", "create", "p", "--start"]).json();
        (
            made["id"].as_str().unwrap().to_owned(),
            made["port"].as_u64().unwrap() as u16,
        )
    };
    let mut watch = world.follow(["-o", "jsonl", "event", "watch", "--proxy", &id]);
    assert_eq!(world.stop(), 0);
    // Stored although the server was on its way out.
    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    world.spawn();
    let stopped = watch.json_until(|event| event["kind"] != "worker_started");
    assert_eq!(stopped["kind"], "worker_stopped");
    let conflict = watch.json();
    assert_eq!(
        (&conflict["kind"], &conflict["severity"]),
        (&"port_conflict".into(), &"warning".into())
    );
    assert_eq!(conflict["subject"], "default/p");
    let message = conflict["message"].as_str().unwrap();
    assert!(
        message.contains(&std::process::id().to_string()),
        "the holder is named: {message}"
    );
    assert!(message.contains(&port.to_string()), "{message}");
}

#[test]
fn what_happens_while_the_database_hangs_is_watched_at_once_and_stored_afterwards() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("steady").start();
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let (worker, stored_before) = (proxy.worker(), list(&workspace, &["--proxy", proxy.id()]).len());
    let mut watch = world.follow(["-o", "jsonl", "event", "watch"]);

    let hung = Frozen::tree(world.postmaster().unwrap());
    let mut client = proxy.connect();
    client.send(format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
        origin.http("/"),
        origin.address()
    ));
    assert!(client.read_head().starts_with("HTTP/1.1 200"));
    let stalled = watch.json_until(|event| event["kind"] == "ingest_stalled");
    assert_eq!(
        (&stalled["severity"], &stalled["subject_type"]),
        (&"warning".into(), &"system".into())
    );
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    let crashed = watch.json_until(|event| event["kind"] == "worker_crashed");
    let respawned = watch.json_until(|event| event["kind"] == "worker_respawned");
    assert_eq!(respawned["subject_id"], proxy.id());

    drop(hung);
    let recovered = watch.json_until(|event| event["kind"] == "ingest_recovered");
    assert_eq!(recovered["severity"], "info");
    let told = [stalled, crashed, respawned, recovered];
    eventually("all of it is stored as it was told", || {
        let stored = list_of(&world, &["-n", "0"]);
        told.iter().all(|event| stored.contains(event)).then_some(())
    });
    assert!(list(&workspace, &["--proxy", proxy.id()]).len() >= stored_before + 2);
    assert_eq!(list_of(&world, &["--kind", "events_dropped"]), NONE);
}

#[test]
fn what_was_being_stored_when_the_database_died_is_stored_when_it_is_back() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("steady").start();
    kinds_of(&proxy, 1);
    let worker = proxy.worker();
    let mut watch = world.follow(["-o", "jsonl", "event", "watch", "--proxy", proxy.id()]);
    let postmaster = world.postmaster().unwrap();
    let hung = Frozen::tree(postmaster);
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    let told = ["worker_crashed", "worker_respawned"].map(|kind| watch.json_until(|event| event["kind"] == kind));
    // The statement that stores them waits by now, or is sent to nobody: either way it fails.
    kill_tree(postmaster);
    drop(hung);
    eventually_within(LONG_ENOUGH * 2, "both are stored as they were told", || {
        let ran = world.proxyctl(["-o", "json", "event", "list", "-n", "0", "--proxy", proxy.id()]);
        let stored = (ran.code == 0).then(|| ran.json())?;
        let stored = stored.as_array()?;
        told.iter().all(|event| stored.contains(event)).then_some(())
    });
    assert_eq!(list_of(&world, &["--kind", "events_dropped"]), NONE);
}

#[test]
fn a_list_is_newest_first_filtered_and_pages_by_itself() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("busy").create();
    for _ in 0..3 {
        proxy.start();
        proxy.stop();
    }
    let pattern = ["worker_stopped", "worker_started"].repeat(3);
    assert_eq!(kinds_of(&proxy, 6), pattern);
    let kinds = |more: &[&str]| {
        let mut arguments = vec!["--proxy", proxy.id()];
        arguments.extend(more);
        kinds(&list(&workspace, &arguments))
    };
    assert_eq!(kinds(&["--limit", "2"]), pattern[..2]);
    assert_eq!(kinds(&["--limit", "0"]), pattern);
    assert_eq!(kinds(&["--kind", "worker_started"]), ["worker_started"; 3]);
    assert_eq!(
        kinds(&["--kind", "worker_started", "--kind", "worker_stopped"]),
        pattern
    );
    assert_eq!(kinds(&["--severity", "info"]), pattern);
    assert_eq!(kinds(&["--severity", "warning"]), NONE);
    assert_eq!(kinds(&["--since", "1h"]), pattern);
    assert_eq!(kinds(&["--since", "2999-01-01"]), NONE);
    assert_eq!(self::kinds(&list(&workspace, &[])), pattern, "of the workspace");

    let _ = proxy.ctl("delete", NONE).ok();
    assert_eq!(kinds(&[]), pattern, "events of a deleted proxy stay");
    workspace
        .proxyctl(["event", "list", "--kind", "worker_exploded"])
        .fails(2, "worker_crashed");
    workspace
        .proxyctl(["event", "list", "--severity", "bad"])
        .fails(2, "warning");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_watches_of_the_api_join_without_gap_or_double() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("paged").create();
    for _ in 0..3 {
        proxy.start();
        proxy.stop();
    }
    kinds_of(&proxy, 6);
    let mut api = Api::of(workspace.world()).await.events();
    let filter = Some(EventFilter {
        proxy_id: proxy.id().into(),
        ..EventFilter::default()
    });
    let mut request = ListEventsRequest {
        filter: filter.clone(),
        page_size: 2,
        ..ListEventsRequest::default()
    };
    let mut listed = Vec::new();
    for _ in 0..3 {
        let page = api.list_events(request.clone()).await.unwrap().into_inner();
        assert_eq!(page.events.len(), 2);
        listed.extend(page.events);
        request.page_token = page.next_page_token;
    }
    assert_eq!(request.page_token, "", "three pages of two");
    assert!(listed.is_sorted_by(|a, b| a.id > b.id));

    let after = listed[4].id.clone();
    let mut watch = api
        .watch_events(WatchEventsRequest {
            filter,
            after_id: after.clone(),
        })
        .await
        .unwrap()
        .into_inner();
    let mut next = async || watch.message().await.unwrap().unwrap().item.unwrap();
    assert_eq!(next().await, Item::SubscribedAfterId(after));
    for expected in listed[..4].iter().rev() {
        assert_eq!(next().await, Item::Event(expected.clone()));
    }

    let wrong = ListEventsRequest {
        filter: Some(EventFilter {
            severity_min: 9,
            kinds: vec!["worker_started".into(), "nonsense".into()],
            proxy_id: "nonsense".into(),
            ..EventFilter::default()
        }),
        page_size: -1,
        ..ListEventsRequest::default()
    };
    let refused = api.list_events(wrong).await.unwrap_err();
    assert_eq!(
        blamed(&refused),
        ["filter.severity_min", "filter.kinds[1]", "filter.proxy_id", "page_size"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_for_who_has_the_token() {
    let channel = Api::of(World::shared()).await.channel();
    let mut stranger = EventServiceClient::new(channel);
    let refused = stranger.list_events(ListEventsRequest::default()).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unauthenticated, "UNAUTHENTICATED")
    );
    let refused = stranger.watch_events(WatchEventsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[test]
fn no_name_of_a_subject_can_act_on_the_terminal() {
    let workspace = World::shared().workspace();
    // No control character, so it is a valid name; but it would turn the rest of the line around.
    let proxy = workspace.proxy("safe\u{202e}txt").start();
    let mut watch = workspace.world().follow(["event", "watch", "--proxy", proxy.id()]);
    proxy.stop();
    kinds_of(&proxy, 2);
    let mut shown = watch.line();
    for format in ["table", "json", "jsonl"] {
        shown += &workspace.proxyctl(["-o", format, "event", "list"]).ok().text();
    }
    assert!(shown.matches("safe").count() >= 4, "{shown}");
    assert!(!shown.contains('\u{202e}'), "{shown:?}");
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
}

/// An update with a file that holds no CA: it is refused.
#[track_caller]
fn update_with_no_ca(proxy: &Proxy<'_>) {
    let file = proxy.world().directory().join(format!("{}.pem", proxy.id()));
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    proxy
        .ctl("update", ["--extra-ca", file.to_str().unwrap()])
        .fails(2, "--extra-ca");
}

/// `proxyctl event watch` in the workspace, as JSON.
fn watch(workspace: &Workspace<'_>, more: &[&str]) -> proxyplane_tests::Follow {
    let mut arguments = vec!["-w", workspace.code(), "-o", "jsonl", "event", "watch"];
    arguments.extend(more);
    workspace.world().follow(arguments)
}

/// `proxyctl event list` in the workspace, newest first.
fn list(workspace: &Workspace<'_>, more: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["--workspace", workspace.code()];
    arguments.extend(more);
    list_of(workspace.world(), &arguments)
}

fn list_of(world: &World, more: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["-o", "json", "event", "list"];
    arguments.extend(more);
    let list = world.proxyctl(arguments).json();
    list.as_array().unwrap().clone()
}

fn kinds(events: &[Value]) -> Vec<String> {
    let kinds = events.iter().map(|event| event["kind"].as_str().unwrap().to_owned());
    kinds.collect()
}

/// Kinds of a proxy's events, newest first, once that many are stored.
#[track_caller]
pub(crate) fn kinds_of(proxy: &Proxy<'_>, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    eventually(&format!("{count} events of '{}' are stored", proxy.name()), || {
        seen = kinds(&list_of(proxy.world(), &["-n", "0", "--proxy", proxy.id()]));
        (seen.len() >= count).then_some(())
    });
    seen
}
