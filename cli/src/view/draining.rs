//! What a worker that drains still has open.

use std::time::SystemTime;

use proxyplane_proto::v1;
use serde::Serialize;

use super::{some, time};

/// A worker that was replaced.
#[derive(Serialize)]
pub(crate) struct Draining {
    pub(crate) pid: i32,
    worker_version: Option<String>,
    open_connections: u64,
    open_requests: Option<u64>,
    open_websockets: Option<u64>,
    open_tunnels: Option<u64>,
    deadline: Option<String>,
    #[serde(skip)]
    pub(crate) open: Open,
}

impl From<v1::DrainingWorker> for Draining {
    fn from(from: v1::DrainingWorker) -> Self {
        let open = from.open.unwrap_or_default();
        Self {
            pid: from.pid,
            worker_version: some(from.worker_version),
            open_connections: open.connections,
            open_requests: open.requests,
            open_websockets: open.websockets,
            open_tunnels: open.tunnels,
            deadline: time(from.deadline.as_ref()),
            open: Open::of(&open, from.deadline.as_ref()),
        }
    }
}

/// What is open, for people.
#[derive(Clone)]
pub(crate) struct Open {
    /// `3 connections (1 request, 1 WebSocket)`
    pub(crate) what: String,
    deadline: Option<SystemTime>,
}

impl Open {
    pub(super) fn of(open: &v1::OpenCounts, deadline: Option<&prost_types::Timestamp>) -> Self {
        let counts = [
            (open.requests, "request"),
            (open.websockets, "WebSocket"),
            (open.tunnels, "tunnel"),
        ];
        let kinds: Vec<String> = counts
            .into_iter()
            .filter_map(|(count, noun)| count.filter(|count| *count > 0).map(|count| number(count, noun)))
            .collect();
        let mut what = number(open.connections, "connection");
        if !kinds.is_empty() {
            what.push_str(" (");
            what.push_str(&kinds.join(", "));
            what.push(')');
        }
        Self {
            what,
            deadline: deadline.and_then(|deadline| (*deadline).try_into().ok()),
        }
    }

    /// `, for 27 s at most`
    pub(crate) fn until(&self) -> String {
        let left = self
            .deadline
            .and_then(|deadline| deadline.duration_since(SystemTime::now()).ok());
        left.map(|left| format!(", for {} s at most", left.as_secs_f64().ceil()))
            .unwrap_or_default()
    }
}

/// All counts are known.
pub(super) const NOTHING: v1::OpenCounts = v1::OpenCounts {
    connections: 0,
    requests: Some(0),
    websockets: Some(0),
    tunnels: Some(0),
};

/// What all workers of a proxy have open.
pub(super) fn sum(open: v1::OpenCounts, draining: &[v1::DrainingWorker]) -> v1::OpenCounts {
    let both = |a: Option<u64>, b: Option<u64>| a.zip(b).map(|(a, b)| a + b);
    let each = draining.iter().map(|worker| worker.open.unwrap_or_default());
    each.fold(open, |sum, one| v1::OpenCounts {
        connections: sum.connections + one.connections,
        requests: both(sum.requests, one.requests),
        websockets: both(sum.websockets, one.websockets),
        tunnels: both(sum.tunnels, one.tunnels),
    })
}

fn number(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_told_as_far_as_it_is_known() {
        let open = |requests, websockets| {
            let counts = v1::OpenCounts {
                connections: 3,
                requests,
                websockets,
                tunnels: None,
            };
            Open::of(&counts, None).what
        };
        assert_eq!(open(Some(2), Some(1)), "3 connections (2 requests, 1 WebSocket)");
        assert_eq!(open(Some(0), Some(0)), "3 connections");
        assert_eq!(open(None, None), "3 connections");
    }
}
