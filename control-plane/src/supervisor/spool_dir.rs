//! The directory of a service's workers: `spool/<service>/`, the only place where they can write.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use proxyplane_spec::{Account, ServiceId};

/// For its owner alone: what passed through lies there.
const MODE: u32 = 0o700;

/// Makes the directory if it is missing, and gives it to `account`; `None` keeps it ours.
pub(super) fn make(spool: &Path, service: ServiceId, account: Option<Account>) -> io::Result<PathBuf> {
    let path = path(spool, service);
    match DirBuilder::new().mode(MODE).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::metadata(&path)?;
    if let Some(Account { uid, gid }) = account
        && (found.uid(), found.gid()) != (uid, gid)
    {
        chown(&path, Some(uid), Some(gid))?;
    }
    if found.mode() & 0o7777 != MODE {
        fs::set_permissions(&path, Permissions::from_mode(MODE))?;
    }
    Ok(path)
}

/// Removes the directory of a service that was deleted, unless something is in it.
pub(super) fn remove_empty(spool: &Path, service: ServiceId) {
    let path = path(spool, service);
    if let Err(error) = fs::remove_dir(&path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a deleted service's spool could not be removed");
    }
}

fn path(spool: &Path, service: ServiceId) -> PathBuf {
    spool.join(service.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_belongs_to_the_workers_account_also_when_that_changes() {
        let spool = tempfile::tempdir().unwrap();
        let service = ServiceId::new();
        let root = nix::unistd::geteuid().is_root();
        let accounts: &[_] = if root {
            &[Some(61_070), Some(61_071)]
        } else {
            &[None, None]
        };
        for uid in accounts {
            let made = make(spool.path(), service, uid.map(|uid| Account { uid, gid: uid })).unwrap();
            let found = fs::metadata(&made).unwrap();
            assert_eq!(found.mode() & 0o7777, 0o700);
            assert_eq!(found.uid(), uid.unwrap_or(nix::unistd::geteuid().as_raw()));
        }
        remove_empty(spool.path(), service);
        assert!(!path(spool.path(), service).exists());
    }

    #[test]
    fn what_is_in_it_stays() {
        let spool = tempfile::tempdir().unwrap();
        let service = ServiceId::new();
        let made = make(spool.path(), service, None).unwrap();
        fs::write(made.join("segment"), "").unwrap();
        remove_empty(spool.path(), service);
        assert!(made.join("segment").exists());
    }
}
