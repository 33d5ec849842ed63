//! The server's own life: first start, restart, refusals. Each test has a world of its own.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    sync::{Mutex, mpsc},
    time::Duration,
};

use nix::sys::signal::Signal;
use proxyplane_tests::{RawClient, RawOrigin, World, eventually, eventually_within, nginx};

#[test]
fn a_bootstrapped_server_has_a_ready_proxy_and_says_how_to_use_it() {
    let world = World::start_with(&["--bootstrap"]);
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
    let world = World::start();
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
fn a_killed_server_finds_its_data_and_its_proxies_again() {
    let world = World::start();
    let _ = world.proxyctl(["workspace", "create", "default"]).ok();
    let _ = world.proxyctl(["proxy", "create", "survivor", "--start"]).ok();
    let before = world.proxyctl(["-o", "json", "proxy", "get", "survivor"]).json();
    let curl = proxyplane_tests::Curl::direct().through(&format!("127.0.0.1:{}", before["port"]));
    curl.get(&nginx().http("/query?before"));
    eventually("it is stored", || {
        let rows = world.proxyctl(["-o", "json", "traffic", "list"]).json();
        (rows[0]["query"] == "before").then_some(())
    });
    world.kill();
    assert_eq!(
        curl.get(&nginx().http("/hello")).status,
        200,
        "the worker serves on by itself"
    );
    world.serve();
    let rows = world.proxyctl(["-o", "json", "traffic", "list"]).json();
    assert!(rows.as_array().unwrap().iter().any(|row| row["query"] == "before"));
    curl.get(&nginx().http("/hello"));
    let after = world.proxyctl(["-o", "json", "proxy", "get", "survivor"]).json();
    assert_eq!(
        (&after["state"], &after["port"], &after["pid"]),
        (&"running".into(), &before["port"], &before["pid"])
    );
    eventually("what passed meanwhile is stored, too", || {
        (world.proxyctl(["-o", "json", "proxy", "get", "survivor"]).json()["stored"] == 3).then_some(())
    });
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
fn a_second_server_on_the_same_data_is_refused_with_its_holder() {
    let mut world = World::start();
    let pid = format!("pid {}", world.server().pid());
    let mut same_directory = World::prepared(&["--data-dir", world.data_dir().to_str().unwrap()]);
    let password = fs::read_to_string(world.data_dir().join("secrets/database.password")).unwrap();
    let socket = world.data_dir().join("run/pg");
    let url = format!(
        "postgres://proxyplane:{}@localhost/proxyplane?host={}",
        password.trim(),
        socket.display()
    );
    let mut same_database = World::prepared(&["--database-url", &url]);
    for second in [&mut same_directory, &mut same_database] {
        second.spawn();
        assert_eq!(second.server().ended().code(), Some(69), "{}", second.log());
        assert!(second.log().contains(&pid), "{}", second.log());
        assert!(!second.log().contains(password.trim()), "no password is printed");
    }
    assert_eq!(world.proxyctl(["system", "status"]).code, 0, "the first is unharmed");
}

#[test]
fn a_port_taken_at_boot_is_waited_for_and_then_given_up_with_its_holder() {
    let world = World::start();
    let _ = world.proxyctl(["workspace", "create", "default"]).ok();
    let ports = ["lucky", "unlucky", "free"].map(|name| {
        let made = world
            .proxyctl(["-o", "json", "proxy", "create", name, "--start"])
            .json();
        made["port"].as_u64().unwrap() as u16
    });
    assert_eq!(world.stop(), 0);
    let foreign = ports.map(|port| (port != ports[2]).then(|| TcpListener::bind(("127.0.0.1", port)).unwrap()));
    let [lucky, _unlucky, _] = foreign;
    world.spawn();
    let get = |name: &str| {
        let ran = world.proxyctl(["-o", "json", "proxy", "get", name]);
        (ran.code == 0).then(|| ran.json())
    };
    let becomes = |name: &str, state: &str| {
        eventually_within(Duration::from_mins(1), &format!("'{name}' becomes {state}"), || {
            get(name).filter(|now| now["state"] == state)
        })
    };
    becomes("free", "running");
    let holder = std::process::id().to_string();
    eventually("it waits and names the holder", || {
        let now = becomes("unlucky", "starting");
        // Found a moment after the state is.
        now["last_error"].as_str()?.contains(&holder).then_some(())
    });
    drop(lucky);
    becomes("lucky", "running");

    becomes("unlucky", "failed");
    let given_up = eventually("it is disabled", || {
        get("unlucky").filter(|now| now["enabled"] == false)
    });
    assert!(given_up["last_error"].as_str().unwrap().contains(&holder), "{given_up}");
    assert!(world.log().contains("proxy disabled"), "{}", world.log());
    assert_eq!(world.proxyctl(["system", "status"]).code, 0, "the others are ready");
}

#[test]
fn a_port_that_stays_taken_at_boot_is_tried_for_ever_if_its_proxy_says_so() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("patient").with(["--on-port-conflict", "retry"]).start();
    let changed = proxy.update(["--on-port-conflict", "disable"]);
    assert_eq!(changed["on_port_conflict"], "disable");
    let back = proxy.ctl("rollback", [""; 0]).json();
    assert_eq!(back["on_port_conflict"], "retry");
    let newest = &proxy.ctl("revisions", [""; 0]).json()[0];
    assert_eq!(newest["changed"], serde_json::json!(["on_port_conflict"]));

    assert_eq!(world.stop(), 0);
    let taken = TcpListener::bind(proxy.address()).unwrap();
    world.spawn();
    let failed = eventually_within(Duration::from_mins(1), "it has failed", || {
        let now = proxy.ctl("get", [""; 0]);
        let now = (now.code == 0).then(|| now.json())?;
        (now["state"] == "failed").then_some(now)
    });
    assert_eq!(failed["enabled"], true, "{failed}");
    let holder = std::process::id().to_string();
    assert!(failed["last_error"].as_str().unwrap().contains(&holder), "{failed}");
    eventually("an event says so", || {
        let arguments = [
            "-o",
            "json",
            "event",
            "list",
            "--proxy",
            proxy.id(),
            "--kind",
            "port_conflict",
        ];
        let events = world.proxyctl(arguments).json();
        let newest = events[0]["message"].as_str()?;
        (newest.contains("tried until it is free") && newest.contains(&holder)).then_some(())
    });
    drop(taken);
    proxy.becomes("running");
    assert_eq!(proxy.curl().get("http://proxyplane.local/").status, 200);
}

#[test]
fn a_stop_ends_workers_then_ingest_then_the_database_and_loses_nothing() {
    let mut world = World::start();
    let _ = world.proxyctl(["workspace", "create", "default"]).ok();
    let proxy = world.proxyctl(["-o", "json", "proxy", "create", "p", "--start"]).json();
    let address = format!("127.0.0.1:{}", proxy["port"]);
    let (release, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = RawOrigin::serving(move |peer| {
        peer.read_head()?;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsl")?;
        let _ = wait.lock().unwrap().recv();
        peer.send("ow")
    });
    // A stream that would go on for ever does not hold the stop up either.
    let mut tail = world.follow(["-o", "jsonl", "traffic", "tail"]);
    let mut client = RawClient::connect(&address);
    client.send(format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
        origin.http("/slow"),
        origin.address()
    ));
    client.read_until(b"\r\n\r\nsl");
    world.server().signal(Signal::SIGTERM);
    tail.says("connection lost");
    eventually("nobody new is let in", || TcpStream::connect(&address).err());
    release.send(()).unwrap();
    assert_eq!(client.read_exactly(2), b"ow", "what is open is finished");
    assert_eq!(world.server().ended().code(), Some(0));

    let log = world.log();
    let at = |words: &str| log.find(words).unwrap_or_else(|| panic!("'{words}' is missing: {log}"));
    assert!(at("draining proxies") < at("proxies and ingest stopped"));
    assert!(at("proxies and ingest stopped") < at("private Postgres stopped"));
    world.serve();
    let rows = world.proxyctl(["-o", "json", "traffic", "list"]).json();
    assert_eq!(
        (&rows[0]["path"], &rows[0]["state"], &rows[0]["response_size"]),
        (&"/slow".into(), &"complete".into(), &4.into())
    );
}

#[test]
fn a_hundred_streams_without_end_are_cut_at_the_deadline() {
    let world = World::start_with(&["--shutdown-timeout", "1s"]);
    let _ = world.proxyctl(["workspace", "create", "default"]).ok();
    let proxy = world.proxyctl(["-o", "json", "proxy", "create", "p", "--start"]).json();
    let origin = RawOrigin::serving(|peer| {
        peer.read_head()?;
        peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")?;
        peer.read_to_end().map(drop)
    });
    let mut clients: Vec<_> = (0..100)
        .map(|_| {
            let mut client = RawClient::connect(&format!("127.0.0.1:{}", proxy["port"]));
            client.send(format!(
                "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
                origin.http("/"),
                origin.address()
            ));
            client.read_until(b"data: 1\n\n");
            client
        })
        .collect();
    // It is not waited for as long as a stop at the default of 30 s takes.
    assert_eq!(world.stop(), 0);
    assert!(clients.iter_mut().all(RawClient::is_closed));
    world.serve();
    let get = || world.proxyctl(["-o", "json", "proxy", "get", "p"]).json();
    assert_eq!(get()["stored"], 100, "none is lost");
    let rows = world.proxyctl(["-o", "json", "traffic", "list", "-n", "0"]).json();
    assert!(rows.as_array().unwrap().iter().all(|row| row["state"] == "failed"));
}

#[test]
fn a_live_view_survives_a_restart_and_misses_nothing() {
    let world = World::start();
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
fn whoever_watches_a_proxy_or_follows_its_log_goes_on_after_a_restart() {
    let world = World::start();
    let _ = world.proxyctl(["workspace", "create", "default"]).ok();
    let _ = world.proxyctl(["proxy", "create", "p", "--start"]).ok();
    let mut watch = world.follow(["-o", "jsonl", "proxy", "watch", "p"]);
    let mut logs = world.follow(["proxy", "logs", "-f", "p"]);
    let before = watch.json_until(|now| now["state"] == "running")["pid"].clone();
    while !logs.line().contains("serving") {}

    assert_eq!(world.stop(), 0);
    watch.says("connection lost");
    logs.says("connection lost");
    world.serve();
    watch.json_until(|now| now["state"] == "running" && now["pid"] != before);
    let curl = proxyplane_tests::Curl::direct().through(&format!(
        "127.0.0.1:{}",
        world.proxyctl(["-o", "json", "proxy", "get", "p"]).json()["port"]
    ));
    logs.says("connected again");
    curl.get(&nginx().http("/hello?after"));
    while !logs.line().contains("/hello?after") {}
    assert_eq!((watch.interrupt(), logs.interrupt()), (130, 130));
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
