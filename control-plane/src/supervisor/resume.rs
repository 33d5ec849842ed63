//! Services that are to run and have no worker to adopt, although the control plane before had one for them, or their
//! listeners. They are started at once, on those listeners if they came through an upgrade in place; whoever is left is
//! started with the others: see `boot.rs`.

use std::collections::{HashMap, HashSet};

use proxyplane_spec::ServiceId;

use super::{Supervisor, exit::Exit, inherited::Inherited, listeners::Listeners, task::Command};
use crate::store::{self, StoreError, services::ServiceRow};

/// The end of a recorded worker that nobody had asked for.
#[derive(Debug)]
pub(super) struct Death {
    pub(super) pid: i32,
    pub(super) exit: Exit,
}

/// An enabled service without a worker, on its way to its task.
#[derive(Debug)]
pub(super) struct Orphaned {
    pub(super) row: ServiceRow,
    pub(super) listeners: Option<Listeners>,
    /// `None` if there was no worker at the moment: another one was due, or too many had died.
    pub(super) death: Option<Death>,
}

impl Supervisor {
    /// What is inherited and not to run any more is closed when this returns.
    pub(super) async fn resume(
        &self,
        mut dead: HashMap<ServiceId, Death>,
        mut inherited: Inherited,
    ) -> Result<(), StoreError> {
        let services: HashSet<ServiceId> = dead.keys().copied().chain(inherited.services()).collect();
        for id in services {
            let row = store::patiently(|| store::services::get(&self.shared.db, id)).await?;
            // What was stopped, or deleted past us, meanwhile has no need of a worker: that it has none is no news.
            let Some(row) = row.filter(|row| row.enabled) else {
                continue;
            };
            let (listeners, death) = (inherited.of(&row), dead.remove(&id));
            if listeners.is_none() && death.is_none() {
                continue;
            }
            let Ok(handle) = self.handle(id) else { return Ok(()) };
            let orphaned = Orphaned { row, listeners, death };
            // Before anybody can ask anything of the service: nobody else knows the task yet.
            let _ = handle.commands.send(Command::Resume(Box::new(orphaned))).await;
        }
        Ok(())
    }
}
