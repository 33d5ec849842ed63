//! Bytes read from one side and not yet dealt with.

use std::{
    io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use proxyplane_spec::limits;
use tokio::io::{AsyncRead, ReadBuf};

/// What a connection holds while it carries heads and small bodies only.
const SMALL: usize = 8 * 1024;

/// A buffer that grows to what passes and shrinks again: an idle connection holds little, a transfer 64 KiB.
#[derive(Debug, Default)]
pub(crate) struct ReadBuffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    /// The last read took all the room there was: more is coming than fits.
    overrun: bool,
}

impl ReadBuffer {
    /// A buffer that holds `bytes` already.
    pub(crate) fn holding(bytes: &[u8]) -> Self {
        let mut buffer = Self::default();
        if !bytes.is_empty() {
            buffer.bytes = bytes.into();
            buffer.end = bytes.len();
        }
        buffer
    }

    /// What was read and not consumed.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Would a read have nowhere to put anything, at this capacity?
    pub(crate) fn is_full(&self, capacity: usize) -> bool {
        self.end - self.start >= capacity
    }

    /// Marks the first `count` bytes as dealt with, and says where they lie; they stay there until the next read.
    pub(crate) fn consume(&mut self, count: usize) -> Range<usize> {
        let range = self.start..self.start + count;
        debug_assert!(range.end <= self.end, "more is consumed than was read");
        self.start = range.end;
        range
    }

    /// Bytes by the places that [`Self::consume`] named.
    pub(crate) fn at(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// Moves the consumed bytes at `from` down to `to`, to join pieces.
    pub(crate) fn join(&mut self, from: Range<usize>, to: usize) {
        self.bytes.copy_within(from, to);
    }

    /// Reads once into the room left below `capacity`; 0 is the end. There must be room.
    pub(crate) fn poll_fill<R>(&mut self, cx: &mut Context<'_>, io: &mut R, capacity: usize) -> Poll<io::Result<usize>>
    where
        R: AsyncRead + Unpin,
    {
        self.make_room(capacity);
        let mut room = ReadBuf::new(&mut self.bytes[self.end..]);
        ready!(Pin::new(io).poll_read(cx, &mut room))?;
        let count = room.filled().len();
        self.overrun = room.remaining() == 0;
        self.end += count;
        Poll::Ready(Ok(count))
    }

    fn make_room(&mut self, capacity: usize) {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
        let held = self.end - self.start;
        if (self.overrun || self.bytes.is_empty()) && self.bytes.len() < capacity {
            let wanted = if self.bytes.is_empty() {
                SMALL
            } else {
                limits::COPY_BUFFER.max(held * 2)
            };
            self.resize(wanted.min(capacity).max(held + 1));
            self.overrun = false;
        } else if self.end == self.bytes.len() && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, held);
        } else if self.end == self.bytes.len() {
            self.resize((held * 2).min(capacity).max(held + 1));
        }
    }

    /// Gives memory back after a transfer.
    pub(crate) fn shrink(&mut self) {
        let held = self.end - self.start;
        if self.bytes.len() > SMALL && held <= SMALL {
            self.resize(SMALL);
        }
    }

    fn resize(&mut self, len: usize) {
        let held = self.end - self.start;
        let mut bytes = vec![0; len].into_boxed_slice();
        bytes[..held].copy_from_slice(self.filled());
        (self.bytes, self.start, self.end) = (bytes, 0, held);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn fill(buffer: &mut ReadBuffer, mut from: &[u8], capacity: usize) -> usize {
        poll_fn(|cx| buffer.poll_fill(cx, &mut from, capacity)).await.unwrap()
    }

    #[tokio::test]
    async fn it_grows_with_what_passes_and_shrinks_again() {
        let data = vec![7; 100_000];
        let mut buffer = ReadBuffer::default();
        assert_eq!(fill(&mut buffer, &data, limits::COPY_BUFFER).await, SMALL);
        buffer.consume(SMALL);
        assert_eq!(fill(&mut buffer, &data, limits::COPY_BUFFER).await, limits::COPY_BUFFER);
        buffer.consume(limits::COPY_BUFFER - 3);
        buffer.shrink();
        assert_eq!((buffer.filled(), buffer.bytes.len()), (&[7; 3][..], SMALL));
    }

    #[tokio::test]
    async fn what_is_held_survives_every_read() {
        let mut buffer = ReadBuffer::holding(b"abc");
        buffer.consume(1);
        let mut expected = b"bc".to_vec();
        for step in [3000, 1, 9000, 50_000, 200_000] {
            let data: Vec<u8> = (0..step).map(|n: u32| n as u8).collect();
            let count = fill(&mut buffer, &data, 300_000).await;
            expected.extend_from_slice(&data[..count]);
            assert_eq!(buffer.filled(), expected);
        }
        assert!(!buffer.is_full(300_000));
    }
}
