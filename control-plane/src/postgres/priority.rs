//! Traffic first: while there is not enough CPU for everything, the private Postgres gets less of it than the workers.
//!
//! Nothing is lost by it, records wait in the workers until they are committed. In one interleaved run on two saturated
//! cores the 99th percentile of plain HTTP fell from 2.1 to 1.6 times hudsucker's; later runs hardly rose above the noise.

use std::fs;

use rustix::process::{Pid, getpriority_process, setpriority_process};
use tracing::debug;

/// A third of the weight of a process at 0 (sched(7)).
const NICE: i32 = 5;

/// Lowers the priority of `postmaster` and of what it starts from now on. Without the right to, it stays as it is.
pub(super) fn lower(postmaster: i32) {
    let Some(pid) = Pid::from_raw(postmaster) else { return };
    let nice = getpriority_process(Some(pid)).map_or(NICE, |now| now.max(NICE));
    if let Err(error) = setpriority_process(Some(pid), nice) {
        debug!(%error, "the private Postgres keeps its priority");
    }
    // Where the kernel shares CPU between sessions first, niceness counts only inside of one (sched(7), autogroup).
    if let Err(error) = fs::write(format!("/proc/{postmaster}/autogroup"), nice.to_string()) {
        debug!(%error, "the private Postgres keeps its session's share");
    }
}
