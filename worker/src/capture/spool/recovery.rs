//! What an instance that is gone has left: its directory, taken over.

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::atomic::Ordering::Relaxed,
};

use bytes::Bytes;
use proxyplane_record::{
    frame,
    segment::{self, Counts},
};

use super::{ACKED, Spool, lock, put_aside, read_from, segments::Segment};

impl Spool {
    /// Takes over the directory of an instance that is gone: cuts a torn tail off and puts a last segment aside in which
    /// nothing can be read. Answers the first and the last record (not with it) as well.
    pub(crate) fn recover(dir: &Path) -> io::Result<(Self, u64, u64)> {
        let spool = Self::open(dir)?;
        let mut firsts = Vec::new();
        for entry in fs::read_dir(dir)? {
            firsts.extend(entry?.file_name().to_str().and_then(segment::parse_name));
        }
        firsts.sort_unstable();
        let acked = acked(dir);
        for (index, first) in firsts.iter().copied().enumerate() {
            let next = firsts.get(index + 1).copied();
            let found = match next {
                Some(next) => spool.finished(first, next)?,
                None => spool.last(first)?,
            };
            let Some(found) = found else { continue };
            spool.bytes.fetch_add(found.len, Relaxed);
            if found.next <= acked {
                // Who left it died before it was deleted.
                spool.remove(&found);
            } else {
                lock(&spool.segments).list.push_back(found);
            }
        }
        let segments = lock(&spool.segments);
        let first = segments.list.front().map_or(acked, |segment| segment.first);
        let next = segments.list.back().map_or(acked, |segment| segment.next);
        drop(segments);
        Ok((spool, first, next.max(first)))
    }

    /// A segment that another follows.
    fn finished(&self, first: u64, next: u64) -> io::Result<Option<Segment>> {
        let path = self.dir.join(segment::file_name(first));
        let len = fs::metadata(&path)?.len();
        let gap = beginning(&path, len)?;
        Ok(Some(Segment {
            first,
            next,
            len,
            counts: gap.unwrap_or_default(),
            dropped: gap.is_some(),
        }))
    }

    /// The last segment: it ends where its last whole record does.
    fn last(&self, first: u64) -> io::Result<Option<Segment>> {
        let path = self.dir.join(segment::file_name(first));
        let len = fs::metadata(&path)?.len();
        let data = read_from(&path, 0, len)?;
        let scan = segment::scan(&data, first, None);
        if scan.end == 0 {
            if len > 0 {
                tracing::error!(file = %path.display(), "nothing in a segment of the spool can be read; it is put aside");
                put_aside(&path);
            } else {
                fs::remove_file(&path)?;
            }
            return Ok(None);
        }
        let (end, torn) = (scan.end as u64, len - scan.end as u64);
        if torn > 0 {
            tracing::warn!(bytes = torn, "cut off the torn end of the spool");
            File::options().write(true).open(&path)?.set_len(end)?;
        }
        let gap = beginning(&path, end)?;
        Ok(Some(Segment {
            first,
            next: scan.next,
            len: end,
            counts: gap.unwrap_or_default(),
            dropped: gap.is_some(),
        }))
    }
}

/// What the segment stands for, if its records were dropped.
fn beginning(path: &Path, len: u64) -> io::Result<Option<Counts>> {
    /// Longer than the frame of any gap.
    const GAP_MAX: u64 = 128;
    let mut start: Bytes = read_from(path, 0, len.min(GAP_MAX))?;
    let frame = frame::take(&mut start).ok().flatten();
    Ok(frame.and_then(|frame| frame.gap()).map(|gap| Counts::of(&gap)))
}

/// Up to where everything was committed for certain; 0 if that is not known.
fn acked(dir: &Path) -> u64 {
    let note = fs::read(dir.join(ACKED)).unwrap_or_default();
    let number = |range| {
        note.get(range)
            .and_then(|bytes: &[u8]| Some(u64::from_be_bytes(bytes.try_into().ok()?)))
    };
    match (number(0..8), number(8..16)) {
        (Some(acked), Some(check)) if acked == !check => acked,
        _ => 0,
    }
}
