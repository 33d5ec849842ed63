//! Proxies as resources: settings, names, conflicts.

use std::net::{TcpListener, TcpStream};

use proxyplane_tests::{Curl, RawOrigin, World, free_port};
use serde_json::Value;

const NONE: [&str; 0] = [];

#[test]
fn a_new_proxy_has_the_published_fields_and_defaults() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("fresh").create().get();
    let expected = [
        ("name", Value::from("fresh")),
        ("workspace", workspace.code().into()),
        ("host", "127.0.0.1".into()),
        ("verbose", true.into()),
        ("log_out_of_scope", true.into()),
        ("enabled", false.into()),
        ("state", "stopped".into()),
        ("pid", Value::Null),
        ("uptime_seconds", 0.into()),
        ("requests", 0.into()),
        ("websockets", 0.into()),
        ("stored", 0.into()),
        ("backlog", 0.into()),
        ("capture_limit", 10_485_760.into()),
        ("insecure_upstream", false.into()),
    ];
    for (field, value) in expected {
        assert_eq!(proxy[field], value, "{field}");
    }
    assert!(proxy["port"].as_u64().unwrap() > 0, "a free port was picked and stored");
    assert!(proxy["created_at"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn a_proxy_is_found_by_name_by_full_name_and_by_id() {
    let world = World::shared();
    let workspace = world.workspace();
    let proxy = workspace.proxy("Testing Proxy").create();
    let full = format!("{}/Testing Proxy", workspace.code());
    let elsewhere = world.workspace();
    elsewhere
        .proxyctl(["proxy", "get", &full])
        .fails(2, &format!("but --workspace says '{}'", elsewhere.code()));
    elsewhere
        .proxyctl(["proxy", "create", &format!("{}/Another", workspace.code())])
        .fails(2, "but --workspace says");
    for (name, ran) in [
        (
            "bare",
            workspace.proxyctl(["-o", "json", "proxy", "get", "Testing Proxy"]),
        ),
        ("full", world.proxyctl(["-o", "json", "proxy", "get", &full])),
        ("id", world.proxyctl(["-o", "json", "proxy", "get", proxy.id()])),
    ] {
        assert_eq!(ran.json()["id"], proxy.id(), "{name}");
    }
}

#[test]
fn a_bare_name_that_several_workspaces_have_is_ambiguous() {
    let world = World::shared();
    let (one, two) = (world.workspace(), world.workspace());
    let name = format!("twin-{}", one.code());
    let (_a, _b) = (one.proxy(&name).create(), two.proxy(&name).create());
    let ran = world.proxyctl(["proxy", "get", &name]).exits(2);
    for candidate in [format!("{}/{name}", one.code()), format!("{}/{name}", two.code())] {
        assert!(ran.stderr.contains(&candidate), "{}", ran.stderr);
    }
}

#[test]
fn an_empty_name_is_no_proxys() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("alone").start();
    let nobodys = format!("{}/", workspace.code());
    for name in ["", &nobodys, "/alone"] {
        for command in [
            vec!["proxy", "delete", "--purge", name],
            vec!["proxy", "stop", name],
            vec!["proxy", "get", name],
            vec!["traffic", "list", "--proxy", name],
        ] {
            workspace.proxyctl(command).fails(2, "names no proxy");
        }
    }
    assert_eq!(proxy.state(), "running");
}

#[test]
fn a_thousand_mistakes_are_one_error_that_can_be_read() {
    let workspace = World::shared().workspace();
    let wrong = ["--passthrough", "a b"].repeat(1_000);
    let create = ["proxy", "create", "mistaken"].into_iter().chain(wrong);
    workspace
        .proxyctl(create)
        .fails(2, "--passthrough number 1: must be a host");
    assert!(workspace.proxies().is_empty(), "nothing was made");
}

#[test]
fn a_name_is_taken_once_in_a_workspace() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("same").create();
    workspace.proxyctl(["proxy", "create", "same"]).fails(5, "same");
    let other = workspace.proxy("other").create();
    other.ctl("update", ["--rename", "same"]).fails(5, "same");
    assert_eq!(proxy.get()["revision"], 1);
}

#[test]
fn a_port_of_another_proxy_is_a_conflict_that_names_it() {
    let world = World::shared();
    let (workspace, other) = (world.workspace(), world.workspace());
    let holder = workspace.proxy("Testing Proxy").create();
    let port = holder.port().to_string();
    let words = format!("Port {port} is already in use by proxy 'Testing Proxy'");
    other
        .proxyctl(["proxy", "create", "late", "--port", &port])
        .fails(5, &words);
    assert!(other.proxies().is_empty(), "nothing was made");
    // Its name may be another's in this workspace.
    let path = format!("{}/Testing Proxy, id ", workspace.code());
    other
        .proxyctl(["proxy", "create", "late", "--port", &port])
        .fails(5, &path);
    let late = other.proxy("late").create();
    late.ctl("update", ["--port", &port]).fails(5, &words);
    assert_eq!(late.get()["port"], late.port());
}

#[test]
fn a_port_of_a_foreign_process_is_a_conflict_that_names_it() {
    let workspace = World::shared().workspace();
    let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = foreign.local_addr().unwrap().port().to_string();
    let pid = std::process::id().to_string();
    workspace
        .proxyctl(["proxy", "create", "late", "--port", &port])
        .fails(5, &pid);
    drop(foreign);
    let proxy = workspace.proxy("late").with(["--port", &port]).create();
    let _foreign = TcpListener::bind(proxy.address()).unwrap();
    proxy.ctl("start", NONE).fails(5, &pid);
    assert_eq!(proxy.state(), "stopped");
}

#[test]
fn port_0_is_a_free_port_that_stays() {
    let workspace = World::shared().workspace();
    let one = workspace.proxy("one").with(["--port", "0"]).create();
    let two = workspace.proxy("two").with(["--port", "0"]).create();
    assert!(one.port() > 0 && one.port() != two.port());
    one.start();
    assert_eq!(one.restart()["port"], one.port());
}

#[test]
fn localhost_is_every_loopback_address() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("everywhere").with(["--host", "localhost"]).start();
    let mut addresses = vec![format!("127.0.0.1:{}", proxy.port())];
    if TcpListener::bind("[::1]:0").is_ok() {
        addresses.push(format!("[::1]:{}", proxy.port()));
    }
    let listening: Vec<_> = proxy.get()["listening"].as_array().unwrap().clone();
    assert_eq!(listening, addresses);
    for address in addresses {
        let answer = Curl::direct().through(&address).get("http://proxyplane.local/");
        assert_eq!(answer.status, 200, "{address}: {}", answer.text());
    }
    proxy.stop();
    if let Ok(_foreign) = TcpListener::bind(("::1", proxy.port())) {
        // Half of the addresses is not enough.
        proxy.ctl("start", NONE).fails(5, &std::process::id().to_string());
        assert!(TcpStream::connect(proxy.address()).is_err(), "nothing is left bound");
    }
}

#[test]
fn settings_that_are_none_are_refused_with_their_field() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("strict").create();
    for (arguments, field) in [
        (vec!["--host", "example.com"], "--host"),
        (
            vec!["--passthrough", "ok.example", "--passthrough", "not ok"],
            "--passthrough number 2",
        ),
        (vec!["--capture-limit", "5g"], "--capture-limit"),
        (vec!["--no-extra-ca", "--rename", " x"], "--rename"),
    ] {
        proxy.ctl("update", arguments.clone()).fails(2, field);
    }
    proxy.ctl("update", NONE).fails(2, "nothing to change");
    assert_eq!(proxy.get()["revision"], 1);
}

#[test]
fn settings_change_one_by_one_and_count_revisions() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("moving").create();
    let first = proxy.update([
        "--no-verbose",
        "--passthrough",
        "*.Example.com",
        "--capture-limit",
        "64KiB",
    ]);
    assert_eq!(
        (&first["verbose"], &first["log_out_of_scope"]),
        (&false.into(), &true.into())
    );
    assert_eq!(first["passthrough_hosts"], serde_json::json!(["*.example.com"]));
    assert_eq!(
        (&first["capture_limit"], &first["revision"]),
        (&65_536.into(), &2.into())
    );

    let second = proxy.update(["--verbose", "--no-passthrough", "--rename", "moved"]);
    assert_eq!((&second["verbose"], &second["name"]), (&true.into(), &"moved".into()));
    assert_eq!(
        (&second["passthrough_hosts"], &second["capture_limit"]),
        (&serde_json::json!([]), &65_536.into())
    );

    let port = free_port();
    assert_eq!(proxy.update(["--port", &port.to_string()])["port"], port);
}

#[test]
fn a_change_of_a_running_proxy_is_in_force_when_the_command_returns() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("live").start();
    let worker = proxy.worker();
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");

    let changed = proxy.update(["--capture-limit", "2"]);
    assert_eq!(changed["applied_revision"], changed["revision"]);
    assert_eq!(proxy.curl().get(&origin.http("/")).body, b"hello");
    let exchange = proxy.exchange();
    assert_eq!(
        (&exchange["response_size"], &exchange["response_captured"]),
        (&5.into(), &2.into())
    );
    assert_eq!(exchange["truncated"], true);
    assert_eq!(proxy.worker(), worker, "the same worker");
}

#[test]
fn what_a_worker_refuses_does_not_take_effect() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("guarded").start();
    let file = workspace.world().directory().join("not-a-ca.pem");
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    proxy
        .ctl("update", ["--extra-ca", file.to_str().unwrap()])
        .fails(2, "--extra-ca");
    let now = proxy.get();
    assert_eq!(
        (&now["state"], &now["revision"], &now["extra_ca_pem"]),
        (&"running".into(), &1.into(), &Value::Null)
    );
}

#[test]
fn a_host_that_this_machine_does_not_have_is_an_invalid_argument() {
    let workspace = World::shared().workspace();
    let create = |host| workspace.proxyctl(["proxy", "create", "elsewhere", "--host", host]);
    create("192.0.2.1").fails(2, "--host: 192.0.2.1 is no address of this machine");
    create("").fails(2, "--host");
    let (stopped, running) = (workspace.proxy("stopped").create(), workspace.proxy("running").start());
    for proxy in [&stopped, &running] {
        proxy
            .ctl("update", ["--host", "192.0.2.1"])
            .fails(2, "--host: 192.0.2.1");
        proxy.ctl("update", ["--host", ""]).fails(2, "--host");
        assert_eq!(proxy.get()["host"], "127.0.0.1");
    }
    // An address that the machine had once.
    let lost = format!(
        "UPDATE listeners SET host = '192.0.2.1' WHERE service_id = '{}'",
        stopped.id()
    );
    workspace.world().sql(&lost);
    stopped.ctl("start", NONE).fails(2, "192.0.2.1");
}
