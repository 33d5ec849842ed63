//! A change of configuration: built whole, then put in force whole. That includes the listeners, if it listens elsewhere:
//! these are asked for when it is built, and accepted from when it is in force.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use proxyplane_proto::worker::{self as wire, session_request::Message as Up};
use proxyplane_spec::Violation;

use super::{Session, configure};
use crate::service::ServiceConfig;

/// Built, and not in force. It belongs to its connection: a control plane that comes back has its own idea.
pub(super) struct Staged {
    config: ServiceConfig,
    /// Where it listens, if that is not where we do.
    listeners: Option<Vec<TcpListener>>,
}

impl Session {
    pub(super) async fn stage(&self, config: wire::WorkerConfig, staged: &mut Option<Staged>) -> Up {
        let revision = config.revision;
        // What was staged before is not wanted any more, and its listeners may stand in the way.
        *staged = None;
        match self.build(config).await {
            Ok(built) => {
                *staged = Some(built);
                Up::Staged(wire::Staged { revision })
            }
            Err(violations) => rejected(revision, violations),
        }
    }

    async fn build(&self, config: wire::WorkerConfig) -> Result<Staged, Vec<Violation>> {
        let addresses = configure::addresses("listeners", &config.listeners).map_err(|violation| vec![violation])?;
        let config = configure::build(config, self.service.config().tls.authority())?;
        let listeners = if addresses.is_empty() {
            None
        } else {
            let listeners = self.listeners_on(addresses).await;
            Some(listeners.map_err(|why| vec![Violation::new("listeners", why)])?)
        };
        Ok(Staged { config, listeners })
    }

    /// The control plane's sockets on these addresses.
    async fn listeners_on(&self, addresses: Vec<SocketAddr>) -> Result<Vec<TcpListener>, String> {
        let held = Arc::clone(&self.held);
        let asked = tokio::task::spawn_blocking(move || held.ask_for_next()).await;
        let listeners = asked
            .map_err(|failed| failed.to_string())?
            .map_err(|error| format!("they were not handed over: {error}"))?;
        let came: io::Result<Vec<_>> = listeners.iter().map(TcpListener::local_addr).collect();
        if came.map_err(|error| error.to_string())? == addresses {
            Ok(listeners)
        } else {
            Err("others were handed over".to_owned())
        }
    }

    /// Activating what is in force already is no error: the first answer may have been lost.
    pub(super) async fn activate(&self, revision: i64, staged: &mut Option<Staged>) -> Up {
        if let Some(Staged { config, listeners }) = staged.take_if(|staged| staged.config.revision == revision) {
            // The authority may have been renewed between the two.
            config.tls.replace_authority(self.service.config().tls.authority());
            if let Err(error) = self.put_in_force(config, listeners).await {
                let why = format!("cannot be accepted from: {error}");
                return rejected(revision, vec![Violation::new("listeners", why)]);
            }
            tracing::info!(revision, "configuration in force");
        }
        if self.service.config().revision == revision {
            Up::Applied(wire::Applied { revision })
        } else {
            let violation = Violation::new("revision", "was not staged on this connection");
            rejected(revision, vec![violation])
        }
    }

    /// New listeners are accepted from before those until now are left. After an error nothing has changed.
    async fn put_in_force(&self, config: ServiceConfig, listeners: Option<Vec<TcpListener>>) -> io::Result<()> {
        let Some(listeners) = listeners else {
            self.service.apply(config);
            return Ok(());
        };
        let addresses: Vec<_> = listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<io::Result<_>>()?;
        let before = self.data_plane.accept_also(&listeners)?;
        self.service.apply(config);
        tracing::info!(from = ?self.service.listeners(), to = ?addresses, "listening elsewhere");
        self.service.moved(addresses);
        let left = self.held.replace(listeners);
        self.data_plane.leave(before, left).await;
        Ok(())
    }
}

fn rejected(revision: i64, violations: Vec<Violation>) -> Up {
    Up::Rejected(wire::Rejected {
        revision,
        violations: configure::to_wire(violations),
    })
}
