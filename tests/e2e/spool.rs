//! Records are on disk before anything else happens to them: workers, the control plane and Postgres may die or hang.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::Write as _,
    path::PathBuf,
    thread,
    time::Duration,
};

use bytes::Bytes;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use proxyplane_record::{Kind, frame};
use proxyplane_tests::{
    Answered, Frozen, Proxy, RawOrigin, UnsureLoad, World, eventually, eventually_within, kernel::resident,
};

/// Until everything is stored, on a busy machine.
const STORED_WITHIN: Duration = Duration::from_mins(1);

#[test]
fn what_is_on_disk_is_stored_once_although_its_worker_was_killed() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("victim").start();
    let origin = small_origin();
    let load = UnsureLoad::on(&proxy.address(), &origin.address(), 8);
    let mut certain = HashSet::new();
    for _ in 0..3 {
        origin_gets_more(&origin, 200);
        certain.extend(paths_on_disk(&world));
        another_serves_for_one_that_is_killed(&proxy);
    }
    assert!(!certain.is_empty(), "nothing was on disk");
    origin_gets_more(&origin, 200);
    let answered = load.stop();
    let uncut = answered.iter().filter(|answered| !answered.cut);
    certain.extend(uncut.map(|answered| answered.path.clone()));
    are_stored_once(&proxy, &certain);
    of_each_connection_only_the_newest_are_lost(&proxy, &answered);
    no_spool_is_left(&world, 1);
}

#[test]
fn with_durable_before_end_nothing_at_all_is_lost() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("durable").with(["--durable-before-end"]).start();
    let origin = small_origin();
    let load = UnsureLoad::on(&proxy.address(), &origin.address(), 8);
    for _ in 0..3 {
        origin_gets_more(&origin, 200);
        another_serves_for_one_that_is_killed(&proxy);
    }
    let answered = load.stop().into_iter().map(|answered| answered.path);
    are_stored_once(&proxy, &answered.collect());
}

#[test]
fn a_database_that_hangs_leaves_everything_on_disk_and_little_in_memory() {
    const REQUESTS: usize = 1500;
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("patient").start();
    let worker = proxy.worker();
    let body = "x".repeat(100_000);
    let origin = RawOrigin::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{body}"));
    requests(&proxy, &origin, 1, 100_000);

    let hung = Frozen::tree(world.postmaster().unwrap());
    requests(&proxy, &origin, REQUESTS, 100_000);
    let memory = resident(worker);
    assert!(memory < 150 * 1024 * 1024, "the worker takes {memory} bytes");
    eventually("nearly everything is on disk", || {
        let spooled: u64 = segments(&world)
            .iter()
            .map(|file| fs::metadata(file).unwrap().len())
            .sum();
        (spooled > 140_000_000).then_some(())
    });

    drop(hung);
    stored(&proxy, REQUESTS as u64 + 1);
    assert_eq!(proxy.worker(), worker, "the same worker");
    assert!(resident(worker) < 150 * 1024 * 1024);
    let last = proxy.stored().pop().unwrap();
    assert_eq!(last["response_captured"], 100_000);
}

#[test]
fn what_a_worker_left_that_died_while_the_database_was_away_is_stored_later() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("left").start();
    let worker = proxy.worker();
    let origin = small_origin();
    requests(&proxy, &origin, 10, 2);
    let hung = Frozen::tree(world.postmaster().unwrap());
    requests(&proxy, &origin, 300, 2);
    spooled(&world, &origin, 310);
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    // On the next worker: its listener is the same.
    requests(&proxy, &origin, 50, 2);
    drop(hung);
    stored(&proxy, 360);
    no_spool_is_left(&world, 1);
}

#[test]
fn what_a_worker_left_that_died_while_the_control_plane_was_away_is_stored_later() {
    let world = World::start();
    let _ = world.proxyctl(["workspace", "create", "default"]).ok();
    let proxy = world
        .proxyctl(["-o", "json", "proxy", "create", "alone", "--start"])
        .json();
    let (id, address) = (proxy["id"].as_str().unwrap(), format!("127.0.0.1:{}", proxy["port"]));
    let worker = i32::try_from(proxy["pid"].as_i64().unwrap()).unwrap();
    let origin = small_origin();
    requests_to(&address, &origin, 10, 2);
    world.kill();
    requests_to(&address, &origin, 300, 2);
    spooled(&world, &origin, 310);
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    // As a power cut would leave it: the last record is not whole.
    let last = segments(&world).pop().unwrap();
    fs::OpenOptions::new()
        .append(true)
        .open(last)
        .unwrap()
        .write_all(&[0, 0, 1, 0, 0xde, 0xad])
        .unwrap();
    world.serve();
    eventually_within(STORED_WITHIN, "every exchange is stored", || {
        let rows = world
            .proxyctl(["-o", "json", "traffic", "list", "-n", "0", "--proxy", id])
            .json();
        let count = rows.as_array().unwrap().len();
        assert!(count <= 310, "{count} exchanges");
        (count == 310).then_some(())
    });
    assert_eq!(lost(&world), 0);
    no_spool_is_left(&world, 1);
}

#[test]
fn a_full_spool_first_keeps_no_bodies_and_then_drops_the_oldest_and_counts_them() {
    const REQUESTS: usize = 6000;
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("narrow").with(["--spool-limit", "1MiB"]).start();
    let body = "x".repeat(1000);
    let origin = RawOrigin::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{body}"));
    let hung = Frozen::tree(world.postmaster().unwrap());
    requests(&proxy, &origin, REQUESTS, 1000);
    drop(hung);
    let rows = eventually_within(STORED_WITHIN, "what is stored and what was lost is everything", || {
        let rows = proxy.stored();
        let total = rows.len() as u64 + lost(&world);
        assert!(total <= REQUESTS as u64, "{total} exchanges of {REQUESTS}");
        (total == REQUESTS as u64).then_some(rows)
    });
    assert!(lost(&world) > 0, "nothing was dropped");
    let cut = rows
        .iter()
        .filter(|row| row["flags"].to_string().contains("spool_truncated"));
    assert!(cut.count() > 0, "every body was kept");
    assert_eq!(rows.last().unwrap()["response_size"], 1000, "true sizes are kept");
}

#[test]
fn a_full_spool_that_may_not_drop_makes_new_exchanges_wait() {
    const REQUESTS: usize = 20_000;
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace
        .proxy("strict")
        .with(["--spool-limit", "1MiB", "--spool-full", "block"])
        .start();
    let origin = small_origin();
    let hung = Frozen::tree(world.postmaster().unwrap());
    thread::scope(|scope| {
        let client = scope.spawn(|| requests(&proxy, &origin, REQUESTS, 2));
        eventually_within(STORED_WITHIN, "the spool is full", || {
            let bytes: u64 = segments(&world)
                .iter()
                .map(|file| fs::metadata(file).unwrap().len())
                .sum();
            (bytes >= 1024 * 1024).then_some(())
        });
        assert!(!client.is_finished());
        drop(hung);
        client.join().unwrap();
    });
    stored(&proxy, REQUESTS as u64);
    assert_eq!(lost(&world), 0);
}

#[test]
fn a_full_disk_is_a_full_spool() {
    let world = World::prepared(&[]);
    let Some(_disk) = world.small_disk("spool", 4) else {
        return;
    };
    world.serve();
    let workspace = world.workspace();
    let proxy = workspace.proxy("cramped").start();
    let worker = proxy.worker();
    let body = "x".repeat(10_000);
    let origin = RawOrigin::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n{body}"));
    let hung = Frozen::tree(world.postmaster().unwrap());
    requests(&proxy, &origin, 2000, 10_000);
    drop(hung);
    eventually_within(STORED_WITHIN, "what is stored and what was lost is everything", || {
        let total = proxy.stored().len() as u64 + lost(&world);
        assert!(total <= 2000, "{total} exchanges of 2000");
        (total == 2000).then_some(())
    });
    let before = lost(&world);
    requests(&proxy, &origin, 100, 10_000);
    stored(&proxy, 2100 - before);
    assert_eq!(proxy.worker(), worker, "the same worker");
    proxy.stop();
}

#[test]
fn a_deleted_proxy_waits_for_its_records_unless_they_are_not_wanted() {
    let world = World::start();
    let workspace = world.workspace();
    let origin = small_origin();
    let (kept, discarded) = (workspace.proxy("kept").start(), workspace.proxy("discarded").start());
    for proxy in [&kept, &discarded] {
        let worker = proxy.worker();
        let hung = Frozen::tree(world.postmaster().unwrap());
        requests(proxy, &origin, 200, 2);
        spooled(&world, &origin, 200);
        kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
        requests(proxy, &origin, 1, 2);
        drop(hung);
        let more: &[&str] = if proxy.name() == "kept" { &[] } else { &["--discard"] };
        let _ = proxy.ctl("delete", more).ok();
    }
    assert_eq!(kept.stored().len(), 201);
    assert!(discarded.stored().len() <= 201);
    no_spool_is_left(&world, 0);
}

#[test]
fn what_a_dead_worker_left_is_backlog_until_it_is_stored() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("counted").start();
    let origin = small_origin();
    requests(&proxy, &origin, 5, 2);
    stored(&proxy, 5);
    let held = world.hold("exchanges");
    requests(&proxy, &origin, 50, 2);
    spooled(&world, &origin, 55);
    another_serves_for_one_that_is_killed(&proxy);
    proxy.stop();
    let left = proxy.get();
    assert_eq!((&left["state"], &left["backlog"]), (&"stopped".into(), &50.into()));
    let on_disk: u64 = segments(&world)
        .iter()
        .map(|file| fs::metadata(file).unwrap().len())
        .sum();
    assert_eq!(left["spool_bytes"], on_disk);
    world.kill();
    world.serve();
    assert_eq!(proxy.get()["backlog"], 50, "whoever comes up");
    drop(held);
    proxy.drained();
    assert_eq!(proxy.stored().len(), 55);
    no_spool_is_left(&world, 0);
    assert_eq!(proxy.get()["spool_bytes"], 0);
}

#[test]
fn a_deletion_tells_that_it_waits_for_records_and_what_gives_them_up() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("patient").start();
    let origin = small_origin();
    let held = world.hold("exchanges");
    requests(&proxy, &origin, 50, 2);
    spooled(&world, &origin, 50);
    another_serves_for_one_that_is_killed(&proxy);
    let mut deletion = world.begin(["proxy", "delete", proxy.id()]);
    let line = deletion.says("50 records");
    assert!(line.contains("--discard"), "{line}");
    drop(held);
    deletion.says("deleted");
    assert_eq!(proxy.stored().len(), 50);
    no_spool_is_left(&world, 0);
}

fn small_origin() -> RawOrigin {
    RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

fn another_serves_for_one_that_is_killed(proxy: &Proxy<'_>) {
    let worker = proxy.worker();
    proxy.signal_worker(Signal::SIGKILL);
    eventually("another worker serves", || {
        let now = proxy.get();
        (now["state"] == "running" && now["pid"] != worker).then_some(())
    });
}

/// Waits for so many more bytes' worth of requests to arrive.
fn origin_gets_more(origin: &RawOrigin, requests: usize) {
    let count = || origin.received().iter().map(Vec::len).sum::<usize>();
    let enough = count() + requests * 40;
    eventually("requests arrive", || (count() >= enough).then_some(()));
}

/// Sends that many requests on one connection; each must succeed.
fn requests(proxy: &Proxy<'_>, origin: &RawOrigin, count: usize, size: usize) {
    requests_to(&proxy.address(), origin, count, size);
}

fn requests_to(address: &str, origin: &RawOrigin, count: usize, size: usize) {
    let mut client = proxyplane_tests::RawClient::connect(address);
    for _ in 0..count {
        client.send(format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
            origin.http("/"),
            origin.address()
        ));
        assert!(client.read_head().starts_with("HTTP/1.1 200"));
        assert_eq!(client.read_exactly(size).len(), size);
    }
}

/// Each of these paths has exactly one row, and no other has two.
#[track_caller]
fn are_stored_once(proxy: &Proxy<'_>, paths: &HashSet<String>) {
    assert!(!paths.is_empty(), "nothing was answered");
    eventually_within(STORED_WITHIN, "every answer is stored", || {
        let rows = proxy.stored();
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for row in &rows {
            *counts.entry(row["path"].as_str().unwrap()).or_default() += 1;
        }
        assert!(counts.values().all(|count| *count == 1), "an exchange is stored twice");
        let missing = paths.iter().filter(|path| !counts.contains_key(path.as_str())).count();
        eprintln!("{missing} of {} are missing", paths.len());
        (missing == 0).then_some(())
    });
}

/// A worker that is killed may take along what it was about to write: never an answer that is older than one that is
/// stored. `make chaos` prints how old they are.
#[track_caller]
fn of_each_connection_only_the_newest_are_lost(proxy: &Proxy<'_>, answered: &[Answered]) {
    let rows = proxy.stored();
    let stored: HashSet<&str> = rows.iter().map(|row| row["path"].as_str().unwrap()).collect();
    let mut lost: HashMap<(usize, usize), &str> = HashMap::new();
    for Answered { path, connection, .. } in answered {
        if !stored.contains(path.as_str()) {
            lost.insert(*connection, path);
        } else if let Some(older) = lost.get(connection) {
            panic!("{older} is lost, {path} behind it on the same connection is not");
        }
    }
}

/// Paths of the exchanges whose whole record is on disk.
fn paths_on_disk(world: &World) -> HashSet<String> {
    let mut paths = HashSet::new();
    for file in segments(world) {
        // Some are deleted meanwhile: what they held is stored. What is just being written ends the loop.
        let mut data = Bytes::from(fs::read(file).unwrap_or_default());
        while let Ok(Some(frame)) = frame::take(&mut data) {
            if let Some(Kind::Complete(complete)) = frame.record().unwrap().kind {
                let exchange = complete.exchange;
                paths.insert(String::from_utf8(exchange.path.to_vec()).unwrap());
            }
        }
    }
    paths
}

/// Waits until exactly so many exchanges are stored.
#[track_caller]
fn stored(proxy: &Proxy<'_>, count: u64) {
    eventually_within(STORED_WITHIN, "every exchange is stored", || {
        let now = proxy.get()["stored"].as_u64().unwrap();
        assert!(now <= count, "{now} exchanges of {count}");
        (now == count).then_some(())
    });
}

/// Waits until so many exchanges with `origin` are on disk.
#[track_caller]
fn spooled(world: &World, origin: &RawOrigin, exchanges: usize) {
    // Once in each request's head.
    let target = format!("GET {} ", origin.http("/"));
    eventually("every record is on disk", || {
        let mut count = 0;
        for file in segments(world) {
            let bytes = fs::read(file).ok()?;
            count += bytes
                .windows(target.len())
                .filter(|found| *found == target.as_bytes())
                .count();
        }
        (count >= exchanges).then_some(())
    });
}

/// Exchanges in gaps, by what the server says of them.
fn lost(world: &World) -> u64 {
    let lost = world.sql("SELECT coalesce(sum(exchanges), 0) FROM ingest_gaps");
    lost.trim().parse().unwrap()
}

fn segments(world: &World) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = directories(world)
        .iter()
        .flat_map(|directory| fs::read_dir(directory).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|file| file.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    files.sort();
    files
}

/// A directory per worker instance.
fn directories(world: &World) -> Vec<PathBuf> {
    let services = fs::read_dir(world.data_dir().join("spool")).unwrap().flatten();
    services
        .flat_map(|service| fs::read_dir(service.path()).into_iter().flatten().flatten())
        .map(|epoch| epoch.path())
        .collect()
}

#[track_caller]
fn no_spool_is_left(world: &World, workers: usize) {
    eventually("spools of dead workers are gone", || {
        (directories(world).len() == workers).then_some(())
    });
}
