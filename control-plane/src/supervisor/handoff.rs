//! What a worker is sent at birth, and when its service moves: one message with the manifest and the listeners'
//! descriptors.

use std::{
    io::{self, IoSlice},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use proxyplane_spec::Manifest;

/// SCM_MAX_FD of the kernel: more descriptors do not fit into one message.
const DESCRIPTORS_MAX: usize = 253;

/// The pair for one handoff: our end, and the end that becomes the worker's standard input.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

/// Sends `manifest` and `listeners`, which are in the order of its addresses, as one message.
pub(crate) fn send(ours: &impl AsRawFd, manifest: &Manifest, listeners: &[BorrowedFd<'_>]) -> io::Result<()> {
    if listeners.len() > DESCRIPTORS_MAX || listeners.len() != manifest.listeners.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "descriptors and addresses do not match",
        ));
    }
    let text = serde_json::to_vec(manifest)?;
    let raw: Vec<RawFd> = listeners.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let sent = sendmsg::<()>(
        ours.as_raw_fd(),
        &[IoSlice::new(&text)],
        &rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    if sent == text.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSliceMut;

    use nix::sys::socket::{ControlMessageOwned, recvmsg, sockopt};
    use proxyplane_spec::{Epoch, HANDOFF_VERSION, ListenHost, ServiceId};

    use super::*;
    use crate::supervisor::listeners::{Listeners, pick_port};

    fn manifest(listeners: &Listeners) -> Manifest {
        Manifest {
            version: HANDOFF_VERSION,
            epoch: Epoch::new(),
            nonce: "00".repeat(32),
            service_id: ServiceId::new(),
            link: "/run/link.sock".into(),
            spool: None,
            listeners: listeners.addresses(),
            account: None,
        }
    }

    #[test]
    fn the_manifest_and_its_listening_descriptors_arrive_in_one_message() {
        let port = pick_port(ListenHost::Localhost).unwrap().unwrap();
        let listeners = Listeners::bind(ListenHost::Localhost, port).unwrap();
        let sent = manifest(&listeners);
        let (ours, theirs) = pair().unwrap();
        send(&ours, &sent, &listeners.descriptors()).unwrap();

        let mut buffer = [0; 4096];
        let mut space = nix::cmsg_space!([RawFd; 8]);
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let message = recvmsg::<()>(
            theirs.as_raw_fd(),
            &mut slices,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        );
        let message = message.unwrap();
        let received: Vec<RawFd> = message
            .cmsgs()
            .unwrap()
            .flat_map(|control| match control {
                ControlMessageOwned::ScmRights(descriptors) => descriptors,
                other => panic!("unexpected {other:?}"),
            })
            .collect();
        let length = message.bytes;
        assert_eq!(received.len(), sent.listeners.len());
        assert_eq!(serde_json::from_slice::<Manifest>(&buffer[..length]).unwrap(), sent);
        for descriptor in listeners.descriptors() {
            assert!(nix::sys::socket::getsockopt(&descriptor, sockopt::AcceptConn).unwrap());
        }
    }

    #[test]
    fn descriptors_without_an_address_are_not_sent() {
        let port = pick_port(ListenHost::DEFAULT).unwrap().unwrap();
        let listeners = Listeners::bind(ListenHost::DEFAULT, port).unwrap();
        let (ours, _theirs) = pair().unwrap();
        let bare = Manifest {
            listeners: vec![],
            ..manifest(&listeners)
        };
        assert!(send(&ours, &bare, &listeners.descriptors()).is_err());
    }
}
