//! What a worker may do: who it runs as, and what of its sandbox the kernel keeps to.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An account of the system, by its numbers: it need not have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// User id; never 0.
    pub uid: u32,
    /// Group id; the only group.
    pub gid: u32,
}

/// What is in force in a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Whom it runs as.
    pub uid: u32,
    /// It can gain no rights by executing something (prctl(2), PR_SET_NO_NEW_PRIVS).
    pub no_new_privs: bool,
    /// Version of Landlock that is in force, landlock(7); 0 when the kernel has none.
    pub landlock_abi: u32,
    /// Most open descriptors.
    pub open_files: u64,
    /// Most memory, in bytes (RLIMIT_DATA).
    pub memory: u64,
}

impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}", self.uid)?;
        if self.no_new_privs {
            f.write_str(", no_new_privs")?;
        }
        match self.landlock_abi {
            0 => f.write_str(", no landlock")?,
            abi => write!(f, ", landlock abi {abi}")?,
        }
        let (files, mebibytes) = (self.open_files, self.memory >> 20);
        write!(f, ", rlimits nofile {files}, data {mebibytes} MiB, core 0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_described_in_one_line() {
        let whole = Sandbox {
            uid: 61_070,
            no_new_privs: true,
            landlock_abi: 7,
            open_files: 20_000,
            memory: 2 << 30,
        };
        assert_eq!(
            whole.to_string(),
            "uid 61070, no_new_privs, landlock abi 7, rlimits nofile 20000, data 2048 MiB, core 0"
        );
        let bare = Sandbox {
            landlock_abi: 0,
            ..whole
        };
        assert!(bare.to_string().contains(", no landlock,"), "{bare}");
    }
}
