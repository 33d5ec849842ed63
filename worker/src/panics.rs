//! What is written when something in this process panics.
//!
//! A panic in one connection's task ends that connection: it is caught and counted where the task was spawned. Where it
//! came from is known only while the stack is still there, so that is logged here.

use std::{
    backtrace::Backtrace,
    panic::{self, PanicHookInfo},
    thread,
};

/// Logs every panic with its place and its backtrace, whatever the environment says, instead of the usual text.
pub fn log() {
    panic::set_hook(Box::new(|panic| {
        let (message, backtrace) = (message(panic), Backtrace::force_capture());
        let thread = thread::current();
        tracing::error!(
            thread = thread.name().unwrap_or("unnamed"),
            at = panic.location().map(tracing::field::display),
            "panicked: {message}\n{backtrace}"
        );
    }));
}

fn message<'p>(panic: &'p PanicHookInfo<'_>) -> &'p str {
    panic.payload_as_str().unwrap_or("no message")
}
