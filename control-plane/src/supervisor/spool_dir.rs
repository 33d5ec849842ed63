//! The directory of one worker instance: `spool/<service>/<epoch>/`, the only place where it can write.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use proxyplane_spec::{Account, Epoch, ServiceId};

use super::Shared;

/// Of a service's directory, which stays ours: others may pass. A worker that could replace what lies in it could make
/// us give it something else.
const PASSABLE: u32 = 0o711;
/// Of an instance's, which is for the worker alone: what passed through lies there.
const CLOSED: u32 = 0o700;

/// Makes the directory for an instance and gives it to the workers' account; none if that fails: the worker can then
/// write nowhere.
pub(super) fn make(shared: &Shared, service: ServiceId, epoch: Epoch) -> Option<PathBuf> {
    let of_service = of_service(&shared.options.spool_dir, service);
    let path = of_service.join(epoch.to_string());
    let made = directory(&of_service, PASSABLE, None).and_then(|()| directory(&path, CLOSED, shared.options.account));
    match made {
        Ok(()) => Some(path),
        Err(error) => {
            tracing::error!(%service, %error, path = %path.display(), "no spool for a worker");
            None
        }
    }
}

/// Removes the directories of a service that was deleted, unless something is in them.
pub(super) fn remove_empty(spool: &Path, service: ServiceId) {
    let of_service = of_service(spool, service);
    let instances = fs::read_dir(&of_service).into_iter().flatten().flatten();
    for instance in instances {
        // What is not empty stays, and the service's directory with it.
        let _ = fs::remove_dir(instance.path());
    }
    if let Err(error) = fs::remove_dir(&of_service)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %of_service.display(), %error, "a deleted service's spool could not be removed");
    }
}

/// Where the instances of a service have theirs.
pub(super) fn of_service(spool: &Path, service: ServiceId) -> PathBuf {
    spool.join(service.to_string())
}

/// Makes the directory `path` if it is missing, and gives it to `account`; `None` keeps it ours.
fn directory(path: &Path, mode: u32, account: Option<Account>) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::metadata(path)?;
    if let Some(Account { uid, gid }) = account
        && (found.uid(), found.gid()) != (uid, gid)
    {
        chown(path, Some(uid), Some(gid))?;
    }
    if found.mode() & 0o7777 != mode {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn a_directory_belongs_to_the_workers_account_also_when_that_changes() {
        let spool = tempfile::tempdir().unwrap();
        let path = of_service(spool.path(), ServiceId::new());
        let accounts = if geteuid().is_root() {
            [Some(61_070), Some(61_071)]
        } else {
            [None, None]
        };
        for uid in accounts {
            directory(&path, CLOSED, uid.map(|uid| Account { uid, gid: uid })).unwrap();
            let found = fs::metadata(&path).unwrap();
            assert_eq!(found.mode() & 0o7777, 0o700);
            assert_eq!(found.uid(), uid.unwrap_or(geteuid().as_raw()));
        }
    }

    #[test]
    fn what_holds_something_stays_when_its_service_is_deleted() {
        let spool = tempfile::tempdir().unwrap();
        let service = ServiceId::new();
        let of_service = of_service(spool.path(), service);
        let (empty, full) = (of_service.join("1"), of_service.join("2"));
        fs::create_dir_all(&empty).unwrap();
        fs::create_dir_all(&full).unwrap();
        fs::write(full.join("segment"), "").unwrap();
        remove_empty(spool.path(), service);
        assert!(!empty.exists() && full.join("segment").exists());
        fs::remove_file(full.join("segment")).unwrap();
        remove_empty(spool.path(), service);
        assert!(!of_service.exists());
    }
}
