//! How much CPU a process of the private Postgres gets where there is not enough of it.

use std::{fs, io};

use rustix::process::{Pid, geteuid, setpriority_process};

/// Sets the niceness of a process of the server, one that leads a session: every backend does. It can be taken back.
///
/// Errors: the process is gone, or neither way is open to this account.
pub(crate) fn set_nice(process: i32, nice: i32) -> io::Result<()> {
    // Where the kernel shares CPU between sessions first, niceness counts only inside of one (sched(7), autogroup). Not
    // to everybody more than ten times a second.
    let of_session = fs::write(format!("/proc/{process}/autogroup"), nice.to_string());
    // Elsewhere it is the process's own that counts. Whoever is not root could lower it, and never take that back.
    if !geteuid().is_root() {
        return of_session;
    }
    let pid = Pid::from_raw(process).ok_or(io::ErrorKind::InvalidInput)?;
    setpriority_process(Some(pid), nice)
        .map_err(io::Error::from)
        .or(of_session)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    fn a_process_that_leads_a_session_is_set_back_and_forth() {
        let sleeper = Sleeper::start();
        set_nice(sleeper.pid(), 7).unwrap();
        assert_eq!(sleeper.nice(), 7);
        if geteuid().is_root() {
            set_nice(sleeper.pid(), 0).unwrap();
            assert_eq!(sleeper.nice(), 0);
        }
    }

    #[test]
    fn who_is_gone_is_an_error() {
        let mut sleeper = Sleeper::start();
        sleeper.0.kill().unwrap();
        sleeper.0.wait().unwrap();
        set_nice(sleeper.pid(), 7).unwrap_err();
    }

    struct Sleeper(Child);

    impl Sleeper {
        fn start() -> Self {
            // Until it says so, it may lead none yet.
            let mut child = Command::new("setsid")
                .args(["sh", "-c", "echo; exec sleep 60"])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
            Self(child)
        }

        fn pid(&self) -> i32 {
            self.0.id().cast_signed()
        }

        fn nice(&self) -> i32 {
            if geteuid().is_root() {
                return getpriority_process(Pid::from_raw(self.pid())).unwrap();
            }
            let session = fs::read_to_string(format!("/proc/{}/autogroup", self.pid())).unwrap();
            session.trim().rsplit(' ').next().unwrap().parse().unwrap()
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}
