//! Is the server there? What `postmaster.pid` and the kernel tell of it.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::signal::kill,
    unistd::{Pid, geteuid, getpid},
};

use crate::process_table::{STATE, stat};

/// The process that holds the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Postmaster {
    /// There is none: nobody has the pid that the file names, or somebody else.
    Gone,
    /// Somebody has the pid, and nothing says that it is another. More is not known without `/proc`; nor with it, if the
    /// server has another account and we may not look into its processes (root in a container, without CAP_SYS_PTRACE).
    Perhaps(i32),
    /// It is the server.
    Certain(i32),
}

impl Postmaster {
    /// The one of the data directory `data`, which runs as `account`.
    pub(super) fn find(data: &Path, account: u32) -> Self {
        let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        let pid = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok());
        // A server for a single user has its pid negated in the file: that is nobody who could be asked.
        let Some(pid) = pid.filter(|&pid| pid > 0 && pid != getpid().as_raw()) else {
            return Self::Gone;
        };
        match Told::of(pid, data).judge(account, geteuid().as_raw()) {
            None => Self::Perhaps(pid),
            Some(true) => Self::Certain(pid),
            Some(false) => Self::Gone,
        }
    }
}

/// What the kernel tells of a process. `None`: it does not tell that.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// Is the server's data directory its working directory, as it is a server's?
    is_here: Option<bool>,
    /// Has it ended, and was not reaped yet?
    has_ended: Option<bool>,
    /// Whose it is.
    account: Option<u32>,
    /// What becomes of a signal to it.
    signal: Result<(), Errno>,
}

impl Told {
    fn of(pid: i32, data: &Path) -> Self {
        let is_data = |cwd: PathBuf| cwd == data || same(&cwd, data);
        Self {
            is_here: fs::read_link(format!("/proc/{pid}/cwd")).ok().map(is_data),
            has_ended: stat(pid, STATE).ok().map(|state| ["Z", "X"].contains(&state.as_str())),
            account: fs::metadata(format!("/proc/{pid}")).ok().map(|process| process.uid()),
            // The last: one that was gone before it was looked at tells nothing, and is still gone now.
            signal: kill(Pid::from_raw(pid), None),
        }
    }

    /// Is it the server, which runs as `server`? `us` is whom we run as; `None`: nobody can tell.
    fn judge(self, server: u32, us: u32) -> Option<bool> {
        match self.signal {
            Err(Errno::EPERM) if server == us => return Some(false),
            Ok(()) | Err(Errno::EPERM) => {}
            Err(_) => return Some(false),
        }
        let is_another = self.has_ended == Some(true) || self.account.is_some_and(|account| account != server);
        self.is_here.or(is_another.then_some(false))
    }
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, id};

    use super::*;

    const SERVER: u32 = 70;
    const ROOT: u32 = 0;

    /// All that is known without `/proc`.
    const BLIND: Told = Told {
        is_here: None,
        has_ended: None,
        account: None,
        signal: Ok(()),
    };
    /// What root without CAP_SYS_PTRACE sees of the server.
    const SEEN: Told = Told {
        has_ended: Some(false),
        account: Some(SERVER),
        ..BLIND
    };

    #[test]
    fn what_is_in_the_data_directory_is_the_server_and_what_is_elsewhere_is_not() {
        let told = |here| Told {
            is_here: Some(here),
            ..SEEN
        };
        assert_eq!(told(true).judge(SERVER, SERVER), Some(true));
        assert_eq!(told(true).judge(SERVER, ROOT), Some(true));
        assert_eq!(told(false).judge(SERVER, ROOT), Some(false));
    }

    #[test]
    fn without_proc_whoever_has_the_pid_may_be_the_server() {
        for told in [BLIND, SEEN] {
            assert_eq!(told.judge(SERVER, ROOT), None);
            assert_eq!(told.judge(SERVER, SERVER), None);
        }
        let foreign = Told {
            signal: Err(Errno::EPERM),
            ..BLIND
        };
        assert_eq!(foreign.judge(SERVER, ROOT), None, "root that may not signal others");
    }

    #[test]
    fn whoever_cannot_be_the_server_is_not_taken_for_it() {
        let gone = Told {
            signal: Err(Errno::ESRCH),
            ..BLIND
        };
        let foreign = Told {
            signal: Err(Errno::EPERM),
            ..BLIND
        };
        let dead = Told {
            has_ended: Some(true),
            ..SEEN
        };
        let of_others = Told {
            account: Some(1000),
            ..SEEN
        };
        assert_eq!(gone.judge(SERVER, ROOT), Some(false));
        assert_eq!(foreign.judge(SERVER, SERVER), Some(false));
        assert_eq!(dead.judge(SERVER, ROOT), Some(false));
        assert_eq!(of_others.judge(SERVER, ROOT), Some(false));
    }

    #[test]
    fn the_file_names_it_and_the_process_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let us = geteuid().as_raw();
        let find = |pid: &str| {
            fs::write(
                dir.path().join("postmaster.pid"),
                format!("{pid}\n{}\n", dir.path().display()),
            )
            .unwrap();
            Postmaster::find(dir.path(), us)
        };
        assert_eq!(Postmaster::find(dir.path(), us), Postmaster::Gone);
        let mut server = Command::new("sleep")
            .arg("600")
            .current_dir(dir.path())
            .spawn()
            .unwrap();
        let pid = server.id().cast_signed();
        assert_eq!(find(&pid.to_string()), Postmaster::Certain(pid));
        assert_eq!(find(&format!("-{pid}")), Postmaster::Gone);
        assert_eq!(find("nonsense"), Postmaster::Gone);
        assert_eq!(find(&id().to_string()), Postmaster::Gone, "it would be us");
        let stranger = Command::new("sleep").arg("600").spawn().unwrap();
        assert_eq!(find(&stranger.id().to_string()), Postmaster::Gone);
        server.kill().unwrap();
        while stat(pid, STATE).unwrap() != "Z" {
            std::thread::yield_now();
        }
        assert_eq!(find(&pid.to_string()), Postmaster::Gone, "dead, and not reaped");
        for mut process in [server, stranger] {
            let _ = process.kill();
            process.wait().unwrap();
        }
        assert_eq!(find(&pid.to_string()), Postmaster::Gone);
    }
}
