//! What a worker gets at birth: one message on its standard input, a `SOCK_SEQPACKET` socket, with the manifest as
//! JSON and the listeners' descriptors (SCM_RIGHTS) in the manifest's order.
//!
//! The worker never binds by itself: a descriptor that is missing, does not listen or has another address ends it. To a
//! control plane that adopts it, it gives them back; one that moves its service hands it others, in the same message
//! (`Held`).

mod held;

use std::{
    io::{self, IoSliceMut},
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    time::Duration,
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use proxyplane_spec::{HANDOFF_VERSION, Manifest};
use socket2::{SockRef, Type};

pub(crate) use self::held::Held;

/// Longest manifest.
const MANIFEST_MAX: usize = 64 * 1024;
/// Most descriptors that the kernel passes with one message (SCM_MAX_FD).
const DESCRIPTORS_MAX: usize = 253;
/// The control plane sends the message as soon as the process exists.
const PATIENCE: Duration = Duration::from_secs(10);

/// The manifest and the sockets that came with it, checked.
#[derive(Debug)]
pub struct Handoff {
    /// Who this worker is and where its control plane listens.
    pub manifest: Manifest,
    /// Listening sockets, in the order of the manifest's addresses; non-blocking.
    pub listeners: Vec<TcpListener>,
}

/// Why there is no handoff.
#[derive(Debug, thiserror::Error)]
pub enum HandoffError {
    /// Somebody started the worker by hand.
    #[error("standard input is not a handoff socket: workers are started by the control plane")]
    NotASocket,
    /// The control plane went away, or sent nothing in time.
    #[error("the control plane sent no manifest")]
    Nothing,
    /// The message is larger than it may be, or descriptors were lost on the way (MSG_TRUNC, MSG_CTRUNC).
    #[error("the message was cut short")]
    Cut,
    /// The manifest is not what this build reads.
    #[error("the manifest cannot be read: {0}")]
    Manifest(#[from] serde_json::Error),
    /// The manifest is of another version.
    #[error("the manifest has version {0}, this build reads {HANDOFF_VERSION}")]
    Version(u32),
    /// Not one descriptor for each address.
    #[error("{addresses} addresses, but {descriptors} descriptors came")]
    Count {
        /// In the manifest.
        addresses: usize,
        /// With the message.
        descriptors: usize,
    },
    /// A descriptor is no listening socket.
    #[error("the descriptor for {0} does not listen")]
    NotListening(SocketAddr),
    /// A descriptor listens elsewhere.
    #[error("the descriptor for {expected} listens on {actual}")]
    Address {
        /// In the manifest.
        expected: SocketAddr,
        /// Of the socket.
        actual: SocketAddr,
    },
    /// A system call failed.
    #[error("system call failed: {0}")]
    Io(#[from] io::Error),
}

/// Receives the handoff from `socket`. Blocks, so it belongs before any runtime.
pub fn receive(socket: BorrowedFd<'_>) -> Result<Handoff, HandoffError> {
    let options = SockRef::from(&socket);
    if options.r#type().ok() != Some(Type::SEQPACKET) {
        return Err(HandoffError::NotASocket);
    }
    options.set_read_timeout(Some(PATIENCE))?;
    let (message, descriptors) = receive_message(socket)?;
    let manifest: Manifest = serde_json::from_slice(&message)?;
    if manifest.version != HANDOFF_VERSION {
        return Err(HandoffError::Version(manifest.version));
    }
    if manifest.listeners.len() != descriptors.len() {
        let (addresses, descriptors) = (manifest.listeners.len(), descriptors.len());
        return Err(HandoffError::Count { addresses, descriptors });
    }
    let listeners: Result<_, _> = descriptors
        .into_iter()
        .zip(&manifest.listeners)
        .map(|(socket, expected)| check(socket, *expected))
        .collect();
    Ok(Handoff {
        listeners: listeners?,
        manifest,
    })
}

fn check(socket: OwnedFd, expected: SocketAddr) -> Result<TcpListener, HandoffError> {
    if !SockRef::from(&socket).is_listener().unwrap_or(false) {
        return Err(HandoffError::NotListening(expected));
    }
    let listener = TcpListener::from(socket);
    let actual = listener
        .local_addr()
        .map_err(|_| HandoffError::NotListening(expected))?;
    if actual != expected {
        return Err(HandoffError::Address { expected, actual });
    }
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn receive_message(socket: BorrowedFd<'_>) -> Result<(Vec<u8>, Vec<OwnedFd>), HandoffError> {
    let mut buffer = vec![0; MANIFEST_MAX];
    let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = loop {
        match recvmsg::<UnixAddr>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Err(nix::Error::EINTR) => {}
            Err(nix::Error::EAGAIN) => return Err(HandoffError::Nothing),
            Err(error) => return Err(io::Error::from(error).into()),
            Ok(received) => break received,
        }
    };
    let length = received.bytes;
    if received.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(HandoffError::Cut);
    }
    let mut descriptors = Vec::new();
    for message in received.cmsgs().map_err(io::Error::from)? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            descriptors.extend(raw.into_iter().map(own));
        }
    }
    if length == 0 && descriptors.is_empty() {
        return Err(HandoffError::Nothing);
    }
    buffer.truncate(length);
    Ok((buffer, descriptors))
}

#[expect(
    unsafe_code,
    reason = "nix hands out received descriptors as numbers; this is where they get their owner"
)]
fn own(raw: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us with recvmsg, and nothing else knows its number.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

#[cfg(test)]
mod tests {
    use std::{io::IoSlice, os::fd::AsRawFd};

    use nix::{
        fcntl::{FcntlArg, FdFlag, fcntl},
        sys::socket::{AddressFamily, ControlMessage, SockFlag, SockType, sendmsg, socketpair},
    };
    use proxyplane_spec::{Epoch, ServiceId};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    fn manifest(listeners: Vec<SocketAddr>) -> Manifest {
        Manifest {
            version: HANDOFF_VERSION,
            epoch: Epoch::new(),
            nonce: "00".repeat(32),
            service_id: ServiceId::new(),
            link: "/run/link.sock".into(),
            spool: None,
            listeners,
            account: None,
        }
    }

    fn hand_over(manifest: &Manifest, sockets: &[RawFd]) -> Result<Handoff, HandoffError> {
        let (ours, theirs) = pair();
        let text = serde_json::to_vec(manifest).unwrap();
        let control = [ControlMessage::ScmRights(sockets)];
        let control = if sockets.is_empty() {
            &control[..0]
        } else {
            &control[..]
        };
        sendmsg::<()>(
            ours.as_raw_fd(),
            &[IoSlice::new(&text)],
            control,
            MsgFlags::empty(),
            None,
        )
        .unwrap();
        receive(theirs.as_fd())
    }

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[test]
    fn listeners_arrive_in_order_and_work() {
        let ((first, first_at), (second, second_at)) = (listener(), listener());
        let sent = manifest(vec![first_at, second_at]);
        let handoff = hand_over(&sent, &[first.as_raw_fd(), second.as_raw_fd()]).unwrap();
        drop((first, second));
        assert_eq!(handoff.manifest, sent);
        for (listener, address) in handoff.listeners.iter().zip([first_at, second_at]) {
            assert_eq!(listener.local_addr().unwrap(), address);
            let flags = FdFlag::from_bits_retain(fcntl(listener, FcntlArg::F_GETFD).unwrap());
            assert!(flags.contains(FdFlag::FD_CLOEXEC));
            std::net::TcpStream::connect(address).unwrap();
        }
    }

    #[test]
    fn a_missing_descriptor_is_refused() {
        let (socket, address) = listener();
        let error = hand_over(&manifest(vec![address, address]), &[socket.as_raw_fd()]).unwrap_err();
        assert!(
            matches!(
                error,
                HandoffError::Count {
                    addresses: 2,
                    descriptors: 1
                }
            ),
            "{error}"
        );
        let error = hand_over(&manifest(vec![address]), &[]).unwrap_err();
        assert!(
            matches!(
                error,
                HandoffError::Count {
                    addresses: 1,
                    descriptors: 0
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_socket_that_does_not_listen_or_listens_elsewhere_is_refused() {
        let (socket, address) = listener();
        let connected = std::net::TcpStream::connect(address).unwrap();
        let error = hand_over(&manifest(vec![address]), &[connected.as_raw_fd()]).unwrap_err();
        assert!(matches!(error, HandoffError::NotListening(_)), "{error}");
        let (_, elsewhere) = listener();
        let error = hand_over(&manifest(vec![elsewhere]), &[socket.as_raw_fd()]).unwrap_err();
        assert!(matches!(error, HandoffError::Address { .. }), "{error}");
    }

    #[test]
    fn a_message_that_does_not_fit_is_an_error() {
        let long = Manifest {
            nonce: "0".repeat(MANIFEST_MAX),
            ..manifest(Vec::new())
        };
        assert!(matches!(hand_over(&long, &[]).unwrap_err(), HandoffError::Cut));
    }

    #[test]
    fn a_control_plane_that_goes_away_and_a_plain_stdin_are_told_apart() {
        let (ours, theirs) = pair();
        drop(ours);
        assert!(matches!(receive(theirs.as_fd()).unwrap_err(), HandoffError::Nothing));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(matches!(receive(file.as_fd()).unwrap_err(), HandoffError::NotASocket));
    }

    #[test]
    fn another_version_is_refused() {
        let next = Manifest {
            version: HANDOFF_VERSION + 1,
            ..manifest(Vec::new())
        };
        assert!(matches!(hand_over(&next, &[]).unwrap_err(), HandoffError::Version(_)));
    }
}
