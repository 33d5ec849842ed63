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

/// How a body that ends with its connection was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The origin's TLS ended without close_notify: an error to some clients, the end of the body to others.
    Silent,
    /// In a way that every client takes for an error.
    Reset,
}

/// A client's connection.
pub trait Downstream: AsyncRead + AsyncWrite + Send + Sync + Unpin {
    /// Makes closing look to the client like what happened.
    fn cut_off(&self, cut: Cut);
}

impl Downstream for TcpStream {
    fn cut_off(&self, _: Cut) {
        // Fails only for a socket that is gone already.
        let _ = SockRef::from(self).set_linger(Some(std::time::Duration::ZERO));
    }
}

impl<IO: Downstream> Downstream for tokio_rustls::server::TlsStream<IO> {
    fn cut_off(&self, cut: Cut) {
        // Without close_notify it ends in any case.
        if cut == Cut::Reset {
            self.get_ref().0.cut_off(cut);
        }
    }
}

#[cfg(test)]
impl Downstream for tokio::io::DuplexStream {
    fn cut_off(&self, _: Cut) {}
}
