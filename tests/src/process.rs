//! Child processes that do not outlive the tests, however those end.

use std::{
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
    time::Instant,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{LONG_ENOUGH, eventually, wait::PAUSE};

/// A watcher in a process of its own: once the tests are gone, which closes its standard input, it stops the child and
/// removes the child's directory. A shared world is never dropped, and a killed test drops nothing.
const WATCHER: &str = r#"
cat >/dev/null
kill -TERM "$1" 2>/dev/null
while kill -0 "$1" 2>/dev/null; do sleep 0.1; done
rm -rf "$2"
"#;

/// A child process in a group of its own, stopped with SIGTERM when it is dropped or when the tests end.
pub struct Process {
    name: String,
    child: Child,
    watcher: Child,
    /// Closing it is what wakes the watcher.
    _leash: Option<ChildStdin>,
}

impl Process {
    /// Starts `command`; `directory` goes with it.
    pub fn start(name: &str, command: &mut Command, directory: &Path) -> Self {
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let mut watcher = Command::new("sh")
            .args(["-c", WATCHER, "watcher", &child.id().to_string()])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("a shell can be started");
        let leash = watcher.stdin.take();
        Self {
            name: name.to_owned(),
            child,
            watcher,
            _leash: leash,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids fit")
    }

    /// Has it exited, and how?
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// Waits for its end.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        let name = self.name.clone();
        eventually(&format!("{name} ends"), || self.exited())
    }

    /// Stops it with SIGTERM and waits: its exit code, or 128 and the signal's number.
    #[track_caller]
    pub fn stop(&mut self) -> i32 {
        if self.exited().is_none() {
            self.signal(Signal::SIGTERM);
        }
        let status = self.ended();
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
            let end = Instant::now() + LONG_ENOUGH;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
                thread::sleep(PAUSE);
            }
            // Not waiting for ever, and no panic on top of a panic: a test that failed is to be heard of.
            if matches!(self.child.try_wait(), Ok(None)) {
                eprintln!("{} did not end on SIGTERM within {LONG_ENOUGH:?}; killed", self.name);
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        // The child is gone and its id may soon be somebody else's.
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
    }
}
