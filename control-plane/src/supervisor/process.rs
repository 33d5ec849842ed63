//! One worker process, watched until it is gone: started by us, or adopted.

use std::{io, os::fd::OwnedFd};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::Child;

use super::{exit::Exit, pidfd::Pidfd};
use crate::process_table;

/// A worker process whose end was not told yet.
#[derive(Debug)]
pub(super) struct Process {
    handle: Handle,
    /// Its process id.
    pub(super) pid: i32,
    /// As [`process_table::oom_kills`] had it while the process lived.
    oom_kills: Option<u64>,
}

#[derive(Debug)]
enum Handle {
    /// Not yet reaped, so its pid is nobody else's.
    Child(Child),
    /// Found running; its parent may be gone.
    Adopted(Pidfd),
}

impl Process {
    /// One that was just started.
    pub(super) fn started(child: Child) -> io::Result<Self> {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        Ok(Self {
            pid: pid.ok_or(io::ErrorKind::NotFound)?,
            handle: Handle::Child(child),
            oom_kills: process_table::oom_kills(),
        })
    }

    /// The one of a run record, by its pidfd.
    pub(super) fn adopted(pid: i32, pidfd: OwnedFd) -> io::Result<Self> {
        let oom_kills = process_table::oom_kills();
        let process = Pidfd::watch(pidfd)?;
        Ok(Self {
            pid,
            // Of one that has ended already, nobody knows whether the kernel had killed it by then.
            oom_kills: oom_kills.filter(|_| !process.has_ended()),
            handle: Handle::Adopted(process),
        })
    }

    /// Waits until it is gone and tells how it ended. May be cancelled and called again.
    pub(super) async fn ended(&mut self) -> Exit {
        let exit = match &mut self.handle {
            Handle::Child(child) => match child.wait().await {
                Ok(status) => Exit::new(status),
                Err(error) => Exit::unknown(format!("unknown ({error})")),
            },
            Handle::Adopted(process) => process.ended().await,
        };
        let counts = self.oom_kills.zip(process_table::oom_kills());
        exit.out_of_memory(counts.map(|(before, now)| before != now))
    }

    /// Is it gone already, and was only not told yet?
    pub(super) fn has_ended(&self) -> bool {
        match &self.handle {
            // Told by the runtime once somebody waits.
            Handle::Child(_) => false,
            Handle::Adopted(process) => process.has_ended(),
        }
    }

    /// SIGKILL.
    pub(super) fn kill(&self) {
        self.signal(Signal::SIGKILL, rustix::process::Signal::KILL);
    }

    /// SIGTERM, which a worker takes for a drain.
    pub(super) fn terminate(&self) {
        self.signal(Signal::SIGTERM, rustix::process::Signal::TERM);
    }

    fn signal(&self, by_pid: Signal, by_pidfd: rustix::process::Signal) {
        let sent = match &self.handle {
            // The child is not reaped before `ended` is through, so the pid cannot have passed to another process; once
            // it is, `id` is gone too.
            Handle::Child(child) if child.id().is_some() => {
                kill(Pid::from_raw(self.pid), by_pid).map_err(io::Error::from)
            }
            Handle::Child(_) => Ok(()),
            Handle::Adopted(process) => process.signal(by_pidfd),
        };
        if let Err(error) = sent {
            tracing::warn!(pid = self.pid, signal = %by_pid, %error, "a worker could not be signalled");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use rustix::process::{PidfdFlags, pidfd_open};

    use super::*;

    fn adopted(pid: u32) -> Process {
        let pid = pid.cast_signed();
        let pidfd = pidfd_open(rustix::process::Pid::from_raw(pid).unwrap(), PidfdFlags::empty());
        Process::adopted(pid, pidfd.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn whose_kill_it_was_is_known_only_of_a_process_that_was_seen_alive() {
        if process_table::oom_kills().is_none() {
            return;
        }
        let spawned = || {
            Command::new("sleep")
                .arg("600")
                .stdin(Stdio::null())
                .spawn()
                .unwrap()
                .id()
        };
        let mut alive = adopted(spawned());
        alive.kill();
        // Unless memory ran out just now.
        let exit = alive.ended().await;
        assert!(
            exit.is_somebodys_kill() || exit.to_string().contains("memory"),
            "{exit}"
        );

        let pid = spawned();
        let first = adopted(pid);
        first.kill();
        let Handle::Adopted(process) = &first.handle else {
            unreachable!("it was adopted");
        };
        while !process.has_ended() {
            std::thread::yield_now();
        }
        let exit = adopted(pid).ended().await;
        assert_eq!(exit.to_string(), "signal 9 (SIGKILL)");
        assert!(!exit.is_somebodys_kill());
    }
}
