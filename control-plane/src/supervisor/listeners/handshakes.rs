//! TCP handshakes that have begun and not ended, as the kernel lists them (proc_pid_net(5)).

use std::{fs, net::SocketAddr};

use crate::supervisor::holder::{overlap, parse_ip};

/// Is a client half-way in to one of these listeners? Reads `/proc`: not for a runtime's thread.
pub(super) fn under_way(listeners: &[SocketAddr]) -> bool {
    ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().any(|table| {
        let table = fs::read_to_string(table).unwrap_or_default();
        let mut clients = table.lines().skip(1).filter_map(half_open);
        clients.any(|local| {
            listeners
                .iter()
                .any(|listener| listener.port() == local.port() && overlap(listener.ip(), local.ip()))
        })
    })
}

/// The local address of a line of `/proc/net/tcp{,6}` that is a handshake.
fn half_open(line: &str) -> Option<SocketAddr> {
    const SYN_RECV: &str = "03";
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (ip, port) = fields.next()?.split_once(':')?;
    let state = fields.nth(1)?;
    let port = u16::from_str_radix(port, 16).ok()?;
    (state == SYN_RECV).then(|| Some(SocketAddr::new(parse_ip(ip)?, port)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_handshake_is_none() {
        let line =
            |state| format!("   0: 0100007F:1F90 0100007F:9C40 {state} 00000000:00000000 01:00000064 00000000 0 0 0");
        assert_eq!(half_open(&line("03")), Some("127.0.0.1:8080".parse().unwrap()));
        for state in ["01", "0A"] {
            assert_eq!(half_open(&line(state)), None);
        }
        assert_eq!(half_open("garbage"), None);
    }
}
