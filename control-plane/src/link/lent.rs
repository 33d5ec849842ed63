//! Listeners that a living worker gets: kept while it builds the configuration that listens on them, and sent when it asks
//! on the handoff socket.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd as _, AsRawFd},
};

use proxyplane_proto::worker::{WorkerConfig, session_response::Message as ToWorker};
use proxyplane_spec::{FEATURE_LISTENERS, Manifest};

use super::instance::{ChangeError, Instance};
use crate::supervisor::handoff;

impl Instance {
    pub(super) async fn stage_on(
        &self,
        mut config: WorkerConfig,
        listeners: Vec<(SocketAddr, TcpListener)>,
    ) -> Result<(), ChangeError> {
        config.required_features.push(FEATURE_LISTENERS.to_owned());
        config.listeners = listeners.iter().map(|(address, _)| address.to_string()).collect();
        self.lend(Some(listeners));
        let staged = self.ask(config.revision, ToWorker::Stage(config)).await;
        self.lend(None);
        staged
    }

    /// Answers the worker that asked with its `manifest`.
    pub(super) fn send_lent(&self, manifest: Manifest, to: &impl AsRawFd) -> io::Result<()> {
        let lent = self.lent().ok_or(io::ErrorKind::NotFound)??;
        let manifest = Manifest {
            listeners: lent.iter().map(|(address, _)| *address).collect(),
            ..manifest
        };
        let descriptors: Vec<_> = lent.iter().map(|(_, listener)| listener.as_fd()).collect();
        handoff::send(to, &manifest, &descriptors)
    }
}
