//! Frames that travel together.

use bytes::Bytes;
use proxyplane_record::{
    frame,
    segment::{Counts, Run},
};

/// Consecutive frames.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// Sequence number of the first frame.
    pub(crate) first: u64,
    /// Sequence number after the last frame.
    pub(crate) next: u64,
    /// The frames, as they go over the link.
    pub(crate) frames: Bytes,
    pub(super) bulk: usize,
    /// What its frames that are not on disk come to.
    pub(super) counts: Counts,
    pub(super) saved: Saved,
}

/// How much of a batch is on disk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Saved {
    pub(super) bytes: usize,
    /// Sequence number after the last such frame.
    pub(super) next: u64,
}

impl Batch {
    /// Bytes that are not on disk.
    pub(super) fn unsaved(&self) -> usize {
        self.frames.len() - self.saved.bytes
    }

    /// Cuts the frames below `next_seq` off and returns how many bytes that was.
    pub(super) fn cut_below(&mut self, next_seq: u64) -> usize {
        let before = self.frames.len();
        while self.first < next_seq
            && let Ok(Some(frame)) = frame::take(&mut self.frames)
        {
            self.first = frame.next_seq();
        }
        let cut = before - self.frames.len();
        self.saved.bytes = self.saved.bytes.saturating_sub(cut);
        cut
    }
}

impl From<Run> for Batch {
    fn from(run: Run) -> Self {
        Self {
            first: run.first,
            next: run.next,
            bulk: 0,
            counts: Counts::default(),
            saved: Saved {
                bytes: run.frames.len(),
                next: run.next,
            },
            frames: run.frames,
        }
    }
}
