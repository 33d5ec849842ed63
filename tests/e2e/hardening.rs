//! Faults of processes and of storage: `hardening.md` 1–19 and the tests that show them. Those without a module are here
//! or in the module that is named; "worker", "record" and "ingest" are tests of those parts alone.
//!
//! |    | fault | tests |
//! |---|---|---|
//! |  1 | SIGKILL of a worker under load | `spool::what_is_on_disk_is_stored_once…`, `lifecycle::…` (queued clients, the other proxy), `chaos`; how soon: `make bench` |
//! |  2 | SIGKILL of the control plane in mid-batch | `adoption::a_killed_control_plane…`, `adoption::control_planes_that_are_killed_while_they_adopt…`, `chaos` |
//! |  3 | SIGKILL of Postgres under load | `storage::a_killed_database_is_started_again…`, `chaos`; told within 2 s: `make bench` |
//! |  4 | Postgres hangs | `spool::a_database_that_hangs_leaves_everything_on_disk…`, `storage::a_database_that_hangs_is_told…`, [`a_database_that_hangs_is_not_stormed_with_connections`]; at a start and at a stop: `startup`; for 60 s: `make chaos` |
//! |  5 | Postgres' disk is full | [`a_full_disk_of_the_database_pauses_ingest_and_nothing_else`] |
//! |  6 | the spool's disk is full | `spool::a_full_disk_is_a_full_spool`, `spool::a_full_spool_first_keeps_no_bodies…`, `events::a_spool_that_fills_up…`; health: as 5 |
//! |  7 | the spool's last record is cut | record: `a_tail_that_is_torn_anywhere…`; worker: `a_last_record_that_is_cut_anywhere_costs_only_itself`; [`what_a_power_cut_did_to_spools_costs_the_records_it_hit_and_no_others`] |
//! |  8 | a bit flipped | record: `a_flipped_bit_costs_one_record…`; worker: `a_bit_that_flipped_costs…`; as 7 |
//! |  9 | crash between deletion and acknowledgement | worker: `a_crash_between_the_deletion_of_segments_and_their_acknowledgement…` |
//! | 10 | 1 GiB of backlog at the start | `make bench` |
//! | 11 | the clock jumps | [`a_clock_that_jumps_changes_nothing_but_the_times_that_are_shown`]; ingest: `a_clock_that_jumps…` |
//! | 12 | today's partition is missing | [`partitions_that_are_missing_are_made_and_that_is_a_warning`]; ingest: `a_partition_that_was_detached_or_dropped…` |
//! | 13 | retention during heavy queries | there is no retention yet |
//! | 14 | out of descriptors | [`a_worker_out_of_descriptors_waits_without_spinning_and_serves_who_is_connected`] |
//! | 15 | a worker's limit of memory | [`a_worker_that_hits_its_limit_of_memory_is_the_only_one_that_restarts`] |
//! | 16 | SIGTERM with 100 open streams | `serve::a_hundred_streams_without_end_are_cut_at_the_deadline`, `serve::a_stop_ends_workers_then_ingest_then_the_database…` |
//! | 17 | a worker of the version before | the tests of upgrades by overlap |
//! | 18 | a wrong master key | there is no master key yet |
//! | 19 | a second control plane on the same data | `serve::a_second_server_on_the_same_data_is_refused_with_its_holder`; ingest: `a_control_plane_without_the_lease_commits_nothing` |

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use proxyplane_record::frame;
use proxyplane_tests::{
    Follow, Frozen, Load, Proxy, RawClient, RawOrigin, SkewedClock, World, eventually, eventually_within,
    kernel::{self, cpu_ticks, descriptors},
};
use serde_json::Value;

/// Until everything is stored, on a busy machine.
const STORED_WITHIN: Duration = Duration::from_mins(1);

#[test]
fn a_database_that_hangs_is_not_stormed_with_connections() {
    /// The pool's, and that of ingest.
    const CONNECTIONS: usize = 17;
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("steady").start();
    let origin = small_origin();
    requests(&proxy, &origin, 10);
    let server = world.pid();
    let before = descriptors(server).len();

    let hung = Frozen::tree(world.postmaster().unwrap());
    for _ in 0..3 {
        thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| world.proxyctl(["proxy", "list"]).fails(3, "database"));
            }
        });
        requests(&proxy, &origin, 50);
    }
    let open = descriptors(server).len();
    assert!(open <= before + CONNECTIONS, "{open} descriptors, {before} before");

    drop(hung);
    stored(&proxy, 160);
    eventually("there are no more connections than there may be", || {
        let count = world.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'proxyplane%'");
        (count.parse::<usize>().unwrap() <= CONNECTIONS).then_some(())
    });
}

#[test]
fn a_full_disk_of_the_database_pauses_ingest_and_nothing_else() {
    const BODY: usize = 10_000;
    let world = World::prepared(&[]);
    let Some(disk) = world.small_disk("pg", 320) else {
        return;
    };
    world.serve();
    let workspace = world.workspace();
    let steady = workspace.proxy("steady").start();
    let narrow = workspace.proxy("narrow").with(["--spool-limit", "1MiB"]).start();
    let processes = || (world.postmaster(), steady.worker(), narrow.worker());
    let (small, large) = (small_origin(), origin_of(BODY));
    requests(&steady, &small, 10);
    stored(&steady, 10);
    let before = processes();
    let mut watch = watch(&world, &[]);
    // Nearly full, and without a free block.
    for (round, left) in [(1, 10), (2, 0)] {
        let full = disk.fill(left);
        requests(&steady, &small, 300);
        let stalled = watch.json_until(|event| event["kind"] == "ingest_stalled");
        let message = stalled["message"].as_str().unwrap();
        assert!(message.contains("free on the database's disk"), "{stalled}");
        for number in 0..100 {
            assert_eq!(get(&narrow, &large, &format!("/{round}/{number}"), BODY), 200);
        }
        let filling = watch.json_until(|event| event["kind"] == "spool_above_80");
        assert_eq!(filling["subject_id"], narrow.id());

        assert!(!steady.stored().is_empty(), "the history can be read");
        assert_eq!(narrow.state(), "running");
        let status = world.proxyctl(["system", "status"]);
        let told = format!("{}{}", status.text(), status.stderr);
        assert_ne!(status.code, 0, "{told}");
        assert!(told.contains("free on the database's disk"), "{told}");
        assert!(told.contains("its spool is"), "{told}");

        drop(full);
        watch.json_until(|event| event["kind"] == "ingest_recovered");
        stored(&steady, 10 + round * 300);
        stored(&narrow, round * 100);
        eventually("everything is ready again", || {
            (world.proxyctl(["system", "status"]).code == 0).then_some(())
        });
    }
    assert_eq!(processes(), before, "nothing was started again");
    assert_eq!(world.sql("SELECT count(*) FROM ingest_gaps"), "0");
}

#[test]
fn what_a_power_cut_did_to_spools_costs_the_records_it_hit_and_no_others() {
    const REQUESTS: usize = 10;
    let world = World::start();
    let workspace = world.workspace();
    // What is left of the last record, in percent.
    let cuts = [0, 1, 50, 99].map(|percent| (workspace.proxy(&format!("cut-{percent}")).start(), percent));
    let flipped = workspace.proxy("flipped").start();
    let proxies: Vec<&Proxy<'_>> = cuts.iter().map(|(proxy, _)| proxy).chain([&flipped]).collect();
    let workers: Vec<i32> = proxies.iter().map(|proxy| proxy.worker()).collect();
    let origin = small_origin();
    world.kill();
    for proxy in &proxies {
        requests(proxy, &origin, REQUESTS);
        eventually("every record is on disk", || {
            let frames = fs::read(segment(proxy)?).ok().map(|bytes| starts(&bytes).len())?;
            (frames == REQUESTS).then_some(())
        });
    }
    for worker in workers {
        kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    }
    for (proxy, percent) in &cuts {
        change(proxy, |bytes, starts| {
            let last = starts[REQUESTS - 1];
            bytes.truncate(last + (bytes.len() - last) * percent / 100);
        });
    }
    change(&flipped, |bytes, starts| {
        bytes[starts[4].midpoint(starts[5])] ^= 0x10;
    });

    world.serve();
    for proxy in &proxies {
        eventually_within(STORED_WITHIN, "the others are stored", || {
            let rows = proxy.stored();
            assert!(rows.len() < REQUESTS, "{}: {} rows", proxy.name(), rows.len());
            (rows.len() == REQUESTS - 1).then_some(())
        });
    }
    let gaps = world.sql("SELECT service_id, records FROM ingest_gaps");
    assert_eq!(gaps, format!("{}|1", flipped.id()));
    let gap = eventually("the gap is an event", || {
        let events = world.proxyctl(["-o", "json", "event", "list", "--kind", "gap"]).json();
        events.as_array()?.first().cloned()
    });
    assert_eq!(
        (&gap["subject_id"], &gap["severity"]),
        (&flipped.id().into(), &"error".into())
    );
}

#[test]
fn a_clock_that_jumps_changes_nothing_but_the_times_that_are_shown() {
    const HOUR: i64 = 3600;
    let mut world = World::prepared(&[]);
    let Some(clock) = SkewedClock::build(world.directory()) else {
        return eprintln!("SKIPPED: without a C compiler there is no clock to be changed");
    };
    world.set("LD_PRELOAD", clock.library());
    world.argue(&["--worker-bin", clock.worker().to_str().unwrap()]);
    world.serve();
    let workspace = world.workspace();
    let proxy = workspace.proxy("timeless").start();
    let worker = proxy.worker();
    let origin = small_origin();
    let (held, release) = held_origin();
    let mut open = proxy.connect();
    open.send(request(&held, "/open"));
    assert!(open.read_head().starts_with("HTTP/1.1 200"));

    for (path, skew) in [("/now", 0), ("/past", -HOUR), ("/future", 24 * HOUR), ("/again", 0)] {
        clock.put(skew);
        assert_eq!(get(&proxy, &origin, path, 2), 200);
        eventually("it is stored", || {
            proxy.stored().iter().any(|row| row["path"] == path).then_some(())
        });
    }
    clock.put(24 * HOUR);
    drop(release);
    assert_eq!(open.read_exactly(2), b"ok");
    proxy.exchanges(5);
    let sql = |what: &str| world.sql(&format!("SELECT {what} FROM exchanges"));
    assert_eq!(
        sql("string_agg(path, ' ' ORDER BY position)"),
        "/now /past /future /again /open",
        "in the order in which they ended"
    );
    let hours_from_now = |path: &str| {
        let now = "(SELECT started_at FROM exchanges WHERE path = '/now')";
        let hours = format!("round(extract(epoch FROM started_at - {now}) / 3600)");
        world.sql(&format!("SELECT {hours} FROM exchanges WHERE path = '{path}'"))
    };
    assert_eq!(["/past", "/future", "/again"].map(hours_from_now), ["-1", "24", "0"]);
    let partition = "'exchanges_' || to_char(started_at AT TIME ZONE 'UTC', 'YYYYMMDD')";
    assert_eq!(sql(&format!("bool_and(tableoid::regclass::text = {partition})")), "t");
    assert_eq!(sql("min(duration_us) >= 0 AND max(duration_us) < 3600000000"), "t");
    assert_eq!(proxy.worker(), worker);
    assert_eq!(world.sql("SELECT count(*) FROM ingest_rejects"), "0");
}

#[test]
fn partitions_that_are_missing_are_made_and_that_is_a_warning() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("steady").start();
    let origin = small_origin();
    let mut watch = watch(&world, &["--severity", "warning"]);
    let mut rounds = 0..;
    // The keeper may just be at it: then what is missing is its affair.
    eventually("it is told that partitions were missing", || {
        let path = format!("/{}", rounds.next()?);
        world.sql(
            "DO $$ DECLARE t text; BEGIN FOR t IN SELECT inhrelid::regclass::text FROM pg_inherits
             WHERE inhparent IN ('exchanges'::regclass, 'heads'::regclass, 'body_chunks'::regclass)
             LOOP EXECUTE 'DROP TABLE ' || t; END LOOP; END $$",
        );
        assert_eq!(get(&proxy, &origin, &path, 2), 200);
        proxy.drained();
        assert_eq!(proxy.stored().pop().unwrap()["path"], path, "it is stored");
        let told = world
            .proxyctl(["-o", "json", "event", "list", "--severity", "warning"])
            .json();
        told.to_string()
            .contains("partitions of a day were missing")
            .then_some(())
    });
    let told = watch.json_until(|event| event["message"].as_str().unwrap().contains("were missing"));
    assert_eq!((&told["kind"], &told["source"]), (&"logged".into(), &"ingest".into()));
}

#[test]
fn a_worker_out_of_descriptors_waits_without_spinning_and_serves_who_is_connected() {
    let world = World::start();
    let workspace = world.workspace();
    let proxy = workspace.proxy("scarce").start();
    let worker = proxy.worker();
    let origin = small_origin();
    let mut connected = proxy.connect();
    exchange(&mut connected, &origin);
    let mut watch = watch(&world, &["--proxy", proxy.id()]);

    // Those that it has stay; it gets no more.
    kernel::limit(worker, "nofile", 0);
    let mut waiting: Vec<RawClient> = (0..50).map(|_| proxy.connect()).collect();
    let told = watch.json_until(|event| event["kind"] == "logged");
    assert_eq!(
        (&told["source"], &told["severity"]),
        (&"worker".into(), &"warning".into())
    );
    assert!(told["message"].as_str().unwrap().contains("cannot accept"), "{told}");
    let (begin, uptime) = (cpu_ticks(worker), || proxy.get()["uptime_seconds"].as_u64().unwrap());
    let until = uptime() + 3;
    while uptime() < until {
        exchange(&mut connected, &origin);
    }
    // Two threads that tried without a pause would take all they can get of the 200 to 300 ticks; these exchanges take
    // about as long as it takes to ask for the uptime.
    let taken = cpu_ticks(worker) - begin;
    assert!(taken < 100, "{taken} ticks");

    kernel::limit(worker, "nofile", 4096);
    for client in &mut waiting {
        exchange(client, &origin);
    }
    assert_eq!(proxy.worker(), worker);
}

#[test]
fn a_worker_that_hits_its_limit_of_memory_is_the_only_one_that_restarts() {
    let world = World::start();
    let workspace = world.workspace();
    let (hungry, other) = (workspace.proxy("hungry").start(), workspace.proxy("other").start());
    let (worker, others) = (hungry.worker(), other.worker());
    let origin = small_origin();
    let load = Load::on(&other.address(), &request(&origin, "/"));
    requests(&hungry, &origin, 10);
    hungry.drained();

    kernel::limit(worker, "data", kernel::data_size(worker) + 256 * 1024);
    // Heads that do not end are held in memory.
    let mut clients = Vec::new();
    let replaced = eventually("it died and was replaced", || {
        let mut client = hungry.connect();
        let _ = client.try_send(format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(200_000)).as_bytes());
        clients.push(client);
        let now = hungry.get();
        (now["state"] == "running" && now["pid"] != worker).then_some(now)
    });
    assert_eq!(replaced["last_exit"], "signal 6 (SIGABRT)");
    drop(clients);
    requests(&hungry, &origin, 10);

    let served = load.stop();
    assert_eq!(other.exchanges(served).len(), served);
    assert_eq!(other.worker(), others, "nothing happened to the other");
}

/// `proxyctl event watch` of the world, as JSON.
fn watch(world: &World, more: &[&str]) -> Follow {
    let mut arguments = vec!["-o", "jsonl", "event", "watch"];
    arguments.extend(more);
    world.follow(arguments)
}

fn small_origin() -> RawOrigin {
    RawOrigin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

fn origin_of(size: usize) -> RawOrigin {
    let body = "x".repeat(size);
    RawOrigin::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n{body}"))
}

/// One that ends its answers once what comes with it is dropped.
fn held_origin() -> (RawOrigin, std::sync::mpsc::Sender<()>) {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = RawOrigin::serving(move |peer| {
        peer.read_head()?;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")?;
        let _ = wait.lock().unwrap().recv();
        peer.send("ok")
    });
    (origin, release)
}

fn request(origin: &RawOrigin, path: &str) -> String {
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
        origin.http(path),
        origin.address()
    )
}

#[track_caller]
fn exchange(client: &mut RawClient, origin: &RawOrigin) {
    client.send(request(origin, "/"));
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(client.read_exactly(2), b"ok");
}

/// Sends that many requests on one connection; each must succeed.
#[track_caller]
fn requests(proxy: &Proxy<'_>, origin: &RawOrigin, count: usize) {
    let mut client = proxy.connect();
    for _ in 0..count {
        exchange(&mut client, origin);
    }
}

/// The status of one request whose answer has a body of `size` bytes.
#[track_caller]
fn get(proxy: &Proxy<'_>, origin: &RawOrigin, path: &str, size: usize) -> u16 {
    let mut client = proxy.connect();
    client.send(request(origin, path));
    let head = client.read_head();
    client.read_exactly(size);
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Waits until exactly so many exchanges are stored.
#[track_caller]
fn stored(proxy: &Proxy<'_>, count: u64) {
    eventually_within(STORED_WITHIN, &format!("'{}' has stored {count}", proxy.name()), || {
        let now: Value = proxy.get();
        let now = now["stored"].as_u64().unwrap();
        assert!(now <= count, "{now} exchanges of {count}");
        (now == count).then_some(())
    });
}

/// The one segment of a proxy's one worker.
fn segment(proxy: &Proxy<'_>) -> Option<PathBuf> {
    let files = |directory: &Path| fs::read_dir(directory).into_iter().flatten().flatten();
    let spool = proxy.world().data_dir().join("spool").join(proxy.id());
    let segments = files(&spool).flat_map(|epoch| files(&epoch.path()).map(|file| file.path()));
    segments
        .into_iter()
        .find(|file| file.extension().is_some_and(|extension| extension == "seg"))
}

/// Where each record begins.
fn starts(segment: &[u8]) -> Vec<usize> {
    let (mut rest, mut starts) = (bytes::Bytes::copy_from_slice(segment), Vec::new());
    loop {
        let at = segment.len() - rest.len();
        match frame::take(&mut rest) {
            Ok(Some(_)) => starts.push(at),
            _ => return starts,
        }
    }
}

/// Changes a proxy's segment.
fn change(proxy: &Proxy<'_>, change: impl FnOnce(&mut Vec<u8>, &[usize])) {
    let file = segment(proxy).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let starts = starts(&bytes);
    change(&mut bytes, &starts);
    // In its place: the file is the worker's.
    fs::write(file, bytes).unwrap();
}
