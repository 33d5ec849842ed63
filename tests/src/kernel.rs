//! What the kernel says of a process, and what it lets it use.

use std::{fs, os::unix::process::CommandExt as _, path::Path, process::Command, str::FromStr};

use crate::eventually;

/// Changes the soft limit of a resource, as prlimit(1) names it, for a process that runs.
#[track_caller]
pub fn limit(process: i32, resource: &str, most: u64) {
    // As its own account: root may not everywhere change the limits of others.
    let limited = Command::new("prlimit")
        .args(["--pid", &process.to_string(), &format!("--{resource}={most}:")])
        .uid(account(process, "Uid:"))
        .gid(account(process, "Gid:"))
        .output()
        .expect("prlimit can be started");
    let said = String::from_utf8_lossy(&limited.stderr);
    assert!(limited.status.success(), "{resource} of {process}: {said}");
}

#[track_caller]
fn account(process: i32, kind: &str) -> u32 {
    field(process, kind).expect("a number")
}

/// Memory that a process has, in bytes.
#[track_caller]
pub fn resident(process: i32) -> u64 {
    status(process, "VmRSS:")
}

/// Memory of a process that counts for its limit of data, in bytes.
#[track_caller]
pub fn data_size(process: i32) -> u64 {
    status(process, "VmData:")
}

/// CPU time that a process has used: `utime` and `stime` of proc_pid_stat(5), in ticks of 10 ms.
#[track_caller]
pub fn cpu_ticks(process: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    let (_, behind_name) = stat.rsplit_once(')').expect("its name is in brackets");
    let times = behind_name.split_whitespace().skip(11).take(2);
    times.map(|time| time.parse::<u64>().expect("a number")).sum()
}

/// The numbers of a process's open descriptors.
#[track_caller]
pub fn descriptors(process: i32) -> Vec<u64> {
    let open = fs::read_dir(format!("/proc/{process}/fd")).expect("it runs");
    let numbers = open
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.collect()
}

#[track_caller]
fn status(process: i32, name: &str) -> u64 {
    field::<u64>(process, name).expect("a number of KiB") * 1024
}

/// The first value of a field of `/proc/<pid>/status`.
#[track_caller]
fn field<T: FromStr>(process: i32, name: &str) -> Option<T> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Waits until a process is gone, which a new parent of it may notice a moment later.
#[track_caller]
pub fn has_ended(process: i32) {
    eventually("the process has ended", || {
        (!Path::new(&format!("/proc/{process}")).exists()).then_some(())
    });
}
