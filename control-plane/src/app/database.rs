//! The database: a private Postgres, or the one of --database-url.

use std::{io, str::FromStr as _, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, log::LevelFilter, warn};

use super::StartError;
use crate::{
    clock,
    config::{Config, DatabaseUrl},
    data_dir::DataDir,
    events::Events,
    health::Health,
    ingest::Room,
    lifecycle::Lifecycle,
    postgres::{Places, Postgres, PostgresError},
    store::{self, Db, error::may_answer_later},
};

/// Connections for everybody but ingest, which has its own. Callers wait for one.
const CONNECTIONS: u32 = 16;
/// How long a caller waits for a connection before it is told that the database is away: it is to know within two
/// seconds.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Connections that are there before somebody asks: on a busy machine a new one takes long.
const READY: u32 = 2;
/// More idle connections are closed after this: each costs the server memory.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// For statements that are under way when the server stops: one that hangs would hold it for ever.
const CLOSE: Duration = Duration::from_secs(5);
/// For an answer to one attempt to connect: a server that hangs takes connections.
const ANSWER: Duration = Duration::from_secs(5);
/// A start says that it waits when it has for so long: a server that is just starting is no news.
const NEWS: Duration = Duration::from_secs(1);
/// Between attempts to connect.
const AGAIN: Duration = Duration::from_millis(50);

/// The database. Whether it answers is not known before [`Self::reach`].
pub(super) struct Database {
    pool: Db,
    /// Of one that is not ours.
    url: Option<DatabaseUrl>,
    private: Option<Private>,
}

struct Private {
    postgres: Postgres,
    keeper: Option<JoinHandle<()>>,
}

impl Database {
    /// Makes the files of the private server unless there is a URL. Connects to nobody yet.
    pub(super) async fn open(config: &Config, data: &DataDir) -> Result<Self, StartError> {
        let url = config.database_url.clone();
        let (options, private) = if let Some(url) = &url {
            (external(url)?, None)
        } else {
            let places = Places {
                root: data.root().to_owned(),
                run: data.run().to_owned(),
                log: data.log(),
                secrets: data.secrets(),
            };
            let (postgres, keeper) = (Postgres::open(&places).await?, None);
            (postgres.options().clone(), Some(Private { postgres, keeper }))
        };
        let options = options
            .application_name("proxyplane")
            .log_statements(LevelFilter::Trace);
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .min_connections(READY)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(IDLE_TIMEOUT)
            .connect_lazy_with(options);
        Ok(Self { pool, url, private })
    }

    /// Starts the private server unless it runs, waits until the database answers, and migrates it. What does not pass by
    /// itself ends the waiting, and so do [`store::START_PATIENCE`].
    pub(super) async fn reach(&self, health: &Health, events: &Events) -> Result<(), StartError> {
        self.run().await?;
        health.awaits_database("has not answered yet");
        let (began, since) = (Instant::now(), clock::now());
        let mut is_told = false;
        while let Err(error) = self.attempt().await {
            if !may_answer_later(&error) || began.elapsed() >= store::START_PATIENCE {
                return Err(self.unreachable(error));
            }
            health.awaits_database(format!("{error}; waited for since {}", clock::shown(since)));
            if is_told || began.elapsed() < NEWS {
                debug!(%error, "the database does not answer; trying again");
            } else {
                warn!(%error, "the database does not answer; waiting for it");
                is_told = true;
            }
            sleep(AGAIN).await;
            // It may have ended meanwhile, or somebody ended it because it hung.
            if !self.is_there() {
                self.run().await?;
            }
        }
        health.awaits_database("answers; what is stored is being read");
        store::patiently(|| store::migrate(&self.pool)).await?;
        if is_told {
            events.database_awaited(since);
        }
        info!(url = self.url.as_ref().map(display), "the database is ready");
        Ok(())
    }

    /// From now on the private server is started again whenever it is gone.
    pub(super) fn keep_running(&mut self) {
        if let Some(Private { postgres, keeper }) = &mut self.private {
            let kept = postgres.clone();
            *keeper = Some(tokio::spawn(async move { kept.keep_running().await }));
        }
    }

    pub(super) fn pool(&self) -> &Db {
        &self.pool
    }

    /// Room on its disk; not known of one that is not ours.
    pub(super) fn room(&self) -> Room {
        let private = self.private.as_ref();
        private.map_or_else(Room::unknown, |private| Room::at(private.postgres.data().to_owned()))
    }

    /// Until a stop is wanted that would have to wait for a database that is away. A start that can come to its end does:
    /// only then there is somebody who stops the workers.
    pub(super) async fn holds_up_stop(&self, process: &Lifecycle) {
        process.stopping().cancelled().await;
        // Files of a private server that are being made are soon made, and it is soon there.
        while !self.is_there() || self.answers().await {
            sleep(AGAIN).await;
        }
    }

    /// Closes the connections and stops the private server.
    pub(super) async fn stop(self) {
        if timeout(CLOSE, self.pool.close()).await.is_err() {
            warn!("the database does not answer; its connections are cut off");
        }
        if let Some(Private { postgres, keeper }) = self.private {
            if let Some(keeper) = keeper {
                keeper.abort();
                // It must not find the server gone and start it again.
                let _ = keeper.await;
            }
            report(postgres.stop().await);
        }
    }

    /// The same for one that does not answer, and so does not hold the stop up.
    pub(super) async fn abandon(self) {
        if let Some(Private { postgres, keeper }) = self.private {
            if let Some(keeper) = keeper {
                keeper.abort();
                let _ = keeper.await;
            }
            report(postgres.stop_silent().await);
        }
    }

    async fn run(&self) -> Result<(), PostgresError> {
        match &self.private {
            Some(private) => private.postgres.run().await,
            None => Ok(()),
        }
    }

    /// Is there a process, as far as can be known?
    fn is_there(&self) -> bool {
        self.private
            .as_ref()
            .is_none_or(|private| private.postgres.is_running())
    }

    /// Connects once. Not through the pool: it would wait and then say no more than that it waited.
    async fn attempt(&self) -> Result<(), sqlx::Error> {
        let connecting = async {
            match &self.private {
                Some(private) => private.postgres.admit().await,
                None => self.pool.connect_options().connect().await?.close().await,
            }
        };
        let silence = || io::Error::new(io::ErrorKind::TimedOut, "no answer");
        timeout(ANSWER, connecting)
            .await
            .unwrap_or_else(|_| Err(silence().into()))
    }

    fn unreachable(&self, error: sqlx::Error) -> StartError {
        match &self.url {
            Some(url) => StartError::Database {
                url: url.to_string(),
                error,
            },
            None => PostgresError::Silent(error.to_string()).into(),
        }
    }

    /// Is it there, or is something else than that wrong?
    async fn answers(&self) -> bool {
        let asking = async {
            while store::ping(&self.pool).await.is_err_and(|error| error.is_unavailable()) {
                sleep(AGAIN).await;
            }
        };
        timeout(ACQUIRE_TIMEOUT, asking).await.is_ok()
    }
}

fn report(stopped: Result<(), PostgresError>) {
    if let Err(error) = stopped {
        warn!(%error, "the private Postgres could not be stopped");
    }
}

fn external(url: &DatabaseUrl) -> Result<PgConnectOptions, StartError> {
    PgConnectOptions::from_str(url.secret()).map_err(|error| StartError::Database {
        url: url.to_string(),
        error,
    })
}
