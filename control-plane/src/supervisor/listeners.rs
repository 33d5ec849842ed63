//! The listening sockets of a service: bound here once, kept for the service's run, lent to its workers.
//!
//! Without SO_REUSEPORT: a conflict is known at once, and a worker's death takes no accept queue with it. Nobody calls
//! `shutdown()` on them, that would end them for every holder.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::{AsFd, BorrowedFd},
};

use proxyplane_spec::{ListenHost, limits};
use rand::Rng as _;
use socket2::{Domain, Protocol, Socket, Type};

/// Ports to pick from for port 0: below the kernel's range for outgoing connections, one of which could otherwise hold
/// the port at the next start.
const PICK_FROM: std::ops::Range<u16> = 10_000..30_000;
const PICK_ATTEMPTS: usize = 64;

/// Listening sockets, at least one, all on the same port.
#[derive(Debug)]
pub(crate) struct Listeners(Vec<(SocketAddr, TcpListener)>);

/// Why an address could not be bound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// Somebody listens there.
    #[error("{0} is in use")]
    InUse(SocketAddr),
    /// Not an address of this machine, or not for us.
    #[error("cannot listen on {address}: {source}")]
    NotAvailable {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Listeners {
    /// Binds every address of `host` that the machine has; the first must be one.
    pub(crate) fn bind(host: ListenHost, port: u16) -> Result<Self, BindError> {
        let mut bound = Vec::new();
        for ip in host.addresses() {
            let address = SocketAddr::new(ip, port);
            match listen(address) {
                Ok(listener) => bound.push((address, listener)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(BindError::InUse(address)),
                Err(error) if !bound.is_empty() && is_missing(&error) => {}
                Err(source) => return Err(BindError::NotAvailable { address, source }),
            }
        }
        Ok(Self(bound))
    }

    /// Those that a worker gave back, if they are the ones of `host` and `port`.
    pub(crate) fn returned(listeners: Vec<(SocketAddr, TcpListener)>, host: ListenHost, port: u16) -> Option<Self> {
        let wanted = host.addresses();
        let first = wanted.first()?;
        let fits = listeners.first().is_some_and(|(address, _)| address.ip() == *first)
            && listeners
                .iter()
                .all(|(address, _)| address.port() == port && wanted.contains(&address.ip()));
        fits.then_some(Self(listeners))
    }

    /// The addresses, in the order of [`Self::descriptors`].
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|(address, _)| *address).collect()
    }

    /// The sockets, to be lent.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(|(_, listener)| listener.as_fd()).collect()
    }

    /// Duplicates for a task of our own.
    pub(crate) fn duplicates(&self) -> io::Result<Vec<TcpListener>> {
        self.0.iter().map(|(_, listener)| listener.try_clone()).collect()
    }
}

/// Could `host` and `port` be bound now?
pub(crate) fn probe(host: ListenHost, port: u16) -> Result<(), BindError> {
    Listeners::bind(host, port).map(drop)
}

/// A port that is free on every address of `host`; `None` if none was found.
pub(crate) fn pick_port(host: ListenHost) -> Result<Option<u16>, BindError> {
    for _ in 0..PICK_ATTEMPTS {
        let port = rand::rng().random_range(PICK_FROM);
        match probe(host, port) {
            Ok(()) => return Ok(Some(port)),
            Err(BindError::InUse(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if matches!(address.ip(), IpAddr::V6(_)) {
        // `::` means all of IPv6; it does not take the port away from IPv4.
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier run may still be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(limits::LISTEN_BACKLOG)?;
    Ok(socket.into())
}

fn is_missing(error: &io::Error) -> bool {
    use nix::libc::{EADDRNOTAVAIL, EAFNOSUPPORT};
    matches!(error.raw_os_error(), Some(EADDRNOTAVAIL | EAFNOSUPPORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> ListenHost {
        ListenHost::DEFAULT
    }

    #[test]
    fn a_picked_port_can_be_bound_and_only_once() {
        let port = pick_port(local()).unwrap().unwrap();
        let first = Listeners::bind(local(), port).unwrap();
        assert_eq!(first.addresses(), [SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port)]);
        assert!(matches!(probe(local(), port), Err(BindError::InUse(address)) if address.port() == port));
        drop(first);
        probe(local(), port).unwrap();
    }

    #[test]
    fn returned_listeners_are_those_of_the_service_or_none() {
        let port = pick_port(local()).unwrap().unwrap();
        let duplicates = || {
            let bound = Listeners::bind(local(), port).unwrap();
            let sockets = bound.duplicates().unwrap();
            bound.addresses().into_iter().zip(sockets).collect::<Vec<_>>()
        };
        let (mine, other_port, other_host) = (duplicates, port + 1, ListenHost::parse("host", "::1").unwrap());
        assert!(Listeners::returned(mine(), local(), port).is_some());
        assert!(Listeners::returned(mine(), local(), other_port).is_none());
        assert!(Listeners::returned(mine(), other_host, port).is_none());
        assert!(Listeners::returned(Vec::new(), local(), port).is_none());
    }

    #[test]
    fn localhost_is_bound_on_ipv4_at_least() {
        let port = pick_port(ListenHost::Localhost).unwrap().unwrap();
        let listeners = Listeners::bind(ListenHost::Localhost, port).unwrap();
        assert!(listeners.addresses()[0].is_ipv4());
        assert_eq!(listeners.addresses().len(), listeners.descriptors().len());
    }

    #[test]
    fn an_address_of_another_machine_is_not_available() {
        let host = ListenHost::parse("host", "192.0.2.1").unwrap();
        assert!(matches!(probe(host, 18_080), Err(BindError::NotAvailable { .. })));
    }
}
