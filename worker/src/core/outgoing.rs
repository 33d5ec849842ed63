//! Bytes on their way to one side.

use std::{
    io::{self, IoSlice},
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use proxyplane_h1::chunked;
use tokio::io::AsyncWrite;

use super::{body::Taken, buffer::ReadBuffer};

/// Heads and framing around a piece of data that lies in the other side's buffer: all of it goes out in one write.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    before: Vec<u8>,
    data: Range<usize>,
    after: Vec<u8>,
    written: usize,
}

impl Outgoing {
    /// Nothing, in memory that was used before.
    pub(super) fn reusing(mut memory: Vec<u8>) -> Self {
        memory.clear();
        Self {
            before: memory,
            ..Self::default()
        }
    }

    /// Gives the memory back.
    pub(super) fn into_memory(self) -> Vec<u8> {
        self.before
    }

    /// What goes before the data: heads.
    pub(super) fn head(&mut self) -> &mut Vec<u8> {
        debug_assert!(
            self.data.is_empty() && self.after.is_empty(),
            "a head goes before the data"
        );
        &mut self.before
    }

    /// Adds a piece of body, as a chunk if `chunked`.
    pub(super) fn piece(&mut self, taken: &Taken, chunked: bool, trailers: &[u8]) {
        self.data = taken.data.clone();
        if !chunked {
            return;
        }
        if !taken.data.is_empty() {
            chunked::write_size(&mut self.before, taken.data.len());
            self.after.extend_from_slice(b"\r\n");
        }
        if taken.last {
            chunked::write_end(&mut self.after, trailers);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.before.is_empty() && self.data.is_empty() && self.after.is_empty()
    }

    /// Writes and flushes everything; ready when nothing is left. `buffer` is where the data lies.
    pub(super) fn poll_write<W>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut W,
        buffer: &ReadBuffer,
    ) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + Unpin,
    {
        let data = buffer.at(self.data.clone());
        let total = self.before.len() + data.len() + self.after.len();
        while self.written < total {
            let mut slices = [IoSlice::new(&[]); 3];
            let mut count = 0;
            let mut skip = self.written;
            for part in [&self.before[..], data, &self.after[..]] {
                let left = part.get(skip..).unwrap_or_default();
                skip = skip.saturating_sub(part.len());
                if !left.is_empty() {
                    slices[count] = IoSlice::new(left);
                    count += 1;
                }
            }
            let written = match &slices[..count] {
                [one] => ready!(Pin::new(&mut *io).poll_write(cx, one))?,
                several => ready!(Pin::new(&mut *io).poll_write_vectored(cx, several))?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        ready!(Pin::new(io).poll_flush(cx))?;
        self.before.clear();
        self.after.clear();
        self.data = 0..0;
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn head_and_chunk_go_out_in_order_through_the_smallest_pipe() {
        let buffer = ReadBuffer::holding(b"hello");
        for pipe in [1, 3, 64] {
            let (mut near, mut far) = tokio::io::duplex(pipe);
            let mut out = Outgoing::default();
            out.head().extend_from_slice(b"HEAD\r\n");
            out.piece(&Taken { data: 0..5, last: true }, true, b"T: u\r\n");
            let writing = async {
                poll_fn(|cx| out.poll_write(cx, &mut near, &buffer)).await.unwrap();
                drop(near);
            };
            let mut seen = Vec::new();
            let ((), read) = tokio::join!(writing, far.read_to_end(&mut seen));
            read.unwrap();
            assert_eq!(seen, b"HEAD\r\n5\r\nhello\r\n0\r\nT: u\r\n\r\n");
        }
    }
}
