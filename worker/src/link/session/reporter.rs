//! Statistics: sent when they change, at most once a second. An idle worker is not woken for them.

use std::time::Duration;

use proxyplane_proto::worker as wire;
use tokio::time::Instant;

use crate::service::Service;

/// Between two reports.
const PAUSE: Duration = Duration::from_secs(1);

/// What was reported last.
#[derive(Default)]
pub(super) struct Reporter {
    last: Option<wire::Stats>,
    not_before: Option<Instant>,
}

impl Reporter {
    /// Waits for the next report. Safe to cancel.
    pub(super) async fn next(&mut self, service: &Service) -> wire::Stats {
        if let Some(at) = self.not_before {
            tokio::time::sleep_until(at).await;
        }
        loop {
            // Armed before the look, so that a change after it is noticed.
            service.stats.arm();
            let stats = snapshot(service);
            if self.last != Some(stats) {
                return self.reported(stats);
            }
            service.stats.changed().await;
        }
    }

    /// A report that was asked for.
    pub(super) fn now(&mut self, service: &Service) -> wire::Stats {
        let stats = snapshot(service);
        self.reported(stats)
    }

    fn reported(&mut self, stats: wire::Stats) -> wire::Stats {
        self.last = Some(stats);
        self.not_before = Some(Instant::now() + PAUSE);
        stats
    }
}

fn snapshot(service: &Service) -> wire::Stats {
    service.stats.snapshot(service.capture.queue().stats())
}
