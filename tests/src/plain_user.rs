//! An account without rights, for servers that are not to run as root.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use nix::unistd::{User, geteuid};

/// Has a name, which Postgres' `initdb` wants, and no rights, on every system.
const NAME: &str = "nobody";

/// Somebody else than root.
pub(crate) struct PlainUser {
    uid: u32,
    gid: u32,
}

impl PlainUser {
    /// `None` when the tests do not run as root: they are a plain user themselves.
    pub(crate) fn other() -> Option<Self> {
        geteuid().is_root().then(|| {
            let user = User::from_name(NAME)
                .expect("accounts can be read")
                .expect("there is a nobody");
            Self {
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
            }
        })
    }

    /// Gives away `directory`, which must be empty but for `home/`, and puts this build's programs into it: where they
    /// were built may be closed to others. Returns where the server is.
    pub(crate) fn move_in(&self, directory: &Path, programs: &[PathBuf]) -> PathBuf {
        let bin = directory.join("bin");
        fs::create_dir(&bin).expect("a directory can be made");
        for program in programs {
            let name = program.file_name().expect("a program has a name");
            fs::copy(program, bin.join(name)).expect("a program can be copied");
        }
        for path in [directory.to_owned(), directory.join("home")] {
            self.give(&path);
        }
        bin.join("proxyplane")
    }

    /// Gives it a file or directory.
    pub(crate) fn give(&self, path: &Path) {
        chown(path, Some(self.uid), Some(self.gid)).expect("root can give away what it has");
    }

    /// Has `command` run as the account.
    pub(crate) fn run(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }
}
