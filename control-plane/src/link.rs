//! The server side of the worker link: who may speak, what a worker is told, and where its records go.
//!
//! The supervisor announces each worker it spawns with `Link::expect` and talks to it through the `WorkerLink` it
//! gets. A worker that nobody expects, or that cannot prove which one it is, is refused.

mod instance;
mod lent;
mod records;
mod returned;
mod server;
mod session;
#[cfg(test)]
mod tests;
mod worker_lines;

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use instance::Instance;
pub(crate) use instance::{ChangeError, Counters, Expected, FromWorker};
use proxyplane_proto::worker::{
    Activate, Drain, ReportStats, ReturnListeners, WorkerConfig, session_response::Message as ToWorker,
    worker_link_service_server::WorkerLinkServiceServer,
};
use proxyplane_spec::{Epoch, Sandbox, Violation};
pub(crate) use returned::serve as serve_returned;
use tokio::{net::UnixListener, sync::mpsc};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;

use crate::{
    events::Events,
    ingest::{IngestHandle, Source},
    live::Hub,
    pki::Pki,
};

/// What a worker may have under way towards us before we read it: a window of records and one batch more.
const STREAM_WINDOW: u32 = 9 * 1024 * 1024;
/// A batch holds 1 MiB, or one record of up to 2 MiB.
const MESSAGE_MAX: usize = 4 * 1024 * 1024;
/// For the record streams of a worker that is gone to be read to their end.
const STREAMS_END_TIMEOUT: Duration = Duration::from_secs(10);

/// The worker link. Cloning shares it.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    pki: Arc<Pki>,
    ingest: IngestHandle,
    hub: Hub,
    events: Events,
    expected: Mutex<HashMap<Epoch, Arc<Instance>>>,
}

impl Link {
    /// A link that nobody is expected on yet.
    pub fn new(pki: Arc<Pki>, ingest: IngestHandle, hub: Hub, events: Events) -> Self {
        Self {
            shared: Arc::new(Shared {
                pki,
                ingest,
                hub,
                events,
                expected: Mutex::default(),
            }),
        }
    }

    /// Announces a worker, with what it is to be told to do: nothing, if it runs a service that is gone. What it says of
    /// its own life comes on the receiver.
    pub(crate) fn expect(
        &self,
        expected: Expected,
        config: Option<WorkerConfig>,
    ) -> (WorkerLink, mpsc::Receiver<FromWorker>) {
        let epoch = expected.epoch;
        if let Some(config) = &config {
            self.shared.hub.name(expected.service_id, &config.service_name);
        }
        let (instance, events) = Instance::new(expected, config);
        let instance = Arc::new(instance);
        self.instances().insert(epoch, instance.clone());
        (
            WorkerLink {
                link: self.clone(),
                instance,
            },
            events,
        )
    }

    /// The process `pid` dialled and is not the worker that is expected of it: the supervisor may have taken it for one.
    fn stranger(&self, pid: Option<i32>) {
        let instances = self.instances();
        let taken = instances.values().find(|instance| Some(instance.expected.pid) == pid);
        if let Some(instance) = taken {
            instance.offer(FromWorker::Stranger);
        }
    }

    /// Is a worker expected that is this instance?
    pub(crate) fn expects(&self, epoch: Epoch) -> bool {
        self.instances().contains_key(&epoch)
    }

    fn instance(&self, epoch: Epoch) -> Option<Arc<Instance>> {
        self.instances().get(&epoch).cloned()
    }

    fn instances(&self) -> std::sync::MutexGuard<'_, HashMap<Epoch, Arc<Instance>>> {
        self.shared.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("expected", &self.instances().len())
            .finish_non_exhaustive()
    }
}

/// Serves the link on `listener` until `stop`. Workers send their last records through it: it stops after them.
pub async fn serve(link: Link, listener: UnixListener, stop: CancellationToken) -> Result<(), tonic::transport::Error> {
    let server = server::Server::new(link, stop.clone());
    tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW)
        .add_service(WorkerLinkServiceServer::new(server).max_decoding_message_size(MESSAGE_MAX))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled_owned())
        .await
}

/// One expected worker, as the supervisor sees it. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct WorkerLink {
    link: Link,
    instance: Arc<Instance>,
}

impl WorkerLink {
    /// Has the worker build `config` without using it.
    pub(crate) async fn stage(&self, config: WorkerConfig) -> Result<(), ChangeError> {
        self.instance.ask(config.revision, ToWorker::Stage(config)).await
    }

    /// The same of a configuration that listens on `listeners`, which the worker gets while it builds it.
    pub(crate) async fn stage_on(
        &self,
        config: WorkerConfig,
        listeners: Vec<(SocketAddr, TcpListener)>,
    ) -> Result<(), ChangeError> {
        self.instance.stage_on(config, listeners).await
    }

    /// Has the worker build `config` in the place of what it built before. Nobody waits for it.
    pub(crate) fn stage_instead(&self, config: WorkerConfig) {
        self.instance.send(ToWorker::Stage(config));
    }

    /// Puts `config`, which was staged, in force. From now on it is also what the worker gets when it redials, so an
    /// activation that is lost on the way is made up for.
    pub(crate) async fn activate(&self, config: WorkerConfig) -> Result<(), ChangeError> {
        let revision = config.revision;
        self.link
            .shared
            .hub
            .name(self.instance.expected.service_id, &config.service_name);
        self.instance.set_config(config);
        self.instance
            .ask(revision, ToWorker::Activate(Activate { revision }))
            .await
    }

    /// Asks the worker for its listeners. [`FromWorker::Returned`] says that they are here; a worker that is not
    /// connected says READY when it is, and is asked again.
    pub(crate) fn ask_for_listeners(&self) {
        self.instance.send(ToWorker::ReturnListeners(ReturnListeners {}));
    }

    /// The listeners that the worker gave back, each with its address; once.
    pub(crate) fn take_listeners(&self) -> Option<Vec<(SocketAddr, TcpListener)>> {
        self.instance.take_listeners()
    }

    /// Since when the worker has been serving, by its own account.
    pub(crate) fn serving_since(&self) -> Option<Instant> {
        self.instance.serving_since()
    }

    /// Asks the worker to drain; `false` if it is not connected.
    pub(crate) fn drain(&self, timeout: Duration) -> bool {
        self.drain_keeping_idle(timeout, Duration::ZERO)
    }

    /// The same while another worker serves in its place: connections without a request may stay open for `idle`.
    pub(crate) fn drain_keeping_idle(&self, timeout: Duration, idle: Duration) -> bool {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.instance.send(ToWorker::Drain(Drain {
            timeout_ms: millis(timeout),
            idle_ms: millis(idle),
        }))
    }

    /// Why the worker refused a configuration, if it did.
    pub(crate) fn refused(&self) -> Option<Vec<Violation>> {
        self.instance.refused()
    }

    /// What the worker says of its version; empty before it dialled.
    pub(crate) fn build(&self) -> String {
        self.instance.build()
    }

    /// What the worker says that it has given up; `None` before it dialled.
    pub(crate) fn sandbox(&self) -> Option<Sandbox> {
        self.instance.sandbox()
    }

    /// The latest counters that are known.
    pub(crate) fn counters(&self) -> Counters {
        self.instance.counters()
    }

    /// Counters that were asked for now, or the latest known if none come within `patience`.
    pub(crate) async fn fresh_counters(&self, patience: Duration) -> Counters {
        let mut changed = self.instance.counted();
        if self.instance.send(ToWorker::ReportStats(ReportStats {})) {
            let _ = tokio::time::timeout(patience, changed.changed()).await;
        }
        self.counters()
    }

    /// The worker is expected no more.
    pub(crate) fn forget(&self) {
        let mut instances = self.link.instances();
        let epoch = self.instance.expected.epoch;
        // Another may be expected in its place.
        if instances
            .get(&epoch)
            .is_some_and(|known| Arc::ptr_eq(known, &self.instance))
        {
            instances.remove(&epoch);
        }
    }

    /// Whose records it sends.
    pub(crate) fn source(&self) -> Source {
        session::source(&self.instance)
    }

    /// The worker is gone: reads what it had sent to the end.
    pub(crate) async fn retire(self) {
        self.forget();
        if tokio::time::timeout(STREAMS_END_TIMEOUT, self.instance.streams_ended())
            .await
            .is_err()
        {
            tracing::warn!(epoch = %self.instance.expected.epoch, "records of a worker that is gone are still being read");
        }
    }
}
