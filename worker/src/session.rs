//! A session of its own for the process (credentials(7)).
//!
//! No terminal's signals reach it, and where the kernel shares the CPU between sessions first (sched(7), autogroup) the
//! data plane has a share of its own instead of a part of the control plane's.

use nix::{
    errno::Errno,
    unistd::{Pid, getpgid, getppid, setpgid, setsid},
};

/// Makes this process the leader of a new session.
///
/// The control plane starts it as the leader of a process group, which may not lead a session as well: it goes back into
/// the control plane's group for a moment.
pub fn lead() -> Result<(), Errno> {
    let parents = getpgid(Some(getppid()))?;
    setpgid(Pid::from_raw(0), parents)?;
    setsid().map(drop)
}
