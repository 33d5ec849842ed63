//! A client that sends exactly the bytes it is told to.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};

use crate::LONG_ENOUGH;

/// A connection, plain or TLS.
pub struct RawClient {
    socket: TcpStream,
    tls: Option<Box<StreamOwned<ClientConnection, TcpStream>>>,
    /// Read and not yet given.
    buffer: Vec<u8>,
}

impl RawClient {
    /// Connects to `address`. Reads that take too long fail.
    #[track_caller]
    pub fn connect(address: &str) -> Self {
        let socket = TcpStream::connect(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
        socket
            .set_read_timeout(Some(LONG_ENOUGH))
            .expect("a time-out can be set");
        socket.set_nodelay(true).expect("it is a TCP socket");
        Self {
            socket,
            tls: None,
            buffer: Vec::new(),
        }
    }

    /// Its own `ip:port`, as the proxy sees and records it.
    pub fn address(&self) -> String {
        let address = self.socket.local_addr().expect("a connected socket has an address");
        address.to_string()
    }

    /// Sends bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes.as_ref()).expect("the bytes can be sent");
        self
    }

    /// Sends bytes; the other side may have gone.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
            None => self.socket.write_all(bytes),
        }
    }

    /// Says that nothing more comes from here.
    pub fn finish(&mut self) -> &mut Self {
        if let Some(tls) = &mut self.tls {
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
        let _ = self.socket.shutdown(Shutdown::Write);
        self
    }

    /// Reads up to and with the empty line that ends a head.
    #[track_caller]
    pub fn read_head(&mut self) -> String {
        let head = self.read_until(b"\r\n\r\n");
        String::from_utf8_lossy(&head).into_owned()
    }

    /// Reads up to and with `mark`.
    #[track_caller]
    pub fn read_until(&mut self, mark: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|window| window == mark) {
                return self.buffer.drain(..at + mark.len()).collect();
            }
            let more = self.fill().expect("reading works");
            assert!(
                more,
                "closed before {:?}: {:?}",
                String::from_utf8_lossy(mark),
                String::from_utf8_lossy(&self.buffer)
            );
        }
    }

    /// Reads exactly `count` bytes.
    #[track_caller]
    pub fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(
                self.fill().expect("reading works"),
                "closed after {} of {count} bytes",
                self.buffer.len()
            );
        }
        self.buffer.drain(..count).collect()
    }

    /// Reads until the other side closes; how it closes does not matter.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while matches!(self.fill(), Ok(true)) {}
        std::mem::take(&mut self.buffer)
    }

    /// Goes away without a word: closing sends a reset.
    pub fn vanish(self) {
        let linger = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        nix::sys::socket::setsockopt(&self.socket, nix::sys::socket::sockopt::Linger, &linger)
            .expect("an open socket can be told to reset");
    }

    /// Has the other side closed, in order or by a reset? Waits for it.
    pub fn is_closed(&mut self) -> bool {
        match self.fill() {
            Ok(more) => !more,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        }
    }

    /// Reads on to the end: is it a reset?
    pub fn is_reset(&mut self) -> bool {
        loop {
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
            }
        }
    }

    /// Reads on to the end: does the other side say over TLS that this is all?
    pub fn ends_in_order(&mut self) -> bool {
        let mut chunk = [0; 1024];
        let Some(tls) = &mut self.tls else {
            return !self.is_reset();
        };
        loop {
            match tls.read(&mut chunk) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// Asks the proxy for a tunnel to `target` and expects that it is granted.
    #[track_caller]
    #[must_use]
    pub fn tunnel(mut self, target: &str) -> Self {
        self.send(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"));
        let head = self.read_head();
        assert!(head.starts_with("HTTP/1.1 200"), "CONNECT {target}: {head}");
        self
    }

    /// The connection itself, from which nothing was read ahead.
    pub fn into_socket(self) -> TcpStream {
        assert!(
            self.tls.is_none() && self.buffer.is_empty(),
            "there is more to it than the socket"
        );
        self.socket
    }

    /// Goes on with TLS, trusting the CA in PEM, offering these protocols.
    #[track_caller]
    #[must_use]
    pub fn into_tls(self, name: &str, ca_pem: &str, alpn: &[&str]) -> Self {
        self.try_into_tls(name, ca_pem, alpn)
            .unwrap_or_else(|error| panic!("TLS with {name}: {error}"))
    }

    /// The same, where the handshake may fail.
    pub fn try_into_tls(self, name: &str, ca_pem: &str, alpn: &[&str]) -> io::Result<Self> {
        self.try_into_tls_with(name, tls_client(ca_pem, alpn))
    }

    /// The same with a configuration of the test's own.
    pub fn try_into_tls_with(self, name: &str, config: ClientConfig) -> io::Result<Self> {
        self.handshake_tls(name, config, Write::write_all)
    }

    /// The same, with a ClientHello in writes of one byte.
    pub fn try_into_tls_byte_by_byte(self, name: &str, config: ClientConfig) -> io::Result<Self> {
        self.handshake_tls(name, config, |socket, hello| {
            hello.chunks(1).try_for_each(|byte| socket.write_all(byte))
        })
    }

    fn handshake_tls(
        self,
        name: &str,
        config: ClientConfig,
        send_hello: impl FnOnce(&mut TcpStream, &[u8]) -> io::Result<()>,
    ) -> io::Result<Self> {
        assert!(self.buffer.is_empty(), "the server spoke before the handshake");
        let name = ServerName::try_from(name.to_owned()).expect("the name is a server's name");
        let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let mut socket = self.socket.try_clone()?;
        let mut hello = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut hello)?;
        }
        send_hello(&mut socket, &hello)?;
        let mut tls = StreamOwned::new(connection, socket);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        Ok(Self {
            socket: self.socket,
            tls: Some(Box::new(tls)),
            buffer: Vec::new(),
        })
    }

    /// The protocol that was chosen by ALPN.
    pub fn alpn(&self) -> Option<String> {
        let chosen = self.tls.as_ref()?.conn.alpn_protocol()?;
        Some(String::from_utf8_lossy(chosen).into_owned())
    }

    /// The certificates the server showed, DER, leaf first.
    pub fn peer_certificates(&self) -> Vec<Vec<u8>> {
        let shown = self.tls.as_ref().and_then(|tls| tls.conn.peer_certificates());
        shown
            .unwrap_or_default()
            .iter()
            .map(|certificate| certificate.to_vec())
            .collect()
    }

    /// More bytes into the buffer; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 16 * 1024];
        let read = match &mut self.tls {
            Some(tls) => match tls.read(&mut chunk) {
                // Closed without close_notify; what came before is whole.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                other => other?,
            },
            None => self.socket.read(&mut chunk)?,
        };
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(read > 0)
    }
}

/// TLS of a client that trusts the CA in PEM and offers these protocols.
pub fn tls_client(ca_pem: &str, alpn: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(ca_pem.as_bytes()).expect("the CA is PEM");
    roots.add(certificate).expect("the CA is a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}
