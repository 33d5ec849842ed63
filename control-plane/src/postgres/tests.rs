use std::fs;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{ConnectOptions as _, PgConnection};

use super::{Places, Postgres, testing};

fn pid(places: &Places) -> i32 {
    let text = fs::read_to_string(places.root.join("pg/data/postmaster.pid")).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

async fn ask(postgres: &Postgres, what: &'static str) -> String {
    let mut connection: PgConnection = postgres.options().connect().await.unwrap();
    sqlx::query_scalar(what).fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn the_private_server_is_started_reused_restarted_and_stopped() {
    let (_directory, places) = testing::places();
    let postgres = testing::started(&places).await;
    assert_eq!(ask(&postgres, "SHOW listen_addresses").await, "");
    assert_eq!(ask(&postgres, "SHOW fsync").await, "on");
    assert_eq!(ask(&postgres, "SELECT current_database()").await, "proxyplane");

    let first = pid(&places);
    let again = testing::started(&places).await;
    assert_eq!(pid(&places), first, "a server that runs is used again");

    let keeper = tokio::spawn({
        let postgres = postgres.clone();
        async move { postgres.keep_running().await }
    });
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    testing::eventually("a server that was killed is started again", async || {
        again.cluster.is_running() && pid(&places) != first && postgres.options().connect().await.is_ok()
    })
    .await;
    keeper.abort();

    postgres.stop().await.unwrap();
    assert!(!postgres.cluster.is_running());
    let log = fs::read_to_string(places.log.join("postgres.log")).unwrap();
    assert!(log.contains("database system is ready"), "{log}");
}

#[tokio::test]
async fn a_wrong_password_does_not_get_in() {
    let (_directory, places) = testing::places();
    let postgres = testing::started(&places).await;
    assert!(postgres.options().clone().password("wrong").connect().await.is_err());
    postgres.stop().await.unwrap();
}
