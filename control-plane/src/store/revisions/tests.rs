use proxyplane_spec::{WorkspaceCode, WorkspaceId};

use super::*;
use crate::{
    postgres::testing,
    store::{
        Db,
        services::{self, NewService},
        workspaces::{self, NewWorkspace},
    },
};

const MIGRATION: &str = include_str!("../../../../migrations/0007_service_revisions.sql");

async fn workspace(db: &Db) -> WorkspaceId {
    let new = NewWorkspace {
        code: WorkspaceCode::parse("code", "w").unwrap(),
        title: String::new(),
        description: String::new(),
    };
    let mut connection = db.acquire().await.unwrap();
    workspaces::create(&mut connection, &new).await.unwrap().id
}

async fn service(db: &Db) -> ServiceRow {
    let new = NewService {
        workspace_id: workspace(db).await,
        name: ServiceName::parse("name", "p").unwrap(),
        host: ListenHost::DEFAULT,
        port: 8080,
        on_port_conflict: OnPortConflict::default(),
        verbose: true,
        log_out_of_scope: true,
        enabled: false,
        spec: spec(&["bank.example"]),
    };
    let mut connection = db.acquire().await.unwrap();
    services::create(&mut connection, &new).await.unwrap()
}

fn spec(hosts: &[&str]) -> CaptureSpec {
    let raw = RawCapture {
        passthrough_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        ..RawCapture::default()
    };
    CaptureSpec::parse(&raw).unwrap()
}

async fn update(db: &Db, id: ServiceId, change: ServiceChange) -> ServiceRow {
    let mut connection = db.acquire().await.unwrap();
    let row = services::lock(&mut connection, id).await.unwrap().unwrap();
    services::update(&mut connection, &row, None, &change).await.unwrap()
}

fn verbose(verbose: bool) -> ServiceChange {
    ServiceChange {
        verbose: Some(verbose),
        ..ServiceChange::default()
    }
}

async fn all(db: &Db, id: ServiceId) -> Vec<RevisionRow> {
    list(db, id, &Page::first()).await.unwrap().rows
}

#[tokio::test]
async fn a_creation_and_each_change_are_revisions_that_say_what_changed() {
    let db = testing::database().await;
    let made = service(&db).await;
    let change = ServiceChange {
        capture: spec(&["bank.example", "*.bank.example"]).into(),
        ..verbose(false)
    };
    let changed = update(&db, made.id, change).await;
    let rows = all(&db, made.id).await;
    let expected = ["capture.passthrough_hosts", "verbose"].map(str::to_owned);
    assert_eq!((rows[0].revision, rows[0].cause), (2, Cause::Update));
    assert_eq!(
        (rows[0].changed.as_slice(), rows[0].made_at),
        (expected.as_slice(), changed.updated_at)
    );
    assert_eq!(
        (rows[1].revision, rows[1].cause, rows[1].changed.len()),
        (1, Cause::Create, 0)
    );
    assert_eq!(rows.len(), 2);
}

#[tokio::test]
async fn a_revision_brings_back_everything_that_changed_since() {
    let db = testing::database().await;
    let made = service(&db).await;
    let everything = ServiceChange {
        name: Some(ServiceName::parse("name", "q").unwrap()),
        host: Some(ListenHost::Localhost),
        port: Some(9090),
        on_port_conflict: Some(OnPortConflict::Retry),
        verbose: Some(false),
        log_out_of_scope: Some(false),
        capture: spec(&[]).into(),
        rollback_of: None,
    };
    update(&db, made.id, everything).await;
    let (_, held) = get(&db, made.id, 1).await.unwrap().unwrap();
    let back = update(&db, made.id, held.restored(1)).await;
    let expected = ServiceRow {
        revision: 3,
        updated_at: back.updated_at,
        ..made
    };
    assert_eq!(back, expected);
    assert_eq!(all(&db, back.id).await[0].cause, Cause::Rollback { from: 1 });
}

#[tokio::test]
async fn a_change_that_changes_nothing_is_no_revision() {
    let db = testing::database().await;
    let made = service(&db).await;
    let again = ServiceChange {
        name: Some(ServiceName::parse("name", &made.name).unwrap()),
        capture: made.spec.clone().into(),
        ..verbose(made.verbose)
    };
    assert_eq!(update(&db, made.id, again).await, made);
    assert_eq!(all(&db, made.id).await.len(), 1);
    let mut connection = db.acquire().await.unwrap();
    let late = services::update(&mut connection, &made, Some("0"), &verbose(made.verbose)).await;
    assert!(matches!(late, Err(StoreError::EtagMismatch)), "{late:?}");
}

#[tokio::test]
async fn only_the_last_are_kept() {
    let db = testing::database().await;
    let id = service(&db).await.id;
    for revision in 2..=KEPT + 2 {
        update(&db, id, verbose(revision % 2 == 1)).await;
    }
    let kept: Vec<_> = all(&db, id).await.iter().map(|row| row.revision).collect();
    assert_eq!(kept, (3..=KEPT + 2).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn they_go_with_their_service() {
    let db = testing::database().await;
    let id = service(&db).await.id;
    let mut connection = db.acquire().await.unwrap();
    services::delete(&mut connection, id, None).await.unwrap();
    assert_eq!(all(&db, id).await, []);
}

#[tokio::test]
async fn services_of_an_older_database_begin_with_their_present_state() {
    let db = testing::database().await;
    let id = service(&db).await.id;
    let now = update(&db, id, verbose(false)).await;
    sqlx::raw_sql("DROP TABLE service_revisions")
        .execute(&db)
        .await
        .unwrap();
    sqlx::raw_sql(MIGRATION).execute(&db).await.unwrap();
    let rows = all(&db, id).await;
    assert_eq!((rows.len(), rows[0].revision, rows[0].made_at), (1, 2, now.updated_at));
    let (_, held) = get(&db, id, 2).await.unwrap().unwrap();
    assert_eq!((held.verbose, held.port, &held.spec), (false, 8080, &now.spec));
    let back = update(&db, id, held.restored(2)).await;
    assert_eq!(back.spec, now.spec);
    assert!(
        all(&db, id).await[0].changed.is_empty(),
        "the migration and the code write the same form"
    );
}
