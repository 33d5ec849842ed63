//! Who holds a port.

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use proxyplane_spec::ServiceId;

/// Who listens where somebody else wants to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortHolder {
    /// One of our services.
    Service {
        /// Its id.
        id: ServiceId,
        /// Its name.
        name: String,
        /// Code of its workspace.
        workspace: String,
    },
    /// Another process.
    Process {
        /// Its pid.
        pid: i32,
        /// Its name as `ps` shows it.
        name: String,
    },
    /// A process that may not be looked at, or that is gone again.
    Unknown,
}

impl fmt::Display for PortHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service { name, .. } => write!(f, "proxy '{name}'"),
            Self::Process { pid, name } => write!(f, "process {pid} ({})", name.escape_debug()),
            Self::Unknown => f.write_str("another process"),
        }
    }
}

/// The process that listens on `port` so that a bind to one of `addresses` fails. Reads `/proc`: not for a runtime's
/// thread.
pub fn listening_on(addresses: &[IpAddr], port: u16) -> PortHolder {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let table = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(
            table
                .lines()
                .skip(1)
                .filter_map(|line| listener_inode(line, addresses, port)),
        );
    }
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    // Processes share inherited listeners; the oldest is the one that people know.
    let mut pids: Vec<i32> = pids().filter(|pid| !links.is_empty() && holds(*pid, &links)).collect();
    pids.sort_unstable();
    pids.first().map_or(PortHolder::Unknown, |pid| PortHolder::Process {
        pid: *pid,
        name: process_name(*pid),
    })
}

/// Inode of the listening socket of a line of `/proc/net/tcp{,6}`, if it stands in the way.
fn listener_inode(line: &str, addresses: &[IpAddr], port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = fields.next()?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?;
    let (ip, local_port) = local.split_once(':')?;
    if state != LISTEN || u16::from_str_radix(local_port, 16) != Ok(port) {
        return None;
    }
    let held = parse_ip(ip)?;
    addresses
        .iter()
        .any(|wanted| overlap(held, *wanted))
        .then(|| inode.parse().ok())?
}

/// Addresses are printed as native-endian 32-bit words.
pub(super) fn parse_ip(hex: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for start in (0..hex.len()).step_by(8) {
        let word = u32::from_str_radix(hex.get(start..start + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes)
            .ok()
            .map(|octets| IpAddr::V4(Ipv4Addr::from(octets))),
        16 => <[u8; 16]>::try_from(bytes)
            .ok()
            .map(|octets| IpAddr::V6(Ipv6Addr::from(octets))),
        _ => None,
    }
}

/// Does a listener on `held` keep `wanted` from being bound? A listener on `::` may hold IPv4 too.
pub(super) fn overlap(held: IpAddr, wanted: IpAddr) -> bool {
    let (held, wanted) = (held.to_canonical(), wanted.to_canonical());
    held == wanted
        || held == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        || (held.is_ipv4() == wanted.is_ipv4() && (held.is_unspecified() || wanted.is_unspecified()))
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn holds(pid: i32, links: &[String]) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .any(|target| links.iter().any(|link| target.as_os_str() == link.as_str()))
}

fn process_name(pid: i32) -> String {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let comm = comm.trim_end();
    if !comm.is_empty() && !comm.bytes().all(|byte| byte.is_ascii_digit()) {
        return comm.to_owned();
    }
    // A process that was executed by descriptor is called by the descriptor's number; its first argument says more.
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let first = arguments.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(first.rsplit(|byte| *byte == b'/').next().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_listener_of_this_process_is_found_by_pid() {
        let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let PortHolder::Process { pid, name } = listening_on(&[LOOPBACK], port) else {
            panic!("no holder found")
        };
        assert_eq!(pid, i32::try_from(std::process::id()).unwrap());
        assert!(!name.is_empty());
        drop(listener);
        assert_eq!(listening_on(&[LOOPBACK], port), PortHolder::Unknown);
    }

    #[test]
    fn a_wildcard_listener_stands_in_the_way_of_every_address() {
        let listener = TcpListener::bind(("0.0.0.0", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(matches!(listening_on(&[LOOPBACK], port), PortHolder::Process { .. }));
    }

    #[test]
    fn another_address_of_the_same_port_does_not() {
        let line =
            "   0: 0200007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0";
        assert_eq!(listener_inode(line, &[LOOPBACK], 8080), None);
        assert_eq!(listener_inode(line, &[IpAddr::from([127, 0, 0, 2])], 8080), Some(4242));
        assert_eq!(listener_inode(line, &[IpAddr::from([0, 0, 0, 0])], 8080), Some(4242));
        assert_eq!(listener_inode("garbage", &[LOOPBACK], 8080), None);
    }
}
