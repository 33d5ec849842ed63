//! What a run of `proxyctl` gave.

use std::process::Output;

use serde_json::Value;

/// Exit code and output of a finished command.
#[derive(Debug)]
pub struct Ran {
    /// The command line, for messages.
    pub command: String,
    /// Exit code; -1 if a signal ended it.
    pub code: i32,
    /// Standard output, byte by byte.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    pub(crate) fn new(command: String, output: Output) -> Self {
        Self {
            command,
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It succeeded.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// It exited with `code`.
    #[track_caller]
    #[must_use]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            code,
            "exit code of `{}`; it said: {}{}",
            self.command,
            self.stderr,
            self.text()
        );
        self
    }

    /// It failed with `code` and said `words`.
    #[track_caller]
    pub fn fails(self, code: i32, words: &str) {
        let ran = self.exits(code);
        assert!(
            ran.stderr.contains(words),
            "`{}` should say '{words}', said: {}",
            ran.command,
            ran.stderr
        );
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output as one JSON document, of a command that succeeded.
    #[track_caller]
    pub fn json(self) -> Value {
        let ran = self.ok();
        serde_json::from_slice(&ran.stdout)
            .unwrap_or_else(|error| panic!("`{}` gave no JSON ({error}): {}", ran.command, ran.text()))
    }

    /// The same, unless the database took too long, as it may on a busy machine: whoever waits for something asks again.
    #[track_caller]
    pub fn json_if_there(self) -> Option<Value> {
        let is_away = self.code == 3 && self.stderr.contains("the database is not available");
        (!is_away).then(|| self.json())
    }
}
