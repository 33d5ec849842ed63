//! Messages that end short: nobody takes them for whole.

use std::fs;

use proxyplane_tests::{Authority, Curl, Peer, RawOrigin, Side, World, eventually};

use super::{expect_failed, text};

/// How an origin's answer ends short, and curl's exit code for it.
const CUT_OFF: [(&str, i32, &str); 5] = [
    ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", 18, "body"),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        18,
        "body",
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nshort",
        18,
        "body",
    ),
    ("HTTP/1.1 200 OK\r\nContent-Le", 0, "head"),
    ("", 0, "before"),
];

#[test]
fn an_answer_that_is_cut_off_is_an_error_to_the_client_and_a_failed_row() {
    let workspace = World::shared().workspace();
    let authority = Authority::new(&workspace.world().directory().join("cut-off"));
    let proxy = workspace.proxy("short").trusting(&authority).start();
    let leaf = authority.leaf(&["localhost"]);
    let mut count = 0;
    for (answer, code, place) in CUT_OFF {
        let plain = RawOrigin::answering_once(answer);
        let tls = RawOrigin::serving_tls(&leaf, &["http/1.1"], move |peer| {
            peer.read_head()?;
            peer.send(answer)
        });
        for url in [plain.http("/"), tls.https("/")] {
            count += 1;
            let got = proxy.curl().fetch(&url);
            assert_eq!(got.code, code, "{answer:?}: {}", got.stderr);
            assert_eq!(got.status, if code == 0 { 502 } else { 200 }, "{answer:?}");
            let row = proxy.exchanges(count).pop().unwrap();
            expect_failed(&row, "upstream_aborted", place);
            if code != 0 {
                assert_eq!(row["response_size"], 5, "{answer:?}");
                assert_eq!(proxy.raw_body(&row, Side::Response), b"short");
            }
        }
    }
}

#[test]
fn a_body_until_close_that_is_reset_is_reset_for_the_client() {
    let workspace = World::shared().workspace();
    let authority = Authority::new(&workspace.world().directory().join("reset"));
    let proxy = workspace.proxy("reset").trusting(&authority).start();
    let break_off = |peer: &mut Peer| {
        peer.read_head()?;
        peer.send("HTTP/1.1 200 OK\r\n\r\npart")?;
        // Once the client has it: a reset overtakes what is on its way.
        peer.read_exactly(1)?;
        peer.reset()
    };
    let plain = RawOrigin::serving(break_off);
    let tls = RawOrigin::serving_tls(&authority.leaf(&["localhost"]), &["http/1.1"], break_off);
    let ca = fs::read_to_string(workspace.world().ca_file()).unwrap();
    let clients = [
        proxy.connect().tunnel(&plain.address()),
        proxy
            .connect()
            .tunnel(&format!("localhost:{}", tls.port()))
            .into_tls("localhost", &ca, &["http/1.1"]),
    ];
    for mut client in clients {
        client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n");
        client.read_until(b"part");
        client.send("x");
        assert!(client.is_reset(), "a close in order is the end of such a body");
    }
    for row in proxy.exchanges(2) {
        expect_failed(
            &row,
            "upstream_aborted",
            "the origin reset the connection inside of its answer's body",
        );
        assert_eq!(row["response_size"], 4);
    }
}

#[test]
fn tls_that_ends_without_close_notify_ends_so_for_the_client() {
    let workspace = World::shared().workspace();
    let authority = Authority::new(&workspace.world().directory().join("hung-up"));
    let proxy = workspace.proxy("hung-up").trusting(&authority).start();
    let origin = RawOrigin::serving_tls(&authority.leaf(&["localhost"]), &["http/1.1"], |peer| {
        peer.read_head()?;
        peer.send("HTTP/1.1 200 OK\r\n\r\npart")?;
        peer.hang_up()
    });
    // Some clients make do with it; what they do must not depend on us.
    let direct = Curl::direct().trusting(&authority.file()).fetch(&origin.https("/"));
    let carried = proxy.curl().fetch(&origin.https("/"));
    assert_eq!(
        (carried.code, carried.body),
        (direct.code, direct.body),
        "{}",
        carried.stderr
    );
    let ca = fs::read_to_string(workspace.world().ca_file()).unwrap();
    let mut client = proxy
        .connect()
        .tunnel(&format!("localhost:{}", origin.port()))
        .into_tls("localhost", &ca, &["http/1.1"]);
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.read_until(b"part");
    assert!(!client.ends_in_order(), "close_notify says that this was all");
    for row in proxy.exchanges(2) {
        expect_failed(
            &row,
            "upstream_aborted",
            "the origin closed the connection inside of its answer's body",
        );
    }
}

#[test]
fn a_request_that_is_cut_off_never_ends_for_the_origin() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("uploads").start();
    let origin = RawOrigin::serving(|peer| peer.read_to_end().map(drop));
    let bodies = [
        "Content-Length: 9\r\n\r\nshort",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
    ];
    for (count, body) in (1..).zip(bodies) {
        let mut client = proxy.connect();
        client.send(format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\n{body}",
            origin.http("/"),
            origin.address()
        ));
        eventually("the origin gets what there is", || {
            origin
                .received()
                .get(count - 1)?
                .windows(5)
                .any(|window| window == b"short")
                .then_some(())
        });
        client.finish();
        let row = proxy.exchanges(count).pop().unwrap();
        expect_failed(&row, "client_aborted", "body");
        assert_eq!(row["request_size"], 5);
        let got = text(origin.received().remove(count - 1));
        assert!(got.ends_with(body), "{got:?}");
    }
}
