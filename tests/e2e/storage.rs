//! The database goes away under load: traffic does not notice, the API says so, nothing is lost.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use proxyplane_proto::v1::{ListExchangesRequest, ListProxyServicesRequest};
use proxyplane_tests::{Api, Curl, Frozen, Proxy, RawOrigin, World, eventually, eventually_within, kill_tree, reason};
use tonic::Code;

/// Until the API must have said that the database is away.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
/// For calls and commands themselves, on a busy machine.
const SLACK: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_is_told_within_two_seconds_and_nothing_is_lost() {
    let world = World::start();
    let workspace = world.workspace();
    let (proxy, stopped) = (workspace.proxy("steady").start(), workspace.proxy("idle").create());
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let api = Api::of(&world).await;
    requests(&proxy, &origin, 10);

    let hung = Frozen::tree(world.postmaster().unwrap());
    let asked = Instant::now();
    let refused = api
        .traffic()
        .list_exchanges(ListExchangesRequest::default())
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unavailable, "STORAGE_UNAVAILABLE")
    );
    let list = ListProxyServicesRequest::default();
    let refused = api.proxies().list_proxy_services(list).await.unwrap_err();
    assert_eq!(reason(&refused), "STORAGE_UNAVAILABLE");
    assert!(
        asked.elapsed() < (TOLD_WITHIN + SLACK) * 2,
        "two calls took {:?}",
        asked.elapsed()
    );
    let asked = Instant::now();
    let ready = Curl::direct().get(&format!("{}/ready", world.api()));
    assert_eq!(ready.status, 503, "{}", ready.text());
    assert!(asked.elapsed() < TOLD_WITHIN + SLACK, "{:?}", asked.elapsed());
    stopped.ctl("start", [""; 0]).fails(3, "database");
    requests(&proxy, &origin, 200);
    let worker_survives = fs::exists(format!("/proc/{}", world_worker(&world, &proxy))).unwrap();
    assert!(worker_survives);

    drop(hung);
    eventually("everything works again", || {
        (world.proxyctl(["system", "status"]).code == 0).then_some(())
    });
    stored(&proxy, 210);
    assert_eq!(stopped.start()["state"], "running");
}

#[test]
fn a_killed_database_is_started_again_and_nothing_is_lost() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("steady").start();
    let worker = proxy.worker();
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    thread::scope(|scope| {
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(|| requests(&proxy, &origin, 300))).collect();
        origin.gets(b"GET /");
        kill_tree(world.postmaster().unwrap());
        for client in clients {
            client.join().unwrap();
        }
    });
    eventually("everything works again", || {
        (world.proxyctl(["system", "status"]).code == 0).then_some(())
    });
    stored(&proxy, 900);
    assert_eq!(proxy.worker(), worker, "the same worker");
    proxy.update(["--capture-limit", "7"]);
}

/// Sends that many requests on one connection; each must succeed.
fn requests(proxy: &Proxy<'_>, origin: &RawOrigin, count: usize) {
    let mut client = proxy.connect();
    for _ in 0..count {
        client.send(format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
            origin.http("/"),
            origin.address()
        ));
        assert!(client.read_head().starts_with("HTTP/1.1 200"));
        assert_eq!(client.read_exactly(2), b"ok");
    }
}

/// Waits until exactly so many exchanges are stored.
fn stored(proxy: &Proxy<'_>, count: u64) {
    eventually_within(Duration::from_mins(1), "every exchange is stored", || {
        let now = proxy.get()["stored"].as_u64().unwrap();
        assert!(now <= count, "{now} exchanges of {count}");
        (now == count).then_some(())
    });
    assert_eq!(proxy.stored().len() as u64, count, "rows");
}

/// The worker by its run record: the API cannot tell while the database is away.
fn world_worker(world: &World, proxy: &Proxy<'_>) -> i64 {
    let record = fs::read(world.data_dir().join(format!("run/{}.json", proxy.id()))).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    record["pid"].as_i64().unwrap()
}
