//! One side's connection with what was read from it.

use std::{
    io,
    task::{Context, Poll},
};

use bytes::Bytes;
use proxyplane_spec::limits;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::buffer::ReadBuffer;

/// A connection and the bytes read from it.
#[derive(Debug)]
pub(crate) struct Leg<S> {
    pub(crate) io: S,
    pub(crate) buffer: ReadBuffer,
    /// The other side has ended what it sends.
    pub(crate) eof: bool,
}

impl<S> Leg<S> {
    /// A leg from which `prefix` was read already.
    pub(crate) fn new(io: S, prefix: &[u8]) -> Self {
        Self {
            io,
            buffer: ReadBuffer::holding(prefix),
            eof: false,
        }
    }

    /// The connection, and what was read from it.
    pub(crate) fn into_parts(self) -> (S, Bytes) {
        (self.io, Bytes::copy_from_slice(self.buffer.filled()))
    }
}

impl<S: AsyncRead + Unpin> Leg<S> {
    /// Reads once, up to the size of the copy buffer in all.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_fill_to(cx, limits::COPY_BUFFER)
    }

    /// Reads once, up to `capacity` in all.
    pub(crate) fn poll_fill_to(&mut self, cx: &mut Context<'_>, capacity: usize) -> Poll<io::Result<usize>> {
        let filled = self.buffer.poll_fill(cx, &mut self.io, capacity);
        self.eof |= matches!(filled, Poll::Ready(Ok(0)));
        filled
    }
}

/// A client's connection.
pub trait Downstream: AsyncRead + AsyncWrite + Send + Sync + Unpin {
    /// Makes closing look like an error to the client. Needed where a body ends with the connection; over TLS nothing
    /// has to be done, since a connection that ends without close_notify is an error.
    fn reset_on_close(&self) {}
}

impl Downstream for TcpStream {
    fn reset_on_close(&self) {
        // Fails only for a socket that is gone already.
        let _ = SockRef::from(self).set_linger(Some(std::time::Duration::ZERO));
    }
}

impl<IO: AsyncRead + AsyncWrite + Send + Sync + Unpin> Downstream for tokio_rustls::server::TlsStream<IO> {}

#[cfg(test)]
impl Downstream for tokio::io::DuplexStream {}
