//! The load, and its own log.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{LONG_ENOUGH, RawOrigin};

/// Between attempts to connect.
const AGAIN: Duration = Duration::from_millis(10);

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The response came with its last byte.
    Complete,
    /// The connection, which had served before, was closed before the first byte of an answer: what an HTTP/1 client
    /// meets when its request crosses the close of an idle connection, and sends again (RFC 9112 §9.3.1).
    Crossed,
    /// It did not.
    Failed(String),
}

/// A request, as its client saw it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its path, which no other has.
    pub path: String,
    /// Its client, and which of the client's connections it was sent on.
    pub connection: (usize, usize),
    /// When its connection was opened.
    pub connected: Instant,
    /// When it was sent.
    pub began: Instant,
    /// When its last byte had come, or when it failed.
    pub ended: Instant,
    /// What became of it.
    pub outcome: Outcome,
}

/// Clients at work.
pub(super) struct Clients {
    done: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Asked>>>,
}

impl Clients {
    pub(super) fn start(count: usize, rate: u32, proxy: &str, origin: &RawOrigin) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let every = Duration::from_secs(1) * u32::try_from(count).unwrap_or(1) / rate.max(1);
        let clients = (0..count)
            .map(|number| {
                let mut client = Client {
                    number,
                    proxy: proxy.to_owned(),
                    origin: origin.address(),
                    done: Arc::clone(&done),
                    log: Vec::new(),
                    connections: 0,
                };
                thread::spawn(move || {
                    client.run(every);
                    client.log
                })
            })
            .collect();
        Self { done, clients }
    }

    /// Ends the load: every request of every client.
    pub(super) fn stop(mut self) -> Vec<Asked> {
        self.done.store(true, Ordering::Relaxed);
        let clients = std::mem::take(&mut self.clients);
        clients
            .into_iter()
            .flat_map(|client| client.join().expect("a client ends"))
            .collect()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

struct Client {
    number: usize,
    proxy: String,
    origin: String,
    done: Arc<AtomicBool>,
    log: Vec<Asked>,
    connections: usize,
}

/// How an answer ended, if not in an error.
enum Answer {
    Complete,
    /// Completely, and the proxy closes the connection.
    Last,
}

impl Client {
    fn run(&mut self, every: Duration) {
        let mut due = Instant::now();
        while !self.done.load(Ordering::Relaxed) {
            let Some((mut socket, connected)) = self.connect() else {
                return;
            };
            self.connections += 1;
            for sent in 0_u64.. {
                if self.done.load(Ordering::Relaxed) {
                    return;
                }
                thread::sleep(due.saturating_duration_since(Instant::now()));
                // What a fault held up is not made up for: the rate is an upper one.
                due = (due + every).max(Instant::now());
                let path = format!("/{}/{}", self.number, self.log.len());
                let began = Instant::now();
                let mut answer = Vec::new();
                let asked = ask(&mut socket, &self.origin, &path, &mut answer);
                let goes_on = matches!(asked, Ok(Answer::Complete));
                self.log.push(Asked {
                    path,
                    connection: (self.number, self.connections),
                    connected,
                    began,
                    ended: Instant::now(),
                    outcome: match asked {
                        Ok(_) => Outcome::Complete,
                        Err(error) if sent > 0 && answer.is_empty() && is_close(&error) => Outcome::Crossed,
                        Err(error) => Outcome::Failed(error.to_string()),
                    },
                });
                if !goes_on {
                    break;
                }
            }
        }
    }

    fn connect(&self) -> Option<(TcpStream, Instant)> {
        while !self.done.load(Ordering::Relaxed) {
            if let Ok(socket) = TcpStream::connect(&self.proxy) {
                let connected = Instant::now();
                // Longer than any fault: a request that waits one out has not failed.
                let patient = socket.set_read_timeout(Some(LONG_ENOUGH * 4));
                patient.and_then(|()| socket.set_nodelay(true)).expect("an open socket");
                return Some((socket, connected));
            }
            thread::sleep(AGAIN);
        }
        None
    }
}

fn is_close(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// One request and its whole response, which must be 200. `answer` gets what was read, also of half a response.
fn ask(socket: &mut TcpStream, origin: &str, path: &str, answer: &mut Vec<u8>) -> io::Result<Answer> {
    socket.write_all(format!("GET http://{origin}{path} HTTP/1.1\r\nHost: {origin}\r\n\r\n").as_bytes())?;
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&answer[..end]).into_owned();
            if !head.starts_with("HTTP/1.1 200") {
                return Err(io::Error::other(head.lines().next().unwrap_or_default().to_owned()));
            }
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or_default();
            if answer.len() >= end + 4 + length {
                let closes = head.lines().any(|line| line.eq_ignore_ascii_case("connection: close"));
                return Ok(if closes { Answer::Last } else { Answer::Complete });
            }
        }
        match socket.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(&chunk[..read]),
        }
    }
}
