//! The files of the private server: made once, configured at every start.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    process::Stdio,
};

use nix::unistd::geteuid;
use sha2::{Digest as _, Sha256};
use tracing::info;

use super::{Places, PostgresError, account::Account, install::Install, io_error, path_error, server};
use crate::hex;

/// The database's superuser, and the name of our database.
pub(super) const NAME: &str = "proxyplane";
/// Longest path of a unix socket (`sun_path` without its final NUL).
const SOCKET_PATH_MAX: usize = 107;
/// The server's port: on a unix socket only part of its name.
pub(super) const PORT: u16 = 5432;

/// The private server's files and how to run it.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) account: Account,
    pub(super) install: Install,
    /// PGDATA.
    pub(super) data: PathBuf,
    /// Directory of the socket.
    pub(super) socket: PathBuf,
    /// What the server writes on its standard error.
    pub(super) log: PathBuf,
    pub(super) password: String,
}

impl Cluster {
    /// Makes what is missing.
    pub(super) async fn open(places: &Places, account: Account) -> Result<Self, PostgresError> {
        account.check_reaches(&places.root)?;
        let pg = places.root.join("pg");
        own_directory(&pg, &account)?;
        let data = pg.join("data");
        let install = Install::find(&data, version_of(&data)?)?;
        let socket = socket_directory(&places.run, &places.root);
        own_directory(&socket, &account)?;
        let password = password(&places.secrets.join("database.password"))?;
        let cluster = Self {
            account,
            install,
            data,
            socket,
            log: places.log.join("postgres.log"),
            password,
        };
        if version_of(&cluster.data)?.is_none() {
            cluster.initialise(&pg).await?;
        }
        Ok(cluster)
    }

    pub(super) fn version(&self) -> u32 {
        self.install.version
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs `initdb` beside the place and moves the result there: what was interrupted is never taken for data.
    async fn initialise(&self, pg: &Path) -> Result<(), PostgresError> {
        let draft = pg.join("init");
        if draft.exists() {
            fs::remove_dir_all(&draft).map_err(path_error("remove", &draft))?;
        }
        let password = pg.join("init.password");
        write_private(&password, &self.password)?;
        self.account.give(&password)?;
        info!(version = self.install.version, data = %self.data.display(), "making the private database");
        let mut initdb = self.account.command(&self.install.program("initdb"), pg);
        initdb.arg("--pgdata").arg(&draft).arg("--pwfile").arg(&password);
        initdb.args([
            "--username",
            NAME,
            "--auth",
            "scram-sha-256",
            "--encoding",
            "UTF8",
            "--locale",
            "C",
        ]);
        initdb.arg("--no-instructions");
        let output = initdb
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(io_error("run initdb"));
        // Whatever came of it, the password is not to stay there.
        let removed = fs::remove_file(&password).map_err(path_error("remove", &password));
        let output = output?;
        removed?;
        if !output.status.success() {
            let output = server::last_lines(&[output.stdout, output.stderr].concat());
            return Err(PostgresError::Failed {
                program: "initdb",
                output,
            });
        }
        fs::rename(&draft, &self.data).map_err(path_error("rename", &draft))
    }

    /// Writes `postgresql.conf`.
    pub(super) fn configure(&self, lz4: bool) -> Result<(), PostgresError> {
        let path = self.data.join("postgresql.conf");
        let text = configuration(&self.socket, self.install.version, lz4);
        fs::write(&path, text).map_err(path_error("write", &path))?;
        self.account.give(&path)
    }
}

/// What differs from the server's own defaults, and why.
fn configuration(socket: &Path, version: u32, lz4: bool) -> String {
    let socket = socket.display().to_string().replace('\'', "''");
    let toast = if lz4 { "lz4" } else { "pglz" };
    // Version 15 brought the choice; before, it is pglz, which costs more than the disk it saves.
    let wal = match (version >= 15, lz4) {
        (true, true) => "lz4",
        _ => "off",
    };
    format!(
        "# Written by proxyplane at every start. Your own settings: custom.conf beside this file.\n\
         listen_addresses = ''\n\
         port = {PORT}\n\
         unix_socket_directories = '{socket}'\n\
         unix_socket_permissions = 0700\n\
         password_encryption = scram-sha-256\n\
         max_connections = 64\n\
         shared_buffers = 128MB\n\
         # Captured traffic is only added, so a checkpoint makes few pages be logged whole again, and a short log that\n\
         # is used again and again stays in memory: a quarter less CPU per row than with 2 GB.\n\
         max_wal_size = 256MB\n\
         min_wal_size = 128MB\n\
         checkpoint_warning = 0\n\
         wal_compression = {wal}\n\
         # A segment of the log takes its room when it is made: what is written to it later cannot fail for want of\n\
         # room, which Postgres would not survive.\n\
         wal_init_zero = on\n\
         default_toast_compression = {toast}\n\
         fsync = on\n\
         synchronous_commit = on\n\
         # Our queries are short; compiling them costs more than it saves.\n\
         jit = off\n\
         # Traffic is only added: vacuum it when it has doubled, not at every fifth.\n\
         autovacuum_vacuum_insert_scale_factor = 1.0\n\
         timezone = 'UTC'\n\
         log_timezone = 'UTC'\n\
         lc_messages = 'C'\n\
         log_line_prefix = '%m [%p] %a '\n\
         log_checkpoints = off\n\
         cluster_name = '{NAME}'\n\
         include_if_exists = 'custom.conf'\n"
    )
}

/// Major version that made the data; `None` when there are none.
fn version_of(data: &Path) -> Result<Option<u32>, PostgresError> {
    let path = data.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let invalid = || io::Error::new(io::ErrorKind::InvalidData, "not a version");
            let version = text.trim().parse().map_err(|_| invalid());
            version.map(Some).map_err(path_error("read", &path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(path_error("read", &path)(error)),
    }
}

/// A directory that only the account can enter, and no link.
fn own_directory(path: &Path, account: &Account) -> Result<(), PostgresError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => account.give(path)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(path_error("make", path)(error)),
    }
    let found = fs::symlink_metadata(path).map_err(path_error("look at", path))?;
    if found.is_dir() && found.uid() == geteuid().as_raw() {
        // Ours: of a start that was interrupted, or the server ran as us.
        account.give(path)?;
    } else if !found.is_dir() || found.uid() != account.uid() {
        let error = io::Error::new(io::ErrorKind::PermissionDenied, "belongs to somebody else");
        return Err(path_error("use", path)(error));
    }
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(path_error("chmod", path))
}

/// `run/pg`, or a short directory under /run or /tmp when the socket in it would have too long a path.
fn socket_directory(run: &Path, root: &Path) -> PathBuf {
    let usual = run.join("pg");
    if usual.join(format!(".s.PGSQL.{PORT}")).as_os_str().len() <= SOCKET_PATH_MAX {
        return usual;
    }
    let digest = Sha256::digest(root.as_os_str().as_bytes());
    let name = hex::encode(digest.get(..6).unwrap_or_default());
    let uid = geteuid();
    let parent = if uid.is_root() { "/run" } else { "/tmp" };
    Path::new(parent).join(format!("proxyplane-pg-{uid}-{name}"))
}

/// The password that was made at the first start.
fn password(path: &Path) -> Result<String, PostgresError> {
    match fs::read_to_string(path) {
        Ok(password) if !password.trim().is_empty() => return Ok(password.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(path_error("read", path)(error)),
        _ => {}
    }
    let password = hex::encode(&rand::random::<[u8; 24]>());
    write_private(path, &password)?;
    Ok(password)
}

fn write_private(path: &Path, text: &str) -> Result<(), PostgresError> {
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(path_error("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_whose_path_would_be_too_long_lies_elsewhere() {
        let root = Path::new("/data");
        assert_eq!(
            socket_directory(Path::new("/data/run"), root),
            Path::new("/data/run/pg")
        );
        let long = PathBuf::from(format!("/{}", "x".repeat(90)));
        assert!(socket_directory(&long, root).as_os_str().len() < 50);
    }

    #[test]
    fn a_quote_in_a_path_does_not_end_the_setting() {
        let text = configuration(Path::new("/it's/run"), 15, true);
        assert!(text.contains("unix_socket_directories = '/it''s/run'\n"));
        assert!(text.contains("wal_compression = lz4\n"));
        assert!(configuration(Path::new("/run"), 14, true).contains("wal_compression = off\n"));
    }
}
