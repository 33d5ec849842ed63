//! How the process ends: tokens for every long-lived task, and the signals that cancel them.

use std::future::Future;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, info, warn};

/// Soft and hard token and the tracker of one group of tasks. Cloning shares them.
///
/// *Soft* asks to finish what is open: every stream selects on it. *Hard* means now, whatever is lost.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    soft: CancellationToken,
    hard: CancellationToken,
    stopping: CancellationToken,
    tracker: TaskTracker,
}

impl Lifecycle {
    /// A fresh pair.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when a stop begins.
    pub fn soft(&self) -> &CancellationToken {
        &self.soft
    }

    /// Cancelled when waiting is over.
    pub fn hard(&self) -> &CancellationToken {
        &self.hard
    }

    /// Cancelled when it is a stop for good that begins: an upgrade cancels the soft token alone.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Begins a stop for good.
    pub fn stop(&self) {
        self.stopping.cancel();
        self.soft.cancel();
    }

    /// The same tokens, for tasks that are waited for apart.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self {
            tracker: TaskTracker::new(),
            ..self.clone()
        }
    }

    /// Where long-lived tasks are spawned.
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// Spawns a long-lived task that keeps the present span.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.tracker.spawn(task.in_current_span())
    }

    /// Cancels the soft token and waits for every task, or for the hard token.
    pub async fn finish(&self) {
        self.soft.cancel();
        self.tracker.close();
        tokio::select! {
            () = self.tracker.wait() => {}
            () = self.hard.cancelled() => {}
        }
    }
}

/// SIGTERM and SIGINT of this process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on neither ends the process by itself.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next of them.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// First signal: soft. Second: hard. Returns never.
    pub async fn drive(mut self, lifecycle: Lifecycle) {
        let name = self.next().await;
        info!(signal = name, "stopping; once more to hurry");
        lifecycle.stop();
        loop {
            let name = self.next().await;
            warn!(signal = name, "stopping at once");
            lifecycle.hard.cancel();
        }
    }
}
