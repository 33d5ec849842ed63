//! Requests whose proxy may die at any moment.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::LONG_ENOUGH;

/// Clients that send one request after the other, each to a path of its own, and connect again when their connection
/// breaks.
pub struct UnsureLoad {
    done: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<Answered>>>,
}

/// An answer that was received completely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The request's path, which nobody else used.
    pub path: String,
    /// Its client, and the number of the client's connection.
    pub connection: (usize, usize),
    /// The connection broke afterwards.
    pub cut: bool,
}

impl UnsureLoad {
    /// `clients` of them through the proxy at `address` to `origin`, which answers 200 with two bytes.
    pub fn on(address: &str, origin: &str, clients: usize) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(AtomicUsize::new(0));
        let client = |number| {
            let (done, refused) = (Arc::clone(&done), Arc::clone(&refused));
            let (address, origin) = (address.to_owned(), origin.to_owned());
            thread::spawn(move || run(number, &address, &origin, &done, &refused))
        };
        let clients = (0..clients).map(client).collect();
        Self { done, refused, clients }
    }

    /// How many connections were refused so far.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Ends it: what was answered.
    #[track_caller]
    pub fn stop(mut self) -> Vec<Answered> {
        self.done.store(true, Ordering::Relaxed);
        let clients = self.clients.drain(..);
        clients
            .flat_map(|client| client.join().expect("clients do not fail"))
            .collect()
    }
}

impl Drop for UnsureLoad {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

fn run(client: usize, address: &str, origin: &str, done: &AtomicBool, refused: &AtomicUsize) -> Vec<Answered> {
    let connect = || {
        let connected = TcpStream::connect(address);
        let connected = connected.inspect_err(|error| {
            if error.kind() == ErrorKind::ConnectionRefused {
                refused.fetch_add(1, Ordering::Relaxed);
            }
        });
        connected.ok()
    };
    let (mut answered, mut socket, mut count) = (Vec::<Answered>::new(), None, 0);
    let (mut connections, mut first) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        let path = format!("/{client}/{count}");
        count += 1;
        let Some(open) = socket.take().or_else(connect) else {
            continue;
        };
        if let Some(open) = ask(open, origin, &path) {
            answered.push(Answered {
                path,
                connection: (client, connections),
                cut: false,
            });
            socket = Some(open);
        } else {
            answered[first..].iter_mut().for_each(|answered| answered.cut = true);
            first = answered.len();
            connections += 1;
        }
    }
    answered
}

/// Gives the connection back if the answer came whole.
fn ask(mut socket: TcpStream, origin: &str, path: &str) -> Option<TcpStream> {
    socket.set_read_timeout(Some(LONG_ENOUGH)).ok()?;
    let request = format!("GET http://{origin}{path} HTTP/1.1\r\nHost: {origin}\r\n\r\n");
    socket.write_all(request.as_bytes()).ok()?;
    let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
    loop {
        let read = socket.read(&mut piece).ok().filter(|read| *read > 0)?;
        answer.extend_from_slice(&piece[..read]);
        if let Some(end) = answer.windows(4).position(|end| end == b"\r\n\r\n")
            && answer.len() >= end + 6
        {
            return answer.starts_with(b"HTTP/1.1 200").then_some(socket);
        }
    }
}
