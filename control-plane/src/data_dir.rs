//! The data directory: its layout, its modes, and the lock that makes this control plane its only user.
//!
//! | path | mode | what |
//! |---|---|---|
//! | `.` | 0711 | others may pass, to their own directory, and list nothing |
//! | `secrets/` | 0700 | API token, CA key, database password |
//! | `run/` | 0711 | sockets and run records of workers |
//! | `log/` | 0700 | what workers and Postgres write |
//! | `spool/` | 0711 | a directory for each service, in it one for each worker, which belongs to the workers' account |
//! | `pg/` | – | the private Postgres, made by it |
//! | `ca.pem` | 0644 | the CA certificate, for whoever is to trust it |

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};
use proxyplane_spec::Account;
use sha2::{Digest as _, Sha256};

use crate::reach;

/// Longest path of a unix socket (`sun_path` without its final NUL).
const SOCKET_PATH_MAX: usize = 107;
/// The longest name of a socket that is made in `run/`.
const SOCKET_NAME: &str = ".s.PGSQL.65535";

/// A data directory that is ours: locked for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    run: PathBuf,
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another control plane uses it.
    #[error("data directory {path} is in use by another control plane{}", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other's process id, if it left it.
        pid: Option<u32>,
    },
    /// It cannot be made or written.
    #[error("--data-dir: {path}: {error}")]
    Unusable {
        /// What could not be made or opened.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Workers, which are not root, cannot get to their sockets and spools in it.
    #[error("--data-dir: workers run as uid {uid} and cannot pass {path}: chmod o+x it, or choose another directory")]
    Unreachable {
        /// Of the workers' account.
        uid: u32,
        /// The directory in the way.
        path: PathBuf,
    },
}

impl DataDir {
    /// Makes what is missing, sets modes and takes the lock.
    pub fn open(root: &Path) -> Result<Self, DataDirError> {
        let make = |path: &Path, mode| directory(path, mode).map_err(|error| unusable(path, error));
        make(root, 0o711)?;
        let lock = lock(root)?;
        for (name, mode) in [("secrets", 0o700), ("run", 0o711), ("log", 0o700), ("spool", 0o711)] {
            make(&root.join(name), mode)?;
        }
        let run = socket_directory(root);
        if run != root.join("run") {
            own_directory(&run).map_err(|error| unusable(&run, error))?;
        }
        Ok(Self {
            root: root.to_owned(),
            run,
            _lock: lock,
        })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Secrets; nobody else can enter.
    pub fn secrets(&self) -> PathBuf {
        self.root.join("secrets")
    }

    /// Sockets and run records. Lies elsewhere when sockets in the data directory would have too long a path.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// What workers keep until it is committed: a directory per service, in it one per worker instance.
    pub fn spool(&self) -> PathBuf {
        self.root.join("spool")
    }

    /// Can workers that run as `account` get to what they need?
    pub fn check_reached_by(&self, account: Account) -> Result<(), DataDirError> {
        let Account { uid, gid } = account;
        for path in [self.spool().as_path(), self.run()] {
            let barrier = reach::barrier(path, uid, gid).map_err(|(path, error)| unusable(&path, error))?;
            if let Some(path) = barrier {
                return Err(DataDirError::Unreachable { uid, path });
            }
        }
        Ok(())
    }

    /// What workers and Postgres write.
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The API's bearer token.
    pub fn token(&self) -> PathBuf {
        self.secrets().join("api.token")
    }

    /// The CA certificate as users may read it.
    pub fn ca_certificate(&self) -> PathBuf {
        self.root.join("ca.pem")
    }
}

fn unusable(path: &Path, error: io::Error) -> DataDirError {
    DataDirError::Unusable {
        path: path.to_owned(),
        error,
    }
}

fn directory(path: &Path, mode: u32) -> io::Result<()> {
    if !path.is_dir() {
        DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    }
    if fs::metadata(path)?.mode() & 0o7777 != mode {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// A directory in a place where others may write: it must be ours and no link.
fn own_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o711).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    let found = fs::symlink_metadata(path)?;
    let ours = found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o022 == 0;
    if ours {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "belongs to somebody else",
        ))
    }
}

/// `run/`, or a short directory under /run or /tmp when sockets in it would have too long a path.
fn socket_directory(root: &Path) -> PathBuf {
    let usual = root.join("run");
    if usual.join(SOCKET_NAME).as_os_str().len() <= SOCKET_PATH_MAX {
        return usual;
    }
    let digest = Sha256::digest(root.as_os_str().as_bytes());
    let name = digest
        .iter()
        .take(6)
        .fold(0_u64, |name, byte| name << 8 | u64::from(*byte));
    let uid = nix::unistd::geteuid();
    let parent = if uid.is_root() { "/run" } else { "/tmp" };
    Path::new(parent).join(format!("proxyplane-{uid}-{name:012x}"))
}

/// Takes an open-file-description lock, which ends with this process however it ends, and leaves our pid in the file.
fn lock(root: &Path) -> Result<File, DataDirError> {
    let path = root.join("lock");
    let failed = |error| unusable(&path, error);
    let options = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    let mut file = options.map_err(failed)?;
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)) {
        Ok(_) => {}
        Err(Errno::EAGAIN | Errno::EACCES) => {
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            return Err(DataDirError::InUse {
                path: root.to_owned(),
                pid: text.trim().parse().ok(),
            });
        }
        Err(error) => return Err(failed(error.into())),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> PathBuf {
        std::env::temp_dir().join(format!("proxyplane-data-{}", uuid::Uuid::now_v7()))
    }

    #[test]
    fn it_is_laid_out_with_its_modes_and_locked() {
        let root = scratch();
        let first = DataDir::open(&root).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&root), 0o711);
        assert_eq!(mode(&first.secrets()), 0o700);
        assert_eq!(mode(first.run()), 0o711);
        match DataDir::open(&root) {
            Err(DataDirError::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        DataDir::open(&root).unwrap();
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_long_path_gets_a_short_directory_for_its_sockets() {
        let root = scratch().join("x".repeat(90));
        let data = DataDir::open(&root).unwrap();
        assert!(data.run().join(SOCKET_NAME).as_os_str().len() <= SOCKET_PATH_MAX);
        assert!(data.run().is_dir() && !data.run().starts_with(&root));
        fs::remove_dir(data.run()).unwrap();
        fs::remove_dir_all(root.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_file_in_its_place_is_named() {
        let root = scratch();
        fs::write(&root, "").unwrap();
        let error = DataDir::open(&root).unwrap_err().to_string();
        assert!(
            error.contains("--data-dir") && error.contains(root.to_str().unwrap()),
            "{error}"
        );
        fs::remove_file(root).unwrap();
    }
}
