//! A worker's whole life against a control plane that the tests play.

mod renewal;
mod stage;

use std::collections::HashMap;

use proxyplane_proto::worker::{self as wire, session_request::Message as Up, session_response::Message as Down};
use proxyplane_record::{Kind, error_code};
use proxyplane_spec::monotonic_us;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::stage::{Stage, WHICH_THREAD, config, frames};
use crate::{app::Fatal, link::FEATURES};

#[tokio::test]
async fn a_worker_lives_from_hello_to_drained() {
    let mut stage = Stage::set();
    let worker = stage.start_worker();

    let mut session = stage.session().await;
    let hello = session.hello().await;
    assert_eq!(hello.identity.unwrap(), stage.identity());
    assert_eq!(
        (hello.protocol, hello.features),
        (1, FEATURES.iter().map(|&name| name.to_owned()).collect())
    );
    session.welcome(&hello.csr_der, config(1)).await;
    assert_eq!(session.next().await, Up::Ready(wire::Ready { revision: 1 }));

    let mut records = stage.records_from(0).await;

    let mut client = stage.client().await;
    client.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ping");
    drop(client);
    let sent = frames(&records.next().await.frames);
    assert!(matches!(&sent[..], [(0, Kind::Complete(complete))] if complete.request_body == b"ping"[..]));

    session.drain(5_000).await;
    stage.nobody_listens().await;
    assert!(!worker.is_finished(), "it waits for its records to be committed");
    records.ack(1).await;
    session.drained().await;
    worker.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_deadline_closes_what_is_open() {
    let mut stage = Stage::set();
    let worker = stage.start_worker();
    let session = stage.ready().await;
    let mut records = stage.records_from(0).await;

    let mut client = stage.client().await;
    client.write_all(b"half").await.unwrap();
    client.read_exact(&mut [0; 4]).await.unwrap();
    session.drain(100).await;
    assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
    let sent = frames(&records.next().await.frames);
    assert!(matches!(&sent[..], [(0, Kind::Complete(complete))]
        if complete.exchange.error == error_code::DRAINED.as_bytes()));
    records.ack(1).await;
    session.drained().await;
    worker.await.unwrap().unwrap();
}

#[tokio::test]
async fn records_are_sent_again_until_they_are_committed() {
    let mut stage = Stage::set();
    let _worker = stage.start_worker();
    let _session = stage.ready().await;
    let mut records = stage.records_from(0).await;
    for expected in 0..3 {
        stage.one_exchange().await;
        assert_eq!(frames(&records.next().await.frames)[0].0, expected);
    }
    records.ack(1).await;
    drop(records);

    let mut again = stage.records_from(2).await;
    assert_eq!(frames(&again.next().await.frames)[0].0, 2);
}

#[tokio::test]
async fn a_lost_session_is_dialled_again_while_traffic_goes_on() {
    let mut stage = Stage::set();
    let began = monotonic_us();
    let _worker = stage.start_worker();
    drop(stage.ready().await);
    let ready = monotonic_us();
    stage.one_exchange().await;

    let mut session = stage.session().await;
    let hello = session.hello().await;
    assert!(
        (began..=ready).contains(&hello.serving_since_us),
        "it says since when it serves, however late that is heard"
    );
    session.welcome(&hello.csr_der, config(7)).await;
    assert_eq!(
        session.next().await,
        Up::Ready(wire::Ready { revision: 7 }),
        "the database's revision is in force"
    );
}

#[tokio::test]
async fn a_change_is_in_force_after_stage_and_activate() {
    let mut stage = Stage::set();
    let _worker = stage.start_worker();
    let mut session = stage.ready().await;

    session.order(Down::Activate(wire::Activate { revision: 2 })).await;
    assert_eq!(session.rejection().await.0, 2);
    session.order(Down::Stage(config(2))).await;
    assert_eq!(session.answer().await, Up::Staged(wire::Staged { revision: 2 }));
    session.order(Down::Activate(wire::Activate { revision: 2 })).await;
    assert_eq!(session.answer().await, Up::Applied(wire::Applied { revision: 2 }));
    session.order(Down::Activate(wire::Activate { revision: 2 })).await;
    assert_eq!(
        session.answer().await,
        Up::Applied(wire::Applied { revision: 2 }),
        "an answer may have been lost"
    );
}

#[tokio::test]
async fn a_change_that_cannot_be_built_is_rejected_with_its_fields() {
    let mut stage = Stage::set();
    let _worker = stage.start_worker();
    let mut session = stage.ready().await;
    let capture = wire::Capture {
        extra_ca_pem: "garbage".into(),
        ..wire::Capture::default()
    };
    session
        .order(Down::Stage(wire::WorkerConfig {
            capture: Some(capture),
            ..config(2)
        }))
        .await;
    assert_eq!(session.rejection().await, (2, "capture.extra_ca_pem".to_owned()));
    session
        .order(Down::Stage(wire::WorkerConfig {
            required_features: vec!["reverse".into()],
            ..config(3)
        }))
        .await;
    assert_eq!(session.rejection().await, (3, "required_features".to_owned()));
}

#[tokio::test]
async fn listeners_that_do_not_come_are_a_refusal_and_the_old_ones_are_served() {
    let mut stage = Stage::set();
    let _worker = stage.start_worker();
    let mut session = stage.ready().await;
    for listeners in [vec!["127.0.0.1:1".to_owned()], vec!["nowhere".to_owned()]] {
        let elsewhere = wire::WorkerConfig { listeners, ..config(2) };
        session.order(Down::Stage(elsewhere)).await;
        let (revision, field) = session.rejection().await;
        assert!(revision == 2 && field.starts_with("listeners"), "{field}");
        session.order(Down::Activate(wire::Activate { revision: 2 })).await;
        session.rejection().await;
    }
    stage.one_exchange().await;
}

#[tokio::test]
async fn statistics_come_when_asked_for_and_when_they_change() {
    let mut stage = Stage::set();
    let _worker = stage.start_worker();
    let mut session = stage.ready().await;
    session.order(Down::ReportStats(wire::ReportStats {})).await;
    session
        .wait_for(|message| matches!(message, Up::Stats(stats) if stats.requests == 0))
        .await;
    stage.one_exchange().await;
    session
        .wait_for(|message| {
            matches!(message, Up::Stats(stats)
        if stats.requests == 1 && stats.bytes_in == 4 && stats.bytes_out == 4)
        })
        .await;
}

#[tokio::test]
async fn a_first_configuration_that_cannot_be_used_ends_the_worker() {
    let mut stage = Stage::set();
    let worker = stage.start_worker();
    let mut session = stage.session().await;
    let hello = session.hello().await;
    let bad = wire::WorkerConfig {
        control_addresses: vec!["nowhere".into()],
        ..config(1)
    };
    session.welcome(&hello.csr_der, bad).await;
    assert_eq!(session.rejection().await.1, "control_addresses[0]");
    drop(session);
    assert!(matches!(worker.await.unwrap(), Err(Fatal::CannotBegin(_))));
}

#[tokio::test]
async fn a_worker_that_is_not_wanted_ends() {
    let mut stage = Stage::set();
    let worker = stage.start_worker();
    let mut session = stage.session().await;
    session.hello().await;
    session.refuse(tonic::Status::permission_denied("wrong nonce")).await;
    assert!(matches!(worker.await.unwrap(), Err(Fatal::CannotBegin(_))));
}

#[tokio::test]
async fn a_connection_that_panics_ends_alone() {
    let mut stage = Stage::set();
    let _worker = stage.start_worker();
    let mut session = stage.ready().await;
    let mut other = stage.client().await;
    let mut doomed = stage.client().await;
    doomed.write_all(b"boom").await.unwrap();
    assert_eq!(doomed.read(&mut [0; 1]).await.unwrap_or(0), 0);
    other.write_all(b"ping").await.unwrap();
    other.read_exact(&mut [0; 4]).await.unwrap();
    stage.one_exchange().await;
    session
        .wait_for(|message| matches!(message, Up::Stats(stats) if stats.panics == 1))
        .await;
}

#[tokio::test]
async fn connections_are_spread_over_the_threads() {
    let mut stage = Stage::set();
    let _worker = stage.start_worker();
    let _session = stage.ready().await;
    let (mut open, mut threads) = (Vec::new(), HashMap::new());
    for _ in 0..10 {
        let mut client = stage.client().await;
        client.write_all(WHICH_THREAD).await.unwrap();
        let mut name = [0; 6];
        client.read_exact(&mut name).await.unwrap();
        *threads.entry(name).or_insert(0) += 1;
        open.push(client);
    }
    assert!(threads[b"data-0"] >= 4 && threads[b"data-1"] >= 4, "{threads:?}");
}
