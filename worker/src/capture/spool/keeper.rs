//! The thread that makes records durable and deletes those that are committed, in groups, so that writing never waits
//! for the disk.
//!
//! What is committed soon needs no place on the disk: while the control plane keeps up, segments are deleted before the
//! system has written them back.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{ACKED, Spool, lock};
use crate::capture::queue::Queue;

/// Between two looks.
const TICK: Duration = Duration::from_millis(50);
/// A record that was there at so many looks and is not committed is made durable at the next: that begins 200 ms after it
/// was written, or when the sync before has ended. However many come meanwhile: each sync makes the system write what most
/// often would never have to be.
const LOOKS: usize = 3;

/// What is written and not durable.
#[derive(Default)]
pub(super) struct Dirt {
    files: Vec<Arc<File>>,
    /// Number after the last such record,
    next: u64,
    /// what it was at the last looks, the oldest first,
    seen: [u64; LOOKS],
    looked: Option<Instant>,
    /// and at the last sync.
    durable: u64,
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
    /// Something was written over record `first` and what follows.
    pub(super) fn rewritten(&self, file: Arc<File>, first: u64, next: u64) {
        {
            let mut dirt = lock(&self.dirt);
            dirt.durable = dirt.durable.min(first);
        }
        self.dirtied(file, next);
    }

    /// Something was written; `next` is the number after the last record.
    pub(super) fn dirtied(&self, file: Arc<File>, next: u64) {
        let mut dirt = lock(&self.dirt);
        let was_clean = dirt.files.is_empty();
        if !dirt.files.last().is_some_and(|last| Arc::ptr_eq(last, &file)) {
            dirt.files.push(file);
        }
        dirt.next = dirt.next.max(next);
        if was_clean {
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
        while !dirt.trim && !dirt.closing {
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

    /// Makes everything durable, if anything is not that was there [`LOOKS`] looks ago and is not committed either.
    fn sync(&self, acked: u64) -> io::Result<()> {
        let (files, next) = {
            let mut dirt = lock(&self.dirt);
            let (oldest, next) = (dirt.seen[0], dirt.next);
            // A look for what can be deleted comes before its time.
            if dirt.looked.is_none_or(|looked| looked.elapsed() >= TICK) {
                dirt.looked = Some(Instant::now());
                dirt.seen.rotate_left(1);
                dirt.seen[LOOKS - 1] = next;
            }
            if acked.max(dirt.durable) >= oldest {
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
            (std::mem::take(&mut dirt.files), next)
        };
        let synced = files.iter().try_for_each(|file| file.sync_data());
        // The names of new segments.
        let synced = synced.and_then(|()| File::open(&self.dir)?.sync_all());
        let mut dirt = lock(&self.dirt);
        match &synced {
            Ok(()) => dirt.durable = next,
            // For the next look.
            Err(_) => drop(dirt.files.splice(..0, files)),
        }
        synced
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
