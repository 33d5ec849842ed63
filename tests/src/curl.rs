//! curl, as users use it.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::Path,
    process::Command,
};

use crate::world::new_directory;

/// A curl command to be.
#[derive(Clone, Debug, Default)]
pub struct Curl {
    arguments: Vec<OsString>,
}

/// What curl got.
#[derive(Debug)]
pub struct Response {
    /// curl's own exit code.
    pub code: i32,
    /// Status of the answer; 0 when there was none.
    pub status: u16,
    /// `1.1` or `2`.
    pub version: String,
    /// The answer's head as it was received, with those before it (of CONNECT, 1xx).
    pub head: String,
    /// The body as it was received.
    pub body: Vec<u8>,
    /// curl's messages.
    pub stderr: String,
}

impl Curl {
    /// Without a proxy.
    pub fn direct() -> Self {
        Self::default()
    }

    /// Through the proxy at `address`.
    #[must_use]
    pub fn through(self, address: &str) -> Self {
        self.with(["--proxy", &format!("http://{address}")])
    }

    /// Trusting the CA certificate in `file`.
    #[must_use]
    pub fn trusting(self, file: &Path) -> Self {
        self.with([OsStr::new("--cacert"), file.as_ref()])
    }

    /// With more arguments.
    #[must_use]
    pub fn with<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Fetches `url`, whatever comes of it.
    #[track_caller]
    pub fn fetch(&self, url: &str) -> Response {
        let directory = new_directory("curl");
        let (head, body) = (directory.join("head"), directory.join("body"));
        let mut command = Command::new("curl");
        command.args(["-q", "--silent", "--show-error", "--max-time", "60", "--noproxy", ""]);
        command.args(["--write-out", "%{http_code} %{http_version}"]);
        command
            .arg("--dump-header")
            .arg(&head)
            .arg("--output")
            .arg(&body)
            .args(&self.arguments)
            .arg(url);
        for variable in [
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "no_proxy",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "NO_PROXY",
        ] {
            command.env_remove(variable);
        }
        // With --head curl gives the head in the body's place.
        let head_only = self.arguments.iter().any(|argument| argument == "--head");
        let output = command.output().expect("curl can be started");
        let written = String::from_utf8_lossy(&output.stdout).into_owned();
        let (status, version) = written.split_once(' ').unwrap_or_default();
        let response = Response {
            code: output.status.code().unwrap_or(-1),
            status: status.parse().unwrap_or_default(),
            version: version.to_owned(),
            head: String::from_utf8_lossy(&fs::read(&head).unwrap_or_default()).into_owned(),
            body: if head_only {
                Vec::new()
            } else {
                fs::read(&body).unwrap_or_default()
            },
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        let _ = fs::remove_dir_all(directory);
        response
    }

    /// Fetches `url`; an answer must come, of whatever status.
    #[track_caller]
    pub fn get(&self, url: &str) -> Response {
        let response = self.fetch(url);
        assert_eq!(response.code, 0, "curl {url}: {}", response.stderr);
        response
    }
}

impl Response {
    /// Lines of the last head, without the fields of one hop (RFC 9110 §7.6.1) and the date.
    pub fn fields(&self) -> Vec<String> {
        const LEFT_OUT: [&str; 5] = [
            "date",
            "connection",
            "keep-alive",
            "proxy-connection",
            "transfer-encoding",
        ];
        let last = self.head.trim_end().rsplit("\r\n\r\n").next().unwrap_or_default();
        let name = |line: &str| line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        last.lines()
            .filter(|line| !LEFT_OUT.contains(&name(line).as_str()))
            .map(str::to_owned)
            .collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
