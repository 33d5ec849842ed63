//! Whom Postgres runs as.

use std::{os::unix::fs::chown, path::Path};

use nix::unistd::{User, geteuid};
use tokio::process::Command;

use super::{PostgresError, path_error};
use crate::reach;

/// Accounts that are tried when we are root.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// An account to change to; [`Account::Own`] when we are not root.
#[derive(Clone, Debug)]
pub(super) enum Account {
    /// The one we run as.
    Own,
    /// Another.
    Other { name: String, uid: u32, gid: u32 },
}

impl Account {
    pub(super) fn choose() -> Result<Self, PostgresError> {
        if !geteuid().is_root() {
            return Ok(Self::Own);
        }
        let found = CANDIDATES.iter().find_map(|name| User::from_name(name).ok().flatten());
        let user = found.ok_or(PostgresError::NoAccount)?;
        Ok(Self::Other {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        })
    }

    /// A command that runs as the account, with nothing of our environment: PG… variables would change what it does.
    pub(super) fn command(&self, program: &Path, directory: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C")
            .current_dir(directory);
        if let Self::Other { uid, gid, .. } = self {
            // Supplementary groups are dropped with the change of uid.
            command.uid(*uid).gid(*gid);
        }
        command
    }

    /// Gives a file or directory to the account.
    pub(super) fn give(&self, path: &Path) -> Result<(), PostgresError> {
        let Self::Other { uid, gid, .. } = self else {
            return Ok(());
        };
        chown(path, Some(*uid), Some(*gid)).map_err(path_error("chown", path))
    }

    /// Who must own what is the account's.
    pub(super) fn uid(&self) -> u32 {
        match self {
            Self::Own => geteuid().as_raw(),
            Self::Other { uid, .. } => *uid,
        }
    }

    /// Can the account get to `path`?
    pub(super) fn check_reaches(&self, path: &Path) -> Result<(), PostgresError> {
        let Self::Other { name, uid, gid } = self else {
            return Ok(());
        };
        let barrier = reach::barrier(path, *uid, *gid);
        match barrier.map_err(|(path, error)| path_error("look at", &path)(error))? {
            Some(path) => Err(PostgresError::Unreachable {
                account: name.clone(),
                path,
            }),
            None => Ok(()),
        }
    }
}
