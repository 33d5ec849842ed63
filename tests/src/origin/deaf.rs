//! An address at which nobody picks up.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
};

use nix::sys::socket::{Backlog, listen};

use crate::eventually;

/// A listener whose queue is full: connecting to it neither succeeds nor fails.
pub struct DeafOrigin {
    address: SocketAddr,
    _listener: TcpListener,
    _queued: TcpStream,
}

impl DeafOrigin {
    /// On a port of its own.
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("some port is free");
        let shortest = Backlog::new(0).expect("0 is a length");
        listen(&listener, shortest).expect("a listener may listen again");
        let address = listener.local_addr().expect("a bound listener has an address");
        let queued = TcpStream::connect(address).expect("the queue holds one");
        Self {
            address,
            _listener: listener,
            _queued: queued,
        }
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Waits until somebody tries to connect.
    #[track_caller]
    pub fn is_dialled(&self) {
        // Columns of the kernel's table: slot, local address, remote address, state. 2 is SYN_SENT.
        let remote = format!("0100007F:{:04X} 02 ", self.address.port());
        eventually("the deaf origin is dialled", || {
            let connections = fs::read_to_string("/proc/net/tcp").expect("the kernel has a table of connections");
            connections.contains(&remote).then_some(())
        });
    }
}
