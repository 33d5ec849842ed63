//! What a call on a workspace or a ProxyService does: rules over store and supervisor.
//!
//! The store is desired state: what is committed there is what the supervisor brings about, now or at the next boot.
//! Values come raw and are checked here, all of them before anything is refused; ids, pages and enums are parsed by
//! the API.

mod check;
mod error;
mod proxies;
mod proxy_revisions;
mod proxy_update;
mod proxy_upgrade;
mod watch;
mod workspaces;

pub use error::Error;
pub use proxies::{Deletion, NewProxy, Proxy};
pub use proxy_revisions::RollbackProxy;
pub use proxy_update::UpdateProxy;
pub use watch::{ProxyEvent, WatchScope};
pub use workspaces::{NewWorkspace, UpdateWorkspace};

use crate::{live::Hub, store::Db, supervisor::Supervisor};

/// The use-cases. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Services {
    db: Db,
    supervisor: Supervisor,
    hub: Hub,
}

impl Services {
    /// Over this store and supervisor; the hub is told of new names.
    pub fn new(db: Db, supervisor: Supervisor, hub: Hub) -> Self {
        Self { db, supervisor, hub }
    }
}
