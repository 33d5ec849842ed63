//! One worker process: spawned on a service's listeners, watched until it is gone.

use std::{io, net::SocketAddr, os::fd::OwnedFd, process::Stdio};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use proxyplane_spec::{Epoch, HANDOFF_VERSION, Manifest, ServiceId};
use tokio::process::Child;

use super::{
    Shared, handoff,
    listeners::Listeners,
    logs::LogFile,
    orphans,
    run_record::{self, RunRecord},
};
use crate::store::services::ServiceRow;

/// A worker process that was started and not yet reaped, so its pid is nobody else's.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Its process id.
    pub(super) pid: i32,
}

/// A worker that waits for its handoff: it knows nothing yet.
#[derive(Debug)]
pub(super) struct Newborn {
    process: Process,
    handoff: OwnedFd,
    /// The instance.
    pub(super) epoch: Epoch,
    /// The secret it will show.
    pub(super) nonce: [u8; 32],
}

impl Newborn {
    /// Executes the worker binary and writes its run record.
    pub(super) fn spawn(shared: &Shared, service: &ServiceRow, log: &LogFile) -> io::Result<Self> {
        let (ours, theirs) = handoff::pair()?;
        let log = log.open()?;
        let mut command = shared.binary.command();
        command
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log));
        let child = tokio::process::Command::from(command).spawn()?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .ok_or(io::ErrorKind::NotFound)?;
        let newborn = Self {
            process: Process { child, pid },
            handoff: ours,
            epoch: Epoch::new(),
            nonce: rand::random(),
        };
        let record = RunRecord::of(service.id, newborn.epoch, pid, &newborn.nonce);
        if let Err(error) = record.and_then(|record| record.write(&shared.options.run_dir)) {
            newborn.process.kill();
            return Err(error);
        }
        Ok(newborn)
    }

    /// Its process id.
    pub(super) fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Hands over the listeners: from here on the worker is on its own until it dials.
    pub(super) fn hand_over(self, shared: &Shared, id: ServiceId, listeners: &Listeners) -> io::Result<Process> {
        let addresses: Vec<SocketAddr> = listeners.addresses();
        let manifest = Manifest {
            version: HANDOFF_VERSION,
            epoch: self.epoch,
            nonce: run_record::hex(&self.nonce),
            service_id: id,
            link: shared.options.link_socket.clone(),
            spool: orphans::directory(shared, id, self.epoch),
            listeners: addresses,
        };
        if let Err(error) = handoff::send(&self.handoff, &manifest, &listeners.descriptors()) {
            self.process.kill();
            return Err(error);
        }
        Ok(self.process)
    }
}

impl Process {
    /// Waits until it is gone and tells how it ended. May be cancelled and called again.
    pub(super) async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => super::exit::describe(status),
            Err(error) => format!("unknown ({error})"),
        }
    }

    /// SIGKILL.
    pub(super) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// SIGTERM, which a worker takes for a drain.
    pub(super) fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    fn signal(&self, signal: Signal) {
        // The child is not reaped before `ended` is through, so the pid cannot have passed to another process; once it
        // is, `id` is gone too.
        if self.child.id().is_some()
            && let Err(error) = kill(Pid::from_raw(self.pid), signal)
        {
            tracing::warn!(pid = self.pid, %signal, %error, "a worker could not be signalled");
        }
    }
}
