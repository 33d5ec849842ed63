//! The spool: records on disk, from the moment they are made until they are committed.
//!
//! A directory belongs to one worker instance and holds its segments (see `proxyplane_record::segment`), `acked`, and
//! `lock`, which its owner keeps locked. One thread writes (`writer`), another makes durable and deletes (`keeper`);
//! both are apart from the threads that carry traffic. Who dies leaves the directory to a worker that is started with
//! `--drain-only` (`recovery`).

mod keeper;
mod recovery;
mod segments;
mod writer;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use memmap2::MmapMut;
use nix::fcntl::{Flock, FlockArg};
use proxyplane_record::segment::{self, Counts, Run};
use proxyplane_spec::{SpoolFull, limits};

use self::{
    keeper::Dirt,
    segments::{Segment, Segments},
};
use super::lock;

pub(super) use self::{keeper::keep, writer::write};

/// Largest segment, apart from the last piece that is written to it.
const SEGMENT_MAX: u64 = 16 * 1024 * 1024;
/// Smallest, in a spool that may hold little.
const SEGMENT_MIN: u64 = 64 * 1024;
/// Held locked by the process that owns the directory.
const LOCK: &str = "lock";
/// Up to where everything is committed: the sequence number, and its complement as a check.
const ACKED: &str = "acked";

/// A directory of segments that is ours.
pub(crate) struct Spool {
    dir: PathBuf,
    segments: Mutex<Segments>,
    /// Bytes of all segments; written under the lock, read without.
    bytes: AtomicU64,
    /// Bytes that there may be.
    limit: AtomicU64,
    blocks_when_full: AtomicBool,
    dirt: Mutex<Dirt>,
    /// There is something to make durable, or to delete.
    dirty: Condvar,
    _lock: Flock<File>,
}

impl Spool {
    /// Takes the directory at `dir`, which the control plane has made.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join(LOCK))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| io::Error::from(error))?;
        Ok(Self {
            dir: dir.to_owned(),
            segments: Mutex::default(),
            bytes: AtomicU64::new(0),
            limit: AtomicU64::new(limits::SPOOL_LIMIT_DEFAULT),
            blocks_when_full: AtomicBool::new(false),
            dirt: Mutex::default(),
            dirty: Condvar::new(),
            _lock: lock,
        })
    }

    /// What the service's configuration says.
    pub(super) fn configure(&self, limit: u64, full: SpoolFull) {
        self.limit.store(limit, Relaxed);
        self.blocks_when_full.store(full == SpoolFull::Block, Relaxed);
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    pub(super) fn blocks_when_full(&self) -> bool {
        self.blocks_when_full.load(Relaxed)
    }

    /// Are more than four fifths of it taken?
    pub(super) fn is_scarce(&self) -> bool {
        limits::spool_is_nearly_full(self.bytes(), self.limit())
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes() >= self.limit()
    }

    fn segment_size(&self) -> u64 {
        (self.limit() / 8).clamp(SEGMENT_MIN, SEGMENT_MAX)
    }

    /// Appends frames `first` to (not with) `next`, which come to `counts`. For the one thread that writes.
    fn append(&self, frames: &[u8], first: u64, next: u64, counts: &Counts) -> io::Result<()> {
        let (file, at) = self.current(first)?;
        file.write_all_at(frames, at)?;
        let mut segments = lock(&self.segments);
        if let Some(segment) = segments.list.back_mut() {
            segment.len += frames.len() as u64;
            segment.next = next;
            segment.counts.merge(counts);
        }
        drop(segments);
        self.bytes.fetch_add(frames.len() as u64, Relaxed);
        self.dirtied(file, next);
        Ok(())
    }

    /// The segment to write record `first` to, and where in it.
    fn current(&self, first: u64) -> io::Result<(Arc<File>, u64)> {
        let mut segments = lock(&self.segments);
        let size = self.segment_size();
        if let (Some(file), Some(last)) = (&segments.current, segments.list.back()) {
            // Records that were committed before they could be written leave a hole, which no segment has inside.
            if last.len < size && last.next == first {
                return Ok((file.clone(), last.len));
            }
            let footer = segment::footer(last.counts.gap(last.first, last.next));
            // Without its footer, a segment says less of what it would lose; that is no reason to stop.
            let written = file.write_all_at(&footer, last.len).map_or(0, |()| footer.len() as u64);
            self.bytes.fetch_add(written, Relaxed);
            segments.sealed(written);
        }
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.dir.join(segment::file_name(first)))?;
        let file = Arc::new(file);
        segments.begin(first, file.clone());
        Ok((file, 0))
    }

    /// The records from `from` on, up to (not with) `to` or the end of their segment. What cannot be read is a gap.
    pub(super) fn read(&self, from: u64, to: u64) -> Vec<Run> {
        let place = lock(&self.segments).locate(from, to);
        let mut runs = match place {
            segments::Place::Gap(gap) => vec![Run {
                first: from,
                next: from + gap.records,
                frames: segment::gap_frame(gap),
            }],
            segments::Place::In { segment, offset, seq } => self.read_segment(&segment, offset, seq),
        };
        runs.retain_mut(|run| clip(run, from, to));
        runs
    }

    fn read_segment(&self, segment: &Segment, offset: u64, seq: u64) -> Vec<Run> {
        let path = self.dir.join(segment::file_name(segment.first));
        let data = match read_from(&path, offset, segment.len) {
            Ok(data) => data,
            Err(error) => {
                tracing::error!(%error, file = %path.display(), "a segment of the spool cannot be read");
                return quarantined(segment, &path, offset, seq);
            }
        };
        let scan = segment::scan(&data, seq, Some(segment.next));
        if scan.damaged > 0 {
            let (damaged, file) = (scan.damaged, path.display());
            tracing::error!(damaged, %file, "records in the spool are damaged; they are lost");
        }
        if scan.end == 0 {
            return quarantined(segment, &path, offset, seq);
        }
        lock(&self.segments).read_to = Some((segment.first, offset + data.len() as u64, scan.next));
        scan.runs
    }

    /// Removes everything: all is committed.
    pub(crate) fn clear(&self) {
        let removed: Vec<Segment> = std::mem::take(&mut *lock(&self.segments)).list.into();
        for segment in removed {
            self.remove(&segment);
        }
        let _ = fs::remove_file(self.dir.join(ACKED));
        let _ = fs::remove_file(self.dir.join(LOCK));
    }

    fn remove(&self, segment: &Segment) {
        let path = self.dir.join(segment::file_name(segment.first));
        self.bytes.fetch_sub(segment.len, Relaxed);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, file = %path.display(), "a committed segment could not be removed");
            }
            _ => {}
        }
    }
}

/// A gap in the place of a segment, from its record `seq` on.
fn quarantined(segment: &Segment, path: &Path, offset: u64, seq: u64) -> Vec<Run> {
    put_aside(path);
    let counts = if offset == 0 { segment.counts } else { Counts::default() };
    vec![Run {
        first: seq,
        next: segment.next,
        frames: segment::gap_frame(counts.gap(seq, segment.next)),
    }]
}

/// Keeps a bad segment for whoever wants to look at it.
fn put_aside(path: &Path) {
    if let Err(error) = fs::rename(path, path.with_extension("bad")) {
        tracing::warn!(%error, file = %path.display(), "a bad segment could not be put aside");
    }
}

/// Cuts `run` to what lies between `from` and `to`; false if nothing does.
fn clip(run: &mut Run, from: u64, to: u64) -> bool {
    if run.next <= from || run.first >= to {
        return false;
    }
    if run.first < from || run.next > to {
        let (mut rest, mut start, mut end) = (run.frames.clone(), 0, run.frames.len());
        while let Ok(Some(frame)) = proxyplane_record::frame::take(&mut rest) {
            let at = run.frames.len() - rest.len();
            if frame.next_seq() <= from {
                (start, run.first) = (at, frame.next_seq());
            }
            if frame.next_seq() >= to {
                (end, run.next) = (at, frame.next_seq());
                break;
            }
        }
        run.frames = run.frames.slice(start..end);
    }
    !run.frames.is_empty()
}

/// Bytes `offset` to `len` of a file, outside the heap: a segment is large and soon gone again.
fn read_from(path: &Path, offset: u64, len: u64) -> io::Result<Bytes> {
    let file = File::open(path)?;
    let wanted = usize::try_from(len - offset).unwrap_or(usize::MAX);
    if wanted == 0 {
        return Ok(Bytes::new());
    }
    let mut map = MmapMut::map_anon(wanted)?;
    file.read_exact_at(&mut map, offset)?;
    Ok(Bytes::from_owner(map))
}

#[cfg(test)]
mod tests;
