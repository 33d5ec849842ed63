//! Each kind of record, stored and read back.

use super::*;

#[tokio::test]
async fn a_complete_exchange_is_read_back_as_it_was() {
    let world = World::new().await;
    let session = world.session().await;
    assert_eq!(session.next_seq(), 0);
    let id = Uuid::now_v7();
    world.commit(&session, 0, &[complete(id)]).await;

    let row = world.row(id).await;
    assert_eq!(row.url(), r"http://a.example/x?q=\xff\x00");
    assert_eq!(
        (row.status, row.state, row.service_name.as_deref()),
        (200, ExchangeState::Complete, Some("p"))
    );
    assert_eq!(row.workspace_code.as_deref(), Some("w"));
    assert_eq!((row.position, row.response_size, row.duration_us), (1, 3, 1_234));
    let heads = heads::get(&world.db, ExchangeId(id)).await.unwrap().unwrap();
    assert_eq!(heads.request_head.unwrap(), b"GET /x?q=\xff\0 HTTP/1.1\r\n\r\n");
    assert_eq!(heads.client_tls_version, None);
    let body = bodies::read(&world.db, ExchangeId(id), Side::Response, 0)
        .await
        .unwrap();
    assert_eq!(
        (body.len(), body[0].start, body[0].data.as_slice()),
        (1, 0, b"abc".as_slice())
    );
    assert_eq!(
        bodies::read(&world.db, ExchangeId(id), Side::Response, body[0].end())
            .await
            .unwrap(),
        []
    );
    assert_eq!(world.stored().await, 1);
}

#[tokio::test]
async fn an_open_exchange_has_a_row_that_its_end_replaces() {
    let world = World::new().await;
    let session = world.session().await;
    let id = Uuid::now_v7();
    let whole = exchange(id);
    world.commit(&session, 0, &[head(&whole), chunk(id, 0, "ab")]).await;
    let open = world.row(id).await;
    assert_eq!((open.state, open.status, open.position), (ExchangeState::Open, 0, 1));
    assert_eq!(world.stored().await, 0, "it is not all there yet");

    world.commit(&session, 2, &[chunk(id, 2, "c"), end(&whole)]).await;
    let ended = world.row(id).await;
    assert_eq!(
        (ended.state, ended.status, ended.position),
        (ExchangeState::Complete, 200, 2)
    );
    let body = bodies::read(&world.db, ExchangeId(id), Side::Response, 0)
        .await
        .unwrap();
    let body: Vec<u8> = body.into_iter().flat_map(|chunk| chunk.data).collect();
    assert_eq!(body, b"abc");
    assert_eq!((world.count("open_exchanges").await, world.stored().await), (0, 1));
}

#[tokio::test]
async fn a_head_and_its_end_in_one_batch_are_one_row() {
    let world = World::new().await;
    let session = world.session().await;
    let id = Uuid::now_v7();
    world
        .commit(
            &session,
            0,
            &[head(&exchange(id)), chunk(id, 0, "abc"), end(&exchange(id))],
        )
        .await;
    assert_eq!(
        (world.row(id).await.state, world.row(id).await.position),
        (ExchangeState::Complete, 1)
    );
    assert_eq!((world.count("open_exchanges").await, world.stored().await), (0, 1));
}

#[tokio::test]
async fn websocket_messages_are_stored_in_parts_and_listed_whole() {
    let world = World::new().await;
    let session = world.session().await;
    let id = Uuid::now_v7();
    let mut socket = exchange(id);
    socket.kind = ExchangeKind::WebSocket as i32;
    socket.scheme = bytes("wss");
    let opened_at_us = socket.started_at_us;
    socket.websocket = Some(WebSocketSummary {
        subprotocol: bytes("chat"),
        opened_at_us,
        ..Default::default()
    });
    let message = |sequence, part, payload: Bytes, last| {
        let exchange_id = Bytes::copy_from_slice(id.as_bytes());
        let size = if last { 70_000 } else { 0 };
        let message = WsMessage {
            exchange_id,
            sequence,
            part,
            side: 1,
            opcode: 2,
            size,
            payload,
            last,
            ..WsMessage::default()
        };
        Record {
            kind: Some(Kind::WsMessage(message)),
        }
    };
    let long = Bytes::from(vec![7; 65_536]);
    let mut records = vec![
        head(&socket),
        message(0, 0, long.clone(), false),
        message(0, 1, bytes("rest"), true),
    ];
    records.extend((1..60).map(|sequence| message(sequence, 0, long.clone(), true)));
    let opening = records.len() as u64;
    world.commit(&session, 0, &records).await;

    let first = websockets::messages(&world.db, ExchangeId(id), &Page::new(1000, ""))
        .await
        .unwrap();
    assert_eq!(first.rows.len(), 32, "a page has at most 2 MiB of payload");
    assert_eq!(
        (first.rows[0].size, first.rows[0].payload_cut, first.rows[1].payload_cut),
        (70_000, true, false)
    );
    let rest = Page::new(1000, &first.next_page_token);
    let rest = websockets::messages(&world.db, ExchangeId(id), &rest).await.unwrap();
    assert_eq!(
        (rest.rows.len(), rest.rows[0].sequence, rest.next_page_token.as_str()),
        (28, 32, "")
    );
    let parts = websockets::parts(&world.db, ExchangeId(id), 0, 1).await.unwrap();
    assert_eq!(parts, [b"rest".to_vec()]);

    let summary = socket.websocket.as_mut().unwrap();
    (summary.closed_at_us, summary.close_code, summary.messages_from_client) = (opened_at_us + 5, 1000, 60);
    assert_eq!(
        websockets::get(&world.db, ExchangeId(id))
            .await
            .unwrap()
            .unwrap()
            .closed_at,
        None
    );
    world.commit(&session, opening, &[end(&socket)]).await;
    let filter = WebSocketFilter {
        service_id: Some(world.source.service_id),
        workspace_id: None,
    };
    let listed = websockets::list(&world.db, &filter, &Page::first()).await.unwrap().rows;
    assert_eq!(
        (listed.len(), listed[0].close_code, listed[0].subprotocol.as_str()),
        (1, 1000, "chat")
    );
    assert_eq!(
        (listed[0].url.as_str(), listed[0].messages_from_client),
        (r"wss://a.example:80/x?q=\xff\x00", 60)
    );
    assert!(listed[0].closed_at.is_some());
}
