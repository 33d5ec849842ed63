//! What is written when something in this process panics.
//!
//! A panic in one connection's task ends that connection: it is caught and counted where the task was spawned. Where it
//! came from is known only while the stack is still there, so that is logged here.

use std::{backtrace::Backtrace, panic, thread};

use crate::alarms::LOCAL;

/// Logs every panic with its place and its backtrace, whatever the environment says, instead of the usual text.
pub fn log() {
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let (thread, place) = (thread.name().unwrap_or("unnamed"), panic.location());
        let place = place.map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("no message");
        let backtrace = Backtrace::force_capture();
        tracing::error!("thread {thread} panicked at {place}");
        // For the log file alone: the message may quote what passed through.
        tracing::error!(target: LOCAL, "{message}\n{backtrace}");
    }));
}
