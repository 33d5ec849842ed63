//! How a worker ended: what is told to people, and whose doing it was.

use std::{fmt, os::unix::process::ExitStatusExt as _, process::ExitStatus};

use nix::sys::signal::Signal;

/// The end of a worker, as far as the kernel tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    /// `Err`: what is said of an end that nobody knows.
    status: Result<ExitStatus, String>,
    /// Did the kernel kill for want of memory while the worker ran, perhaps the worker? `None`: nobody knows.
    out_of_memory: Option<bool>,
}

impl Exit {
    pub(super) fn new(status: ExitStatus) -> Self {
        Self {
            status: Ok(status),
            out_of_memory: None,
        }
    }

    pub(super) fn unknown(why: impl Into<String>) -> Self {
        Self {
            status: Err(why.into()),
            out_of_memory: None,
        }
    }

    /// The same; did the kernel kill something for want of memory meanwhile? `None`: nobody knows.
    pub(super) fn out_of_memory(self, out_of_memory: Option<bool>) -> Self {
        Self { out_of_memory, ..self }
    }

    /// Did somebody kill it? No fault of a program ends in SIGKILL: of our limits none sends it (sandbox.rs), and the
    /// kernel's own killer counts what it does. What cannot be told from that is not somebody's doing.
    pub(super) fn is_somebodys_kill(&self) -> bool {
        self.is_sigkill() && self.out_of_memory == Some(false)
    }

    fn is_sigkill(&self) -> bool {
        let killed = |status: &ExitStatus| status.signal() == Some(Signal::SIGKILL as i32);
        self.status.as_ref().is_ok_and(killed)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.status {
            Ok(status) => f.write_str(&describe(*status)),
            Err(why) => f.write_str(why),
        }?;
        // Of any other end it explains nothing.
        if self.out_of_memory == Some(true) && self.is_sigkill() {
            f.write_str(", while the kernel was out of memory")?;
        }
        Ok(())
    }
}

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

    #[test]
    fn only_a_sigkill_that_the_kernel_did_not_send_is_somebodys_doing() {
        let ended = |raw| Exit::new(ExitStatus::from_raw(raw)).out_of_memory(Some(false));
        assert!(ended(9).is_somebodys_kill());
        // An exit status, an abort, a fault, SIGKILL by the kernel, and nobody knows.
        assert!(!ended(1 << 8).is_somebodys_kill());
        assert!(!ended(6).is_somebodys_kill());
        assert!(!ended(0x8b).is_somebodys_kill());
        let killed = ended(9).out_of_memory(Some(true));
        assert!(!killed.is_somebodys_kill());
        assert_eq!(
            killed.to_string(),
            "signal 9 (SIGKILL), while the kernel was out of memory"
        );
        assert_eq!(ended(0).out_of_memory(Some(true)).to_string(), "exit status 0");
        assert!(!Exit::unknown("unknown (adopted)").is_somebodys_kill());
    }

    #[test]
    fn where_the_kernel_does_not_count_its_kills_a_sigkill_is_nobodys_and_memory_is_not_blamed() {
        let killed = Exit::new(ExitStatus::from_raw(9)).out_of_memory(None);
        assert!(!killed.is_somebodys_kill());
        assert_eq!(killed.to_string(), "signal 9 (SIGKILL)");
    }
}
