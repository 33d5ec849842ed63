//! The server process: started, found, asked, stopped.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{
    PostgresError,
    cluster::{Cluster, NAME, PORT},
    io_error, path_error,
    postmaster::Postmaster,
};
use crate::process_table;

/// For a start: recovery after a crash replays at most `max_wal_size`.
const START: Duration = Duration::from_mins(2);
/// For the processes of a server that was killed to end.
const LEFTOVERS: Duration = Duration::from_secs(10);
/// Between looks whether it has ended.
const POLL: Duration = Duration::from_millis(20);
/// The log is put aside at a start when it is larger.
const LOG_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of output that an error shows.
const SHOWN: usize = 2_000;

/// How long a stop may take before it is done otherwise.
pub(super) struct Patience {
    /// For a fast one.
    fast: Duration,
    /// For one without a checkpoint.
    immediate: Duration,
}

/// A fast stop takes as long as its checkpoint; for one without, Postgres itself gives its processes five seconds.
pub(super) const IN_PEACE: Patience = Patience {
    fast: Duration::from_mins(1),
    immediate: Duration::from_secs(10),
};
/// For a server that answers to nobody.
pub(super) const IN_A_HURRY: Patience = Patience {
    fast: Duration::from_secs(2),
    immediate: Duration::from_secs(1),
};

impl Cluster {
    /// Makes sure that the server runs; answers whether it ran already.
    pub(super) async fn run(&self) -> Result<bool, PostgresError> {
        if self.is_running() {
            return Ok(true);
        }
        self.configure(false)?;
        if self.has_lz4().await? {
            self.configure(true)?;
        }
        let deadline = Instant::now() + LEFTOVERS;
        loop {
            let before = fs::metadata(&self.log).map_or(0, |found| found.len());
            if self.pg_ctl(&["start", "--wait"], START).await?.success() {
                return Ok(false);
            }
            let log = fs::read(&self.log).unwrap_or_default();
            let output = last_lines(log.get(usize::try_from(before).unwrap_or(0)..).unwrap_or(&log));
            // Backends of a killed server notice after a moment that it is gone, and it has its pid until it is reaped.
            let passes = output.contains("still in use") || output.contains("already exists");
            if !passes || Instant::now() >= deadline {
                return Err(PostgresError::Failed {
                    program: "postgres",
                    output,
                });
            }
            sleep(POLL).await;
        }
    }

    /// Is the process there that holds the data? A file that a dead one left names a pid that is gone or another's.
    pub(super) fn is_running(&self) -> bool {
        self.postmaster() != Postmaster::Gone
    }

    fn postmaster(&self) -> Postmaster {
        Postmaster::find(&self.data, self.account.uid())
    }

    /// How to connect, to no database in particular.
    pub(super) fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket)
            .port(PORT)
            .username(NAME)
            .password(&self.password)
    }

    /// Connects, and makes our database if it is not there.
    pub(super) async fn admit(&self) -> Result<(), sqlx::Error> {
        let mut connection = self.options().database("postgres").connect().await?;
        make_database(&mut connection).await?;
        // What it says at the end of a connection is of no interest.
        let _ = connection.close().await;
        Ok(())
    }

    /// Was the server built with lz4?
    async fn has_lz4(&self) -> Result<bool, PostgresError> {
        let mut postgres = self.account.command(&self.install.program("postgres"), &self.data);
        postgres.arg("-D").arg(&self.data).args([
            "-c",
            "default_toast_compression=lz4",
            "-C",
            "default_toast_compression",
        ]);
        let output = postgres
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(io_error("run postgres"))?;
        Ok(output.status.success())
    }

    pub(super) async fn stop(&self, patience: &Patience) -> Result<(), PostgresError> {
        if !self.is_running() {
            return Ok(());
        }
        let stop = async |mode, patience| {
            let stopped = self.pg_ctl(&["stop", mode, "--wait"], patience).await?;
            Ok::<_, PostgresError>(stopped.success())
        };
        if stop("--mode=fast", patience.fast).await? {
            return Ok(());
        }
        warn!("the private Postgres did not stop in time; stopping it at once");
        let stopped = stop("--mode=immediate", patience.immediate).await?;
        match self.postmaster() {
            Postmaster::Certain(postmaster) if !stopped => self.kill(postmaster).await,
            // Nobody is killed on suspicion.
            Postmaster::Perhaps(_) if !stopped => Err(self.does_not_stop()),
            _ => Ok(()),
        }
    }

    /// Ends a server that answers to nothing; its next start recovers, as after a power cut.
    async fn kill(&self, postmaster: i32) -> Result<(), PostgresError> {
        warn!(pid = postmaster, "the private Postgres hangs; killing it");
        let mut processes = process_table::children(postmaster);
        processes.insert(0, postmaster);
        for process in processes {
            // One that has ended by itself is no failure.
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
        let deadline = Instant::now() + LEFTOVERS;
        while self.is_running() {
            if Instant::now() >= deadline {
                return Err(self.does_not_stop());
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// `pg_ctl` puts the server into a session of its own and leaves it our log file as standard error.
    async fn pg_ctl(&self, arguments: &[&str], patience: Duration) -> Result<ExitStatus, PostgresError> {
        let log = self.open_log()?;
        let errors = log.try_clone().map_err(path_error("open", &self.log))?;
        let mut command = self.account.command(&self.install.program("pg_ctl"), &self.data);
        command.args(arguments).arg("--pgdata").arg(&self.data).arg("--silent");
        command.arg("--timeout").arg(patience.as_secs().to_string());
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        command.status().await.map_err(io_error("run pg_ctl"))
    }

    /// Opened by us: the account need not be able to enter the log directory.
    fn open_log(&self) -> Result<File, PostgresError> {
        if fs::metadata(&self.log).is_ok_and(|found| found.len() > LOG_BYTES) && !self.is_running() {
            let aside = self.log.with_extension("log.1");
            fs::rename(&self.log, &aside).map_err(path_error("rename", &self.log))?;
        }
        let open = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.log);
        open.map_err(path_error("open", &self.log))
    }

    fn does_not_stop(&self) -> PostgresError {
        PostgresError::Failed {
            program: "pg_ctl stop",
            output: last_lines(&fs::read(&self.log).unwrap_or_default()),
        }
    }
}

async fn make_database(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'proxyplane')")
        .fetch_one(&mut *connection)
        .await?;
    if !there {
        sqlx::query("CREATE DATABASE proxyplane").execute(connection).await?;
    }
    Ok(())
}

/// The last lines of a program's output, for an error.
pub(super) fn last_lines(output: &[u8]) -> String {
    let start = output.len().saturating_sub(SHOWN);
    let text = String::from_utf8_lossy(output.get(start..).unwrap_or_default());
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines
        .get(lines.len().saturating_sub(8)..)
        .unwrap_or_default()
        .join("\n")
}
