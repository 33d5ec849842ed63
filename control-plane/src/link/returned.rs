//! The handoff socket: where adopted workers give their listeners back, each in one message with its manifest, and where
//! a worker whose service moves asks for its next ones by a message without any.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use proxyplane_proto::worker::Identity;
use proxyplane_spec::{HANDOFF_VERSION, Manifest};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::{
    Link,
    instance::{FromWorker, Instance},
};
use crate::{hex, supervisor::listeners};

/// Longest manifest.
const MANIFEST_MAX: usize = 64 * 1024;
/// Most descriptors that the kernel passes with one message (SCM_MAX_FD).
const DESCRIPTORS_MAX: usize = 253;
/// A worker sends its message as soon as it is connected.
const PATIENCE: Duration = Duration::from_secs(2);
/// After a failed accept, such as for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Why what came is not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error("not an expected worker")]
    Stranger,
    #[error("the message was cut short")]
    Cut,
    #[error("the manifest cannot be read: {0}")]
    Manifest(#[from] serde_json::Error),
    #[error("the manifest has version {0}")]
    Version(u32),
    #[error("{addresses} addresses, but {descriptors} descriptors")]
    Count { addresses: usize, descriptors: usize },
    #[error("the descriptor for {0} does not listen there")]
    NotListening(SocketAddr),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Takes listeners back on `socket`, a listening `SOCK_SEQPACKET`, until `stop`. Of what tokio can do with a listener,
/// only accepting is used: that does not depend on its type.
pub(crate) async fn serve(link: Link, socket: UnixListener, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((peer, _)) => {
                tokio::spawn(take(link.clone(), peer));
            }
            Err(error) => {
                tracing::warn!(%error, "a worker that gives its listeners back could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn take(link: Link, peer: UnixStream) {
    let taken = tokio::task::spawn_blocking(move || receive(&link, peer)).await;
    match taken {
        Ok(Ok((_, listeners))) if listeners.is_empty() => {}
        Ok(Ok((instance, listeners))) => {
            instance.put_listeners(listeners);
            instance.tell(FromWorker::Returned).await;
        }
        Ok(Err(error)) => tracing::warn!(%error, "listeners that were given back are not taken"),
        Err(error) => tracing::error!(%error, "taking listeners back failed"),
    }
}

type Returned = (Arc<Instance>, Vec<(SocketAddr, TcpListener)>);

/// Reads the one message and checks it: who sent it, what it says, and what came with it. If that is nothing, answers it.
fn receive(link: &Link, peer: UnixStream) -> Result<Returned, NotTaken> {
    let pid = peer.peer_cred()?.pid();
    let peer = peer.into_std()?;
    peer.set_nonblocking(false)?;
    peer.set_read_timeout(Some(PATIENCE))?;
    let (message, descriptors) = receive_message(&peer)?;
    let manifest: Manifest = serde_json::from_slice(&message)?;
    if manifest.version != HANDOFF_VERSION {
        return Err(NotTaken::Version(manifest.version));
    }
    let identity = identity(&manifest).ok_or(NotTaken::Stranger)?;
    let instance = link.instance(manifest.epoch);
    let instance = instance
        .filter(|instance| instance.expected.admits(&identity, pid))
        .ok_or(NotTaken::Stranger)?;
    let (addresses, descriptors_came) = (manifest.listeners.len(), descriptors.len());
    if (addresses, descriptors_came) == (0, 0) {
        instance.send_lent(manifest, &peer)?;
        return Ok((instance, Vec::new()));
    }
    if addresses != descriptors_came {
        return Err(NotTaken::Count {
            addresses,
            descriptors: descriptors_came,
        });
    }
    let pairs = manifest.listeners.into_iter().zip(descriptors);
    let listeners: Result<_, _> = pairs.map(|(address, socket)| check(address, socket)).collect();
    Ok((instance, listeners?))
}

fn receive_message(peer: &impl AsFd) -> Result<(Vec<u8>, Vec<OwnedFd>), NotTaken> {
    let mut text = vec![0; MANIFEST_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        peer,
        &mut [IoSliceMut::new(&mut text)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .map_err(io::Error::from)?;
    // Descriptors that are not taken out of the buffer are closed with it.
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(NotTaken::Cut);
    }
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = message {
            descriptors.extend(came);
        }
    }
    text.truncate(received.bytes);
    Ok((text, descriptors))
}

fn identity(manifest: &Manifest) -> Option<Identity> {
    Some(Identity {
        epoch: manifest.epoch.0.as_bytes().to_vec().into(),
        nonce: hex::decode(&manifest.nonce)?.into(),
        service_id: manifest.service_id.0.as_bytes().to_vec().into(),
    })
}

fn check(address: SocketAddr, socket: OwnedFd) -> Result<(SocketAddr, TcpListener), NotTaken> {
    let listener = listeners::listening(address, socket)?;
    Ok((address, listener.ok_or(NotTaken::NotListening(address))?))
}

#[cfg(test)]
mod tests {
    use std::{
        io::IoSlice,
        os::fd::{AsRawFd as _, RawFd},
    };

    use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

    use super::{super::tests::Served, *};

    /// Gives `sockets` back as the worker that `served` expects, with the manifest as `change` leaves it.
    fn given(
        served: &Served,
        pid: i32,
        sockets: &[RawFd],
        change: impl FnOnce(&mut Manifest),
    ) -> Result<Vec<SocketAddr>, NotTaken> {
        let (identity, _link, _events) = served.expect(pid);
        let mut manifest = Manifest {
            version: HANDOFF_VERSION,
            epoch: proxyplane_spec::Epoch(uuid::Uuid::from_slice(&identity.epoch).unwrap()),
            nonce: "09".repeat(32),
            service_id: proxyplane_spec::ServiceId(uuid::Uuid::from_slice(&identity.service_id).unwrap()),
            link: "/run/link.sock".into(),
            listeners: vec![],
            account: None,
            spool: None,
        };
        change(&mut manifest);
        let kind = (AddressFamily::Unix, SockType::SeqPacket);
        let (worker, ours) = socketpair(kind.0, kind.1, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let text = serde_json::to_vec(&manifest).unwrap();
        let rights = [ControlMessage::ScmRights(sockets)];
        sendmsg::<()>(
            worker.as_raw_fd(),
            &[IoSlice::new(&text)],
            &rights,
            MsgFlags::empty(),
            None,
        )
        .unwrap();
        let ours: std::os::unix::net::UnixStream = ours.into();
        ours.set_nonblocking(true).unwrap();
        let (_, listeners) = receive(&served.link, UnixStream::from_std(ours).unwrap())?;
        Ok(listeners.into_iter().map(|(address, _)| address).collect())
    }

    #[tokio::test]
    async fn listeners_are_taken_from_the_expected_worker_only() {
        let served = Served::new();
        let own = std::process::id().cast_signed();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, socket) = (listener.local_addr().unwrap(), listener.as_raw_fd());
        let fits = |manifest: &mut Manifest| manifest.listeners = vec![address];
        assert_eq!(given(&served, own, &[socket], fits).unwrap(), [address]);
        assert!(matches!(
            given(&served, own + 1, &[socket], fits),
            Err(NotTaken::Stranger)
        ));
        let wrong_nonce = given(&served, own, &[socket], |manifest| {
            fits(manifest);
            manifest.nonce = "0a".repeat(32);
        });
        assert!(matches!(wrong_nonce, Err(NotTaken::Stranger)), "{wrong_nonce:?}");
        let wrong_service = given(&served, own, &[socket], |manifest| {
            fits(manifest);
            manifest.service_id = proxyplane_spec::ServiceId::new();
        });
        assert!(matches!(wrong_service, Err(NotTaken::Stranger)), "{wrong_service:?}");
    }

    #[tokio::test]
    async fn what_does_not_listen_where_it_says_or_is_missing_is_not_taken() {
        let served = Served::new();
        let own = std::process::id().cast_signed();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connected = std::net::TcpStream::connect(address).unwrap();
        let fits = |manifest: &mut Manifest| manifest.listeners = vec![address];
        let not_listening = given(&served, own, &[connected.as_raw_fd()], fits);
        assert!(
            matches!(not_listening, Err(NotTaken::NotListening(_))),
            "{not_listening:?}"
        );
        let elsewhere = given(&served, own, &[listener.as_raw_fd()], |manifest| {
            manifest.listeners = vec!["127.0.0.1:1".parse().unwrap()];
        });
        assert!(matches!(elsewhere, Err(NotTaken::NotListening(_))), "{elsewhere:?}");
        let missing = given(&served, own, &[listener.as_raw_fd()], |manifest| {
            manifest.listeners = vec![address, address];
        });
        assert!(matches!(missing, Err(NotTaken::Count { .. })), "{missing:?}");
    }
}
