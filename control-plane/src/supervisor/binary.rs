//! The worker binary: opened once, accepted by what it says of itself, executed by its descriptor.
//!
//! Replacing the file changes nothing for respawns, and the path need not be reachable for whoever executes it.

use std::{
    fs::{File, Metadata},
    io,
    os::{
        fd::AsRawFd as _,
        unix::{fs::MetadataExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use proxyplane_proto::LINK_PROTOCOL;
use proxyplane_spec::HANDOFF_VERSION;
use serde::Deserialize;

/// For the binary to answer `--version-json`.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);
/// All that a worker sees of our environment.
const ENVIRONMENT: [&str; 8] = [
    "PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "RUST_BACKTRACE",
    "PROXYPLANE_LOG_LEVEL",
];
/// Names beginning like this are for workers.
const ENVIRONMENT_PREFIX: &str = "PROXYPLANE_WORKER_";

/// A binary that was accepted.
#[derive(Debug)]
pub(crate) struct WorkerBinary {
    file: File,
    /// What it says of itself.
    pub(crate) version: WorkerVersion,
}

/// The answer to `--version-json`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct WorkerVersion {
    /// Of the build.
    pub(crate) version: String,
    /// Of the worker link.
    pub(crate) link_protocol: u32,
    /// Of the handoff manifest.
    pub(crate) handoff_version: u32,
    /// What it can do.
    #[serde(default)]
    pub(crate) features: Vec<String>,
}

/// Why a binary is not used.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// It cannot be opened or executed.
    #[error("worker binary {path}: {source}")]
    Unusable {
        /// The binary.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It did not answer as a worker does.
    #[error("worker binary {path}: {why}")]
    Refused {
        /// The binary.
        path: PathBuf,
        /// What it said instead.
        why: String,
    },
}

impl WorkerBinary {
    /// Opens the binary and asks for its version.
    pub(crate) async fn open(path: &Path) -> Result<Self, BinaryError> {
        let unusable = |source| BinaryError::Unusable {
            path: path.to_owned(),
            source,
        };
        let refused = |why: String| BinaryError::Refused {
            path: path.to_owned(),
            why,
        };
        let file = File::open(path).map_err(unusable)?;
        let mut command = tokio::process::Command::from(command(&file));
        command
            .arg("--version-json")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let answer = tokio::time::timeout(VERSION_TIMEOUT, command.output()).await;
        let answer = answer
            .map_err(|_| unusable(io::ErrorKind::TimedOut.into()))?
            .map_err(unusable)?;
        if !answer.status.success() {
            return Err(refused(format!(
                "--version-json ended with {}",
                super::exit::describe(answer.status)
            )));
        }
        let version = serde_json::from_slice(&answer.stdout)
            .map_err(|error| refused(format!("its answer to --version-json cannot be read: {error}")))?;
        check(&version).map_err(refused)?;
        Ok(Self { file, version })
    }

    /// The binary that a running worker was started from: ours if it is the same file, else one to be asked. `None` if it
    /// cannot be had, or cannot be run by this control plane.
    pub(crate) async fn of_process(pid: i32, ours: &Arc<Self>) -> Option<Arc<Self>> {
        let path = PathBuf::from(format!("/proc/{pid}/exe"));
        let same = |theirs: &Metadata, ours: &Metadata| (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino());
        let found = std::fs::metadata(&path).and_then(|theirs| Ok(same(&theirs, &ours.file.metadata()?)));
        match found {
            Ok(true) => return Some(ours.clone()),
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(pid, %error, "the binary of a worker cannot be looked at");
                return None;
            }
        }
        match Self::open(&path).await {
            Ok(binary) => Some(Arc::new(binary)),
            Err(error) => {
                tracing::warn!(pid, %error, "a worker's own binary cannot be run again; the present one will");
                None
            }
        }
    }

    /// A command that runs it as `name`, with a clean environment, away from the terminal's signals. Without a name,
    /// it would be called by the descriptor's number.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = command(&self.file);
        command.arg0(name);
        command
    }
}

fn check(worker: &WorkerVersion) -> Result<(), String> {
    // The control plane also talks to workers of the release before.
    if !(LINK_PROTOCOL.saturating_sub(1)..=LINK_PROTOCOL).contains(&worker.link_protocol) {
        return Err(format!(
            "it speaks link protocol {}, this control plane {LINK_PROTOCOL}",
            worker.link_protocol
        ));
    }
    if worker.handoff_version != HANDOFF_VERSION {
        return Err(format!(
            "it reads handoff version {}, this control plane writes {HANDOFF_VERSION}",
            worker.handoff_version
        ));
    }
    Ok(())
}

fn command(file: &File) -> Command {
    // The child opens its own copy of the descriptor: close-on-exec comes after the kernel has found the file.
    let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
    command.process_group(0).current_dir("/").env_clear();
    command.envs(std::env::vars_os().filter(|(name, _)| {
        name.to_str()
            .is_some_and(|name| ENVIRONMENT.contains(&name) || name.starts_with(ENVIRONMENT_PREFIX))
    }));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_is_executed_by_descriptor_with_a_clean_environment() {
        let file = File::open("/usr/bin/env").unwrap();
        let output = command(&file).env("PROXYPLANE_WORKER_X", "1").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains("PROXYPLANE_WORKER_X=1") && text.contains("PATH="),
            "{text}"
        );
        assert!(!text.contains("CARGO"), "{text}");
    }

    #[test]
    fn a_child_is_in_a_process_group_of_its_own() {
        let file = File::open("/bin/cat").unwrap();
        let output = command(&file).arg("/proc/self/stat").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let fields: Vec<_> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
        assert_eq!(
            fields[2],
            text.split(' ').next().unwrap(),
            "process group is the pid: {text}"
        );
    }

    #[tokio::test]
    async fn a_program_that_is_no_worker_is_refused_by_name() {
        let error = WorkerBinary::open(Path::new("/bin/true"))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/bin/true") && error.contains("--version-json"),
            "{error}"
        );
        let error = WorkerBinary::open(Path::new("/nowhere")).await.unwrap_err().to_string();
        assert!(error.contains("/nowhere"), "{error}");
    }

    #[test]
    fn a_worker_of_another_protocol_is_refused() {
        let version = |link_protocol, handoff_version| WorkerVersion {
            version: "1".into(),
            link_protocol,
            handoff_version,
            features: vec![],
        };
        assert!(check(&version(LINK_PROTOCOL, HANDOFF_VERSION)).is_ok());
        assert!(check(&version(LINK_PROTOCOL + 1, HANDOFF_VERSION)).is_err());
        assert!(check(&version(LINK_PROTOCOL, HANDOFF_VERSION + 1)).is_err());
    }
}
