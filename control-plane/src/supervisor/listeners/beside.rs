//! A listener on an address that one of ours covers already, or that covers it: 0.0.0.0 beside 127.0.0.1, on one port.
//!
//! The kernel binds both only if both sockets say SO_REUSEPORT. They say so for this moment alone: a group that shares
//! connections is never made, since their addresses differ. The closest address gets a new connection.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use proxyplane_spec::{ServiceId, limits};
use socket2::SockRef;

use super::{Purpose, socket_for};

/// Opens `address` for `service`, with `present` in its way. A probe does not listen: it would get connections.
pub(super) fn open(
    address: SocketAddr,
    present: &[&TcpListener],
    service: ServiceId,
    purpose: Purpose,
) -> io::Result<TcpListener> {
    let socket = socket_for(address)?;
    socket.set_reuse_port(true)?;
    let shared = Shared::of(present, service)?;
    socket.bind(&address.into())?;
    if purpose == Purpose::Use {
        socket.listen(limits::LISTEN_BACKLOG)?;
    }
    drop(shared);
    socket.set_reuse_port(false)?;
    forget(address, service);
    Ok(socket.into())
}

/// Listeners that let others be bound as long as this lives.
struct Shared<'l> {
    listeners: &'l [&'l TcpListener],
    service: ServiceId,
}

impl<'l> Shared<'l> {
    fn of(listeners: &'l [&'l TcpListener], service: ServiceId) -> io::Result<Self> {
        let shared = Self { listeners, service };
        for listener in listeners {
            SockRef::from(*listener).set_reuse_port(true)?;
        }
        Ok(shared)
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        for listener in self.listeners {
            if let Err(error) = SockRef::from(*listener).set_reuse_port(false) {
                tracing::warn!(service = %self.service, %error, "a listener lets others of this account bind its port");
            }
        }
    }
}

/// The kernel remembers of a port that its last socket was bound with SO_REUSEPORT, and lets the same account's next one
/// in unchecked that says so too. It forgets that with the next socket that does not.
fn forget(bound: SocketAddr, service: ServiceId) {
    const OTHER_LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);
    let elsewhere = [
        SocketAddr::from((Ipv6Addr::LOCALHOST, bound.port())),
        SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port())),
        SocketAddr::from((OTHER_LOOPBACK, bound.port())),
    ];
    let forgotten = elsewhere.into_iter().any(|address| {
        let socket = socket_for(address);
        socket.and_then(|socket| socket.bind(&address.into())).is_ok()
    });
    if !forgotten {
        tracing::warn!(
            %service,
            port = bound.port(),
            "another process of this account may bind this port too, with SO_REUSEPORT"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpStream,
        thread,
        time::{Duration, Instant},
    };

    use proxyplane_spec::{ListenHost, ServiceId};

    use super::socket_for;
    use crate::supervisor::listeners::{Listeners, pick_port};

    fn has_a_client(listeners: &Listeners) -> bool {
        listeners
            .duplicates()
            .unwrap()
            .iter()
            .any(|listener| listener.accept().is_ok())
    }

    #[track_caller]
    fn gets_a_client(listeners: &Listeners) {
        let end = Instant::now() + Duration::from_secs(10);
        while !has_a_client(listeners) {
            assert!(Instant::now() < end, "nobody came");
            thread::yield_now();
        }
    }

    #[test]
    fn wider_and_narrower_addresses_are_bound_beside_each_other_and_by_nobody_else() {
        let (all, one) = (ListenHost::parse("host", "0.0.0.0").unwrap(), ListenHost::DEFAULT);
        for (present, next) in [(one, all), (all, one)] {
            let port = pick_port(present).unwrap().unwrap();
            let before = Listeners::bind(present, port).unwrap();
            let after = before.bind_beside(next, port, ServiceId::new()).unwrap();
            let _first = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (closest, other) = if next == one {
                (&after, &before)
            } else {
                (&before, &after)
            };
            gets_a_client(closest);
            assert!(!has_a_client(other));
            drop(before);
            let _second = TcpStream::connect(("127.0.0.1", port)).unwrap();
            gets_a_client(&after);

            assert!(Listeners::bind(one, port).is_err());
            let address = after.addresses()[0];
            let foreign = socket_for(address).unwrap();
            foreign.set_reuse_port(true).unwrap();
            assert!(foreign.bind(&address.into()).is_err(), "not even with SO_REUSEPORT");
        }
    }

    #[test]
    fn somebody_elses_listener_is_in_the_way_all_the_same() {
        let port = pick_port(ListenHost::parse("host", "0.0.0.0").unwrap())
            .unwrap()
            .unwrap();
        let ours = Listeners::bind(ListenHost::DEFAULT, port).unwrap();
        let _foreign = std::net::TcpListener::bind(("127.0.0.2", port)).unwrap();
        let service = ServiceId::new();
        ours.bind_beside(ListenHost::parse("host", "0.0.0.0").unwrap(), port, service)
            .unwrap_err();
        drop(ours.bind_beside(ListenHost::Localhost, port, service).unwrap());
    }
}
