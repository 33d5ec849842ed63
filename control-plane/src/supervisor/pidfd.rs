//! A process by its descriptor: one that we did not start ourselves, or not as the program that we are now.
//!
//! The control plane's `unsafe` is here: waiting on a descriptor that tokio does not know, and PIDFD_GET_INFO, which
//! tells how somebody else's child ended.

use std::{
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    process::ExitStatus,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::{
    io::Errno,
    ioctl::{Opcode, Updater, ioctl, opcode},
    process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::exit::Exit;

/// What is said of an end that the kernel does not tell.
const UNKNOWN: &str = "unknown (adopted)";
/// The kernel knows the exit status once the process was reaped, which its new parent does at once, or never.
const REAPED_WITHIN: Duration = Duration::from_millis(50);
/// Between looks.
const LOOK: Duration = Duration::from_millis(2);

/// `PIDFD_INFO_EXIT` of linux/pidfd.h, since Linux 6.15.
const INFO_EXIT: u64 = 1 << 3;
/// `PIDFD_GET_INFO`: `_IOWR(0xFF, 11, struct pidfd_info)`, since Linux 6.13.
const GET_INFO: Opcode = opcode::read_write::<Info>(0xff, 11);

/// `struct pidfd_info` in its first version, 64 bytes.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    /// pid, tgid, ppid, then real, effective, saved and file-system ids of user and group.
    ids: [u32; 11],
    /// As wait(2) has it.
    exit_code: i32,
}

/// A process that is watched and signalled through its pidfd.
#[derive(Debug)]
pub(super) struct Pidfd(AsyncFd<OwnedFd>);

impl Pidfd {
    /// Watches `process`, a pidfd. Needs the runtime.
    #[expect(unsafe_code, reason = "tokio has nothing else for descriptors of its users")]
    pub(super) fn watch(process: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` is one descriptor, open, until it is dropped, and it is dropped by the `AsyncFd` only.
        let watched = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) };
        Ok(Self(watched?))
    }

    /// Waits until the process is gone and tells how it ended. May be cancelled and called again.
    pub(super) async fn ended(&self) -> Exit {
        // An error says that the runtime ends; nobody hears what is answered then.
        let _ = self.0.readable().await;
        if let Some(status) = self.reap() {
            return Exit::new(status);
        }
        let deadline = tokio::time::Instant::now() + REAPED_WITHIN;
        loop {
            match self.exit_status() {
                Ok(Some(status)) => return Exit::new(status),
                Ok(None) if tokio::time::Instant::now() < deadline => tokio::time::sleep(LOOK).await,
                // Not reaped, or a kernel that does not tell.
                _ => return Exit::unknown(UNKNOWN),
            }
        }
    }

    /// Is it gone already, reaped or not?
    pub(super) fn has_ended(&self) -> bool {
        let mut process = [PollFd::new(self.0.get_ref().as_fd(), PollFlags::POLLIN)];
        poll(&mut process, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Sends a signal; a process that is gone needs none.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(self.0.get_ref(), signal) {
            Err(Errno::SRCH) => Ok(()),
            other => Ok(other?),
        }
    }

    /// After an upgrade in place, workers are still our children: nobody else reaps them.
    fn reap(&self) -> Option<ExitStatus> {
        let child = WaitId::PidFd(self.0.get_ref().as_fd());
        let ended = waitid(child, WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok()??;
        Some(ExitStatus::from_raw(wait_status(&ended)))
    }

    fn exit_status(&self) -> io::Result<Option<ExitStatus>> {
        let info = self.info()?;
        Ok((info.mask & INFO_EXIT != 0).then(|| ExitStatus::from_raw(info.exit_code)))
    }

    #[expect(
        unsafe_code,
        reason = "the kernel's only way to tell how a process ended that is not our child"
    )]
    fn info(&self) -> io::Result<Info> {
        let mut info = Info {
            mask: INFO_EXIT,
            ..Info::default()
        };
        // SAFETY: the opcode carries the size of `Info`, and the kernel fills at most that much of it; every bit
        // pattern is a valid `Info`.
        unsafe { ioctl(self.0.get_ref(), Updater::<GET_INFO, Info>::new(&mut info)) }?;
        Ok(info)
    }
}

/// The status in the form of wait(2).
fn wait_status(ended: &WaitIdStatus) -> i32 {
    match (ended.exit_status(), ended.terminating_signal()) {
        (Some(code), _) => code << 8,
        (None, Some(signal)) => signal | if ended.dumped() { 0x80 } else { 0 },
        (None, None) => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    fn pidfd(pid: u32) -> Pidfd {
        let pid = Pid::from_raw(pid.cast_signed()).unwrap();
        Pidfd::watch(pidfd_open(pid, PidfdFlags::empty()).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_child_of_ours_is_reaped_and_told_of() {
        let spawned = |script: &str| Command::new("sh").args(["-c", script]).spawn().unwrap().id();
        assert_eq!(pidfd(spawned("exit 3")).ended().await.to_string(), "exit status 3");
        let sleeper = spawned("exec sleep 600");
        let watched = pidfd(sleeper);
        watched.signal(Signal::KILL).unwrap();
        assert_eq!(watched.ended().await.to_string(), "signal 9 (SIGKILL)");
        watched.signal(Signal::KILL).unwrap();
        assert!(!std::path::Path::new(&format!("/proc/{sleeper}")).exists());
    }

    #[tokio::test]
    async fn the_end_of_somebody_elses_child_is_told_as_far_as_the_kernel_does() {
        // The shell is the parent, and reaps.
        let mut parent = Command::new("sh")
            .args(["-c", "sleep 600 & echo $!; wait $!"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = std::io::BufReader::new(parent.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        let watched = pidfd(line.trim().parse().unwrap());
        watched.signal(Signal::KILL).unwrap();
        let told = watched.ended().await.to_string();
        assert!([UNKNOWN, "signal 9 (SIGKILL)"].contains(&told.as_str()), "{told}");
        parent.wait().unwrap();
    }
}
