//! Ingest and live hub against a real Postgres.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proxyplane_record::{
    BodyChunk, Complete, Exchange, ExchangeKind, ExchangeState, Kind, Record, Side, WebSocketSummary, WsMessage, frame,
};
use proxyplane_spec::{
    CaptureSpec, Epoch, ExchangeId, ListenHost, OnPortConflict, ServiceId, ServiceName, WorkspaceCode, WorkspaceId,
};
use sqlx::AssertSqlSafe;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Health, Ingest, IngestError, IngestHandle, IngestSession, Room, Source};
use crate::{
    lifecycle::Lifecycle,
    live::{Event, Filter, Hub, Subscription},
    postgres::testing,
    store::{
        self, Db, bodies,
        exchanges::{self, ExchangeFilter, ExchangeRow},
        heads,
        page::Page,
        partitions, purge,
        services::{self, NewService},
        websockets::{self, WebSocketFilter},
        workspaces::{self, NewWorkspace},
    },
};

mod faults;
mod history;
mod pipeline;
mod raised;
mod records;
mod watching;

const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    db: Db,
    hub: Hub,
    ingest: IngestHandle,
    source: Source,
    _lifecycle: Lifecycle,
}

impl World {
    async fn new() -> Self {
        let db = testing::database().await;
        let mut transaction = db.begin().await.unwrap();
        let code = WorkspaceCode::parse("code", "w").unwrap();
        let new = NewWorkspace {
            code,
            title: String::new(),
            description: String::new(),
        };
        let workspace = workspaces::create(&mut transaction, &new).await.unwrap();
        let service = services::create(&mut transaction, &new_service(workspace.id, "p", 8080))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        let hub = Hub::new(db.clone());
        let lifecycle = Lifecycle::new();
        let ingest = Ingest::start(
            db.clone(),
            hub.clone(),
            crate::events::channel().0,
            None,
            Room::unknown(),
            &lifecycle,
        );
        let source = Source {
            epoch: Epoch::new(),
            service_id: service.id,
            workspace_id: workspace.id,
        };
        Self {
            db,
            hub,
            ingest,
            source,
            _lifecycle: lifecycle,
        }
    }

    async fn session(&self) -> IngestSession {
        within(self.ingest.open(self.source)).await.unwrap()
    }

    /// Commits these from `seq` on.
    async fn commit(&self, session: &IngestSession, seq: u64, records: &[Record]) {
        session.push(frames(seq, records)).await.unwrap();
        let end = seq + records.len() as u64;
        within(session.acked().wait_for(|acked| *acked >= end)).await.unwrap();
    }

    async fn row(&self, id: Uuid) -> ExchangeRow {
        exchanges::get(&self.db, ExchangeId(id)).await.unwrap().expect("a row")
    }

    async fn count(&self, table: &str) -> i64 {
        let sql = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        sqlx::query_scalar(sql).fetch_one(&self.db).await.unwrap()
    }

    async fn stored(&self) -> u64 {
        services::stored(&self.db, &[self.source.service_id]).await.unwrap()[&self.source.service_id]
    }
}

fn new_service(workspace_id: WorkspaceId, name: &str, port: u16) -> NewService {
    NewService {
        workspace_id,
        name: ServiceName::parse("name", name).unwrap(),
        host: ListenHost::DEFAULT,
        port,
        on_port_conflict: OnPortConflict::default(),
        verbose: true,
        log_out_of_scope: true,
        enabled: false,
        spec: CaptureSpec::default(),
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

fn frames(seq: u64, records: &[Record]) -> Bytes {
    let mut out = BytesMut::new();
    for (seq, record) in (seq..).zip(records) {
        frame::put(&mut out, seq, record);
    }
    out.freeze()
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn exchange(id: Uuid) -> Exchange {
    Exchange {
        id: Bytes::copy_from_slice(id.as_bytes()),
        kind: ExchangeKind::Http as i32,
        state: ExchangeState::Complete as i32,
        started_at_us: (OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000) as i64,
        duration_us: 1_234,
        client: bytes("127.0.0.1:5000"),
        method: bytes("GET"),
        scheme: bytes("http"),
        host: bytes("a.example"),
        port: 80,
        path: bytes("/x"),
        query: Some(Bytes::from_static(b"q=\xff\0")),
        request_version: 11,
        response_version: 11,
        status: 200,
        request_head: Bytes::from_static(b"GET /x?q=\xff\0 HTTP/1.1\r\n\r\n"),
        response_head: bytes("HTTP/1.1 200 OK\r\n\r\n"),
        response_size: 3,
        response_captured: 3,
        ..Exchange::default()
    }
}

fn complete(id: Uuid) -> Record {
    let complete = Complete {
        exchange: exchange(id),
        request_body: Bytes::new(),
        response_body: bytes("abc"),
    };
    Record {
        kind: Some(Kind::Complete(complete)),
    }
}

fn completes(count: usize) -> Vec<Record> {
    (0..count).map(|_| complete(Uuid::now_v7())).collect()
}

fn head(exchange: &Exchange) -> Record {
    let open = Exchange {
        state: ExchangeState::Open as i32,
        status: 0,
        ..exchange.clone()
    };
    Record {
        kind: Some(Kind::Head(open)),
    }
}

fn end(exchange: &Exchange) -> Record {
    Record {
        kind: Some(Kind::End(exchange.clone())),
    }
}

fn chunk(id: Uuid, offset: u64, data: &'static str) -> Record {
    let exchange_id = Bytes::copy_from_slice(id.as_bytes());
    let chunk = BodyChunk {
        exchange_id,
        side: Side::Response as i32,
        offset,
        data: bytes(data),
    };
    Record {
        kind: Some(Kind::BodyChunk(chunk)),
    }
}
