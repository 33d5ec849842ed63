use futures_util::FutureExt as _;
use http::Method;
use proxyplane_record::{Flags, error_code};
use proxyplane_spec::CaptureSpec;
use tokio::sync::{Notify, mpsc};

use super::*;

#[tokio::test]
async fn a_clients_reset_reaches_the_origin_with_its_code() {
    for whole in [true, false] {
        let (told, mut codes) = mpsc::channel(1);
        let address = answering(move |_, mut respond| {
            let told = told.clone();
            async move {
                let mut stream = respond.send_response(ok(), false).unwrap();
                stream.send_data(Bytes::from_static(b"begin"), false).unwrap();
                let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
                told.send(reason).await.unwrap();
            }
        })
        .await;
        let bench = Bench::new(address).await;
        let (response, mut request) = bench.send(bench.request("POST", b"/"), whole).await;
        let mut response = response.await.unwrap();
        assert_eq!(response.body_mut().data().await.unwrap().unwrap(), "begin");
        request.send_reset(Reason::ENHANCE_YOUR_CALM);
        assert_eq!(codes.recv().await.unwrap(), Reason::ENHANCE_YOUR_CALM);
        let row = bench.rows().await.remove(0);
        assert_eq!(
            (&row.error[..], row.status, row.response_size),
            (error_code::STREAM_RESET.as_bytes(), 200, 5)
        );
        assert_eq!(&row.error_detail[..], b"the client reset the stream: ENHANCE_YOUR_CALM");
    }
}

#[tokio::test]
async fn a_clients_reset_before_the_answer_reaches_the_origin() {
    let (told, mut codes) = mpsc::channel(1);
    let address = answering(move |_, mut respond| {
        let told = told.clone();
        async move {
            told.send(None).await.unwrap();
            told.send(Some(std::future::poll_fn(|cx| respond.poll_reset(cx)).await.unwrap()))
                .await
                .unwrap();
        }
    })
    .await;
    let bench = Bench::new(address).await;
    let (_response, mut request) = bench.send(bench.request("GET", b"/"), true).await;
    assert_eq!(codes.recv().await.unwrap(), None);
    request.send_reset(Reason::CANCEL);
    assert_eq!(codes.recv().await.unwrap(), Some(Reason::CANCEL));
    assert_eq!(bench.rows().await[0].error, error_code::STREAM_RESET);
}

#[tokio::test]
async fn an_origins_reset_reaches_the_client_with_its_code() {
    let has_reset = Arc::new(Notify::new());
    let reset = Arc::clone(&has_reset);
    let address = answering(move |request, mut respond| {
        let reset = Arc::clone(&reset);
        async move {
            if request.extensions().get::<RawTarget>().unwrap().path == "/early" {
                return respond.send_reset(Reason::HTTP_1_1_REQUIRED);
            }
            let mut stream = respond.send_response(ok(), false).unwrap();
            stream.send_data(vec![b'x'; 300_000].into(), false).unwrap();
            // A reset takes what was not sent yet with it.
            testing::standstill().await;
            stream.send_reset(Reason::INTERNAL_ERROR);
            reset.notify_one();
        }
    })
    .await;
    let bench = Bench::new(address).await;
    assert_eq!(
        bench.get(b"/early").await.unwrap_err().reason(),
        Some(Reason::HTTP_1_1_REQUIRED)
    );
    let (response, _) = bench.send(bench.request("GET", b"/late"), true).await;
    let mut response = response.await.unwrap();
    // The client reads late: it is to get everything that came before the reset.
    has_reset.notified().await;
    testing::standstill().await;
    let mut read = 0;
    let end = loop {
        match response.body_mut().data().await.unwrap() {
            Ok(data) => {
                read += data.len();
                response.body_mut().flow_control().release_capacity(data.len()).unwrap();
            }
            Err(error) => break error.reason(),
        }
    };
    assert_eq!((read, end), (300_000, Some(Reason::INTERNAL_ERROR)));
    let rows = bench.rows().await;
    assert_eq!(
        (&rows[0].error[..], rows[0].status),
        (error_code::STREAM_RESET.as_bytes(), 0)
    );
    assert_eq!(
        (&rows[1].error[..], rows[1].status),
        (error_code::STREAM_RESET.as_bytes(), 200)
    );
}

#[tokio::test]
async fn an_answer_before_the_requests_end_stops_the_request() {
    let address = answering(|request, mut respond| async move {
        let mut stream = respond.send_response(ok(), false).unwrap();
        stream.send_data(Bytes::from_static(b"enough"), true).unwrap();
        drop(request);
    })
    .await;
    let bench = Bench::new(address).await;
    let (response, mut request) = bench.send(bench.request("POST", b"/"), false).await;
    assert_eq!(Answer::read(response.await.unwrap()).await.unwrap().body, b"enough");
    let reason = std::future::poll_fn(|cx| request.poll_reset(cx)).await.unwrap();
    assert_eq!(reason, Reason::NO_ERROR);
    assert!(bench.rows().await[0].error.is_empty());
}

#[tokio::test]
async fn an_origin_that_goes_away_is_told_by_502_before_the_answer_and_by_a_reset_inside_of_it() {
    let address = origin(|mut connection| async move {
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let late = request.extensions().get::<RawTarget>().unwrap().path == "/late";
        let _stream = late.then(|| {
            let mut stream = respond.send_response(ok(), false).unwrap();
            stream.send_data(Bytes::from_static(b"begin"), false).unwrap();
            stream
        });
        // What it has said so far goes out.
        tokio::select! {
            _ = connection.accept() => {}
            () = testing::standstill() => {}
        }
    })
    .await;
    let bench = Bench::new(address).await;
    let (response, request) = bench.send(bench.request("POST", b"/early"), false).await;
    let answer = Answer::read(response.await.unwrap()).await.unwrap();
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(answer.body.starts_with(b"proxyplane: upstream_aborted"));
    drop(request);
    assert!(bench.get(b"/late").await.is_err());
    let rows = bench.rows().await;
    assert!(rows.iter().all(|row| row.error == error_code::UPSTREAM_ABORTED));
    assert_eq!((rows[0].status, rows[0].flags & Flags::LOCAL_ANSWER != 0), (502, true));
    assert_eq!((rows[1].status, rows[1].response_size), (200, 5));
}

#[tokio::test]
async fn who_sends_much_has_time_to_read_an_early_answer_before_its_stream_is_reset() {
    let address = answering(|request, mut respond| async move {
        respond.send_response(ok(), true).unwrap();
        drop(request);
    })
    .await;
    let bench = Bench::new(address).await;
    let (response, mut request) = bench.send(bench.request("POST", b"/"), false).await;
    request.send_data(vec![b'x'; 600_000].into(), false).unwrap();
    assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    testing::standstill().await;
    let mut reset = std::pin::pin!(std::future::poll_fn(|cx| request.poll_reset(cx)));
    assert!(
        reset.as_mut().now_or_never().is_none(),
        "the reset is right behind the answer"
    );
    assert_eq!(reset.await.unwrap(), Reason::NO_ERROR);
    let row = bench.rows().await.remove(0);
    assert_eq!((&row.error[..], row.status), (&b""[..], 200));
}

/// An origin whose answers say that they have 5 bytes, and never end behind them.
async fn endless() -> SocketAddr {
    answering(|request, mut respond| async move {
        let response = Response::builder().header("content-length", "5").body(()).unwrap();
        let mut stream = respond.send_response(response, false).unwrap();
        if request.method() != Method::HEAD {
            stream.send_data(Bytes::from_static(b"whole"), false).unwrap();
        }
        let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
    })
    .await
}

#[tokio::test]
async fn who_has_all_of_a_content_length_may_leave_before_the_end_of_the_stream() {
    for reset in [None, Some(Reason::CANCEL), Some(Reason::NO_ERROR)] {
        for method in ["GET", "HEAD"] {
            let bench = Bench::new(endless().await).await;
            let (response, mut request) = bench.send(bench.request(method, b"/"), true).await;
            let mut response = response.await.unwrap();
            if method == "GET" {
                assert_eq!(response.body_mut().data().await.unwrap().unwrap(), "whole");
            }
            if let Some(reason) = reset {
                request.send_reset(reason);
                testing::standstill().await;
            }
            let row = bench.rows().await.remove(0);
            assert_eq!((row.status, &row.error[..]), (200, &b""[..]), "{method}, {reset:?}");
        }
    }
}

#[tokio::test]
async fn who_leaves_before_that_or_inside_of_the_request_has_aborted() {
    let bench = Bench::new(endless().await).await;
    let (response, mut request) = bench.send(bench.request("POST", b"/"), false).await;
    request.send_data(Bytes::from_static(b"half"), false).unwrap();
    let mut response = response.await.unwrap();
    assert_eq!(response.body_mut().data().await.unwrap().unwrap(), "whole");
    assert_eq!(bench.rows().await[0].error, error_code::CLIENT_ABORTED);

    let short = answering(|_, mut respond| async move {
        let response = Response::builder().header("content-length", "6").body(()).unwrap();
        let mut stream = respond.send_response(response, false).unwrap();
        stream.send_data(Bytes::from_static(b"short"), false).unwrap();
        let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
    })
    .await;
    let bench = Bench::new(short).await;
    let (response, _request) = bench.send(bench.request("GET", b"/"), true).await;
    let mut response = response.await.unwrap();
    assert_eq!(response.body_mut().data().await.unwrap().unwrap(), "short");
    assert_eq!(bench.rows().await[0].error, error_code::CLIENT_ABORTED);
}

#[tokio::test]
async fn with_durable_before_end_a_content_length_is_complete_only_once_its_record_is_kept() {
    let bench = durable(endless().await).await;
    let capture = Arc::clone(&bench.service.capture);
    let (response, _request) = bench.send(bench.request("GET", b"/"), true).await;
    let mut response = response.await.unwrap();
    let mut data = std::pin::pin!(response.body_mut().data());
    testing::standstill().await;
    assert!(data.as_mut().now_or_never().is_none());
    while capture.queue().next_seq() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(data.as_mut().now_or_never().is_none());
    let row = testing::ended(&testing::records(&capture)).remove(0);
    assert_eq!((row.status, row.response_size, row.response_captured), (200, 5, 5));
    assert_eq!(data.await.unwrap().unwrap(), "whole");
}

async fn durable(address: SocketAddr) -> Bench {
    let bench = Bench::new(address).await;
    bench.service.capture.configure(&CaptureSpec {
        durable_before_end: true,
        ..CaptureSpec::default()
    });
    bench
}

#[tokio::test]
async fn with_durable_before_end_what_ends_an_answer_after_its_content_length_is_recorded_too() {
    for fails in [false, true] {
        let address = answering(move |_, mut respond| async move {
            let response = Response::builder().header("content-length", "5").body(()).unwrap();
            let mut stream = respond.send_response(response, false).unwrap();
            stream.send_data(Bytes::from_static(b"whole"), false).unwrap();
            if fails {
                stream.send_data(Bytes::from_static(b" and more"), true).unwrap();
            } else {
                let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), "1".parse().unwrap())]);
                stream.send_trailers(trailers).unwrap();
            }
        })
        .await;
        let bench = durable(address).await;
        let capture = Arc::clone(&bench.service.capture);
        let answer = bench.get(b"/");
        let mut answer = std::pin::pin!(answer);
        while capture.queue().next_seq() == 0 {
            assert!(answer.as_mut().now_or_never().is_none());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let row = testing::ended(&testing::records(&capture)).remove(0);
        assert_eq!(answer.await.is_err(), fails);
        let expected: (&[u8], &[u8]) = if fails {
            (error_code::UPSTREAM_RESPONSE_REFUSED.as_bytes(), b"")
        } else {
            (b"", b"x-sum: 1\r\n")
        };
        assert_eq!((&row.error[..], &row.response_trailers[..]), expected);
    }
}

#[tokio::test]
async fn a_wrong_content_length_of_the_origin_is_an_error_for_the_client() {
    let address = answering(|_, mut respond| async move {
        let response = Response::builder().header("content-length", "100").body(()).unwrap();
        let mut stream = respond.send_response(response, false).unwrap();
        stream.send_data(Bytes::from_static(b"short"), true).unwrap();
    })
    .await;
    let bench = Bench::new(address).await;
    assert!(bench.get(b"/").await.is_err());
    assert_eq!(bench.rows().await[0].error, error_code::UPSTREAM_RESPONSE_REFUSED);
}

#[tokio::test]
async fn refused_requests_are_answered_and_have_rows() {
    let address = answering(|_, mut respond| async move {
        respond.send_response(ok(), true).unwrap();
    })
    .await;
    let bench = Bench::new(address).await;
    let mut large = bench.request("GET", b"/");
    large
        .headers_mut()
        .insert("x-large", vec![b'x'; limits::HEAD_BYTES_MAX].try_into().unwrap());
    let (response, _) = bench.send(large, true).await;
    assert_eq!(
        response.await.unwrap().status(),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    );
    let connect = Request::connect("elsewhere.test:443").body(()).unwrap();
    let (response, _) = bench.send(connect, false).await;
    assert_eq!(response.await.unwrap().status(), StatusCode::NOT_IMPLEMENTED);
    let rows = bench.rows().await;
    assert_eq!(
        (&rows[0].error[..], rows[0].status),
        (error_code::REQUEST_HEAD_TOO_LARGE.as_bytes(), 431)
    );
    assert_eq!(
        (&rows[1].error[..], rows[1].status),
        (error_code::REQUEST_REFUSED.as_bytes(), 501)
    );
    assert_eq!(
        &rows[1].request_head[..],
        b":method: CONNECT\r\n:authority: elsewhere.test:443\r\n"
    );
}
