use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use proxyplane_record::{Flags, error_code};

use super::*;

/// An origin that says goodbye on every connection after `after` streams, as nginx does after a thousand.
async fn retiring(after: usize, connections: &'static AtomicUsize) -> SocketAddr {
    origin(move |mut connection| async move {
        connections.fetch_add(1, Relaxed);
        let mut served = 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            served += 1;
            if served == after {
                connection.graceful_shutdown();
            }
            let mut stream = respond.send_response(ok(), false).unwrap();
            stream.send_data(Bytes::from_static(b"here"), true).unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn a_thousand_exchanges_outlive_the_connections_of_an_origin_that_retires_them() {
    static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
    let address = retiring(100, &CONNECTIONS).await;
    let bench = Bench::new(address).await;
    for _ in 0..1_000 {
        assert_eq!(bench.get(b"/").await.unwrap().body, b"here");
    }
    let rows = bench.rows().await;
    assert!(rows.len() == 1_000 && rows.iter().all(|row| row.error.is_empty() && row.status == 200));
    let fresh = rows
        .iter()
        .filter(|row| row.flags & Flags::REUSED_UPSTREAM == 0)
        .count();
    assert_eq!(fresh, CONNECTIONS.load(Relaxed));
    assert!((10..=11).contains(&fresh), "{fresh} connections");
    assert!(
        rows.iter()
            .all(|row| row.timings.connect_us.is_some() == (row.flags & Flags::REUSED_UPSTREAM == 0))
    );
}

#[tokio::test]
async fn many_exchanges_at_once_outlive_them_too() {
    static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
    let address = retiring(50, &CONNECTIONS).await;
    let bench = Arc::new(Bench::new(address).await);
    let mut clients = JoinSet::new();
    for _ in 0..20 {
        let bench = Arc::clone(&bench);
        clients.spawn(async move {
            for _ in 0..25 {
                assert_eq!(bench.get(b"/").await.unwrap().body, b"here");
            }
        });
    }
    while let Some(result) = clients.join_next().await {
        result.unwrap();
    }
    let bench = Arc::into_inner(bench).unwrap();
    assert_eq!(
        bench.rows().await.iter().filter(|row| row.error.is_empty()).count(),
        500
    );
}

#[tokio::test]
async fn a_request_that_cannot_be_dialled_for_again_is_answered_with_the_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // The first connection is taken and closed; there is nobody to take a second one.
    let gone = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        connection.graceful_shutdown();
        assert!(connection.accept().await.is_none());
    });
    let bench = Bench::new(address).await;
    gone.await.unwrap();
    let answer = bench.get(b"/").await.unwrap();
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(bench.rows().await[0].error, error_code::UPSTREAM_REFUSED);
}

#[tokio::test]
async fn a_stop_lets_open_exchanges_end_and_takes_no_more() {
    let (told, mut begun) = tokio::sync::mpsc::channel(1);
    let address = answering(move |request, mut respond| {
        let told = told.clone();
        async move {
            told.send(()).await.unwrap();
            let body = read_all(&mut request.into_body()).await.unwrap();
            let mut stream = respond.send_response(ok(), false).unwrap();
            stream.send_data(body.into(), true).unwrap();
        }
    })
    .await;
    let bench = Bench::new(address).await;
    let (response, mut request) = bench.send(bench.request("POST", b"/"), false).await;
    begun.recv().await.unwrap();
    bench.service.drain.begin(Duration::from_secs(30));
    // Until the client has seen the GOAWAY.
    while bench.client.clone().ready().await.is_ok() {
        tokio::task::yield_now().await;
    }
    request.send_data(Bytes::from_static(b"still here"), true).unwrap();
    assert_eq!(Answer::read(response.await.unwrap()).await.unwrap().body, b"still here");
    let row = bench.rows().await.remove(0);
    assert_eq!((&row.error[..], row.status), (&b""[..], 200));
}

#[tokio::test]
async fn the_deadline_of_a_stop_ends_open_exchanges() {
    let address = answering(|_, mut respond| async move {
        let mut stream = respond.send_response(ok(), false).unwrap();
        stream.send_data(Bytes::from_static(b"begin"), false).unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let bench = Bench::new(address).await;
    let (response, _) = bench.send(bench.request("GET", b"/"), true).await;
    let mut response = response.await.unwrap();
    assert_eq!(response.body_mut().data().await.unwrap().unwrap(), "begin");
    bench.service.drain.expire();
    assert!(!matches!(response.body_mut().data().await, Some(Ok(_))));
    assert_eq!(bench.rows().await[0].error, error_code::DRAINED);
}

#[tokio::test]
async fn a_client_that_resets_without_end_is_told_to_calm_down() {
    let address = answering(|_, respond| async move {
        let _held = respond;
        std::future::pending::<()>().await;
    })
    .await;
    let bench = Bench::new(address).await;
    let flood = async {
        loop {
            let mut client = match bench.client.clone().ready().await {
                Ok(client) => client,
                Err(error) => return error,
            };
            if let Ok((_, mut request)) = client.send_request(bench.request("GET", b"/"), true) {
                request.send_reset(Reason::CANCEL);
            }
            tokio::task::yield_now().await;
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(20), flood).await.unwrap();
    // What it still sends may make the kernel forget the GOAWAY.
    assert!(
        error.is_io() || error.reason() == Some(Reason::ENHANCE_YOUR_CALM),
        "{error:?}"
    );
}
