//! Requests that would come back to this service or reach the control plane.

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Is `target` one of `own`, whichever way it is spelled?
///
/// IPv4-mapped addresses count as IPv4, an unspecified target reaches this machine, and a listener on an unspecified
/// address is reached by every address of it.
pub(super) fn leads_to(target: SocketAddr, own: &[SocketAddr]) -> bool {
    let ip = target.ip().to_canonical();
    own.iter()
        .any(|own| own.port() == target.port() && reaches(ip, own.ip().to_canonical()))
}

fn reaches(target: IpAddr, own: IpAddr) -> bool {
    if target == own {
        return true;
    }
    if target.is_unspecified() {
        return own.is_loopback() || own.is_unspecified();
    }
    own.is_unspecified() && is_local(target)
}

/// Has this machine the address? The kernel lets only own addresses be bound.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leads(target: &str, own: &str) -> bool {
        leads_to(target.parse().unwrap(), &[own.parse().unwrap()])
    }

    #[test]
    fn own_listeners_are_recognised_in_every_spelling() {
        assert!(leads("127.0.0.1:80", "127.0.0.1:80"));
        assert!(leads("[::ffff:127.0.0.1]:80", "127.0.0.1:80"));
        assert!(leads("0.0.0.0:80", "127.0.0.1:80"));
        assert!(leads("[::]:80", "[::1]:80"));
        assert!(leads("127.0.0.1:80", "0.0.0.0:80"));
        assert!(leads("127.3.4.5:80", "0.0.0.0:80"));
        assert!(leads("[::1]:80", "[::]:80"));
        assert!(leads("127.0.0.1:80", "[::]:80"));
    }

    #[test]
    fn others_are_let_through() {
        assert!(!leads("127.0.0.1:81", "127.0.0.1:80"));
        assert!(!leads("127.0.0.2:80", "127.0.0.1:80"));
        assert!(!leads("192.0.2.1:80", "0.0.0.0:80"));
        assert!(!leads("192.0.2.1:80", "127.0.0.1:80"));
    }
}
