//! Lists, pages, purges and what services may be.

use super::*;

/// Thirty exchanges, oldest first: every third failed, every second a GET, the first ten of another host.
async fn thirty(world: &World) -> Vec<Uuid> {
    let mut records = completes(30);
    let mut ids = Vec::new();
    for (index, record) in records.iter_mut().enumerate() {
        let Some(Kind::Complete(Complete { exchange, .. })) = &mut record.kind else {
            unreachable!()
        };
        ids.push(Uuid::from_slice(&exchange.id).unwrap());
        exchange.status = if index % 3 == 0 { 503 } else { 200 };
        exchange.method = bytes(if index % 2 == 0 { "GET" } else { "POST" });
        exchange.host = bytes(if index < 10 { "Api.Example.com" } else { "example.com" });
        exchange.started_at_us += index as i64;
    }
    world.commit(&world.session().await, 0, &records).await;
    ids
}

#[tokio::test]
async fn exchanges_are_found_by_every_filter() {
    let world = World::new().await;
    thirty(&world).await;
    let all = exchanges::list(&world.db, &ExchangeFilter::default(), &Page::first())
        .await
        .unwrap()
        .rows;
    let set = |change: &dyn Fn(&mut ExchangeFilter)| {
        let mut filter = ExchangeFilter::default();
        change(&mut filter);
        filter
    };
    for (expected, filter) in [
        (30, set(&|_| {})),
        (
            10,
            set(&|filter| (filter.status_min, filter.status_max) = (Some(500), Some(599))),
        ),
        (15, set(&|filter| filter.method = Some("POST".into()))),
        (10, set(&|filter| filter.host = Some("*.example.com".into()))),
        (20, set(&|filter| filter.host = Some("EXAMPLE.com".into()))),
        (30, set(&|filter| filter.service_id = Some(world.source.service_id))),
        (0, set(&|filter| filter.service_id = Some(ServiceId::new()))),
        (30, set(&|filter| filter.workspace_id = Some(world.source.workspace_id))),
        (
            29,
            set(&|filter| (filter.since, filter.until) = (Some(all[29].started_at), Some(all[0].started_at))),
        ),
    ] {
        let found = exchanges::list(&world.db, &filter, &Page::first()).await.unwrap().rows;
        assert_eq!(found.len(), expected, "{filter:?}");
    }
}

#[tokio::test]
async fn exchanges_are_listed_newest_first_page_by_page() {
    let world = World::new().await;
    let ids = thirty(&world).await;
    let filter = ExchangeFilter {
        method: Some("GET".into()),
        ..ExchangeFilter::default()
    };
    let (mut page, mut paged) = (Page::new(4, ""), Vec::new());
    loop {
        let next = exchanges::list(&world.db, &filter, &page).await.unwrap();
        paged.extend(next.rows.iter().map(|row| row.id.0));
        if next.next_page_token.is_empty() {
            break;
        }
        page = page.next(&next.next_page_token);
    }
    assert_eq!(paged, ids.iter().rev().skip(1).step_by(2).copied().collect::<Vec<_>>());
    let foreign = exchanges::list(&world.db, &ExchangeFilter::default(), &page).await;
    assert!(matches!(foreign, Err(store::StoreError::InvalidPageToken)));
}

#[tokio::test]
async fn a_purge_removes_one_services_traffic_only() {
    let world = World::new().await;
    let session = world.session().await;
    world.commit(&session, 0, &completes(1_200)).await;
    world.commit(&session, 1_200, &in_pieces()).await;
    let other = Source {
        epoch: Epoch::new(),
        service_id: ServiceId::new(),
        ..world.source
    };
    let others = within(world.ingest.open(other)).await.unwrap();
    world.commit(&others, 0, &completes(3)).await;
    world.commit(&others, 3, &in_pieces()).await;
    assert_eq!(purge::service(&world.db, world.source.service_id).await.unwrap(), 1_201);
    for (table, rows) in [("exchanges", 4), ("heads", 4), ("body_chunks", 1)] {
        assert_eq!(world.count(table).await, rows, "{table}");
    }
}

/// An exchange whose body came in a piece of its own.
fn in_pieces() -> [Record; 3] {
    let whole = exchange(Uuid::now_v7());
    let id = Uuid::from_slice(&whole.id).unwrap();
    [head(&whole), chunk(id, 0, "abc"), end(&whole)]
}

#[tokio::test]
async fn names_ports_and_etags_are_kept_apart() {
    let world = World::new().await;
    let mut db = world.db.acquire().await.unwrap();
    let workspace = world.source.workspace_id;
    let taken = services::create(&mut db, &new_service(workspace, "p", 9_000))
        .await
        .unwrap_err();
    assert!(matches!(taken, store::StoreError::NameTaken { name } if name == "p"));
    let taken = services::create(&mut db, &new_service(workspace, "q", 8_080))
        .await
        .unwrap_err();
    assert!(matches!(taken, store::StoreError::PortTaken { port: 8_080 }));
    let missing = services::create(&mut db, &new_service(WorkspaceId::new(), "q", 9_000))
        .await
        .unwrap_err();
    assert!(matches!(missing, store::StoreError::NotFound));

    let row = services::get(&mut *db, world.source.service_id).await.unwrap().unwrap();
    let change = services::ServiceChange {
        verbose: Some(false),
        ..Default::default()
    };
    let changed = services::update(&mut db, &row, Some(&row.etag()), &change)
        .await
        .unwrap();
    assert_eq!((changed.verbose, changed.revision, changed.port), (false, 2, 8_080));
    let late = services::update(&mut db, &changed, Some(&row.etag()), &change)
        .await
        .unwrap_err();
    assert!(matches!(late, store::StoreError::EtagMismatch));

    let full = workspaces::delete(&mut db, workspace, None).await.unwrap_err();
    assert!(matches!(full, store::StoreError::WorkspaceNotEmpty));
    services::delete(&mut db, row.id, None).await.unwrap();
    workspaces::delete(&mut db, workspace, None).await.unwrap();
}
