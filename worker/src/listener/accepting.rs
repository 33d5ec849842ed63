//! Accepting from one set of listeners, on every thread, until another set takes its place.

use std::{
    io,
    net::{self, SocketAddr},
};

use tokio::net::TcpStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Crew, Serve};

/// What the threads do, whatever they serve.
pub(super) trait Accept: Send + Sync {
    fn threads(&self) -> usize;

    /// Accepts from `listener` on a thread until `stop`.
    fn accept(&self, thread: usize, listener: net::TcpListener, stop: CancellationToken, tasks: &TaskTracker);

    /// Serves a connection that was accepted elsewhere.
    fn take(&self, stream: net::TcpStream, peer: SocketAddr);
}

impl<S: Serve> Accept for Crew<S> {
    fn threads(&self) -> usize {
        self.lanes.len()
    }

    fn accept(&self, thread: usize, listener: net::TcpListener, stop: CancellationToken, tasks: &TaskTracker) {
        let run = self.clone().run(thread, listener, stop);
        tasks.spawn_on(run, &self.lanes[thread].handle);
    }

    fn take(&self, stream: net::TcpStream, peer: SocketAddr) {
        let adopt = async move {
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)
        };
        self.spawn(self.least(&self.lanes[0]), adopt, peer);
    }
}

/// The tasks that accept from one set of listeners.
pub(crate) struct Accepting {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Accepting {
    /// On every thread, from a duplicate of each of `listeners`. After an error nothing has begun.
    pub(super) fn begin(crew: &dyn Accept, listeners: &[net::TcpListener]) -> io::Result<Self> {
        let mut duplicates = Vec::new();
        for thread in 0..crew.threads() {
            for listener in listeners {
                duplicates.push((thread, listener.try_clone()?));
            }
        }
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        for (thread, listener) in duplicates {
            crew.accept(thread, listener, stop.clone(), &tasks);
        }
        tasks.close();
        Ok(Self { stop, tasks })
    }

    /// Returns once every duplicate is deregistered and closed, and whoever waited in the queues of `listeners`, which
    /// are the same sockets, is being served.
    pub(super) async fn end(self, crew: &dyn Accept, listeners: Vec<net::TcpListener>) {
        self.stop.cancel();
        self.tasks.wait().await;
        for listener in listeners {
            // Asked of the kernel, not of a runtime: that knows of a queue only what it was told of.
            while let Some((stream, peer)) = next(&listener) {
                crew.take(stream, peer);
            }
        }
    }
}

fn next(listener: &net::TcpListener) -> Option<(net::TcpStream, SocketAddr)> {
    loop {
        match listener.accept() {
            Ok(accepted) => return Some(accepted),
            Err(error) if super::is_peers_fault(&error) => {}
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    tracing::warn!(%error, "connections that waited on a listener that is left are cut off");
                }
                return None;
            }
        }
    }
}
