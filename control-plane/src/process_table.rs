//! What `/proc` tells of processes (proc_pid_stat(5)), and of the kernel's killing of them.

use std::{fs, io};

/// The state, of the fields of [`stat`].
pub(crate) const STATE: usize = 0;
/// The parent's pid.
const PARENT: usize = 1;
/// When the process began, in ticks since boot.
pub(crate) const START_TIME: usize = 19;

/// A field behind the name, counted from 0.
pub(crate) fn stat(pid: i32, field: usize) -> io::Result<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name is in parentheses and may itself hold blanks and parentheses.
    let found = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(field));
    found
        .map(str::to_owned)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Processes whose parent this is, now.
pub(crate) fn children(parent: i32) -> Vec<i32> {
    let parent = parent.to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes
        .filter(|&process| stat(process, PARENT).is_ok_and(|of| of == parent))
        .collect()
}

/// How many processes the kernel has killed for want of memory, its own or a cgroup's, since boot; of the whole machine,
/// also in a container. `None`: Linux before 4.13, or `/proc` cannot be read.
pub(crate) fn oom_kills() -> Option<u64> {
    let counters = fs::read_to_string("/proc/vmstat").ok()?;
    let count = counters.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
    count.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, id};

    use super::*;

    #[test]
    fn a_child_is_among_the_children_until_it_is_reaped() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = child.id().cast_signed();
        assert!(children(id().cast_signed()).contains(&pid));
        assert!(stat(pid, START_TIME).unwrap().parse::<u64>().unwrap() > 0);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children(id().cast_signed()).contains(&pid));
        assert!(stat(pid, STATE).is_err());
    }
}
