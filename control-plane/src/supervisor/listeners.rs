//! The listening sockets of a service: bound here once, kept for the service's run, lent to its workers.
//!
//! Without SO_REUSEPORT (but see `beside.rs`): a conflict is known at once, and a worker's death takes no accept queue with
//! it. Nobody calls `shutdown()` on them, that would end them for every holder.

mod beside;
mod closing;
mod handshakes;

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

pub(crate) use closing::Closing;
use proxyplane_spec::{ListenHost, ServiceId, Violation, limits};
use rand::Rng as _;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::holder::overlap;

/// Ports to pick from for port 0: below the kernel's range for outgoing connections, one of which could otherwise hold
/// the port at the next start.
const PICK_FROM: std::ops::Range<u16> = 10_000..30_000;
const PICK_ATTEMPTS: usize = 64;

/// Listening sockets, at least one, all on the same port.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// What they are all of the addresses of; `None` if they are of nothing that a service can be told.
    place: Option<(ListenHost, u16)>,
    sockets: Vec<(SocketAddr, TcpListener)>,
}

/// What listeners are opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To be accepted from.
    Use,
    /// To be closed again.
    Probe,
}

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

impl BindError {
    /// The setting of a service that is wrong; of a port that is in use, its holder says more.
    pub(crate) fn blamed(&self) -> Option<Violation> {
        let Self::NotAvailable { address, source } = self else {
            return None;
        };
        if is_missing(source) {
            let description = format!("{} is no address of this machine", address.ip());
            return Some(Violation::new("host", description));
        }
        let is_forbidden = source.kind() == io::ErrorKind::PermissionDenied;
        is_forbidden.then(|| Violation::new("port", format!("the server may not listen on port {}", address.port())))
    }
}

impl Listeners {
    /// Binds every address of `host` that the machine has; the first must be one.
    pub(crate) fn bind(host: ListenHost, port: u16) -> Result<Self, BindError> {
        Self::gather(host, port, listen)
    }

    /// The same while these are open: a socket that is on one of the addresses already is shared, and one that is only
    /// in the way is not. They are `service`'s.
    pub(crate) fn bind_beside(&self, host: ListenHost, port: u16, service: ServiceId) -> Result<Self, BindError> {
        self.open_beside(host, port, service, Purpose::Use)
    }

    /// Could these be bound now?
    pub(crate) fn probe_beside(&self, host: ListenHost, port: u16, service: ServiceId) -> Result<(), BindError> {
        self.open_beside(host, port, service, Purpose::Probe).map(drop)
    }

    fn open_beside(
        &self,
        host: ListenHost,
        port: u16,
        service: ServiceId,
        purpose: Purpose,
    ) -> Result<Self, BindError> {
        Self::gather(host, port, |address| {
            if let Some(present) = self.on(address) {
                return present.try_clone();
            }
            let in_the_way = self
                .sockets
                .iter()
                .filter(|(held, _)| held.port() == port && overlap(held.ip(), address.ip()));
            let in_the_way: Vec<_> = in_the_way.map(|(_, listener)| listener).collect();
            if in_the_way.is_empty() {
                listen(address)
            } else {
                beside::open(address, &in_the_way, service, purpose)
            }
        })
    }

    fn gather(
        host: ListenHost,
        port: u16,
        mut listener_on: impl FnMut(SocketAddr) -> io::Result<TcpListener>,
    ) -> Result<Self, BindError> {
        let mut bound = Vec::new();
        for ip in host.addresses() {
            let address = SocketAddr::new(ip, port);
            match listener_on(address) {
                Ok(listener) => bound.push((address, listener)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(BindError::InUse(address)),
                Err(error) if !bound.is_empty() && is_missing(&error) => {}
                Err(source) => return Err(BindError::NotAvailable { address, source }),
            }
        }
        Ok(Self {
            place: Some((host, port)),
            sockets: bound,
        })
    }

    /// Those that a worker gave back, which may be the ones of `host` and `port`.
    pub(crate) fn returned(sockets: Vec<(SocketAddr, TcpListener)>, host: ListenHost, port: u16) -> Self {
        let wanted = host.addresses();
        let given = |ip: &IpAddr| sockets.iter().any(|(address, _)| address.ip() == *ip);
        // What the machine does not have could not be bound either; asked without taking a port.
        let complete = wanted.first().is_some_and(given)
            && wanted
                .iter()
                .all(|ip| given(ip) || UdpSocket::bind((*ip, 0)).is_err_and(|error| is_missing(&error)));
        let no_more = sockets
            .iter()
            .all(|(address, _)| address.port() == port && wanted.contains(&address.ip()));
        Self {
            place: (complete && no_more).then_some((host, port)),
            sockets,
        }
    }

    /// Are they the ones of `host` and `port`?
    pub(crate) fn is_at(&self, host: ListenHost, port: u16) -> bool {
        self.place == Some((host, port))
    }

    fn on(&self, address: SocketAddr) -> Option<&TcpListener> {
        let found = self.sockets.iter().find(|(held, _)| *held == address);
        found.map(|(_, listener)| listener)
    }

    /// The addresses, in the order of [`Self::descriptors`].
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|(address, _)| *address).collect()
    }

    /// The sockets, to be lent.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.sockets.iter().map(|(_, listener)| listener.as_fd()).collect()
    }

    /// Duplicates for a task of our own, or to be lent.
    pub(crate) fn duplicates(&self) -> io::Result<Vec<TcpListener>> {
        self.sockets.iter().map(|(_, listener)| listener.try_clone()).collect()
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
    let socket = socket_for(address)?;
    socket.bind(&address.into())?;
    socket.listen(limits::LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// A socket for a listener on `address`, not bound yet.
fn socket_for(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if matches!(address.ip(), IpAddr::V6(_)) {
        // `::` means all of IPv6; it does not take the port away from IPv4.
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier run may still be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The listener on `address` that `socket`, which came from elsewhere, is; `None` if it is none.
pub(crate) fn listening(address: SocketAddr, socket: OwnedFd) -> io::Result<Option<TcpListener>> {
    let listens = SockRef::from(&socket).is_listener().unwrap_or(false);
    let listener = TcpListener::from(socket);
    if !listens || listener.local_addr().ok() != Some(address) {
        return Ok(None);
    }
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
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
        let is_at = |sockets, host, port| Listeners::returned(sockets, host, port).is_at(host, port);
        assert!(is_at(mine(), local(), port));
        assert!(!is_at(mine(), local(), other_port));
        assert!(!is_at(mine(), other_host, port));
        assert!(!is_at(Vec::new(), local(), port));
        let has_ipv6 = UdpSocket::bind("[::1]:0").is_ok();
        assert_eq!(
            is_at(mine(), ListenHost::Localhost, port),
            !has_ipv6,
            "half of it is not it"
        );
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
        let error = probe(host, 18_080).unwrap_err();
        assert!(matches!(error, BindError::NotAvailable { .. }), "{error}");
        assert_eq!(error.blamed().unwrap().field, "host");
    }

    #[test]
    fn a_port_that_the_kernel_does_not_give_away_is_blamed_and_a_lack_of_descriptors_is_not() {
        let error = |code| BindError::NotAvailable {
            address: SocketAddr::from(([127, 0, 0, 1], 80)),
            source: io::Error::from_raw_os_error(code),
        };
        assert_eq!(error(nix::libc::EACCES).blamed().unwrap().field, "port");
        assert_eq!(error(nix::libc::EMFILE).blamed(), None);
    }
}
