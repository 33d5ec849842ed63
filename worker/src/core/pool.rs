//! The upstream connections of one client connection. They are shared with no other: an origin that knows its peers by
//! connection (NTLM) sees as many as without the proxy.

use std::{future::poll_fn, task::Poll};

use super::{describe::Facts, leg::Leg};
use crate::upstream::{Origin, Stream, Upstream};

/// Connections that a client connection keeps at once; with one more, the oldest is closed.
const KEPT_MAX: usize = 8;

/// A connection to an origin.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) leg: Leg<Stream>,
    pub(super) facts: Facts,
    /// It carried an exchange before.
    pub(super) reused: bool,
}

impl Line {
    pub(super) fn new(upstream: Upstream) -> Self {
        let facts = Facts::of(&upstream);
        Self {
            leg: Leg::new(upstream.io, &[]),
            facts,
            reused: false,
        }
    }

    /// Neither closed nor with anything to say: what an unused connection says belongs to no request.
    async fn is_quiet(&mut self) -> bool {
        poll_fn(|cx| Poll::Ready(self.leg.poll_fill(cx).is_pending())).await
    }
}

/// Connections that may be used again, oldest first.
#[derive(Debug, Default)]
pub(super) struct Pool {
    lines: Vec<(Origin, Line)>,
}

impl Pool {
    /// A connection to `origin` that can be used, if there is one.
    pub(super) async fn take(&mut self, origin: &Origin) -> Option<Line> {
        while let Some(at) = self.lines.iter().rposition(|(known, _)| known == origin) {
            let (_, mut line) = self.lines.remove(at);
            if line.is_quiet().await {
                return Some(line);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    pub(super) fn keep(&mut self, origin: Origin, line: Line) {
        if self.lines.len() == KEPT_MAX {
            self.lines.remove(0);
        }
        self.lines.push((origin, line));
    }
}
