//! Connections that come to nothing, or end early, or are used again.

use proxyplane_tests::{DeafOrigin, Exchange, RawOrigin, World};

use super::{OK, ask, expect_failed, request, text};

#[test]
fn a_name_that_nobody_knows_is_a_502_and_a_row() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("unknown").start();
    assert_eq!(proxy.curl().get("http://no-such-host.invalid/").status, 502);
    assert_ne!(proxy.curl().fetch("https://no-such-host.invalid/").code, 0);
    for row in proxy.exchanges(2) {
        expect_failed(&row, "dns_failed", "resolved");
        assert_eq!(row["host"], "no-such-host.invalid");
    }
}

#[test]
fn a_client_that_vanishes_is_a_row_wherever_it_was() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("vanishing").start();
    let silent = RawOrigin::serving(|peer| peer.read_to_end().map(drop));
    let talking = RawOrigin::serving(|peer| {
        peer.read_head()?;
        peer.send("HTTP/1.1 200 OK\r\n\r\n")?;
        loop {
            peer.send("x".repeat(64 * 1024))?;
        }
    });
    let mut count = 0;
    let mut expect_row = |place: &str, check: fn(&Exchange) -> bool| {
        count += 1;
        let row = proxy.exchanges(count).pop().unwrap();
        expect_failed(&row, "client_aborted", "the client ");
        assert!(check(&row), "{place}: {row:?}");
    };

    let mut client = proxy.connect();
    client.send("GET http://h/ HTTP/1.1\r\nHo");
    client.vanish();
    expect_row("inside of the head", |row| row["status"].is_null());

    let client = ask(&proxy, &silent, "POST", "Content-Length: 10\r\n");
    silent.gets(b"Content-Length: 10\r\n\r\n");
    client.vanish();
    expect_row("before the body", |row| row["status"].is_null());

    let client = ask(&proxy, &silent, "GET", "X-Waiting: yes\r\n");
    silent.gets(b"X-Waiting: yes\r\n\r\n");
    client.vanish();
    expect_row("before the answer", |row| row["status"].is_null());

    let mut client = ask(&proxy, &talking, "GET", "");
    client.read_exactly(100_000);
    client.vanish();
    expect_row("inside of the answer", |row| {
        row["status"] == 200 && row["response_size"].as_u64() >= Some(99_000)
    });
    silent.has_served_all();
    talking.has_served_all();
}

#[test]
fn the_time_until_it_is_sure_that_a_client_is_gone_is_no_part_of_its_exchange() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("leaving").start();
    let (silent, deaf) = (
        RawOrigin::serving(|peer| peer.read_to_end().map(drop)),
        DeafOrigin::start(),
    );
    let waiting = ask(&proxy, &silent, "GET", "X-Waiting: yes\r\n");
    silent.gets(b"X-Waiting: yes\r\n\r\n");
    let mut dialling = proxy.connect();
    dialling.send(format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", deaf.address()));
    deaf.is_dialled();
    // In order, as if they only had nothing more to ask: that is believed for five seconds.
    drop((waiting, dialling));
    for row in proxy.exchanges(2) {
        expect_failed(&row, "client_aborted", "the client closed the connection before");
        assert!(row["duration_us"].as_u64().unwrap() < 4_000_000, "{row:?}");
    }
}

#[test]
fn a_client_that_vanishes_while_its_origin_is_dialled_is_noticed() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("dialling").start();
    let deaf = DeafOrigin::start();
    let asks = [
        format!("GET http://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", deaf.address()),
        format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", deaf.address()),
    ];
    for (count, ask) in (1..).zip(asks) {
        let mut client = proxy.connect();
        client.send(ask);
        deaf.is_dialled();
        client.vanish();
        let row = proxy.exchanges(count).pop().unwrap();
        // The dial itself would end as a failure of the origin's.
        expect_failed(&row, "client_aborted", "before the origin was reached");
    }
}

#[test]
fn a_connection_that_its_origin_closes_is_not_used_again() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("closing").start();
    let said = RawOrigin::answering_once("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let unsaid = RawOrigin::answering_once(OK);
    let old = RawOrigin::answering_once("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut client = proxy.connect();
    for origin in [&said, &unsaid] {
        for _ in 0..2 {
            client.send(request("GET", origin, ""));
            assert_eq!(text(client.read_until(b"\r\n\r\nok")), OK);
        }
        assert_eq!(origin.connections(), 2);
    }
    client.send(request("GET", &old, ""));
    client.read_until(b"\r\n\r\nok");
    assert!(client.is_closed(), "HTTP/1.0 ends its connections");
    assert!(proxy.exchanges(5).iter().all(|row| row["error"].is_null()));
}

#[test]
fn requests_sent_together_by_a_client_that_then_ends_are_all_answered() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("pipelined").start();
    let origin = RawOrigin::serving(|peer| {
        while !peer.read_head()?.is_empty() {
            peer.send(OK)?;
        }
        Ok(())
    });
    let mut client = proxy.connect();
    client.send(request("GET", &origin, "").repeat(3)).finish();
    assert_eq!(text(client.read_to_end()), OK.repeat(3));
    assert_eq!(proxy.exchanges(3).len(), 3);
}

#[test]
fn a_request_that_leads_back_is_a_508_in_every_spelling() {
    let workspace = World::shared().workspace();
    let narrow = workspace.proxy("narrow").start();
    let wide = workspace.proxy("wide").with(["--host", "0.0.0.0"]).start();
    let api: u16 = workspace.world().listen().rsplit(':').next().unwrap().parse().unwrap();
    let usual = [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0.0.0.0",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
    ];
    let every_way_in = [&usual[..], &["127.0.0.2", "127.255.255.254"]].concat();
    for (proxy, port, hosts) in [
        (&narrow, narrow.port(), &usual[..]),
        (&wide, wide.port(), &every_way_in),
        (&narrow, api, &usual),
    ] {
        let before = proxy.drained()["stored"].as_u64().unwrap() as usize;
        for host in hosts {
            let target = format!("{host}:{port}");
            let mut client = proxy.connect();
            client.send(format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n"));
            assert!(client.read_head().starts_with("HTTP/1.1 508 "), "{target}");
            let mut client = proxy.connect();
            client.send(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"));
            assert!(client.read_head().starts_with("HTTP/1.1 508 "), "CONNECT {target}");
        }
        let rows = proxy.exchanges(before + 2 * hosts.len()).split_off(before);
        assert!(
            rows.iter()
                .all(|row| row["error"] == "loop_detected" && row["status"] == 508),
            "{rows:#?}"
        );
    }
}
