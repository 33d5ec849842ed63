//! The database goes away under load: traffic does not notice, the API says so, nothing is lost.

use std::{fs, thread, time::Duration};

use proxyplane_proto::v1::{ListExchangesRequest, ListProxyServicesRequest};
use proxyplane_tests::{
    Api, Curl, Frozen, LONG_ENOUGH, Proxy, RawOrigin, World, eventually, eventually_within, kill_tree, reason,
};
use tokio::time::timeout;
use tonic::{Code, Status};

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_is_told_and_nothing_is_lost() {
    let world = World::start();
    let workspace = world.workspace();
    let (proxy, stopped) = (workspace.proxy("steady").start(), workspace.proxy("idle").create());
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let api = Api::of(&world).await;
    requests(&proxy, &origin, 10);

    let hung = Frozen::tree(world.postmaster().unwrap());
    // Whoever waits for the database now waits until the test has given up.
    let told = refused(api.traffic().list_exchanges(ListExchangesRequest::default())).await;
    assert_eq!(
        (told.code(), reason(&told).as_str()),
        (Code::Unavailable, "STORAGE_UNAVAILABLE")
    );
    let list = ListProxyServicesRequest::default();
    let told = refused(api.proxies().list_proxy_services(list)).await;
    assert_eq!(reason(&told), "STORAGE_UNAVAILABLE");
    let ready = Curl::direct().get(&format!("{}/ready", world.api()));
    assert_eq!(ready.status, 503, "{}", ready.text());
    stopped.ctl("start", [""; 0]).fails(3, "database");
    world.proxyctl(["system", "upgrade"]).fails(3, "database");
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

/// The error that a call is answered with, while the test is still there to hear it.
async fn refused<T>(call: impl Future<Output = Result<T, Status>>) -> Status {
    let answered = timeout(LONG_ENOUGH, call).await.expect("the call is answered");
    answered.err().expect("the call is refused")
}

/// Sends that many requests on one connection; each must succeed.
pub(crate) fn requests(proxy: &Proxy<'_>, origin: &RawOrigin, count: usize) {
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
pub(crate) fn stored(proxy: &Proxy<'_>, count: u64) {
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
