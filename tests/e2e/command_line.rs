//! `proxyctl` itself: exit codes, completions, what is printed where.

use proxyplane_tests::{Curl, RawOrigin, World, free_port};

#[test]
fn an_unreachable_server_is_exit_code_3() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    World::shared()
        .proxyctl(["--server", &nobody, "system", "status"])
        .fails(3, "cannot reach");
}

#[test]
fn a_wrong_token_is_refused() {
    World::shared()
        .proxyctl(["--token", "wrong", "proxy", "list"])
        .fails(1, "token");
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    let world = World::shared();
    world.proxyctl(["proxy", "crate", "x"]).fails(2, "create");
    world
        .proxyctl(["traffic", "list", "--status", "9999"])
        .fails(2, "--status");
    world
        .proxyctl(["traffic", "list", "--since", "yesterday"])
        .fails(2, "--since");
    world
        .proxyctl(["traffic", "list", "--since", "1m", "--until", "2m"])
        .fails(2, "--until");
    world
        .proxyctl(["proxy", "create", "x", "--extra-ca", "/dev/null"])
        .fails(2, "holds no certificate");
    world
        .proxyctl(["proxy", "create", "x", "--port", "-1"])
        .fails(2, "'-1' for '--port <PORT>': -1 is not in 0..=65535");
}

#[test]
fn what_listens_there_and_is_no_proxyplane_is_exit_code_3() {
    let origin = RawOrigin::serving(|peer| peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"));
    World::shared()
        .proxyctl(["--server", &origin.http(""), "proxy", "list"])
        .fails(3, "what listens there may not be Proxyplane");
}

#[test]
fn unknown_ids_are_exit_code_4() {
    let world = World::shared();
    let id = "01234567-89ab-7def-8123-456789abcdef";
    for command in [
        vec!["proxy", "get", id],
        vec!["proxy", "start", id],
        vec!["workspace", "get", id],
        vec!["traffic", "get", id],
        vec!["traffic", "body", id, "response"],
        vec!["websocket", "get", id],
    ] {
        world.proxyctl(command).fails(4, "");
    }
    world.proxyctl(["traffic", "get", "nonsense"]).fails(2, "id");
}

#[test]
fn an_empty_list_is_an_empty_list() {
    let workspace = World::shared().workspace();
    for command in [
        ["proxy", "list"],
        ["traffic", "list"],
        ["websocket", "list"],
        ["event", "list"],
    ] {
        let run = |format| workspace.proxyctl(["-o", format, command[0], command[1]]).ok().text();
        assert_eq!(
            (run("json").as_str(), run("jsonl").as_str(), run("table").as_str()),
            ("[]\n", "", ""),
            "{command:?}"
        );
    }
}

#[test]
fn talk_is_on_standard_error_and_data_on_standard_output() {
    let workspace = World::shared().workspace();
    let quiet = workspace.proxyctl(["proxy", "create", "talk"]).ok();
    assert_eq!(quiet.text(), "");
    assert!(
        quiet.stderr.contains("proxyctl proxy start"),
        "the next step is named: {}",
        quiet.stderr
    );
    let data = workspace.proxyctl(["-o", "jsonl", "proxy", "list"]).ok();
    assert_eq!((data.text().lines().count(), data.stderr.as_str()), (1, ""));
}

#[test]
fn everything_is_ready_once_the_server_says_so() {
    let status = World::shared().proxyctl(["-o", "json", "system", "status"]).json();
    assert_eq!(status["ready"], true);
    let parts: Vec<_> = status["parts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| &part["name"])
        .collect();
    assert!(parts.iter().any(|name| *name == "database"), "{parts:?}");
}

#[test]
fn the_published_table_of_reasons_is_the_servers() {
    let reasons = World::shared().proxyctl(["-o", "json", "system", "reasons"]).json();
    let taken = reasons
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["reason"] == "PORT_IN_USE")
        .unwrap();
    assert_eq!(
        (&taken["grpc_code"], &taken["exit_code"]),
        (&"ALREADY_EXISTS".into(), &5.into())
    );
}

#[test]
fn the_ca_is_exported_as_pem_and_der() {
    let world = World::shared();
    let pem = world.proxyctl(["ca", "export"]).ok().text();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----") && !pem.contains("PRIVATE"));
    let der = world.proxyctl(["ca", "export", "--der"]).ok().stdout;
    assert_eq!(der[0], 0x30, "an ASN.1 sequence");
    let file = world.directory().join("exported.der");
    let ran = world
        .proxyctl(["ca", "export", "--der", "-f", file.to_str().unwrap()])
        .ok();
    assert_eq!(std::fs::read(file).unwrap(), der);
    assert_eq!(ran.text(), "");
}

#[test]
fn names_of_proxies_are_completed() {
    let workspace = World::shared().workspace();
    let _proxy = workspace.proxy("completed").create();
    for shell in ["bash", "zsh", "fish"] {
        let script = workspace.world().proxyctl(["completions", shell]).ok().text();
        assert!(script.contains("PROXYCTL_COMPLETE"), "{shell}: {script}");
    }
    let typed = format!("{}/com", workspace.code());
    let mut complete = workspace
        .world()
        .proxyctl_command(["--", "proxyctl", "proxy", "get", &typed]);
    complete
        .env("PROXYCTL_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", "3")
        .env("_CLAP_IFS", "\n");
    let answer = String::from_utf8(complete.output().unwrap().stdout).unwrap();
    assert_eq!(answer.trim(), format!("{}/completed", workspace.code()));
}

#[test]
fn health_is_plain_http_and_the_api_is_not_open_to_strangers() {
    let world = World::shared();
    let health = Curl::direct().get(&format!("{}/health", world.api()));
    assert_eq!(health.status, 200, "{}", health.text());
    let ready = Curl::direct().get(&format!("{}/ready", world.api()));
    assert_eq!(ready.status, 200, "{}", ready.text());
    let rebound = Curl::direct()
        .with(["-H", "Host: evil.example"])
        .get(&format!("{}/ready", world.api()));
    assert_eq!(rebound.status, 403, "{}", rebound.text());
}
