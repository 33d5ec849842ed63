//! The thread that writes records to disk: at once what comes after a pause, in groups what comes in a stream.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::Duration,
};

use proxyplane_record::segment;

use super::{Spool, lock, segments::Dropped};
use crate::capture::queue::{Queue, Take};

/// Between attempts to write while the disk takes nothing.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// After a write, records gather for this long, unless answers wait for them.
///
/// Writing each record by itself costs a wakening of this thread an exchange, which the threads that carry traffic pay for.
const GATHER: Duration = Duration::from_millis(1);

/// Writes what comes into `queue` until that is closed.
pub(in crate::capture) fn write(queue: &Arc<Queue>, spool: &Arc<Spool>) {
    write_all(queue, spool);
    spool.close();
}

fn write_all(queue: &Arc<Queue>, spool: &Arc<Spool>) {
    let mut copy = Vec::new();
    let mut failing = false;
    while let Some(take) = queue.take_unsaved(&mut copy) {
        let frames = take.frames(&copy);
        if !spool.blocks_when_full() {
            while spool.bytes() + frames.len() as u64 > spool.limit() && spool.give_up_oldest(queue) {}
        }
        let mut written = spool.append(frames, take.first, take.next, &take.counts);
        while written.is_err() && !spool.blocks_when_full() && spool.give_up_oldest(queue) {
            written = spool.append(frames, take.first, take.next, &take.counts);
        }
        match written {
            Ok(()) => {
                queue.saved(&take, frames.len());
                if std::mem::take(&mut failing) {
                    tracing::info!("the spool takes records again");
                }
                if !queue.is_eager() && !queue.has_closed_unsaved() {
                    thread::sleep(GATHER);
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(%error, "records cannot be written to the spool; they are kept in memory");
                }
                if !queue.not_saved(&take, TRY_AGAIN) {
                    if !queue.is_empty() {
                        tracing::error!("records that could neither be written nor sent are lost");
                    }
                    return;
                }
            }
        }
    }
}

impl Spool {
    /// Drops the oldest segment that is not on its way, for a gap that counts it; false if there is none.
    fn give_up_oldest(&self, queue: &Queue) -> bool {
        // Under the queue's lock: what is about to be sent must not be dropped.
        let Some(dropped) = queue.with_waiting(|from, to| lock(&self.segments).drop_oldest(from, to)) else {
            return false;
        };
        let Dropped { segment, into } = &dropped;
        tracing::warn!(
            records = segment.next - segment.first,
            exchanges = segment.counts.exchanges,
            "the spool is full; the oldest segment is dropped"
        );
        let left = self.leave_gap(&dropped);
        if let Err(error) = &left {
            tracing::warn!(%error, "the gap is kept in memory only");
        }
        if *into != segment.first {
            self.remove(segment);
        }
        // Otherwise nothing was gained, and dropping more would not help.
        left.is_ok()
    }

    /// Writes the gap over the beginning of the segment, which needs no room on the disk, then cuts the rest off. What
    /// a crash leaves between the two is read as the gap alone.
    fn leave_gap(&self, dropped: &Dropped) -> io::Result<()> {
        let Some(standing) = lock(&self.segments).get(dropped.into) else {
            return Ok(());
        };
        let gap = segment::gap_frame(standing.counts.gap(standing.first, standing.next));
        let path = self.dir.join(segment::file_name(standing.first));
        let file = File::options().write(true).open(&path)?;
        file.write_all_at(&gap, 0)?;
        file.set_len(gap.len() as u64)?;
        let len = fs::metadata(&path)?.len();
        self.bytes.fetch_sub(standing.len.saturating_sub(len), Relaxed);
        self.bytes.fetch_add(len.saturating_sub(standing.len), Relaxed);
        lock(&self.segments).set_len(standing.first, len);
        self.rewritten(Arc::new(file), standing.first, standing.next);
        Ok(())
    }
}

impl Take {
    fn frames<'a>(&'a self, copy: &'a [u8]) -> &'a [u8] {
        self.closed.as_deref().unwrap_or(copy)
    }
}
