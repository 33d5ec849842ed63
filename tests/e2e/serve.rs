//! The server's own life: first start, restart, refusals. Each test has a world of its own.

use std::net::TcpListener;

use nix::sys::signal::Signal;
use proxyplane_tests::{World, eventually, nginx};

#[test]
fn a_bootstrapped_server_has_a_ready_proxy_and_says_how_to_use_it() {
    let mut world = World::start_with(&["--bootstrap"]);
    let proxy = world.proxyctl(["-o", "json", "proxy", "get", "capture"]).json();
    assert_eq!(
        (&proxy["workspace"], &proxy["state"]),
        (&"default".into(), &"running".into())
    );
    let port = proxy["port"].as_u64().unwrap();
    let said = eventually("it says how to use it", || {
        Some(world.log()).filter(|log| log.contains("curl "))
    });
    for words in [&format!("127.0.0.1:{port}"), world.listen(), "proxyctl"] {
        assert!(said.contains(words), "'{words}' is missing: {said}");
    }
    assert_eq!(world.stop(), 0);

    world.serve();
    assert_eq!(
        world
            .proxyctl(["-o", "json", "proxy", "list"])
            .json()
            .as_array()
            .unwrap()
            .len(),
        1,
        "made once"
    );
}

#[test]
fn a_plain_server_makes_nothing() {
    let world = World::start();
    assert_eq!(
        world.proxyctl(["-o", "json", "workspace", "list"]).json(),
        serde_json::json!([])
    );
    world.proxyctl(["proxy", "create", "x"]).fails(4, "workspace create");
}

#[test]
fn a_restart_brings_the_enabled_proxies_back_with_their_data() {
    let mut world = World::start();
    let _ = world.proxyctl(["workspace", "create", "default"]).ok();
    for name in ["on", "off"] {
        let _ = world.proxyctl(["proxy", "create", name, "--start"]).ok();
    }
    let _ = world.proxyctl(["proxy", "stop", "off"]).ok();
    let proxy = |world: &World, name: &str| world.proxyctl(["-o", "json", "proxy", "get", name]).json();
    let port = proxy(&world, "on")["port"].clone();
    let curl = proxyplane_tests::Curl::direct().through(&format!("127.0.0.1:{port}"));
    curl.get(&nginx().http("/hello"));

    assert_eq!(world.stop(), 0);
    assert!(
        std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err(),
        "workers stop with the server"
    );
    world.serve();

    let on = proxy(&world, "on");
    assert_eq!(
        (&on["state"], &on["port"], &on["stored"]),
        (&"running".into(), &port, &1.into())
    );
    assert_eq!(proxy(&world, "off")["state"], "stopped");
    curl.get(&nginx().http("/hello"));
    eventually("both exchanges are stored", || {
        (proxy(&world, "on")["stored"] == 2).then_some(())
    });
}

#[test]
fn a_killed_server_finds_its_data_and_starts_its_proxies_anew() {
    let mut world = World::start();
    let _ = world.proxyctl(["workspace", "create", "default"]).ok();
    let _ = world.proxyctl(["proxy", "create", "survivor", "--start"]).ok();
    let before = world.proxyctl(["-o", "json", "proxy", "get", "survivor"]).json();
    world.kill();
    world.serve();
    let after = world.proxyctl(["-o", "json", "proxy", "get", "survivor"]).json();
    assert_eq!((&after["state"], &after["port"]), (&"running".into(), &before["port"]));
}

#[test]
fn a_taken_address_is_refused_with_its_holder() {
    let mut world = World::prepared(&[]);
    let _foreign = TcpListener::bind(world.listen()).unwrap();
    world.spawn();
    assert_eq!(world.server().ended().code(), Some(69));
    assert!(world.log().contains(&std::process::id().to_string()), "{}", world.log());
}

#[test]
fn a_bad_setting_is_refused_with_its_name() {
    let mut world = World::prepared(&["--shutdown-timeout", "soon"]);
    world.spawn();
    assert_eq!(world.server().ended().code(), Some(64));
    assert!(world.log().contains("shutdown-timeout"), "{}", world.log());
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let world = World::start();
    let mut second = World::prepared(&["--data-dir", world.data_dir().to_str().unwrap()]);
    second.spawn();
    assert_ne!(second.server().ended().code(), Some(0));
    assert_eq!(world.proxyctl(["system", "status"]).code, 0, "the first is unharmed");
}

#[test]
fn a_live_view_survives_a_restart_and_misses_nothing() {
    let mut world = World::start();
    let _ = world.proxyctl(["workspace", "create", "default"]).ok();
    let proxy = world.proxyctl(["-o", "json", "proxy", "create", "p", "--start"]).json();
    let curl = proxyplane_tests::Curl::direct().through(&format!("127.0.0.1:{}", proxy["port"]));
    let mut tail = world.follow(["-o", "jsonl", "traffic", "tail"]);
    curl.get(&nginx().http("/query?before"));
    assert_eq!(tail.json()["query"], "before");

    assert_eq!(world.stop(), 0);
    tail.says("connection lost");
    world.serve();
    curl.get(&nginx().http("/query?after"));
    assert_eq!(tail.json()["query"], "after");
}

#[test]
fn an_interrupt_stops_everything() {
    let mut world = World::start_with(&["--bootstrap"]);
    let worker = world.proxyctl(["-o", "json", "proxy", "get", "capture"]).json()["pid"]
        .as_i64()
        .unwrap();
    world.server().signal(Signal::SIGINT);
    assert_eq!(world.server().ended().code(), Some(0));
    assert!(
        !std::path::Path::new(&format!("/proc/{worker}")).exists(),
        "the worker is gone"
    );
    assert!(
        !world.data_dir().join("pg/data/postmaster.pid").exists(),
        "Postgres is gone"
    );
    world.proxyctl(["proxy", "list"]).fails(3, "cannot reach");
}
