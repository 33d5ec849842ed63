//! What is known of a running worker beyond this process's life: `run/<service>.json` of the one that serves,
//! `run/<service>.<epoch>.next` of one that is to take over, `run/<service>.<epoch>.drain` of one that was replaced.
//!
//! A control plane that knows of no overlap sees the first kind only, and leaves the others to end by themselves.
//!
//! A pid alone may by now be somebody else's. Pid, start time and boot together name one process, and a worker carries
//! its epoch in its name; signals go through a pidfd that was opened before they were compared.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use proxyplane_spec::{Epoch, ServiceId, WorkspaceId};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::{
    hex,
    link::Expected,
    process_table::{START_TIME, STATE, stat},
};

/// What an instance is to its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// It serves.
    Serving,
    /// It is to, once it is READY.
    Successor,
    /// It did, and ends when what it has open is finished.
    Draining,
}

impl Role {
    const ALL: [Self; 3] = [Self::Serving, Self::Successor, Self::Draining];

    fn extension(self) -> &'static str {
        match self {
            Self::Serving => "json",
            Self::Successor => "next",
            Self::Draining => "drain",
        }
    }
}

/// One worker instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    /// The service it runs.
    pub(crate) service_id: ServiceId,
    /// Where that belongs: the service may be gone when this is read.
    pub(crate) workspace_id: WorkspaceId,
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
    /// It was told to end. Control planes from before this field did not write it.
    #[serde(default)]
    pub(crate) ending: bool,
}

impl RunRecord {
    /// Of the live process that `expected` tells of.
    pub(crate) fn of(expected: &Expected) -> io::Result<Self> {
        Ok(Self {
            service_id: expected.service_id,
            workspace_id: expected.workspace_id,
            epoch: expected.epoch,
            pid: expected.pid,
            start_time: start_time(expected.pid)?,
            boot_id: boot_id()?,
            nonce_sha256: hex::encode(&expected.nonce_sha256),
            ending: false,
        })
    }

    /// Writes it, whole or not at all.
    pub(crate) fn write(&self, run_dir: &Path, role: Role) -> io::Result<()> {
        let path = path(run_dir, self.service_id, self.epoch, role);
        let fresh = path.with_added_extension("new");
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

    /// Every record in `run_dir`, by service, and in the order of roles; unreadable ones are told of and left out.
    pub(crate) fn all(run_dir: &Path) -> io::Result<Vec<(Role, Self)>> {
        let mut records: Vec<(Role, Self)> = Vec::new();
        for entry in fs::read_dir(run_dir)? {
            let path = entry?.path();
            let extension = path.extension().unwrap_or_default();
            let Some(role) = Role::ALL.into_iter().find(|role| extension == role.extension()) else {
                continue;
            };
            let record = fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?));
            match record {
                Ok(record) => records.push((role, record)),
                Err(error) => tracing::warn!(path = %path.display(), %error, "a run record cannot be read"),
            }
        }
        records.sort_by_key(|(role, record)| (record.service_id.0, *role, record.epoch.0));
        Ok(records)
    }

    /// The process, if it is still there and the one that was recorded: a process that only has its pid is not.
    pub(crate) fn find(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        // Opened before anything is compared: from here on it is the same process, whatever becomes of the pid.
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let same = boot_id()? == self.boot_id
            && start_time(self.pid).ok() == Some(self.start_time)
            && is_named(self.pid, self.epoch);
        Ok(same.then_some(process))
    }

    /// Is it a crash that the process is gone? Not if it was told to end, or went with the machine.
    pub(crate) fn died_unasked(&self) -> bool {
        !self.ending && boot_id().is_ok_and(|boot| boot == self.boot_id)
    }

    /// SHA-256 of its nonce; `None` if the record is damaged.
    pub(crate) fn nonce_sha256(&self) -> Option<[u8; 32]> {
        hex::decode(&self.nonce_sha256)?.try_into().ok()
    }
}

/// What every worker's first argument begins with.
const PROGRAM: &str = "proxyplane-worker: ";

/// What a worker's first argument is, for `proxy` (`workspace/name`): who looks at the process table sees which instance
/// it is, and so do we.
pub(crate) fn process_name(proxy: &str, epoch: Epoch) -> String {
    format!("{PROGRAM}{proxy} {epoch}")
}

/// Does the process call itself this instance? One that has ended and was not reaped yet calls itself nothing.
fn is_named(pid: i32, epoch: Epoch) -> bool {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let name = arguments.split(|byte| *byte == 0).next().unwrap_or_default();
    let is_ours = name.starts_with(PROGRAM.as_bytes()) && name.ends_with(format!(" {epoch}").as_bytes());
    is_ours || stat(pid, STATE).is_ok_and(|state| state == "Z")
}

/// Removes the record of a worker that is gone.
pub(crate) fn remove(run_dir: &Path, service_id: ServiceId, epoch: Epoch, role: Role) -> io::Result<()> {
    match fs::remove_file(path(run_dir, service_id, epoch, role)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The instance that serves is told to end: should nobody see it do so, it is no crash that it is gone. `false`: it was
/// to be told, but was not, and serves on.
pub(crate) fn set_ending(run_dir: &Path, service_id: ServiceId, epoch: Epoch, ending: bool) -> io::Result<()> {
    let text = fs::read(path(run_dir, service_id, epoch, Role::Serving))?;
    let record: RunRecord = serde_json::from_slice(&text)?;
    if record.epoch != epoch || record.ending == ending {
        return Ok(());
    }
    RunRecord { ending, ..record }.write(run_dir, Role::Serving)
}

/// The successor `new` takes the place of `old`, which drains from now on: at no moment nobody is recorded as serving.
pub(crate) fn replace(run_dir: &Path, service_id: ServiceId, old: Epoch, new: Epoch) -> io::Result<()> {
    let path = |epoch, role| path(run_dir, service_id, epoch, role);
    fs::hard_link(path(old, Role::Serving), path(old, Role::Draining))?;
    fs::rename(path(new, Role::Successor), path(new, Role::Serving))
}

/// An instance is another to its service from now on.
pub(crate) fn change(run_dir: &Path, service_id: ServiceId, epoch: Epoch, roles: [Role; 2]) -> io::Result<()> {
    let [from, to] = roles.map(|role| path(run_dir, service_id, epoch, role));
    fs::rename(from, to)
}

fn path(run_dir: &Path, service_id: ServiceId, epoch: Epoch, role: Role) -> PathBuf {
    let extension = role.extension();
    run_dir.join(match role {
        // There is one, and its name does not depend on which.
        Role::Serving => format!("{service_id}.{extension}"),
        Role::Successor | Role::Draining => format!("{service_id}.{epoch}.{extension}"),
    })
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn start_time(pid: i32) -> io::Result<u64> {
    stat(pid, START_TIME)?
        .parse()
        .map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::CommandExt as _,
        process::{Child, Command},
    };

    use super::*;

    struct Sleeper(Child, Epoch);

    impl Sleeper {
        fn new() -> Self {
            let epoch = Epoch::new();
            let mut command = Command::new("sleep");
            let named = command.arg0(process_name("default/capture", epoch));
            let child = named.arg("600").spawn().unwrap();
            // Executed, it has its arguments a moment later.
            while fs::read(format!("/proc/{}/cmdline", child.id())).unwrap().is_empty() {
                std::thread::yield_now();
            }
            Self(child, epoch)
        }

        fn record(&self) -> RunRecord {
            RunRecord::of(&Expected {
                epoch: self.1,
                nonce_sha256: [0xab; 32],
                pid: i32::try_from(self.0.id()).unwrap(),
                service_id: ServiceId::new(),
                workspace_id: WorkspaceId::new(),
            })
            .unwrap()
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_recorded_worker_is_found_until_it_is_gone() {
        let mut worker = Sleeper::new();
        let record = worker.record();
        assert!(record.find().unwrap().is_some());
        worker.0.kill().unwrap();
        while stat(record.pid, 0).unwrap() != "Z" {
            std::thread::yield_now();
        }
        assert!(record.find().unwrap().is_some(), "whoever watches it reaps it");
        worker.0.wait().unwrap();
        assert!(record.find().unwrap().is_none());
    }

    #[test]
    fn a_process_that_only_has_the_pid_is_somebody_else() {
        let stranger = Sleeper::new();
        let record = stranger.record();
        let earlier = RunRecord {
            start_time: 1,
            ..record.clone()
        };
        let other_boot = RunRecord {
            boot_id: "another".into(),
            ..record.clone()
        };
        let other_name = RunRecord {
            epoch: Epoch::new(),
            ..record
        };
        for other in [earlier, other_boot, other_name] {
            assert!(other.find().unwrap().is_none(), "{other:?}");
        }
    }

    #[test]
    fn records_are_read_back_until_removed() {
        let dir = std::env::temp_dir().join(format!("proxyplane-run-{}", Epoch::new()));
        fs::create_dir(&dir).unwrap();
        let record = Sleeper::new().record();
        record.write(&dir, Role::Serving).unwrap();
        fs::write(dir.join("damaged.json"), "{").unwrap();
        let found = RunRecord::all(&dir).unwrap();
        assert_eq!(found, [(Role::Serving, record.clone())]);
        assert_eq!(found[0].1.nonce_sha256(), Some([0xab; 32]));
        remove(&dir, record.service_id, record.epoch, Role::Serving).unwrap();
        remove(&dir, record.service_id, record.epoch, Role::Serving).unwrap();
        assert_eq!(RunRecord::all(&dir).unwrap(), []);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_successor_takes_the_place_of_the_one_that_served() {
        let dir = tempfile::tempdir().unwrap();
        let old = Sleeper::new().record();
        let new = RunRecord {
            epoch: Epoch::new(),
            ..old.clone()
        };
        old.write(dir.path(), Role::Serving).unwrap();
        new.write(dir.path(), Role::Successor).unwrap();
        let found = || RunRecord::all(dir.path()).unwrap();
        assert_eq!(found(), [(Role::Serving, old.clone()), (Role::Successor, new.clone())]);
        replace(dir.path(), old.service_id, old.epoch, new.epoch).unwrap();
        assert_eq!(found(), [(Role::Serving, new.clone()), (Role::Draining, old.clone())]);
        remove(dir.path(), old.service_id, old.epoch, Role::Draining).unwrap();
        assert_eq!(found(), [(Role::Serving, new)]);
    }

    #[test]
    fn a_worker_that_was_told_to_end_or_ran_before_the_machine_was_started_did_not_crash() {
        let dir = tempfile::tempdir().unwrap();
        let record = Sleeper::new().record();
        assert!(record.died_unasked());
        let other_boot = RunRecord {
            boot_id: "another".into(),
            ..record.clone()
        };
        assert!(!other_boot.died_unasked());

        record.write(dir.path(), Role::Serving).unwrap();
        let found = || RunRecord::all(dir.path()).unwrap().remove(0).1;
        set_ending(dir.path(), record.service_id, Epoch::new(), true).unwrap();
        assert!(found().died_unasked(), "it was another one that was told");
        set_ending(dir.path(), record.service_id, record.epoch, true).unwrap();
        assert!(!found().died_unasked());
        set_ending(dir.path(), record.service_id, record.epoch, false).unwrap();
        assert!(found().died_unasked(), "it serves on");

        let mut earlier = serde_json::to_value(&record).unwrap();
        earlier.as_object_mut().unwrap().remove("ending");
        let earlier: RunRecord = serde_json::from_value(earlier).unwrap();
        assert_eq!(earlier, record, "as control planes before wrote it");
    }

    #[test]
    fn a_damaged_nonce_is_no_nonce() {
        let record = Sleeper::new().record();
        for damaged in ["", "zz", &"z".repeat(64), &"é".repeat(32)] {
            let record = RunRecord {
                nonce_sha256: damaged.to_owned(),
                ..record.clone()
            };
            assert_eq!(record.nonce_sha256(), None, "{damaged}");
        }
    }
}
