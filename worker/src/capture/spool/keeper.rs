//! The thread that makes records durable and deletes those that are committed, in groups, so that writing never waits
//! for the disk.
//!
//! What is committed within [`TICK`] needs no place on the disk: while the control plane keeps up, segments are deleted
//! before the system has written them back.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{ACKED, Spool, lock};
use crate::capture::queue::Queue;

/// Between two looks. A record is committed or durable after two of them.
const TICK: Duration = Duration::from_millis(100);
/// Bytes that are written and not durable, for a look before its time.
const GROUP: usize = 1024 * 1024;

/// What is written and not durable.
#[derive(Default)]
pub(super) struct Dirt {
    files: Vec<Arc<File>>,
    bytes: usize,
    /// Number after the last such record,
    next: u64,
    /// and what it was at the last look.
    seen: u64,
    trim: bool,
    closing: bool,
}

/// Keeps `spool` until the queue is closed.
pub(in crate::capture) fn keep(queue: &Arc<Queue>, spool: &Arc<Spool>) {
    let mut told = false;
    while spool.wait_for_dirt() {
        let acked = queue.acked();
        let kept = spool.trim(acked).and_then(|()| spool.sync(acked));
        queue.freed();
        if let Err(error) = &kept
            && !told
        {
            tracing::error!(%error, "records are written to the spool, but the disk does not keep them");
        }
        told = kept.is_err();
    }
}

impl Spool {
    /// Something was written; `next` is the number after the last record.
    pub(super) fn dirtied(&self, file: Arc<File>, bytes: usize, next: u64) {
        let mut dirt = lock(&self.dirt);
        let was = (dirt.files.is_empty(), dirt.bytes >= GROUP);
        if !dirt.files.last().is_some_and(|last| Arc::ptr_eq(last, &file)) {
            dirt.files.push(file);
        }
        dirt.bytes += bytes;
        dirt.next = dirt.next.max(next);
        if was.0 || (!was.1 && dirt.bytes >= GROUP) {
            self.dirty.notify_one();
        }
    }

    /// Everything below `acked` is committed.
    pub(in crate::capture) fn committed(&self, acked: u64) {
        if lock(&self.segments).can_trim(acked) {
            lock(&self.dirt).trim = true;
            self.dirty.notify_one();
        }
    }

    /// Ends the thread that keeps it.
    pub(in crate::capture) fn close(&self) {
        lock(&self.dirt).closing = true;
        self.dirty.notify_one();
    }

    /// Waits for something to do and then for a group of it; false at the end.
    fn wait_for_dirt(&self) -> bool {
        let mut dirt = lock(&self.dirt);
        while dirt.files.is_empty() && !dirt.trim && !dirt.closing {
            dirt = self.dirty.wait(dirt).unwrap_or_else(PoisonError::into_inner);
        }
        let look = Instant::now() + TICK;
        while dirt.bytes < GROUP && !dirt.trim && !dirt.closing {
            let left = look.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            dirt = self.wait_timeout(dirt, left);
        }
        dirt.trim = false;
        !dirt.closing
    }

    fn wait_timeout<'a>(&self, dirt: MutexGuard<'a, Dirt>, left: Duration) -> MutexGuard<'a, Dirt> {
        self.dirty
            .wait_timeout(dirt, left)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// Makes durable what was not committed since the last look.
    fn sync(&self, acked: u64) -> io::Result<()> {
        let files = {
            let mut dirt = lock(&self.dirt);
            dirt.bytes = 0;
            let (seen, next) = (dirt.seen, dirt.next);
            dirt.seen = next;
            if acked >= seen {
                if acked >= next {
                    dirt.files.clear();
                } else if dirt.files.len() > 1 {
                    // What was sealed before the last look is committed, or is synced at the next.
                    let committed = lock(&self.segments).list.back().is_some_and(|last| last.first <= acked);
                    if committed {
                        let last = dirt.files.len() - 1;
                        dirt.files.drain(..last);
                    }
                }
                return Ok(());
            }
            std::mem::take(&mut dirt.files)
        };
        for file in files {
            file.sync_data()?;
        }
        // The names of new segments.
        File::open(&self.dir)?.sync_all()
    }

    /// Deletes what is committed, once it is durable that it is.
    fn trim(&self, acked: u64) -> io::Result<()> {
        if !lock(&self.segments).can_trim(acked) {
            return Ok(());
        }
        let mut note = [0; 16];
        note[..8].copy_from_slice(&acked.to_be_bytes());
        note[8..].copy_from_slice(&(!acked).to_be_bytes());
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.dir.join(ACKED))?;
        file.write_all_at(&note, 0)?;
        file.sync_data()?;
        let committed = lock(&self.segments).trim(acked);
        for segment in &committed {
            self.remove(segment);
        }
        Ok(())
    }
}
