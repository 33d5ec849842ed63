//! A `proxyctl` command that stays: `tail`, `watch`, `logs -f`, or one that waits for something.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::LONG_ENOUGH;

/// A running command whose lines are read as they come; killed when it is dropped.
pub struct Follow {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Follow {
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("proxyctl can be started");
        let stdout = lines(child.stdout.take().expect("it is piped"));
        let stderr = lines(child.stderr.take().expect("it is piped"));
        Self { child, stdout, stderr }
    }

    /// The next line of standard output.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.stdout.recv_timeout(LONG_ENOUGH).expect("a line comes")
    }

    /// The next line of standard output, which is JSON.
    #[track_caller]
    pub fn json(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("no JSON ({error}): {line}"))
    }

    /// Lines of JSON until one is as wanted.
    #[track_caller]
    pub fn json_until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.json();
            if wanted(&line) {
                return line;
            }
        }
    }

    /// Waits for these words on standard error: the line that has them.
    #[track_caller]
    pub fn says(&mut self, words: &str) -> String {
        let mut heard = Vec::new();
        while let Ok(line) = self.stderr.recv_timeout(LONG_ENOUGH) {
            if line.contains(words) {
                return line;
            }
            heard.push(line);
        }
        panic!("never said '{words}', but: {heard:?}");
    }

    /// Interrupts it, as Ctrl-C does: its exit code.
    #[track_caller]
    pub fn interrupt(mut self) -> i32 {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("process ids fit"));
        kill(pid, Signal::SIGINT).expect("it runs");
        self.child.wait().expect("it can be waited for").code().unwrap_or(-1)
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (give, take) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if give.send(line).is_err() {
                return;
            }
        }
    });
    take
}
