//! How fast ingest is, and what it costs. Not a test of anything; prints figures:
//!
//!     INGEST_PACE=15000 cargo test --release -p proxyplane --lib -- --ignored --nocapture ingest_of_100k

use std::{
    fs,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use proxyplane_record::{Complete, Exchange, Kind, Record, Timings, TlsInfo, frame};
use proxyplane_spec::{Epoch, ServiceId, WorkspaceId};
use uuid::Uuid;

use super::{Ingest, Room, Source};
use crate::{lifecycle::Lifecycle, live::Hub, postgres::testing};

const EXCHANGES: u64 = 100_000;
/// Records in one batch of the link.
const RUN: u64 = 50;

/// How many exchanges come per second; 0 for as many as are taken. Small batches cost more than large ones.
fn pace() -> f64 {
    std::env::var("INGEST_PACE")
        .ok()
        .and_then(|pace| pace.parse().ok())
        .unwrap_or(0.0)
}

#[tokio::test]
#[ignore = "prints figures; run by hand in release"]
async fn ingest_of_100k_exchanges_with_1_kib_bodies() {
    let db = testing::database().await;
    let lifecycle = Lifecycle::new();
    let ingest = Ingest::start(
        db.clone(),
        Hub::new(db.clone()),
        crate::events::channel().0,
        None,
        Room::unknown(),
        &lifecycle,
    );
    let source = Source {
        epoch: Epoch::new(),
        service_id: ServiceId::new(),
        workspace_id: WorkspaceId::new(),
    };
    let session = ingest.open(source).await.unwrap();
    let body = Bytes::from(vec![b'x'; 1_024]);
    for round in 0..3 {
        let runs: Vec<Bytes> = (0..EXCHANGES / RUN)
            .map(|run| frames(round * EXCHANGES + run * RUN, &body))
            .collect();
        let (before, own, backend) = (Instant::now(), cpu_of("/proc/self/stat"), postgres_cpu(&db).await);
        let commits = commits_of(&db).await;
        for (index, run) in runs.into_iter().enumerate() {
            if pace() > 0.0 {
                let due = Duration::from_secs_f64(index as f64 * RUN as f64 / pace());
                tokio::time::sleep_until((before + due).into()).await;
            }
            session.push(run).await.unwrap();
        }
        let end = (round + 1) * EXCHANGES;
        session.acked().wait_for(|acked| *acked == end).await.unwrap();
        let elapsed = before.elapsed();
        let per = |cpu: Duration| cpu.as_secs_f64() * 1e6 / EXCHANGES as f64;
        println!(
            "{:.0} exchanges/s in {} transactions; µs CPU per exchange: ingest {:.1}, postgres {:.1}",
            EXCHANGES as f64 / elapsed.as_secs_f64(),
            commits_of(&db).await - commits,
            per(cpu_of("/proc/self/stat").checked_sub(own).unwrap()),
            per(postgres_cpu(&db).await.checked_sub(backend).unwrap()),
        );
    }
}

async fn commits_of(db: &crate::store::Db) -> i64 {
    let commits = "SELECT pg_stat_get_db_xact_commit(oid) FROM pg_database WHERE datname = current_database()";
    sqlx::query_scalar(commits).fetch_one(db).await.unwrap()
}

fn frames(seq: u64, body: &Bytes) -> Bytes {
    let mut out = BytesMut::new();
    for seq in seq..seq + RUN {
        frame::put(&mut out, seq, &record(seq, body));
    }
    out.freeze()
}

fn record(seq: u64, body: &Bytes) -> Record {
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    let tls = TlsInfo {
        version: text("TLSv1.3"),
        cipher: text("TLS13_AES_128_GCM_SHA256"),
        ..TlsInfo::default()
    };
    let exchange = Exchange {
        id: Bytes::copy_from_slice(Uuid::now_v7().as_bytes()),
        kind: 1,
        state: 2,
        started_at_us: 1_795_000_000_000_000,
        duration_us: 900,
        client: text("127.0.0.1:50000"),
        method: text("GET"),
        scheme: text("https"),
        host: text("origin.example"),
        port: 443,
        path: Bytes::from(format!("/api/v1/items/{seq}")),
        query: Some(text("page=3&sort=name")),
        request_version: 11,
        response_version: 11,
        status: 200,
        request_head: Bytes::from(vec![b'h'; 220]),
        response_head: Bytes::from(vec![b'h'; 180]),
        response_size: 1_024,
        response_captured: 1_024,
        timings: Timings {
            first_byte_us: Some(800),
            ..Timings::default()
        },
        origin_address: text("127.0.0.1:8443"),
        client_tls: Some(tls.clone()),
        origin_tls: Some(tls),
        flags: 4,
        response_content_type: text("application/json"),
        ..Exchange::default()
    };
    Record {
        kind: Some(Kind::Complete(Complete {
            exchange,
            request_body: Bytes::new(),
            response_body: body.clone(),
        })),
    }
}

/// CPU of a process and of the children it waited for, in ticks of 10 ms.
fn cpu_of(stat: &str) -> Duration {
    let Ok(text) = fs::read_to_string(stat) else {
        return Duration::ZERO;
    };
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: u64 = fields[11..15]
        .iter()
        .map(|field| field.parse::<u64>().unwrap_or(0))
        .sum();
    Duration::from_millis(ticks * 10)
}

/// CPU of the postmaster and all its children.
async fn postgres_cpu(db: &crate::store::Db) -> Duration {
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(db)
        .await
        .unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap()
        .trim()
        .to_owned();
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    let all = children.split_whitespace().chain([parent.as_str()]);
    all.map(|pid| cpu_of(&format!("/proc/{pid}/stat"))).sum()
}
