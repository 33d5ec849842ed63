//! One captured body: what of it is held in memory, and where it goes on.

use bytes::Bytes;
use proxyplane_record::{CHUNK_MAX, Side};

/// Pieces from this size on are not gathered into larger ones.
const GATHER_BELOW: usize = 16 * 1024;

/// The captured bytes of one direction that are not in a record yet.
pub(super) struct Body {
    side: Side,
    held: Vec<u8>,
    /// Position of the first held byte in the captured body.
    offset: u64,
    /// Is it kept? Decided when it begins.
    kept: Option<bool>,
}

impl Body {
    pub(super) fn new(side: Side) -> Self {
        Self {
            side,
            held: Vec::new(),
            offset: 0,
            kept: None,
        }
    }

    pub(super) fn side(&self) -> Side {
        self.side
    }

    /// Is there room for it, or was there when it began?
    pub(super) fn is_kept(&mut self, room: impl FnOnce() -> bool) -> bool {
        *self.kept.get_or_insert_with(room)
    }

    /// How many bytes are held.
    pub(super) fn pending(&self) -> usize {
        self.held.len()
    }

    /// Holds `data`; the caller minds the size.
    pub(super) fn hold(&mut self, data: &[u8]) {
        self.held.extend_from_slice(data);
    }

    /// Hands `data` on as chunks; small pieces (server-sent events) are gathered, the sweeper hands them on in time.
    pub(super) fn pass(&mut self, data: &[u8], mut write: impl FnMut(u64, Bytes)) {
        if data.len() < GATHER_BELOW && self.held.len() + data.len() < CHUNK_MAX {
            return self.hold(data);
        }
        self.flush(&mut write);
        for piece in data.chunks(CHUNK_MAX) {
            write(self.offset, Bytes::copy_from_slice(piece));
            self.offset += piece.len() as u64;
        }
    }

    /// Hands on what is held.
    pub(super) fn flush(&mut self, mut write: impl FnMut(u64, Bytes)) {
        let mut held = self.take();
        while !held.is_empty() {
            let piece = held.split_to(held.len().min(CHUNK_MAX));
            let offset = self.offset;
            self.offset += piece.len() as u64;
            write(offset, piece);
        }
    }

    /// What is held; nothing is afterwards.
    pub(super) fn take(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.held))
    }
}
