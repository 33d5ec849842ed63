//! A disk of the spool's own, which may be filled.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    fcntl::{FallocateFlags, fallocate},
    unistd::geteuid,
};

/// Unmounts once the run is over, however it ends: its standard input is closed then.
const WATCHER: &str = r#"cat >/dev/null; umount -l "$1""#;
/// Many times what waits in a run.
const SIZE: u64 = 256 * 1024 * 1024;
/// The smallest piece of it.
const PAGE: u64 = 4_096;

/// A small file system in memory, mounted over the directory of the spools.
pub(super) struct SmallDisk {
    path: PathBuf,
    watcher: Child,
}

/// Nothing more can be written, until this is dropped.
pub(super) struct Full(PathBuf);

impl SmallDisk {
    /// Over `path`, which is made. `None` for who may not mount.
    pub(super) fn mount(path: &Path) -> Option<Self> {
        if !geteuid().is_root() {
            return None;
        }
        fs::create_dir_all(path).expect("a directory can be made");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={SIZE},mode=0711"), "chaos"]);
        let mounted = mount.arg(path).stderr(Stdio::null()).status();
        if !mounted.is_ok_and(|status| status.success()) {
            return None;
        }
        let watcher = Command::new("sh")
            .args(["-c", WATCHER, "watcher"])
            .arg(path)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell can be started");
        Some(Self {
            path: path.to_owned(),
            watcher,
        })
    }

    /// Takes all that is left.
    pub(super) fn fill(&self) -> Full {
        let filler = Full(self.path.join("filler"));
        let file = File::create(&filler.0).expect("a file can be made");
        // In steps that get smaller: what does not fit is not taken in part.
        let (mut step, mut size) = (SIZE, 0);
        while step >= PAGE {
            match fallocate(&file, FallocateFlags::empty(), offset(size), offset(step)) {
                Ok(()) => size += step,
                Err(_) => step /= 2,
            }
        }
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn offset(bytes: u64) -> i64 {
    i64::try_from(bytes).expect("it is small")
}
