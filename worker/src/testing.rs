//! What tests of several modules need: the records that were made, and waiting without a clock.

use std::{sync::Arc, time::Duration};

use proxyplane_record::{Exchange, Kind, WsMessage};

use proxyplane_spec::CaptureSpec;
use tokio::time;

use crate::{
    capture::Capture,
    service::{Drain, Service, ServiceConfig},
    tls::{Tls, testing::TestCa},
};

/// A capture whose records stay in its queue, and the drain it listens to.
pub(crate) fn capture() -> (Arc<Capture>, Drain) {
    let drain = Drain::new();
    (Capture::new(drain.clone()).0, drain)
}

/// Takes every record made so far out of the queue. Once per capture.
pub(crate) fn records(capture: &Capture) -> Vec<Kind> {
    capture.queue().take_all()
}

/// The exchanges that are over, in the order of their ends, with their captured bodies if those came along.
pub(crate) fn ended(records: &[Kind]) -> Vec<Exchange> {
    let exchange = |record: &Kind| match record {
        Kind::End(exchange) => Some(exchange.clone()),
        Kind::Complete(complete) => Some(complete.exchange.clone()),
        _ => None,
    };
    records.iter().filter_map(exchange).collect()
}

/// The WebSocket messages and parts of messages.
pub(crate) fn messages(records: Vec<Kind>) -> Vec<WsMessage> {
    let message = |record| {
        if let Kind::WsMessage(message) = record {
            Some(message)
        } else {
            None
        }
    };
    records.into_iter().filter_map(message).collect()
}

/// A service with every default, whose records stay in its queue.
pub(crate) fn service() -> Arc<Service> {
    let (capture, drain) = capture();
    let spec = CaptureSpec::default();
    let tls = Tls::build(&spec, TestCa::new("Test root").authority()).unwrap();
    let config = ServiceConfig {
        revision: 1,
        name: "test".to_owned(),
        verbose: false,
        spec,
        control_addresses: Vec::new(),
        tls,
    };
    Service::new(config, capture, drain, Vec::new())
}

/// Waits until every task of this test's runtime waits for something: on a paused clock, time passes only then.
pub(crate) async fn standstill() {
    struct Resumed;
    impl Drop for Resumed {
        fn drop(&mut self) {
            time::resume();
        }
    }
    time::pause();
    let _resumed = Resumed;
    time::sleep(Duration::from_millis(1)).await;
}
