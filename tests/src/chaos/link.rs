//! The worker link, cut as a network would cut it: both ends live, and their connections are gone.

use std::{fs, os::fd::AsRawFd as _};

use nix::sys::socket::{Shutdown, shutdown};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// `__SO_ACCEPTCON` of linux/net.h: it listens.
const ACCEPT_CON: u32 = 1 << 16;

/// Shuts down every connection of the link that a control plane has, with duplicates of its descriptors. Its listener,
/// which a shutdown would close for good, is left alone.
pub(super) fn cut(control_plane: i32) {
    let connections = connections_to("/link.sock");
    let pid = Pid::from_raw(control_plane).expect("a process has a pid");
    let process = pidfd_open(pid, PidfdFlags::empty()).expect("the control plane lives");
    let descriptors = fs::read_dir(format!("/proc/{control_plane}/fd")).expect("it has descriptors");
    for descriptor in descriptors.flatten() {
        let target = fs::read_link(descriptor.path()).unwrap_or_default();
        let number = descriptor.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(number) = number
            && connections
                .iter()
                .any(|inode| target.as_os_str() == format!("socket:[{inode}]").as_str())
            && let Ok(socket) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty())
        {
            // It may just have ended.
            let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
        }
    }
}

/// How many connections to the socket whose path ends so are open, also those that nobody has accepted yet.
pub(super) fn count_to(end: &str) -> usize {
    connections_to(end).len()
}

/// Inodes of the server's ends of connections to a socket, by the path that they share with it: unix(7), and
/// `/proc/net/unix` of proc(5).
fn connections_to(end: &str) -> Vec<u64> {
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let connections = sockets.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, flags, _, _, inode, path] = fields.as_slice() else {
            return None;
        };
        let listens = u32::from_str_radix(flags, 16).ok()? & ACCEPT_CON != 0;
        (path.ends_with(end) && !listens).then(|| inode.parse().ok()).flatten()
    });
    connections.collect()
}
