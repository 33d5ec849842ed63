//! `proxy upgrade`: the worker binary is opened anew, and a service's worker replaced by one of it.

use std::{sync::Arc, time::Duration};

use proxyplane_spec::ServiceId;

use super::{
    Supervisor,
    binary::WorkerBinary,
    error::LifecycleError,
    task::{Command, Upgrade},
};
use crate::{events::Subject, store};

impl Supervisor {
    /// Replaces a service's worker by one of the binary that is now at the configured path, by overlap: answers once the
    /// new one serves, while the old one may still drain. One service at a time; other calls wait. What does not run is
    /// left so, and runs that binary when it is started.
    pub async fn upgrade(&self, id: ServiceId, drain: Option<Duration>) -> Result<(), LifecycleError> {
        let drain = drain.unwrap_or(self.shared.options.drain_timeout);
        let turn = self.shared.upgrades.clone().lock_owned();
        let turn = self.shared.closing.run_until_cancelled(turn).await;
        // Kept by whoever carries the upgrade out: this call may be given up before that is done.
        let turn = turn.ok_or(LifecycleError::ShuttingDown)?;
        let binary = match WorkerBinary::open(&self.shared.options.worker_binary).await {
            Ok(binary) => Arc::new(binary),
            Err(error) => {
                let row = store::services::get(&self.shared.db, id).await?;
                let row = row.ok_or(LifecycleError::NotFound)?;
                let subject = Subject::proxy(id, Some(&row));
                self.shared.options.events.upgrade_failed(subject, &error.to_string());
                return Err(LifecycleError::BinaryRefused(error));
            }
        };
        tracing::info!(version = binary.version.version, features = ?binary.version.features, "worker binary accepted");
        let upgrade = Upgrade {
            binary,
            drain,
            _turn: turn,
        };
        self.ask(id, |answer| Command::Upgrade {
            upgrade: Box::new(upgrade),
            answer,
        })
        .await
    }
}
