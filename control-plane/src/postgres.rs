//! The private Postgres: a server of the installed binaries, in its own session, on a unix socket only.
//!
//! It outlives a control plane that dies, and the next one uses it again. As root it runs as user `postgres`, or as
//! `nobody` where that does not exist: `initdb` refuses root. Its files are in `pg/` of the data directory; its
//! configuration is written anew at every start, and `pg/data/custom.conf`, if there is one, has the last word.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::postgres::PgConnectOptions;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

mod account;
mod cluster;
mod install;
mod postmaster;
mod server;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use account::Account;
use cluster::Cluster;

/// Between looks at whether the server still runs.
const WATCH: Duration = Duration::from_secs(1);

/// Why there is no private Postgres.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No usable server is installed.
    #[error(
        "no Postgres server, version 14 or later, is installed: {}; or give --database-url",
        install::HINT
    )]
    NotInstalled,
    /// The data were made by a version that is no longer installed.
    #[error(
        "the database in {data} was made by Postgres {version}, which is not installed: \
         apt-get install postgresql-{version} (Debian, Ubuntu) or dnf install postgresql{version}-server (Fedora, RHEL)"
    )]
    VersionGone {
        /// Where the data are.
        data: PathBuf,
        /// Major version that made them.
        version: u32,
    },
    /// We are root, and there is nobody else to run it.
    #[error("Postgres does not run as root, and there is neither a user 'postgres' nor 'nobody'")]
    NoAccount,
    /// The account cannot get to the data directory.
    #[error(
        "user '{account}' cannot enter {path}, so Postgres cannot run there: choose another --data-dir or chmod o+x it"
    )]
    Unreachable {
        /// Whom Postgres runs as.
        account: String,
        /// The directory that is closed to it.
        path: PathBuf,
    },
    /// A file or program could not be used.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        error: io::Error,
    },
    /// `initdb` or `pg_ctl` failed.
    #[error("{program} failed: {output}")]
    Failed {
        /// Which.
        program: &'static str,
        /// Its last lines, or those of the server's log.
        output: String,
    },
    /// It runs but lets nobody in.
    #[error("the private Postgres does not answer: {0}")]
    Silent(String),
}

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The data directory: gets `pg/`. Others must be able to pass it (0711).
    pub root: PathBuf,
    /// For the socket's directory, unless its path is too long. Others must be able to pass it (0711).
    pub run: PathBuf,
    /// For `postgres.log`.
    pub log: PathBuf,
    /// For `database.password`.
    pub secrets: PathBuf,
}

/// The private server. Dropping it leaves the server as it is; cloning shares it.
#[derive(Clone, Debug)]
pub struct Postgres {
    cluster: Arc<Cluster>,
    options: PgConnectOptions,
}

impl Postgres {
    /// Makes everything at the first start. The server may run from before, or not: see [`Self::run`].
    pub async fn open(places: &Places) -> Result<Self, PostgresError> {
        let account = Account::choose()?;
        let cluster = Cluster::open(places, account).await?;
        Ok(Self {
            options: cluster.options().database(cluster::NAME),
            cluster: Arc::new(cluster),
        })
    }

    /// Starts the server unless it runs. It may let nobody in yet: see [`Self::admit`].
    pub async fn run(&self) -> Result<(), PostgresError> {
        let reused = self.cluster.run().await?;
        let (version, socket) = (self.cluster.version(), self.cluster.socket().display());
        info!(version, reused, %socket, "private Postgres runs");
        Ok(())
    }

    /// Does the process run, as far as anybody can tell?
    pub fn is_running(&self) -> bool {
        self.cluster.is_running()
    }

    /// Connects once, and makes our database if it is not there. Waits for as long as a server that hangs does.
    pub async fn admit(&self) -> Result<(), sqlx::Error> {
        self.cluster.admit().await
    }

    /// How to connect to our database, once [`Self::admit`] has.
    pub fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Where its data are.
    pub fn data(&self) -> &Path {
        &self.cluster.data
    }

    /// Starts the server again whenever it is gone; ends never. To be dropped before [`Self::stop`].
    pub async fn keep_running(&self) {
        let mut ticks = interval(WATCH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.cluster.is_running() {
                continue;
            }
            warn!("the private Postgres is gone; starting it again");
            if let Err(error) = self.cluster.run().await {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "the private Postgres could not be started"
                );
            }
        }
    }

    /// Stops it: transactions are rolled back, everything committed stays ("fast").
    pub async fn stop(&self) -> Result<(), PostgresError> {
        self.cluster.stop(&server::IN_PEACE).await?;
        info!("private Postgres stopped");
        Ok(())
    }

    /// Stops one that does not answer: within some seconds, or it is killed.
    pub async fn stop_silent(&self) -> Result<(), PostgresError> {
        self.cluster.stop(&server::IN_A_HURRY).await?;
        info!("private Postgres stopped");
        Ok(())
    }
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> PostgresError {
    let what = what.into();
    move |error| PostgresError::Io { what, error }
}

fn path_error(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> PostgresError {
    io_error(format!("{verb} {}", path.display()))
}
