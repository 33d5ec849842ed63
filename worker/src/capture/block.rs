//! Memory for batches of records, outside the heap.
//!
//! Up to 64 MiB of records come and go in bursts, between the small allocations of the exchanges. On the heap they
//! would leave it fragmented and large for good; mapped memory goes back to the system with its batch.

use std::{
    io,
    ops::Range,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use memmap2::MmapMut;

use super::lock;

/// Size of a block, unless one record is larger.
pub(super) const BLOCK: usize = 256 * 1024;
/// Blocks that are kept for reuse: as many as are under way while the control plane keeps up. The others are unmapped.
const KEPT: usize = 4;

/// Blocks to be used again.
#[derive(Clone, Default)]
pub(super) struct Blocks(Arc<Mutex<Vec<MmapMut>>>);

impl Blocks {
    /// A block with room for at least `size` bytes.
    ///
    /// # Panics
    ///
    /// If the system has no memory left, as an allocation on the heap would.
    pub(super) fn block(&self, size: usize) -> Block {
        let kept = if size <= BLOCK { lock(&self.0).pop() } else { None };
        let map = kept
            .map_or_else(|| MmapMut::map_anon(size.max(BLOCK)), io::Result::Ok)
            .expect("out of memory");
        Block { map, filled: 0 }
    }
}

/// A batch that is being filled.
pub(super) struct Block {
    map: MmapMut,
    filled: usize,
}

impl Block {
    /// Bytes that it holds.
    pub(super) fn len(&self) -> usize {
        self.filled
    }

    /// Bytes that it can still take.
    pub(super) fn room(&self) -> usize {
        self.map.len() - self.filled
    }

    /// The bytes from `start` on.
    pub(super) fn since(&self, start: usize) -> &[u8] {
        &self.map[start..self.filled]
    }

    /// The next `size` bytes, to be written over; there must be room for them.
    pub(super) fn extend(&mut self, size: usize) -> &mut [u8] {
        let added = Range {
            start: self.filled,
            end: self.filled + size,
        };
        self.filled = added.end;
        &mut self.map[added]
    }

    /// What was filled, as shared bytes; with the last of them the memory goes back to `blocks` or to the system.
    pub(super) fn freeze(self, blocks: &Blocks) -> Bytes {
        let filled = self.filled;
        let owner = Owner {
            map: Some(self.map),
            blocks: blocks.clone(),
        };
        Bytes::from_owner(owner).slice(..filled)
    }
}

struct Owner {
    /// `Some` until it is dropped.
    map: Option<MmapMut>,
    blocks: Blocks,
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut kept = lock(&self.blocks.0);
        if kept.len() < KEPT {
            kept.extend(self.map.take().filter(|map| map.len() == BLOCK));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_the_memory_is_used_again() {
        let blocks = Blocks::default();
        let mut block = blocks.block(10);
        block.extend(5).copy_from_slice(b"hello");
        assert_eq!((block.len(), block.room()), (5, BLOCK - 5));
        let bytes = block.freeze(&blocks);
        assert_eq!(&bytes[..], b"hello");
        let part = bytes.slice(1..3);
        drop(bytes);
        assert_eq!((lock(&blocks.0).len(), &part[..]), (0, &b"el"[..]));
        drop(part);
        assert_eq!(lock(&blocks.0).len(), 1);
    }

    #[test]
    fn only_a_few_and_no_large_ones_are_kept() {
        let blocks = Blocks::default();
        let filled = |size| {
            let mut block = blocks.block(size);
            block.extend(size);
            block.freeze(&blocks)
        };
        drop((0..2 * KEPT).map(|_| filled(1)).collect::<Vec<_>>());
        assert_eq!(lock(&blocks.0).len(), KEPT);
        lock(&blocks.0).clear();
        drop(filled(BLOCK + 1));
        assert!(lock(&blocks.0).is_empty());
    }
}
