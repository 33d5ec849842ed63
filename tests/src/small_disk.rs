//! A disk that can be filled.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    fcntl::{FallocateFlags, fallocate},
    sys::statvfs::statvfs,
};

/// Unmounts once the test is over, however it ends: its standard input is closed then. Lazily: a process may still be
/// at it.
const WATCHER: &str = r#"cat >/dev/null; umount -l "$1""#;
const MIB: u64 = 1024 * 1024;
/// The smallest piece of it.
const PAGE: u64 = 4_096;

/// A file system in memory, gone with the test.
pub struct SmallDisk {
    path: PathBuf,
    watcher: Child,
}

/// A disk has no more than so much left, until this is dropped.
#[must_use = "there is room again when it is dropped"]
pub struct Full(PathBuf);

impl SmallDisk {
    /// Mounts one of so many MiB at `place`. `None`, which is said, where the tests may not mount.
    pub(crate) fn mount(place: &Path, mib: u32) -> Option<Self> {
        fs::create_dir_all(place).expect("a directory can be made");
        let size = format!("size={mib}m,mode=755");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(place)
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: no small disk can be mounted here; that needs root and mount(2)");
            return None;
        }
        let watcher = Command::new("sh")
            .args(["-c", WATCHER, "watcher"])
            .arg(place)
            .stdin(Stdio::piped())
            // Not ended by the Ctrl-C that ends the tests.
            .process_group(0)
            .spawn()
            .expect("a shell can be started");
        Some(Self {
            path: place.to_owned(),
            watcher,
        })
    }

    /// Fills it with a file until no more than so many MiB are free.
    pub fn fill(&self, left: u64) -> Full {
        let filler = Full(self.path.join("filler"));
        let file = File::create(&filler.0).expect("a file can be made");
        let (mut size, mut most) = (0, u64::MAX);
        // Others write meanwhile. What does not fit is not taken in part: in steps that get smaller then.
        loop {
            let step = self.free().saturating_sub(left * MIB).min(most);
            if step < PAGE {
                return filler;
            }
            match fallocate(&file, FallocateFlags::empty(), offset(size), offset(step)) {
                Ok(()) => size += step,
                Err(_) => most = step / 2,
            }
        }
    }

    fn free(&self) -> u64 {
        let found = statvfs(&self.path).expect("it is mounted");
        found.blocks_available() * found.fragment_size()
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
