//! The life of a worker: handoff → welcome → ready → drain → end.
//!
//! One control thread keeps the link, the records and the clock work; the data-plane threads only carry.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use proxyplane_spec::{Sandbox, limits, monotonic_us};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    capture::{self, Capture, Queue, Spool},
    handoff::{Handoff, Held},
    link::{
        Link, records,
        session::{self, Deadline, Session, end_within},
    },
    listener::{DataPlane, Serve},
    service::{Drain, Service},
    tls::Identity,
};

/// After the deadline, for connections to close and their records to be made.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// Past the deadline, for the control plane to commit the last records.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// Why a worker ended with an error.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// It could not begin: wrong manifest, refused, or a configuration that cannot be used.
    #[error("cannot begin: {0}")]
    CannotBegin(Box<dyn std::error::Error + Send + Sync>),
    /// A part of the worker that runs for ever has ended: a fault of ours.
    #[error("a part of the worker ended: {0}")]
    PartEnded(String),
    /// The machine refused a thread or a signal handler.
    #[error("cannot set up: {0}")]
    Setup(#[from] io::Error),
}

/// Runs a worker to its end; `sandbox` is what it tells of itself, `serve` carries each connection.
pub async fn run<S: Serve>(handoff: Handoff, sandbox: Sandbox, threads: usize, serve: S) -> Result<(), Fatal> {
    let Handoff { manifest, listeners } = handoff;
    let mut terminate = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let link = Arc::new(Link::new(&manifest, sandbox).map_err(cannot_begin)?);
    let identity = Identity::generate().map_err(cannot_begin)?;
    let first = tokio::select! {
        first = session::begin(&link, &identity) => first.map_err(cannot_begin)?,
        () = any(&mut terminate) => return Ok(()),
    };

    let drain = Drain::new();
    let (capture, updates) = capture(&drain, manifest.spool.as_deref());
    let service = Service::new(first.config, Arc::clone(&capture), drain, manifest.listeners.clone());
    let data_plane = Arc::new(DataPlane::start(&service, &listeners, threads, &serve)?);
    announce(&service, &manifest.listeners);
    let held = Arc::new(Held::new(manifest, listeners));

    let (deadline, mut deadlines) = watch::channel(None);
    let drained = CancellationToken::new();
    let mut parts = spawn_parts(&link, &capture);
    let session = Session {
        link,
        identity,
        service: Arc::clone(&service),
        updates,
        held: Arc::clone(&held),
        data_plane: Arc::clone(&data_plane),
        serving_since_us: monotonic_us(),
        deadline: deadline.clone(),
        drained: drained.clone(),
    };
    parts.spawn(session.run(first.connection));

    wait_for_the_end(&deadline, &mut deadlines, &mut terminate, &mut parts).await?;
    tracing::info!("draining");
    held.close();
    drain_connections(&service, &mut deadlines).await;
    let flushed_by = deadlines.borrow().unwrap_or_else(Instant::now) + FLUSH_WITHIN;
    if timeout_at(flushed_by, capture.queue().empty()).await.is_err() {
        tracing::warn!("the control plane did not take all records; they stay in the spool, if there is one");
    }
    // Whoever hears that it is drained finds on disk what is not committed.
    capture.close();
    drained.cancel();
    // Only the session ends by itself.
    let _ = parts.join_next().await;
    capture.access_log().flush(io::stderr());
    drop(data_plane);
    tracing::info!("drained");
    Ok(())
}

/// Sends what an instance that is gone has left in its spool; returns once all of it is committed.
pub async fn drain_only(handoff: Handoff, sandbox: Sandbox) -> Result<(), Fatal> {
    let Handoff { manifest, .. } = handoff;
    let link = Link::new(&manifest, sandbox).map_err(cannot_begin)?;
    let dir = manifest.spool.as_deref().ok_or_else(|| cannot_begin(NoSpool))?;
    let (spool, first, next) = Spool::recover(dir).map_err(cannot_begin)?;
    tracing::info!(epoch = %manifest.epoch, first, next, "draining the spool of a worker that is gone");
    let spool = Arc::new(spool);
    let queue = Arc::new(Queue::recovered(Arc::clone(&spool), first, next));
    let mut connected = false;
    tokio::select! {
        Err(ended) = records::carry(&link, &queue, &mut connected) => return Err(Fatal::PartEnded(ended.to_string())),
        () = queue.empty() => {}
    }
    spool.clear();
    tracing::info!(epoch = %manifest.epoch, "drained the spool of a worker that is gone");
    Ok(())
}

/// `--drain-only` without a directory.
#[derive(Debug, thiserror::Error)]
#[error("the manifest names no spool to drain")]
struct NoSpool;

/// A capture with a spool, if there is a directory for it that can be used.
fn capture(drain: &Drain, spool: Option<&Path>) -> (Arc<Capture>, mpsc::Receiver<Bytes>) {
    let Some(dir) = spool else {
        return Capture::new(drain.clone());
    };
    Capture::spooling(drain.clone(), dir).unwrap_or_else(|error| {
        tracing::error!(%error, dir = %dir.display(), "no spool; records are kept in memory");
        Capture::new(drain.clone())
    })
}

fn cannot_begin(error: impl std::error::Error + Send + Sync + 'static) -> Fatal {
    Fatal::CannotBegin(Box::new(error))
}

fn announce(service: &Service, listeners: &[SocketAddr]) {
    let config = service.config();
    tracing::info!(service = %config.name, revision = config.revision, ?listeners, "serving");
}

/// What runs as long as the worker does.
fn spawn_parts(link: &Arc<Link>, capture: &Arc<Capture>) -> JoinSet<()> {
    let mut parts = JoinSet::new();
    parts.spawn(records::run(Arc::clone(link), Arc::clone(capture.queue())));
    parts.spawn(capture::sweep(Arc::clone(capture)));
    let capture = Arc::clone(capture);
    parts.spawn(async move { capture.access_log().run(io::stderr()).await });
    parts
}

/// Returns once there is a deadline: by the control plane's order or a signal.
async fn wait_for_the_end(
    deadline: &Deadline,
    deadlines: &mut watch::Receiver<Option<Instant>>,
    terminate: &mut [Signal; 2],
    parts: &mut JoinSet<()>,
) -> Result<(), Fatal> {
    tokio::select! {
        // The sender lives as long as we do, so this resolves only when there is a deadline.
        _ = deadlines.wait_for(Option::is_some) => Ok(()),
        () = any(terminate) => {
            end_within(deadline, limits::DRAIN_TIMEOUT_DEFAULT);
            Ok(())
        }
        Some(ended) = parts.join_next() => {
            Err(Fatal::PartEnded(ended.err().map_or_else(|| "returned".to_owned(), |error| error.to_string())))
        }
    }
}

async fn any([terminate, interrupt]: &mut [Signal; 2]) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Soft end, then at the deadline hard end.
async fn drain_connections(service: &Service, deadlines: &mut watch::Receiver<Option<Instant>>) {
    let drain = &service.drain;
    let deadline = *deadlines.borrow();
    drain.begin(deadline.map_or(Duration::ZERO, |deadline| {
        deadline.saturating_duration_since(Instant::now())
    }));
    drain.tracker().close();
    loop {
        let deadline = deadlines.borrow_and_update().unwrap_or_else(Instant::now);
        tokio::select! {
            () = drain.tracker().wait() => return drain.expire(),
            () = sleep_until(deadline) => break,
            // Brought forward.
            Ok(()) = deadlines.changed() => {}
        }
    }
    drain.expire();
    if timeout(CLOSE_WITHIN, drain.tracker().wait()).await.is_err() {
        tracing::warn!(connections = drain.tracker().len(), "connections did not close in time");
    }
}
