//! Waiting for something to become so, with an end.

use std::{
    net::{Ipv4Addr, TcpListener},
    thread,
    time::{Duration, Instant},
};

/// Until a test gives up. Nothing that works takes nearly as long, even on a busy machine.
pub const LONG_ENOUGH: Duration = Duration::from_secs(30);

/// Between looks.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// Looks until there is something to see; panics, naming `what`, if that takes too long.
#[track_caller]
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(LONG_ENOUGH, what, look)
}

/// The same with an end of its own, for things that must be quick.
#[track_caller]
pub fn eventually_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        thread::sleep(PAUSE);
    }
}

/// A port of 127.0.0.1 that nobody listens on just now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("some port is free");
    listener.local_addr().expect("a bound listener has an address").port()
}
