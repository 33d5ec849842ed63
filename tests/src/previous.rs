//! Programs of an earlier commit.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// What `scripts/previous` says when the history lacks the commit.
const NO_HISTORY: i32 = 3;

/// Control plane and worker of the release before, as far as there is one: of the commit that `scripts/previous` names.
pub struct Previous(PathBuf);

impl Previous {
    /// Builds them unless that was done before. `None`, after it was said why, in a clone without that commit. To be
    /// called before the test's world is made, whose time is limited.
    #[track_caller]
    pub fn programs() -> Option<&'static Self> {
        static BUILT: OnceLock<Option<Previous>> = OnceLock::new();
        BUILT.get_or_init(build).as_ref()
    }

    /// The control plane.
    pub fn control_plane(&self) -> PathBuf {
        self.0.join("proxyplane")
    }

    /// The worker.
    pub fn worker(&self) -> PathBuf {
        self.0.join("proxyplane-worker")
    }
}

#[track_caller]
fn build() -> Option<Previous> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/previous");
    let output = Command::new(&script)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    if output.status.code() == Some(NO_HISTORY) {
        return None;
    }
    assert!(output.status.success(), "{}: {}", script.display(), output.status);
    Some(Previous(String::from_utf8_lossy(&output.stdout).trim().into()))
}
