//! A disk that can be filled.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// A file system in memory, gone with the test.
pub struct SmallDisk(PathBuf);

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
        Some(Self(place.to_owned()))
    }

    /// Fills it with a file until no more than so many MiB are free.
    pub fn fill(&self, left: u64) {
        let filler = self.0.join("filler");
        let _ = fs::remove_file(&filler);
        let found = nix::sys::statvfs::statvfs(&self.0).expect("it is mounted");
        let free = found.blocks_available() * found.fragment_size();
        let size = i64::try_from(free.saturating_sub(left * 1024 * 1024)).expect("it is small");
        let file = File::create(filler).expect("a file can be made");
        nix::fcntl::posix_fallocate(file, 0, size).expect("there is room for it");
    }

    /// Undoes [`Self::fill`].
    pub fn make_room(&self) {
        fs::remove_file(self.0.join("filler")).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process may still be at it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
