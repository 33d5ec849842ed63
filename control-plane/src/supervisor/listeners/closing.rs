//! Listeners that are about to be left, without cutting off anybody who has got through to them.
//!
//! A listener that is closed resets whoever waits in its accept queue, and there is no call that lets nobody new in and
//! leaves the queue: so SYNs are filtered out. Handshakes that have begun come to their end, the queue is emptied by who
//! serves, and nobody is cut off then by the close. A client that comes meanwhile tries again a second later and is
//! refused.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use socket2::{SockFilter, SockRef};
use tokio::time::{Instant, sleep};

use super::{Listeners, handshakes};

/// For handshakes that have begun. Whoever has not answered by then may be cut off: by default that is when a SYN-ACK is
/// sent again.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(1);
/// Between looks at them.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Sockets that let nobody new in.
#[derive(Debug)]
pub(crate) struct Closing<'l>(Vec<&'l (SocketAddr, TcpListener)>);

impl<'l> Closing<'l> {
    /// Lets nobody new in to `present`, but for the sockets that it shares with `next`. Returns once nobody is on the way
    /// into an accept queue.
    pub(crate) async fn begin(present: &'l Listeners, next: &Listeners) -> Self {
        let left = present
            .sockets
            .iter()
            .filter(|(address, _)| next.on(*address).is_none());
        let closing = Self(left.collect());
        for (address, listener) in &closing.0 {
            if let Err(error) = SockRef::from(listener).attach_filter(&no_syn()) {
                tracing::warn!(%address, %error, "clients that come while a listener is left may be cut off");
            }
        }
        closing.handshakes_over().await;
        closing
    }

    /// They stay after all.
    pub(crate) fn reopen(self) {
        for (address, listener) in self.0 {
            if let Err(error) = SockRef::from(listener).detach_filter() {
                tracing::error!(%address, %error, "a listener lets nobody in");
            }
        }
    }

    async fn handshakes_over(&self) {
        let addresses: Vec<SocketAddr> = self.0.iter().map(|(address, _)| *address).collect();
        let give_up = Instant::now() + HANDSHAKE_PATIENCE;
        while Instant::now() < give_up {
            let looked_at = addresses.clone();
            let under_way = tokio::task::spawn_blocking(move || handshakes::under_way(&looked_at)).await;
            if !under_way.unwrap_or(false) {
                return;
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}

/// Classic BPF on the TCP header: drops SYN without ACK (byte 13, bits 0x02 and 0x10), passes the rest whole.
fn no_syn() -> [SockFilter; 5] {
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(AND, 0, 0, 0x12),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0x02),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

#[cfg(test)]
mod tests {
    use std::{io, net::TcpStream};

    use proxyplane_spec::{ListenHost, ServiceId};

    use super::*;
    use crate::supervisor::listeners::pick_port;

    fn bound(host: ListenHost) -> Listeners {
        Listeners::bind(host, pick_port(host).unwrap().unwrap()).unwrap()
    }

    fn connect(listeners: &Listeners) -> io::Result<TcpStream> {
        TcpStream::connect_timeout(&listeners.addresses()[0], Duration::from_millis(300))
    }

    #[tokio::test]
    async fn who_waits_is_left_in_the_queue_and_nobody_else_gets_in() {
        let (present, next) = (bound(ListenHost::DEFAULT), bound(ListenHost::DEFAULT));
        let _waits = connect(&present).unwrap();
        let closing = Closing::begin(&present, &next).await;
        assert_eq!(connect(&present).unwrap_err().kind(), io::ErrorKind::TimedOut);
        let queue = present.duplicates().unwrap().remove(0);
        queue.accept().expect("no handshake is under way any more");
        assert_eq!(queue.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        connect(&next).unwrap();

        closing.reopen();
        connect(&present).unwrap();
    }

    #[tokio::test]
    async fn a_socket_that_is_shared_with_the_next_ones_stays_open() {
        let present = bound(ListenHost::DEFAULT);
        let port = present.addresses()[0].port();
        let next = present
            .bind_beside(ListenHost::Localhost, port, ServiceId::new())
            .unwrap();
        Closing::begin(&present, &next).await;
        connect(&next).unwrap();
        drop(present);
        connect(&next).unwrap();
    }
}
