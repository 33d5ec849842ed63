//! Limits of resources, setrlimit(2).

use std::io;

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    sysinfo::sysinfo,
};

/// Least bound of memory: thread stacks, malloc's arenas and a full queue of records fit many times over.
const MEMORY_MIN: u64 = 2 << 30;

/// Raises the limit of open descriptors as far as it goes and says where it is: every exchange may need two, and the
/// usual soft limit of 1,024 is for select(2), which nobody calls here.
pub(super) fn raise_open_files() -> u64 {
    let raise = |(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    if let Err(error) = getrlimit(Resource::RLIMIT_NOFILE).and_then(raise) {
        tracing::warn!(%error, "cannot raise the limit of descriptors");
    }
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}

/// A core file would hold keys and what passed through.
pub(super) fn no_core_dumps() -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_CORE, 0, 0)?)
}

/// Half of the machine's memory, and at least 2 GiB: a worker that runs away dies before the machine does. Says the
/// bound, in bytes.
pub(super) fn bound_memory() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_DATA)?;
    let bound = (sysinfo()?.ram_total() / 2).max(MEMORY_MIN).min(hard);
    setrlimit(Resource::RLIMIT_DATA, bound, bound)?;
    Ok(bound)
}
