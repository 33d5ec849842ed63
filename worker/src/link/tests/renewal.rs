//! Intermediates that come to a third of their life, or to its end.

use time::{Duration, OffsetDateTime};

use super::{
    stage::{Session, certificates},
    *,
};

/// Certificates that hold from this long ago until this far from now.
fn held(csr_der: &[u8], ago: Duration, left: Duration) -> wire::Certificates {
    let now = OffsetDateTime::now_utc();
    certificates(csr_der, now - ago, now + left)
}

/// Has the worker begin with `certificates`.
async fn welcomed(stage: &mut Stage, certificates: impl FnOnce(&[u8]) -> wire::Certificates) -> (Session, wire::Hello) {
    let mut session = stage.session().await;
    let hello = session.hello().await;
    session.welcome_with(certificates(&hello.csr_der), config(1)).await;
    assert_eq!(session.next().await, Up::Ready(wire::Ready { revision: 1 }));
    (session, hello)
}

/// Whatever the worker has to ask comes before its later answers: it looks at its clock whenever it waits for an order.
async fn asks_for_nothing_more(session: &mut Session) {
    for revision in 2..40 {
        session.order(Down::Stage(config(revision))).await;
        assert_eq!(session.answer().await, Up::Staged(wire::Staged { revision }));
    }
}

#[tokio::test]
async fn a_due_intermediate_is_renewed_once_and_for_the_same_key() {
    let mut stage = Stage::set();
    let _worker = stage.start_worker();
    let due = |csr: &[u8]| held(csr, Duration::days(3), Duration::days(5));
    let (mut session, hello) = welcomed(&mut stage, due).await;
    let Up::Renew(renew) = session.answer().await else {
        panic!("no renewal is asked for")
    };
    assert_eq!(renew.csr_der, hello.csr_der);
    let fresh = held(&renew.csr_der, Duration::DAY, Duration::days(7));
    session.order(Down::Certificates(fresh)).await;
    stage.one_exchange().await;
    asks_for_nothing_more(&mut session).await;
}

#[tokio::test]
async fn every_intermediate_is_renewed_at_a_third_of_its_life_while_connections_go_on() {
    // Certificates count in whole seconds.
    const LIFE: Duration = Duration::seconds(6);
    let mut stage = Stage::set();
    let _worker = stage.start_worker();
    let mut begun = OffsetDateTime::now_utc();
    let (mut session, _) = welcomed(&mut stage, |csr| held(csr, Duration::ZERO, LIFE)).await;
    let mut client = stage.client().await;
    for _ in 0..2 {
        let Up::Renew(renew) = session.answer().await else {
            panic!("no renewal is asked for")
        };
        let age = OffsetDateTime::now_utc() - begun;
        assert!(age >= LIFE / 3 - Duration::SECOND, "already after {age}");
        client.write_all(b"ping").await.unwrap();
        client.read_exact(&mut [0; 4]).await.unwrap();
        begun = OffsetDateTime::now_utc();
        session
            .order(Down::Certificates(held(&renew.csr_der, Duration::ZERO, LIFE)))
            .await;
    }
}

#[tokio::test]
async fn a_root_near_its_end_is_not_asked_over_and_over() {
    let mut stage = Stage::set();
    let _worker = stage.start_worker();
    let due = |csr: &[u8]| held(csr, Duration::DAY, Duration::hours(1));
    let (mut session, hello) = welcomed(&mut stage, due).await;
    assert!(matches!(session.answer().await, Up::Renew(_)));
    session.order(Down::Certificates(due(&hello.csr_der))).await;
    asks_for_nothing_more(&mut session).await;
}

#[tokio::test]
async fn an_intermediate_that_expired_while_nobody_was_there_is_replaced_by_the_next_welcome() {
    let mut stage = Stage::set();
    let _worker = stage.start_worker();
    let expired = |csr: &[u8]| held(csr, Duration::days(8), -Duration::HOUR);
    let (session, _) = welcomed(&mut stage, expired).await;
    drop(session);
    let fresh = |csr: &[u8]| held(csr, Duration::DAY, Duration::days(7));
    let (mut session, _) = welcomed(&mut stage, fresh).await;
    session.order(Down::Stage(config(2))).await;
    let next = session.answer().await;
    assert_eq!(
        next,
        Up::Staged(wire::Staged { revision: 2 }),
        "nothing is to be renewed"
    );
}
