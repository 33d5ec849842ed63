use super::*;

fn pattern(length: usize) -> Bytes {
    (0..length).map(|n| (n / 7 % 251) as u8).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn heads_bodies_and_trailers_pass_both_ways_as_they_are() {
    let address = answering(|request, mut respond| async move {
        let target = request.extensions().get::<RawTarget>().unwrap();
        assert_eq!(&target.path[..], b"/a?q=<b>\xff");
        assert!(target.authority.as_ref().unwrap().starts_with(b"origin.test:"));
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(
            request.headers().get_all("x-twice").iter().collect::<Vec<_>>(),
            ["1", "2"]
        );
        assert_eq!(request.headers().len(), 4, "nothing is added");
        let mut body = request.into_body();
        assert_eq!(read_all(&mut body).await.unwrap(), b"request");
        assert_eq!(body.trailers().await.unwrap().unwrap()["x-sum"], "7");
        let hints = Response::builder()
            .status(103)
            .header("link", "</a.css>")
            .body(())
            .unwrap();
        respond.send_informational(hints).unwrap();
        let response = Response::builder()
            .status(201)
            .header("content-type", "text/x")
            .header("set-cookie", "a");
        let mut stream = respond
            .send_response(response.header("set-cookie", "b").body(()).unwrap(), false)
            .unwrap();
        stream.send_data(Bytes::from_static(b"answer"), false).unwrap();
        stream
            .send_trailers(HeaderMap::from_iter([(
                "grpc-status".parse().unwrap(),
                "0".parse().unwrap(),
            )]))
            .unwrap();
    })
    .await;
    let bench = Bench::new(address).await;
    let mut request = bench.request("POST", b"/a?q=<b>\xff");
    for (name, value) in [
        ("x-twice", "1"),
        ("te", "trailers"),
        ("x-twice", "2"),
        ("content-type", "text/y"),
    ] {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let (mut response, mut body) = bench.send(request, false).await;
    body.send_data(Bytes::from_static(b"request"), false).unwrap();
    body.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]))
        .unwrap();
    let hints = std::future::poll_fn(|cx| response.poll_informational(cx))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (hints.status().as_u16(), &hints.headers()["link"]),
        (103, &"</a.css>".parse().unwrap())
    );
    let answer = Answer::read(response.await.unwrap()).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.headers.len(), &answer.body[..]),
        (201, 3, &b"answer"[..])
    );
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");

    let complete = bench.complete().await;
    let row = complete.exchange;
    assert_eq!(
        (&complete.request_body[..], &complete.response_body[..]),
        (&b"request"[..], &b"answer"[..])
    );
    assert_eq!(
        (&row.path[..], row.query.as_deref(), &row.error[..]),
        (&b"/a"[..], Some(&b"q=<b>\xff"[..]), &b""[..])
    );
    assert_eq!(
        (&row.host[..], row.port, row.status),
        (&b"origin.test"[..], u32::from(address.port()), 201)
    );
    assert_eq!((row.request_version, row.response_version), (20, 20));
    assert_eq!(
        (&row.request_content_type[..], &row.response_content_type[..]),
        (&b"text/y"[..], &b"text/x"[..])
    );
    let head = b":status: 201\r\ncontent-type: text/x\r\nset-cookie: a\r\nset-cookie: b\r\n";
    assert_eq!(&row.response_head[..], head);
    assert_eq!(&row.informational_heads[..], b":status: 103\r\nlink: </a.css>\r\n");
    assert_eq!(
        (&row.request_trailers[..], &row.response_trailers[..]),
        (&b"x-sum: 7\r\n"[..], &b"grpc-status: 0\r\n"[..])
    );
    assert_eq!(row.origin_address, address.to_string());
    assert!(row.timings.first_byte_us.is_some() && row.timings.connect_us.is_some());
}

#[tokio::test]
async fn large_bodies_pass_whole_in_both_directions_at_once() {
    let address = answering(|request, mut respond| async move {
        let mut from = request.into_body();
        let mut to = respond.send_response(ok(), false).unwrap();
        while let Some(data) = from.data().await {
            let data = data.unwrap();
            from.flow_control().release_capacity(data.len()).unwrap();
            pump::send(&mut to, data, false).await.unwrap();
        }
        pump::send(&mut to, Bytes::new(), true).await.unwrap();
    })
    .await;
    let bench = Bench::new(address).await;
    let sent = pattern(6_000_000);
    let (response, mut body) = bench.send(bench.request("PUT", b"/echo"), false).await;
    let upload = pump::send(&mut body, sent.clone(), true);
    let download = async { Answer::read(response.await.unwrap()).await.unwrap() };
    let (uploaded, answer) = tokio::join!(upload, download);
    uploaded.unwrap();
    assert!(answer.body == sent);
    let row = bench.rows().await.remove(0);
    assert_eq!((row.request_size, row.response_size), (6_000_000, 6_000_000));
    assert_eq!(
        (row.request_captured, row.response_captured, &row.error[..]),
        (6_000_000, 6_000_000, &b""[..])
    );
    assert_eq!(
        row.flags & proxyplane_record::Flags::EARLY_RESPONSE,
        proxyplane_record::Flags::EARLY_RESPONSE
    );
}

#[tokio::test]
async fn a_reader_that_stops_stops_the_origin() {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    static SENT: AtomicUsize = AtomicUsize::new(0);
    const SIZE: usize = 64 * 1024 * 1024;
    let address = answering(|_, mut respond| async move {
        let mut to = respond.send_response(ok(), false).unwrap();
        let piece = pattern(64 * 1024);
        for sent in 1..=SIZE / piece.len() {
            pump::send(&mut to, piece.clone(), sent * piece.len() == SIZE)
                .await
                .unwrap();
            SENT.store(sent * piece.len(), Relaxed);
        }
    })
    .await;
    let bench = Bench::new(address).await;
    let (response, _) = bench.send(bench.request("GET", b"/"), true).await;
    let mut response = response.await.unwrap();
    testing::standstill().await;
    let before = SENT.load(Relaxed);
    let held = STREAM_WINDOW as usize + 2 * SEND_BUFFER + 512 * 1024;
    assert!(before < held, "the origin could send {before} bytes");
    assert_eq!(read_all(response.body_mut()).await.unwrap().len(), SIZE);
    assert_eq!(bench.rows().await.remove(0).response_size, SIZE as u64);
}

#[tokio::test]
async fn head_requests_and_answers_without_body_end_with_their_head() {
    let address = answering(|request, mut respond| async move {
        let status = if *request.method() == http::Method::HEAD {
            200
        } else {
            304
        };
        let response = Response::builder()
            .status(status)
            .header("content-length", "500")
            .body(())
            .unwrap();
        respond.send_response(response, true).unwrap();
    })
    .await;
    let bench = Bench::new(address).await;
    for method in ["HEAD", "GET"] {
        let (response, _) = bench.send(bench.request(method, b"/"), true).await;
        let response = response.await.unwrap();
        assert!(response.body().is_end_stream());
        assert_eq!(response.headers()["content-length"], "500");
    }
    assert!(
        bench
            .rows()
            .await
            .iter()
            .all(|row| row.error.is_empty() && row.response_size == 0)
    );
}
