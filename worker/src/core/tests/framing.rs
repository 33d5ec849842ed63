//! Bodies: lengths, chunks, trailers, 100-continue, answers without a body or before the request's end.

use super::*;

#[tokio::test]
async fn chunks_and_trailers_pass_both_ways() {
    let mut scene = Scene::begin().await;
    scene.ask("POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n3\r\nabc\r\n").await;
    let mut origin = scene.accept().await;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n",
        scene.host
    );
    origin.hear(head + "3\r\nabc\r\n").await;
    scene
        .client
        .say("2;ext=1\r\nde\r\n1\r\nf\r\n0\r\nX-T: up\r\n\r\n")
        .await;
    origin.hear("3\r\ndef\r\n0\r\nX-T: up\r\n\r\n").await;
    origin
        .say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    scene
        .client
        .hear("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    origin.say("5\r\nevent\r\n").await;
    scene.client.hear("5\r\nevent\r\n").await;
    origin.say("0\r\nX-T: down\r\n\r\n").await;
    scene.client.hear("0\r\nX-T: down\r\n\r\n").await;
    let row = scene.row().await;
    assert_complete(&row.exchange);
    assert_eq!(
        (&row.request_body[..], &row.response_body[..]),
        (&b"abcdef"[..], &b"event"[..])
    );
    assert_eq!(
        (
            text(&row.exchange.request_trailers),
            text(&row.exchange.response_trailers)
        ),
        ("X-T: up\r\n".into(), "X-T: down\r\n".into())
    );
}

#[tokio::test]
async fn answers_without_body_leave_the_next_request_right() {
    let mut scene = Scene::begin().await;
    for (method, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
    ] {
        scene
            .ask(&format!("{method} http://{{host}}/ HTTP/1.1\r\nHost: {{host}}\r\n\r\n"))
            .await;
        let mut origin = scene.accept().await;
        origin
            .hear(format!("{method} / HTTP/1.1\r\nHost: {}\r\n\r\n", scene.host))
            .await;
        // A body where there may be none belongs to nothing, and its connection is not used again.
        origin.say(format!("{answer}stray")).await;
        scene.client.hear(answer).await;
    }
    scene
        .rows(3)
        .await
        .iter()
        .for_each(|row| assert_complete(&row.exchange));
}

#[tokio::test]
async fn early_hints_pass_at_once() {
    let mut scene = Scene::begin().await;
    let mut origin = scene.get().await;
    for head in [
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        origin.say(head).await;
        scene.client.hear(head).await;
    }
    let row = scene.row().await;
    assert_complete(&row.exchange);
    assert!(row.exchange.informational_heads.starts_with(b"HTTP/1.1 103"));
}

#[tokio::test]
async fn a_body_until_close_ends_the_clients_connection_too() {
    let mut scene = Scene::begin().await;
    let mut origin = scene.get().await;
    origin.say("HTTP/1.1 200 OK\r\n\r\npart").await;
    scene
        .client
        .hear("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\npart")
        .await;
    origin.say(" two").await;
    drop(origin);
    scene.client.hear(" two").await;
    scene.client.hear_end().await;
    let row = scene.row().await;
    assert_complete(&row.exchange);
    assert_eq!(&row.response_body[..], b"part two");
}

#[tokio::test]
async fn http_1_0_stays_http_1_0() {
    let mut scene = Scene::begin().await;
    scene.ask("GET http://{host}/ HTTP/1.0\r\n\r\n").await;
    let mut origin = scene.accept().await;
    origin.hear("GET / HTTP/1.0\r\n\r\n").await;
    origin.say("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(
        scene.client.hear_all().await,
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"
    );
}

const EXPECTING: &str =
    "PUT http://{host}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";

async fn expecting(scene: &mut Scene) -> Peer {
    scene.ask(EXPECTING).await;
    let mut origin = scene.accept().await;
    let head = EXPECTING.replace("http://{host}", "").replace("{host}", &scene.host);
    origin.hear(head).await;
    origin
}

#[tokio::test]
async fn the_origins_100_continue_is_passed_on() {
    let mut scene = Scene::begin().await;
    let mut origin = expecting(&mut scene).await;
    origin.say("HTTP/1.1 100 Go on\r\n\r\n").await;
    scene.client.hear("HTTP/1.1 100 Go on\r\n\r\n").await;
    scene.client.say("body").await;
    origin.hear("body").await;
    origin.say("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
    scene
        .client
        .hear("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        .await;
    let row = scene.row().await;
    assert_complete(&row.exchange);
    assert!(!has(&row.exchange, Flags::EARLY_RESPONSE));
    assert_eq!(text(&row.exchange.informational_heads), "HTTP/1.1 100 Go on\r\n\r\n");
}

#[tokio::test]
async fn a_silent_origin_gets_the_body_after_a_second_and_its_late_100_goes_no_further() {
    let mut scene = Scene::begin().await;
    let mut origin = expecting(&mut scene).await;
    scene.client.hear("HTTP/1.1 100 Continue\r\n\r\n").await;
    scene.client.say("body").await;
    origin.hear("body").await;
    origin
        .say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    scene.client.hear("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    // The connection is fit for another one.
    scene.ask("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n").await;
    origin
        .hear(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", scene.host))
        .await;
}

#[tokio::test]
async fn a_final_status_instead_of_100_is_passed_on() {
    let mut scene = Scene::begin().await;
    let mut origin = expecting(&mut scene).await;
    origin.say("HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno").await;
    scene
        .client
        .hear("HTTP/1.1 417 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        .await;
    scene.client.hear_end().await;
    let row = scene.row().await;
    assert_complete(&row.exchange);
    assert!(has(&row.exchange, Flags::EARLY_RESPONSE) && row.exchange.request_size == 0);
}

#[tokio::test]
async fn an_early_answer_passes_while_the_request_still_goes_on() {
    let mut scene = Scene::begin().await;
    scene
        .ask("POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 6\r\n\r\nabc")
        .await;
    let mut origin = scene.accept().await;
    origin
        .hear(format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: 6\r\n\r\nabc",
            scene.host
        ))
        .await;
    origin.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly").await;
    scene
        .client
        .hear("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")
        .await;
    scene.client.say("def").await;
    origin.hear("def").await;
    // The client's connection goes on, the upstream one does not.
    let mut next = scene.get().await;
    origin.hear_end().await;
    next.say("HTTP/1.1 204 No Content\r\n\r\n").await;
    scene.client.hear("HTTP/1.1 204 No Content\r\n\r\n").await;
    let rows = scene.rows(2).await;
    assert_complete(&rows[0].exchange);
    assert!(has(&rows[0].exchange, Flags::EARLY_RESPONSE));
    assert_eq!(
        (&rows[0].request_body[..], &rows[0].response_body[..]),
        (&b"abcdef"[..], &b"early"[..])
    );
}

#[tokio::test]
async fn large_bodies_pass_both_ways_at_once() {
    const SIZE: usize = 20 * 1024 * 1024;
    let mut scene = Scene::with(CaptureSpec {
        capture_limit: 1024 * 1024,
        ..CaptureSpec::default()
    })
    .await;
    scene
        .ask(&format!(
            "POST http://{{host}}/ HTTP/1.1\r\nHost: {{host}}\r\nContent-Length: {SIZE}\r\n\r\n"
        ))
        .await;
    let mut origin = scene.accept().await;
    origin
        .hear(format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: {SIZE}\r\n\r\n",
            scene.host
        ))
        .await;
    origin
        .say(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"))
        .await;
    scene
        .client
        .hear(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"))
        .await;
    let body = |salt: usize| (0..SIZE).map(|n| ((n + salt) % 251) as u8).collect::<Vec<_>>();
    let (up, down) = (body(1), body(2));
    let (at_client, at_origin) = tokio::join!(swap(&mut scene.client, &up), swap(&mut origin, &down));
    assert!(
        at_client == down && at_origin == up,
        "both bodies come as they were sent"
    );
    let row = scene.row().await;
    assert_complete(&row.exchange);
    assert_eq!(
        (row.exchange.request_size, row.exchange.response_size),
        (SIZE as u64, SIZE as u64)
    );
    assert!(row.exchange.request_truncated && row.exchange.response_truncated);
}

/// Sends a body while it reads one of the same size.
async fn swap(peer: &mut Peer, body: &[u8]) -> Vec<u8> {
    let mut heard = vec![0; body.len()];
    let (mut read, mut write) = peer.0.split();
    let both = async { tokio::join!(write.write_all(body), read.read_exact(&mut heard)) };
    let (written, read) = timeout(PATIENCE, both).await.expect("the bodies pass");
    written.unwrap();
    read.unwrap();
    heard
}
