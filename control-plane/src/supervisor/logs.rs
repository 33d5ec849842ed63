//! Workers' log files: `log/<service>.log`, with one older part in `.log.1`.
//!
//! A worker writes to the file itself, in append mode: a pipe would die with the control plane. What is longer than
//! [`LOG_MAX`] is copied to the older part and truncated, which an appending writer does not notice; lines that are
//! written between copy and truncation are lost, a few at most and only in a log of more than 8 MiB.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use proxyplane_spec::ServiceId;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;

/// A log file is cut when it is found to be longer.
pub(crate) const LOG_MAX: u64 = 8 * 1024 * 1024;
/// Between looks at the length of every log file.
pub(crate) const LOG_CHECK: Duration = Duration::from_secs(5);

/// Between looks at a log that somebody follows.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);
/// Bytes that are read of a log at once, and of one line: the rest becomes a line of its own.
const READ_MAX: u64 = 256 * 1024;
/// Batches of lines that wait for a follower; when full, reading waits: the file is the buffer.
const FOLLOW_QUEUE: usize = 4;

/// The log of one service.
#[derive(Clone, Debug)]
pub struct LogFile {
    path: PathBuf,
}

impl LogFile {
    pub(crate) fn of(log_dir: &Path, service: ServiceId) -> Self {
        Self {
            path: log_dir.join(format!("{service}.log")),
        }
    }

    /// Opens it for a worker to write to, cut if it is long.
    pub(crate) fn open(&self) -> io::Result<File> {
        self.cut()?;
        self.append()
    }

    /// Appends a line of the supervisor's own, such as how a worker ended.
    pub(crate) fn note(&self, line: &str) {
        let at = crate::clock::now().format(&Rfc3339).unwrap_or_default();
        let written = self
            .append()
            .and_then(|mut file| file.write_all(format!("{at} supervisor: {line}\n").as_bytes()));
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "a log line could not be written");
        }
    }

    /// Moves the contents to the older part if they are over [`LOG_MAX`].
    pub(crate) fn cut(&self) -> io::Result<()> {
        match fs::metadata(&self.path) {
            Ok(found) if found.len() > LOG_MAX => {
                fs::copy(&self.path, self.older())?;
                OpenOptions::new().write(true).open(&self.path)?.set_len(0)
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes both parts.
    pub(crate) fn remove(&self) {
        for path in [&self.path, &self.older()] {
            let _ = fs::remove_file(path);
        }
    }

    /// The last `count` lines, oldest first. Blocks on the disk.
    pub fn tail(&self, count: usize) -> io::Result<Vec<String>> {
        let mut lines = VecDeque::new();
        for path in [self.older(), self.path.clone()] {
            match File::open(path) {
                Ok(file) => last_lines(file, count, &mut lines)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(lines.into())
    }

    /// Streams the last `count` lines, then new ones as they are written, until the receiver is dropped.
    pub fn follow(&self, count: usize) -> mpsc::Receiver<Vec<String>> {
        let (sender, receiver) = mpsc::channel(FOLLOW_QUEUE);
        let log = self.clone();
        tokio::spawn(async move {
            let mut follower = Follower {
                offset: log.length(),
                log,
                rest: Vec::new(),
            };
            let log = follower.log.clone();
            let first = tokio::task::spawn_blocking(move || log.tail(count)).await;
            let first = first.ok().and_then(Result::ok).unwrap_or_default();
            let mut sent = sender.send(first).await;
            while sent.is_ok() {
                tokio::select! {
                    () = tokio::time::sleep(FOLLOW_EVERY) => {}
                    () = sender.closed() => return,
                }
                while let Some(lines) = follower.next() {
                    sent = sender.send(lines).await;
                }
            }
        });
        receiver
    }

    fn append(&self) -> io::Result<File> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)
    }

    fn older(&self) -> PathBuf {
        self.path.with_extension("log.1")
    }

    fn length(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |found| found.size())
    }
}

/// A reader's place in a log that grows.
struct Follower {
    log: LogFile,
    offset: u64,
    rest: Vec<u8>,
}

impl Follower {
    /// Whole lines that came since; `None` if there is nothing new.
    fn next(&mut self) -> Option<Vec<String>> {
        let length = self.log.length();
        if length < self.offset {
            // It was cut; what was written since is new.
            self.offset = 0;
        }
        if length == self.offset {
            return None;
        }
        let mut file = File::open(&self.log.path).ok()?;
        file.seek(SeekFrom::Start(self.offset)).ok()?;
        let read = file.take(READ_MAX).read_to_end(&mut self.rest).ok()?;
        self.offset += read as u64;
        let whole = match self.rest.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if self.rest.len() as u64 >= READ_MAX => self.rest.len(),
            None => 0,
        };
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        Some(String::from_utf8_lossy(&lines).lines().map(str::to_owned).collect())
    }
}

fn last_lines(file: File, count: usize, lines: &mut VecDeque<String>) -> io::Result<()> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    while reader.by_ref().take(READ_MAX).read_until(b'\n', &mut line)? > 0 {
        lines.push_back(String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned());
        line.clear();
        if lines.len() > count {
            lines.pop_front();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(LogFile);

    impl Scratch {
        fn new() -> Self {
            Self(LogFile::of(&std::env::temp_dir(), ServiceId::new()))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            self.0.remove();
        }
    }

    #[test]
    fn the_last_lines_are_read_across_both_parts() {
        let scratch = Scratch::new();
        assert_eq!(scratch.0.tail(5).unwrap(), Vec::<String>::new());
        fs::write(scratch.0.older(), "a\nb\n").unwrap();
        fs::write(&scratch.0.path, "c\nd").unwrap();
        assert_eq!(scratch.0.tail(3).unwrap(), ["b", "c", "d"]);
    }

    #[test]
    fn a_long_log_is_cut_under_a_writer_that_goes_on() {
        let scratch = Scratch::new();
        let mut writer = scratch.0.open().unwrap();
        writer.write_all(&vec![b'x'; LOG_MAX as usize]).unwrap();
        writer.write_all(b"\nlast\n").unwrap();
        scratch.0.cut().unwrap();
        writer.write_all(b"after\n").unwrap();
        assert_eq!(fs::read_to_string(&scratch.0.path).unwrap(), "after\n");
        assert_eq!(scratch.0.tail(2).unwrap(), ["last", "after"]);
    }

    #[tokio::test]
    async fn a_follower_gets_what_is_written_later_line_by_line() {
        let scratch = Scratch::new();
        scratch.0.note("first");
        let mut lines = scratch.0.follow(10);
        assert!(lines.recv().await.unwrap()[0].ends_with("supervisor: first"));
        scratch.0.note("second");
        assert!(lines.recv().await.unwrap()[0].ends_with("supervisor: second"));
    }
}
