//! What is known of a running worker beyond this process's life: `run/<service>.json`.
//!
//! A pid alone may by now be somebody else's. Pid, start time and boot together name one process; a signal goes through
//! a pidfd that was opened before they were compared.

use std::{
    fs, io,
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proxyplane_spec::{Epoch, ServiceId};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// For a killed process to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// One worker instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    /// The service it runs.
    pub(crate) service_id: ServiceId,
    /// The instance.
    pub(crate) epoch: Epoch,
    /// Its pid.
    pub(crate) pid: i32,
    /// Field 22 of `/proc/<pid>/stat`, in ticks since boot.
    pub(crate) start_time: u64,
    /// `/proc/sys/kernel/random/boot_id` when it was started.
    pub(crate) boot_id: String,
    /// SHA-256 of its nonce, in hex: enough to recognise the worker, not enough to be it.
    pub(crate) nonce_sha256: String,
}

/// What became of a recorded worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// It ran and is gone now.
    Killed,
    /// It was gone before; its pid may be somebody else's.
    Gone,
}

impl RunRecord {
    /// Of the live process `pid`.
    pub(crate) fn of(service_id: ServiceId, epoch: Epoch, pid: i32, nonce: &[u8]) -> io::Result<Self> {
        Ok(Self {
            service_id,
            epoch,
            pid,
            start_time: start_time(pid)?,
            boot_id: boot_id()?,
            nonce_sha256: hex(&Sha256::digest(nonce)),
        })
    }

    /// Writes it, whole or not at all.
    pub(crate) fn write(&self, run_dir: &Path) -> io::Result<()> {
        let path = path(run_dir, self.service_id);
        let fresh = path.with_extension("json.new");
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        io::Write::write_all(&mut file, &serde_json::to_vec(self)?)?;
        fs::rename(fresh, path)
    }

    /// Every record in `run_dir`; unreadable ones are left out.
    pub(crate) fn all(run_dir: &Path) -> io::Result<Vec<Self>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(run_dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                records.extend(
                    fs::read(&path)
                        .ok()
                        .and_then(|text| serde_json::from_slice::<Self>(&text).ok()),
                );
            }
        }
        Ok(records)
    }

    /// Kills the recorded worker if it still runs and waits until it is gone. Blocks.
    pub(crate) fn kill(&self) -> io::Result<Stale> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(Stale::Gone);
        };
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(rustix::io::Errno::SRCH) => return Ok(Stale::Gone),
            Err(error) => return Err(error.into()),
        };
        if boot_id()? != self.boot_id || start_time(self.pid).ok() != Some(self.start_time) {
            return Ok(Stale::Gone);
        }
        match pidfd_send_signal(&process, Signal::KILL) {
            Ok(()) => {}
            Err(rustix::io::Errno::SRCH) => return Ok(Stale::Gone),
            Err(error) => return Err(error.into()),
        }
        let mut waited = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(KILL_TIMEOUT).unwrap_or(PollTimeout::MAX);
        if poll(&mut waited, timeout)? == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "a killed worker does not end"));
        }
        Ok(Stale::Killed)
    }
}

/// Removes the record of a worker that is gone.
pub(crate) fn remove(run_dir: &Path, service_id: ServiceId) -> io::Result<()> {
    match fs::remove_file(path(run_dir, service_id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn path(run_dir: &Path, service_id: ServiceId) -> PathBuf {
    run_dir.join(format!("{service_id}.json"))
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the command in parentheses and may itself hold blanks and parentheses.
    let field = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19));
    field
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    struct Sleeper(Child);

    impl Sleeper {
        fn new() -> Self {
            Self(Command::new("sleep").arg("600").spawn().unwrap())
        }

        fn record(&self) -> RunRecord {
            let pid = i32::try_from(self.0.id()).unwrap();
            RunRecord::of(ServiceId::new(), Epoch::new(), pid, b"nonce").unwrap()
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_recorded_worker_is_killed() {
        let mut worker = Sleeper::new();
        assert_eq!(worker.record().kill().unwrap(), Stale::Killed);
        assert!(!worker.0.wait().unwrap().success());
    }

    #[test]
    fn a_process_that_only_has_the_pid_is_left_alone() {
        let mut stranger = Sleeper::new();
        let earlier = RunRecord {
            start_time: 1,
            ..stranger.record()
        };
        let other_boot = RunRecord {
            boot_id: "another".into(),
            ..stranger.record()
        };
        assert_eq!(earlier.kill().unwrap(), Stale::Gone);
        assert_eq!(other_boot.kill().unwrap(), Stale::Gone);
        assert!(stranger.0.try_wait().unwrap().is_none());
    }

    #[test]
    fn a_worker_that_is_gone_is_gone() {
        let mut worker = Sleeper::new();
        let record = worker.record();
        worker.0.kill().unwrap();
        worker.0.wait().unwrap();
        assert_eq!(record.kill().unwrap(), Stale::Gone);
    }

    #[test]
    fn records_are_read_back_until_removed_and_hold_no_secret() {
        let dir = std::env::temp_dir().join(format!("proxyplane-run-{}", Epoch::new()));
        fs::create_dir(&dir).unwrap();
        let record = Sleeper::new().record();
        record.write(&dir).unwrap();
        fs::write(dir.join("damaged.json"), "{").unwrap();
        assert!(
            !fs::read_to_string(path(&dir, record.service_id))
                .unwrap()
                .contains(&hex(b"nonce"))
        );
        assert_eq!(RunRecord::all(&dir).unwrap(), std::slice::from_ref(&record));
        remove(&dir, record.service_id).unwrap();
        remove(&dir, record.service_id).unwrap();
        assert_eq!(RunRecord::all(&dir).unwrap(), []);
        fs::remove_dir_all(dir).unwrap();
    }
}
