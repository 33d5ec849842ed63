//! Binds the API's own address, before anything else is started.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::StartError;
use crate::supervisor::{PortHolder, holder};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1_024;

/// Binds and listens, or names who does already.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    match try_bind(address) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holder: PortHolder = holder::listening_on(&[address.ip()], address.port());
            Err(StartError::AddressInUse { address, holder })
        }
        Err(error) => Err(StartError::Address { address, error }),
    }
}

fn try_bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a former control plane in TIME_WAIT do not count; one that listens does.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_address_names_its_holder() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        match bind(address) {
            Err(StartError::AddressInUse {
                holder: PortHolder::Process { pid, .. },
                ..
            }) => {
                assert_eq!(pid, std::process::id().cast_signed());
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_address_of_another_machine_is_a_wrong_setting() {
        let error = bind("192.0.2.1:7070".parse().unwrap()).unwrap_err();
        assert!(error.to_string().starts_with("--listen:"), "{error}");
        assert_eq!(error.exit_code(), 64);
    }
}
