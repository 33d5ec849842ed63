//! What goes wrong: the client sees an error, and the row says which.

use proxyplane_record::error_code;

use super::*;

/// Plays an origin that answers a GET with these bytes and closes.
async fn answered(scene: &mut Scene, answer: &str) {
    let mut origin = scene.get().await;
    origin.say(answer).await;
}

#[tokio::test]
async fn an_answer_that_ends_early_is_no_short_success() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
    ] {
        let mut scene = Scene::begin().await;
        answered(&mut scene, answer).await;
        assert_eq!(scene.client.hear_all().await, answer, "no end is made up");
        let row = scene.row().await;
        assert_eq!(
            (error(&row.exchange), row.exchange.response_size),
            (error_code::UPSTREAM_ABORTED, 5)
        );
    }
}

#[tokio::test]
async fn a_body_until_close_that_is_cut_off_resets_the_client() {
    let mut scene = Scene::begin().await;
    let mut origin = scene.get().await;
    origin.say("HTTP/1.1 200 OK\r\n\r\npart").await;
    scene
        .client
        .hear("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\npart")
        .await;
    socket2::SockRef::from(&origin.0)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(origin);
    scene.client.hear_reset().await;
    assert_eq!(error(&scene.row().await.exchange), error_code::UPSTREAM_ABORTED);
}

#[tokio::test]
async fn answers_that_cannot_be_right_are_refused() {
    for (answer, code) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nlong",
            error_code::UPSTREAM_RESPONSE_REFUSED,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            error_code::UPSTREAM_RESPONSE_REFUSED,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            error_code::UPSTREAM_RESPONSE_REFUSED,
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            error_code::UPSTREAM_RESPONSE_REFUSED,
        ),
        ("SSH-2.0-x\r\n\r\n", error_code::UPSTREAM_RESPONSE_REFUSED),
        ("HTTP/1.1 200 OK\r\nCon", error_code::UPSTREAM_ABORTED),
        ("", error_code::UPSTREAM_ABORTED),
    ] {
        let mut scene = Scene::begin().await;
        answered(&mut scene, answer).await;
        let told = scene.client.hear_all().await;
        assert!(
            told.starts_with("HTTP/1.1 502 Bad Gateway\r\n") && told.contains(code),
            "{answer:?}: {told}"
        );
        let row = scene.row().await;
        assert_eq!((error(&row.exchange), row.exchange.status), (code, 502), "{answer:?}");
        assert!(has(&row.exchange, Flags::LOCAL_ANSWER));
    }
}

#[tokio::test]
async fn heads_over_the_limits_are_refused_on_both_sides() {
    let mut scene = Scene::begin().await;
    let many = "A: b\r\n".repeat(1_001);
    scene
        .ask(&format!(
            "GET http://{{host}}/ HTTP/1.1\r\nHost: {{host}}\r\n{many}\r\n"
        ))
        .await;
    assert!(scene.client.hear_all().await.starts_with("HTTP/1.1 431 "));
    assert_eq!(error(&scene.row().await.exchange), error_code::REQUEST_HEAD_TOO_LARGE);

    let mut scene = Scene::begin().await;
    let mut origin = scene.get().await;
    let long = "b".repeat(300_000);
    let _ = origin
        .0
        .write_all(format!("HTTP/1.1 200 OK\r\nA: {long}\r\n\r\n").as_bytes())
        .await;
    assert!(
        scene
            .client
            .hear_all()
            .await
            .contains(error_code::UPSTREAM_HEAD_TOO_LARGE)
    );
}

#[tokio::test]
async fn heads_just_under_the_limits_pass() {
    let mut scene = Scene::begin().await;
    let fields = format!("Cookie: {}\r\n{}", "c".repeat(250_000), "A: b\r\n".repeat(990));
    scene
        .ask(&format!(
            "GET http://{{host}}/ HTTP/1.1\r\nHost: {{host}}\r\n{fields}\r\n"
        ))
        .await;
    let mut origin = scene.accept().await;
    origin
        .hear(format!("GET / HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", scene.host))
        .await;
    let answer = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok");
    origin.say(&answer).await;
    scene.client.hear(&answer).await;
    assert_complete(&scene.row().await.exchange);
}

#[tokio::test]
async fn refused_requests_reach_no_origin_and_keep_their_bytes() {
    for head in [
        "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET http://{host}/ HTTP/1.1\r\nHost: other\r\n\r\n",
        "GET http://{host}/ HTTP/1.1\nHost: {host}\n\n",
        "GET http://{host}/\0 HTTP/1.1\r\nHost: {host}\r\n\r\n",
        "\x16\x03\x01",
    ] {
        let mut scene = Scene::begin().await;
        scene.ask(head).await;
        assert!(scene.client.hear_all().await.starts_with("HTTP/1.1 400 "), "{head:?}");
        let row = scene.row().await;
        assert_eq!(error(&row.exchange), error_code::REQUEST_REFUSED);
        assert!(
            head.replace("{host}", &scene.host)
                .starts_with(&text(&row.exchange.request_head)),
            "{head:?}"
        );
        tokio::select! {
            _ = scene.origin.accept() => panic!("{head:?} reached the origin"),
            () = testing::standstill() => {}
        }
    }
}

#[tokio::test]
async fn an_origin_that_refuses_and_a_loop_are_told_apart() {
    let mut scene = Scene::begin().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (target, status, code) in [
        (closed, "502", error_code::UPSTREAM_REFUSED),
        (scene.proxy, "508", error_code::LOOP_DETECTED),
    ] {
        scene.client = Peer(TcpStream::connect(scene.proxy).await.unwrap());
        scene
            .client
            .say(format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n"))
            .await;
        let told = scene.client.hear_all().await;
        assert!(
            told.starts_with(&format!("HTTP/1.1 {status} ")) && told.contains(code),
            "{told}"
        );
        let mut connect = Peer(TcpStream::connect(scene.proxy).await.unwrap());
        connect
            .say(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"))
            .await;
        assert!(connect.hear_all().await.starts_with(&format!("HTTP/1.1 {status} ")));
    }
    let rows = scene.rows(4).await;
    let codes: Vec<_> = rows.iter().map(|row| error(&row.exchange)).collect();
    let (refused, looped) = (error_code::UPSTREAM_REFUSED, error_code::LOOP_DETECTED);
    assert_eq!(codes, [refused, refused, looped, looped]);
}

/// Lets the origin close a connection that is kept, at the moment it is used again.
async fn reused_and_closed(scene: &mut Scene, again: &str) {
    let mut origin = scene.get().await;
    origin.say("HTTP/1.1 204 No Content\r\n\r\n").await;
    scene.client.hear("HTTP/1.1 204 No Content\r\n\r\n").await;
    scene.ask(again).await;
    let head = again.replace("http://{host}", "").replace("{host}", &scene.host);
    origin.hear(head).await;
}

#[tokio::test]
async fn a_stale_connection_is_replaced_once_for_what_may_be_repeated() {
    let again = "GET http://{host}/again HTTP/1.1\r\nHost: {host}\r\n\r\n";
    let mut scene = Scene::begin().await;
    reused_and_closed(&mut scene, again).await;
    let mut origin = scene.accept().await;
    origin
        .hear(format!("GET /again HTTP/1.1\r\nHost: {}\r\n\r\n", scene.host))
        .await;
    origin.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    scene
        .client
        .hear("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    let rows = scene.rows(2).await;
    assert_complete(&rows[1].exchange);
    assert!(has(&rows[1].exchange, Flags::RETRIED) && !has(&rows[1].exchange, Flags::REUSED_UPSTREAM));
}

#[tokio::test]
async fn what_may_not_be_repeated_closes_the_client_with_a_row() {
    let mut scene = Scene::begin().await;
    reused_and_closed(
        &mut scene,
        "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\n\r\nx",
    )
    .await;
    scene.client.hear_end().await;
    let rows = scene.rows(2).await;
    assert_eq!(
        (error(&rows[1].exchange), rows[1].exchange.status),
        (error_code::UPSTREAM_ABORTED, 0)
    );
}

#[tokio::test]
async fn a_client_that_vanishes_while_it_waits_is_recorded_and_its_upstream_closed() {
    let mut scene = Scene::begin().await;
    let mut origin = scene.get().await;
    socket2::SockRef::from(&scene.client.0)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    scene.client = Peer(TcpStream::connect(scene.proxy).await.unwrap());
    origin.hear_end().await;
    assert_eq!(error(&scene.row().await.exchange), error_code::CLIENT_ABORTED);
}

#[tokio::test]
async fn a_client_that_only_ended_its_half_gets_its_answer() {
    let mut scene = Scene::begin().await;
    let mut origin = scene.get().await;
    scene.client.0.shutdown().await.unwrap();
    origin.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    scene
        .client
        .hear("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    scene.client.hear_end().await;
    assert_complete(&scene.row().await.exchange);
}

#[tokio::test]
async fn a_request_body_that_breaks_off_or_breaks_the_rules_is_recorded() {
    let mut scene = Scene::begin().await;
    scene
        .ask("POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        .await;
    assert!(scene.client.hear_all().await.starts_with("HTTP/1.1 400 "));
    assert_eq!(error(&scene.row().await.exchange), error_code::REQUEST_REFUSED);

    let mut scene = Scene::begin().await;
    scene
        .ask("POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\nab")
        .await;
    let mut origin = scene.accept().await;
    scene.client.0.shutdown().await.unwrap();
    assert!(origin.hear_all().await.ends_with("\r\n\r\nab"));
    assert_eq!(error(&scene.row().await.exchange), error_code::CLIENT_ABORTED);
}

#[tokio::test]
async fn a_head_that_breaks_off_is_recorded() {
    let mut scene = Scene::begin().await;
    scene.ask("GET http://{host}/ HTT").await;
    scene.client.0.shutdown().await.unwrap();
    scene.client.hear_end().await;
    let row = scene.row().await;
    assert_eq!(
        (error(&row.exchange), &row.exchange.method[..]),
        (error_code::CLIENT_ABORTED, &b"GET"[..])
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_answered_408() {
    let mut scene = Scene::begin().await;
    scene.ask("GET http://{host}/ HTTP/1.1\r\nHost").await;
    assert!(scene.client.hear_all().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(error(&scene.row().await.exchange), error_code::CLIENT_TIMEOUT);
}
