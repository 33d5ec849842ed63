//! The birth of a worker: spawned, recorded, and given its service's listeners.

use std::{io, net::SocketAddr, os::fd::OwnedFd, process::Stdio};

use proxyplane_spec::{Epoch, HANDOFF_VERSION, Manifest, ServiceId, WorkspaceId};
use sha2::{Digest as _, Sha256};

use super::{
    Shared, handoff,
    listeners::Listeners,
    logs::LogFile,
    process::Process,
    run_record::{self, RunRecord},
    spool_dir,
};
use crate::{hex, link::Expected, store::services::ServiceRow};

/// A worker that waits for its handoff: it knows nothing yet.
#[derive(Debug)]
pub(super) struct Newborn {
    process: Process,
    handoff: OwnedFd,
    nonce: [u8; 32],
    service: (ServiceId, WorkspaceId),
    epoch: Epoch,
}

impl Newborn {
    /// Executes the worker binary and writes its run record.
    pub(super) fn spawn(shared: &Shared, service: &ServiceRow, log: &LogFile) -> io::Result<Self> {
        let (ours, theirs) = handoff::pair()?;
        let log = log.open()?;
        let epoch = Epoch::new();
        let proxy = format!("{}/{}", service.workspace_code, service.name);
        let mut command = shared.binary.command(&run_record::process_name(&proxy, epoch));
        command
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log));
        let child = tokio::process::Command::from(command).spawn()?;
        let newborn = Self {
            process: Process::started(child)?,
            handoff: ours,
            nonce: rand::random(),
            service: (service.id, service.workspace_id),
            epoch,
        };
        let record = RunRecord::of(&newborn.expected());
        if let Err(error) = record.and_then(|record| record.write(&shared.options.run_dir)) {
            newborn.process.kill();
            return Err(error);
        }
        Ok(newborn)
    }

    /// Who will dial.
    pub(super) fn expected(&self) -> Expected {
        let (service_id, workspace_id) = self.service;
        Expected {
            epoch: self.epoch,
            nonce_sha256: Sha256::digest(self.nonce).into(),
            pid: self.process.pid,
            service_id,
            workspace_id,
        }
    }

    /// Hands over the listeners: from here on the worker is on its own until it dials.
    pub(super) fn hand_over(self, shared: &Shared, listeners: &Listeners) -> io::Result<Process> {
        let addresses: Vec<SocketAddr> = listeners.addresses();
        let manifest = Manifest {
            version: HANDOFF_VERSION,
            epoch: self.epoch,
            nonce: hex::encode(&self.nonce),
            service_id: self.service.0,
            link: shared.options.link_socket.clone(),
            listeners: addresses,
            account: shared.options.account,
            spool: spool_dir::make(shared, self.service.0, self.epoch),
        };
        if let Err(error) = handoff::send(&self.handoff, &manifest, &listeners.descriptors()) {
            self.process.kill();
            return Err(error);
        }
        Ok(self.process)
    }
}
