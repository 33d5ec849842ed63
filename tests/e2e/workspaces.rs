//! Workspaces: made, changed, deleted.

use proxyplane_tests::World;

#[test]
fn a_workspace_is_made_read_changed_and_deleted() {
    let world = World::shared();
    let made = world
        .proxyctl(["-o", "json", "workspace", "create", "made-a", "--title", "Team A"])
        .json();
    assert_eq!(
        (&made["code"], &made["title"], &made["proxy_count"]),
        (&"made-a".into(), &"Team A".into(), &0.into())
    );
    let id = made["id"].as_str().unwrap();

    let changed = world
        .proxyctl([
            "-o",
            "json",
            "workspace",
            "update",
            "made-a",
            "--description",
            "of tests",
        ])
        .json();
    assert_eq!(
        (&changed["title"], &changed["description"]),
        (&"Team A".into(), &"of tests".into())
    );
    assert_ne!(changed["etag"], made["etag"]);

    let _ = world.proxyctl(["workspace", "update", id, "--code", "made-b"]).ok();
    assert_eq!(
        world.proxyctl(["-o", "json", "workspace", "get", "made-b"]).json()["id"],
        id
    );
    world.proxyctl(["workspace", "get", "made-a"]).fails(4, "not found");

    let _ = world.proxyctl(["workspace", "delete", "made-b"]).ok();
    world.proxyctl(["workspace", "get", id]).fails(4, "");
}

#[test]
fn a_code_is_taken_once() {
    let world = World::shared();
    let workspace = world.workspace();
    world
        .proxyctl(["workspace", "create", workspace.code()])
        .fails(5, workspace.code());
    let other = world.workspace();
    world
        .proxyctl(["workspace", "update", other.code(), "--code", workspace.code()])
        .fails(5, workspace.code());
}

#[test]
fn a_code_that_is_none_is_refused_with_its_field() {
    let world = World::shared();
    for bad in ["Team", "-a", "a b", "ä", &"x".repeat(64)] {
        world.proxyctl(["workspace", "create", "--", bad]).fails(2, "code");
    }
}

#[test]
fn a_workspace_with_proxies_is_deleted_only_by_force() {
    let world = World::shared();
    let workspace = world.workspace();
    let proxy = workspace.proxy("a").start();
    let worker = proxy.worker();
    world
        .proxyctl(["workspace", "delete", workspace.code()])
        .fails(5, "--force");
    assert_eq!(proxy.state(), "running");

    let _ = world
        .proxyctl(["workspace", "delete", "--force", workspace.code()])
        .ok();
    world.proxyctl(["proxy", "get", proxy.id()]).fails(4, "");
    assert!(
        !std::path::Path::new(&format!("/proc/{worker}")).exists(),
        "the worker is gone"
    );
}

#[test]
fn a_mistyped_workspace_is_not_found_and_the_right_one_suggested() {
    let world = World::shared();
    let workspace = world.workspace();
    let mistyped = format!("{}x", workspace.code());
    world
        .proxyctl(["workspace", "get", &mistyped])
        .fails(4, &format!("did you mean '{}'", workspace.code()));
}
