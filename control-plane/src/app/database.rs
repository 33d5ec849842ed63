//! The database: a private Postgres, or the one of --database-url.

use std::{str::FromStr as _, time::Duration};

use sqlx::{
    ConnectOptions as _,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{task::JoinHandle, time::timeout};
use tracing::{info, log::LevelFilter, warn};

use super::StartError;
use crate::{
    config::{Config, DatabaseUrl},
    data_dir::DataDir,
    ingest::Room,
    postgres::{Places, Postgres},
    store::{self, Db},
};

/// Connections for everybody but ingest, which has its own. Callers wait for one.
const CONNECTIONS: u32 = 16;
/// How long a caller waits for a connection before it is told that the database is away: it is to know within two
/// seconds.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Idle connections are closed after this: each costs the server memory.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// For statements that are under way when the server stops: one that hangs would hold it for ever.
const CLOSE: Duration = Duration::from_secs(5);

/// The database, migrated.
pub(super) struct Database {
    pool: Db,
    private: Option<Private>,
}

struct Private {
    postgres: Postgres,
    keeper: JoinHandle<()>,
}

impl Database {
    /// Starts the private server unless there is a URL, connects and migrates.
    pub(super) async fn start(config: &Config, data: &DataDir) -> Result<Self, StartError> {
        let (options, private) = if let Some(url) = &config.database_url {
            (external(url)?, None)
        } else {
            let private = Private::start(data).await?;
            (private.postgres.options().clone(), Some(private))
        };
        let options = options
            .application_name("proxyplane")
            .log_statements(LevelFilter::Trace);
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(IDLE_TIMEOUT)
            .connect_lazy_with(options);
        let database = Self { pool, private };
        match database.prepare(config.database_url.as_ref()).await {
            Ok(()) => Ok(database),
            Err(error) => {
                database.stop().await;
                Err(error)
            }
        }
    }

    async fn prepare(&self, url: Option<&DatabaseUrl>) -> Result<(), StartError> {
        if let Some(url) = url {
            // Not through the pool: it would wait and then say no more than that it waited.
            let connection = self.pool.connect_options().connect().await;
            connection.map_err(|error| StartError::Database {
                url: url.to_string(),
                error,
            })?;
        }
        store::patiently(|| store::migrate(&self.pool)).await?;
        if let Some(url) = url {
            info!(%url, "the database is ready");
        }
        Ok(())
    }

    pub(super) fn pool(&self) -> &Db {
        &self.pool
    }

    /// Room on its disk; not known of one that is not ours.
    pub(super) fn room(&self) -> Room {
        let private = self.private.as_ref();
        private.map_or_else(Room::unknown, |private| Room::at(private.postgres.data().to_owned()))
    }

    /// Closes the connections and stops the private server.
    pub(super) async fn stop(self) {
        if timeout(CLOSE, self.pool.close()).await.is_err() {
            warn!("the database does not answer; its connections are cut off");
        }
        if let Some(Private { postgres, keeper }) = self.private {
            keeper.abort();
            // It must not find the server gone and start it again.
            let _ = keeper.await;
            if let Err(error) = postgres.stop().await {
                warn!(%error, "the private Postgres could not be stopped");
            }
        }
    }
}

impl Private {
    async fn start(data: &DataDir) -> Result<Self, StartError> {
        let places = Places {
            root: data.root().to_owned(),
            run: data.run().to_owned(),
            log: data.log(),
            secrets: data.secrets(),
        };
        let postgres = Postgres::start(&places).await?;
        let kept = postgres.clone();
        let keeper = tokio::spawn(async move { kept.keep_running().await });
        Ok(Self { postgres, keeper })
    }
}

fn external(url: &DatabaseUrl) -> Result<PgConnectOptions, StartError> {
    PgConnectOptions::from_str(url.secret()).map_err(|error| StartError::Database {
        url: url.to_string(),
        error,
    })
}
