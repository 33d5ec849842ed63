//! An origin that says exactly what a test tells it to, and logs every byte it gets.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::{LONG_ENOUGH, Leaf, eventually};

type Log = Arc<Mutex<Vec<Vec<u8>>>>;

/// An origin on a port of its own; its threads end with the tests.
pub struct RawOrigin {
    address: SocketAddr,
    log: Log,
    /// Connections that are being served.
    open: Arc<AtomicUsize>,
}

/// One connection, from the origin's side.
pub struct Peer {
    stream: Stream,
    log: Log,
    /// Which connection of the origin this is, from 0.
    pub number: usize,
    buffer: Vec<u8>,
    /// It ends with a reset.
    resets: bool,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl RawOrigin {
    /// Each connection is handled by `serve` in a thread of its own and closed after it.
    pub fn serving(serve: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::listening(None, serve)
    }

    /// The same over TLS with this certificate, offering these protocols.
    pub fn serving_tls(
        leaf: &Leaf,
        alpn: &[&str],
        serve: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.certificate_der()], leaf.key_der())
            .expect("certificate and key belong together");
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Self::serving_tls_with(config, serve)
    }

    /// The same with a configuration of the test's own.
    pub fn serving_tls_with(
        config: ServerConfig,
        serve: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::listening(Some(Arc::new(config)), serve)
    }

    /// Answers each request head on a connection with `answer`.
    pub fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::serving(move |peer| {
            while !peer.read_head()?.is_empty() {
                peer.send(&answer)?;
            }
            Ok(())
        })
    }

    /// Answers the first request head on a connection with `answer` and closes.
    pub fn answering_once(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::serving(move |peer| {
            peer.read_head()?;
            peer.send(&answer)
        })
    }

    fn listening(
        tls: Option<Arc<ServerConfig>>,
        serve: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("some port is free");
        let address = listener.local_addr().expect("a bound listener has an address");
        let (log, open) = (Log::default(), Arc::<AtomicUsize>::default());
        let (serve, connections, serving) = (Arc::new(serve), Arc::clone(&log), Arc::clone(&open));
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let number = {
                    let mut log = connections.lock().unwrap_or_else(PoisonError::into_inner);
                    log.push(Vec::new());
                    log.len() - 1
                };
                let (serve, log, tls) = (Arc::clone(&serve), Arc::clone(&connections), tls.clone());
                let serving = Arc::clone(&serving);
                serving.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    if let Ok(mut peer) = Peer::accept(socket, tls, log, number) {
                        // How a connection ends is for the test to see at the other end.
                        let _ = serve(&mut peer);
                        peer.close();
                    }
                    serving.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, log, open }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// `http://127.0.0.1:port` and `path`.
    pub fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// `https://localhost:port` and `path`.
    pub fn https(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port())
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.received().len()
    }

    /// Waits until it has served every connection to its end.
    #[track_caller]
    pub fn has_served_all(&self) {
        eventually("the origin's connections end", || {
            (self.open.load(Ordering::SeqCst) == 0).then_some(())
        });
    }

    /// Every byte it got, by connection.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it got `bytes` on some connection.
    #[track_caller]
    pub fn gets(&self, bytes: &[u8]) {
        eventually(&format!("the origin gets {:?}", String::from_utf8_lossy(bytes)), || {
            let received = self.received();
            received
                .iter()
                .any(|all| all.windows(bytes.len()).any(|window| window == bytes))
                .then_some(())
        });
    }
}

impl Peer {
    fn accept(socket: TcpStream, tls: Option<Arc<ServerConfig>>, log: Log, number: usize) -> io::Result<Self> {
        socket.set_read_timeout(Some(LONG_ENOUGH))?;
        socket.set_nodelay(true)?;
        let stream = match tls {
            None => Stream::Plain(socket),
            Some(config) => {
                let connection = ServerConnection::new(config).map_err(io::Error::other)?;
                Stream::Tls(Box::new(StreamOwned::new(connection, socket)))
            }
        };
        Ok(Self {
            stream,
            log,
            number,
            buffer: Vec::new(),
            resets: false,
        })
    }

    /// Reads up to and with the empty line that ends a head; nothing at the end of the connection.
    pub fn read_head(&mut self) -> io::Result<Vec<u8>> {
        self.read_until(b"\r\n\r\n")
    }

    /// Reads up to and with `mark`, or what came before the end.
    pub fn read_until(&mut self, mark: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|window| window == mark) {
                return Ok(self.buffer.drain(..at + mark.len()).collect());
            }
            if !self.fill()? {
                return Ok(std::mem::take(&mut self.buffer));
            }
        }
    }

    /// Reads `count` bytes, or what came before the end.
    pub fn read_exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count && self.fill()? {}
        let count = count.min(self.buffer.len());
        Ok(self.buffer.drain(..count).collect())
    }

    /// Reads until the other side closes.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(socket) => socket.write_all(bytes.as_ref()),
            Stream::Tls(tls) => tls.write_all(bytes.as_ref()).and_then(|()| tls.flush()),
        }
    }

    /// Says that nothing more comes from here; reading goes on.
    pub fn finish(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(socket) => socket.shutdown(Shutdown::Write),
            Stream::Tls(tls) => {
                tls.conn.send_close_notify();
                tls.flush()?;
                tls.sock.shutdown(Shutdown::Write)
            }
        }
    }

    /// Closes, once it is served, so that the other side sees a reset and nothing before it.
    pub fn reset(&mut self) -> io::Result<()> {
        self.resets = true;
        let socket = match &self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(tls) => &tls.sock,
        };
        let linger = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::Linger, &linger)?;
        Ok(())
    }

    /// Closes without the end that TLS asks for.
    pub fn hang_up(&mut self) -> io::Result<()> {
        match &self.stream {
            Stream::Plain(socket) => socket.shutdown(Shutdown::Both),
            Stream::Tls(tls) => tls.sock.shutdown(Shutdown::Both),
        }
    }

    fn close(&mut self) {
        if !self.resets {
            // The other side may have gone before.
            let _ = self.finish();
        }
    }

    fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 16 * 1024];
        let read = match &mut self.stream {
            Stream::Plain(socket) => socket.read(&mut chunk)?,
            Stream::Tls(tls) => match tls.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                other => other?,
            },
        };
        let bytes = &chunk[..read];
        self.log.lock().unwrap_or_else(PoisonError::into_inner)[self.number].extend_from_slice(bytes);
        self.buffer.extend_from_slice(bytes);
        Ok(read > 0)
    }
}
