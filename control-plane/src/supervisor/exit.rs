//! How a worker's end is told to people.

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

use nix::sys::signal::Signal;

/// `exit status 1`, `signal 9 (SIGKILL)`, `signal 11 (SIGSEGV), core dumped`.
pub(crate) fn describe(status: ExitStatus) -> String {
    let Some(number) = status.signal() else {
        return format!("exit status {}", status.code().unwrap_or_default());
    };
    let name = Signal::try_from(number)
        .map(|signal| format!(" ({signal})"))
        .unwrap_or_default();
    let core = if status.core_dumped() { ", core dumped" } else { "" };
    format!("signal {number}{name}{core}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_named_and_statuses_numbered() {
        assert_eq!(describe(ExitStatus::from_raw(9)), "signal 9 (SIGKILL)");
        assert_eq!(describe(ExitStatus::from_raw(0x8b)), "signal 11 (SIGSEGV), core dumped");
        assert_eq!(describe(ExitStatus::from_raw(1 << 8)), "exit status 1");
        assert_eq!(describe(ExitStatus::from_raw(0)), "exit status 0");
    }
}
