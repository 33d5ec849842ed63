//! A start while the database is away: the API answers from the beginning, and the rest comes by itself.

use std::process::Stdio;

use proxyplane_proto::v1::{ListProxyServicesRequest, proxy_lifecycle_service_client::ProxyLifecycleServiceClient};
use proxyplane_tests::{Api, Curl, Frozen, LONG_ENOUGH, OwnPostgres, RawOrigin, World, eventually, reason};
use serde_json::Value;
use tokio::time::timeout;
use tonic::Code;

use crate::storage::{requests, stored};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test(flavor = "multi_thread")]
async fn a_start_while_the_database_hangs_answers_and_goes_on_by_itself() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("steady").start();
    let worker = proxy.worker();
    let origin = RawOrigin::answering(OK);
    requests(&proxy, &origin, 10);
    world.kill();
    let hung = Frozen::tree(world.postmaster().unwrap());
    requests(&proxy, &origin, 50);
    world.spawn();

    let start = eventually("the start tells what it waits for", || starting(&world));
    assert_eq!(start["certificates"]["ready"], true, "{start}");
    for (path, status) in [("/ready", 503), ("/health", 200)] {
        let answer = Curl::direct().get(&format!("{}{path}", world.api()));
        assert_eq!(answer.status, status, "{path}");
        let text = answer.text();
        assert!(text.contains("\"database\"") && text.contains("not ready"), "{text}");
    }
    let api = Api::of(&world).await;
    let mut proxies = api.proxies();
    let told = timeout(
        LONG_ENOUGH,
        proxies.list_proxy_services(ListProxyServicesRequest::default()),
    );
    let told = told.await.expect("the call is answered").unwrap_err();
    assert_eq!(
        (told.code(), reason(&told).as_str()),
        (Code::Unavailable, "STORAGE_UNAVAILABLE")
    );
    let mut stranger = ProxyLifecycleServiceClient::new(api.channel());
    let told = stranger.list_proxy_services(ListProxyServicesRequest::default()).await;
    assert_eq!(told.unwrap_err().code(), Code::Unauthenticated);
    world.proxyctl(["proxy", "list"]).fails(3, "database");
    world.proxyctl(["system", "upgrade"]).fails(3, "database");
    let _ = world.proxyctl(["system", "reasons"]).ok();
    eventually("the log tells", || {
        world.log().contains("does not answer; waiting for it").then_some(())
    });
    requests(&proxy, &origin, 50);

    drop(hung);
    becomes_ready(&world);
    assert_eq!(proxy.worker(), worker, "the same worker");
    requests(&proxy, &origin, 10);
    stored(&proxy, 120);
    let waited = eventually("an event tells", || events(&world, "database_awaited").pop());
    assert_eq!(
        (&waited["severity"], &waited["subject_type"]),
        (&"warning".into(), &"system".into())
    );
    let message = waited["message"].as_str().unwrap();
    assert!(message.contains(" from ") && message.contains(" to "), "{message}");
    assert!(
        events(&world, "logged").iter().any(|event| event["message"]
            .as_str()
            .unwrap()
            .contains("does not answer; waiting for it")),
        "what was told before the database answered is stored"
    );
}

#[test]
fn a_stop_does_not_wait_for_a_start_that_waits_for_the_database() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("steady").start();
    let worker = proxy.worker();
    let origin = RawOrigin::answering(OK);
    requests(&proxy, &origin, 10);
    world.kill();
    let hung = Frozen::tree(world.postmaster().unwrap());
    world.spawn();
    eventually("the start tells what it waits for", || starting(&world));
    requests(&proxy, &origin, 10);
    assert_eq!(world.stop(), 0);
    assert!(world.log().contains("stopping without the database"), "{}", world.log());
    assert!(
        world.log().contains("the private Postgres hangs; killing it"),
        "{}",
        world.log()
    );
    requests(&proxy, &origin, 10);

    drop(hung);
    world.serve();
    assert_eq!(proxy.worker(), worker, "the same worker");
    stored(&proxy, 30);
}

#[test]
fn a_database_of_somebody_else_that_is_not_up_yet_is_waited_for() {
    let mut own = OwnPostgres::start();
    own.stop();
    let world = World::prepared(&["--database-url", &own.url()]);
    world.spawn();
    let start = eventually("the start tells what it waits for", || {
        starting(&world).filter(|parts| parts["database"]["detail"].as_str().unwrap().contains("refused"))
    });
    assert_eq!(start["start"]["ready"], false, "{start}");
    world.proxyctl(["proxy", "list"]).fails(3, "database");
    own.resume();
    becomes_ready(&world);
    assert_eq!(world.stop(), 0);

    own.stop();
    world.spawn();
    eventually("the start tells what it waits for", || starting(&world));
    assert_eq!(world.stop(), 0, "nothing of ours is to be stopped");
}

#[test]
fn a_database_that_refuses_is_not_waited_for() {
    let own = OwnPostgres::start();
    let nowhere = own.url().replace("/proxyplane", "/nowhere");
    let unknown = own.url().replace("127.0.0.1", "nobody.invalid");
    for (url, says) in [(&nowhere, "does not exist"), (&unknown, "nobody.invalid")] {
        let mut world = World::prepared(&["--database-url", url]);
        world.spawn();
        assert_eq!(world.server().ended().code(), Some(1), "{}", world.log());
        let log = world.log();
        assert!(log.contains("--database-url") && log.contains(says), "{log}");
    }
}

#[test]
fn a_stop_does_not_wait_for_statements_of_a_database_that_hangs() {
    let mut world = World::start();
    let mut locking = world.psql("BEGIN; LOCK TABLE services; SELECT pg_sleep(600)");
    let locking = locking.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut waiting = world.proxyctl_command(["proxy", "list"]);
    let waiting = waiting.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("a statement of a call is under way", || {
        let waiting = world.sql("SELECT count(*) FROM pg_locks WHERE NOT granted");
        (waiting != "0").then_some(())
    });
    let hung = Frozen::tree(world.postmaster().unwrap());
    world.server().signal(nix::sys::signal::Signal::SIGTERM);
    eventually("it gives the statement up", || {
        world.log().contains("its connections are cut off").then_some(())
    });
    drop(hung);
    assert_eq!(world.server().ended().code(), Some(0));
    assert_eq!(world.postmaster(), None, "and Postgres is stopped");
    for mut child in [locking, waiting] {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The parts of a server that waits for its database, by name; `None` if nobody answers yet.
fn starting(world: &World) -> Option<Value> {
    let status = world.proxyctl(["-o", "json", "system", "status"]);
    let told: Value = serde_json::from_slice(&status.stdout).ok()?;
    assert_eq!((status.code, &told["ready"]), (1, &false.into()), "{told}");
    let parts = told["parts"].as_array()?.iter();
    let parts: serde_json::Map<_, _> = parts
        .map(|part| (part["name"].as_str().unwrap().to_owned(), part.clone()))
        .collect();
    assert_eq!(parts["start"]["ready"], false, "{told}");
    assert_eq!(parts["database"]["ready"], false, "{told}");
    Some(parts.into())
}

fn becomes_ready(world: &World) {
    eventually("the start comes to its end", || {
        (world.proxyctl(["system", "status"]).code == 0).then_some(())
    });
}

/// What is stored of one kind.
fn events(world: &World, kind: &str) -> Vec<Value> {
    let list = ["-o", "json", "event", "list", "-n", "0", "--kind", kind];
    world.proxyctl(list).json().as_array().unwrap().clone()
}
