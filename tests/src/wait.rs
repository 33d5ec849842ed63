//! Waiting for something to become so, with an end.

use std::{
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    sync::atomic::{AtomicU32, Ordering},
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

/// Ports that neither the kernel gives to connections nor a control plane to proxies that ask for none.
const OURS: Range<u16> = 30_000..32_768;

/// A port of 127.0.0.1 that nobody listens on just now, and that stays so while a test has nobody listen there.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Another run of the tests begins elsewhere.
    let first = std::process::id().wrapping_mul(997);
    let mut candidates = (0..u32::from(OURS.end - OURS.start)).map(|_| {
        let next = first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % u32::from(OURS.end - OURS.start);
        OURS.start + u16::try_from(next).expect("it is within the range")
    });
    let free = candidates.find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
    free.expect("some port is free")
}
