//! What lies in spools that no worker speaks for: those of workers that are gone, and of one that has not dialled yet.
//!
//! It is asked of the disk and of the database, not of whoever drains a spool: spools wait for their turn, and for a
//! database that is away.

use std::{
    fs::{self, File},
    io::{self, BufReader},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use proxyplane_record::segment;
use proxyplane_spec::{Epoch, ServiceId};

use super::{Shared, spool_dir};
use crate::store;

/// Records that are on disk and not committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftBehind {
    /// How many.
    pub(super) records: u64,
    /// Bytes of the segments that hold them.
    pub(super) bytes: u64,
}

/// A spool with segments in it.
#[derive(Debug, PartialEq, Eq)]
struct Spool {
    epoch: Epoch,
    /// First record that is there,
    first: u64,
    /// and the one after the last.
    next: u64,
    bytes: u64,
}

/// What `service` has in spools, but for those of the instances in `told`.
pub(super) async fn look(shared: &Shared, service: ServiceId, told: Vec<Epoch>) -> LeftBehind {
    let dir = spool_dir::of_service(&shared.options.spool_dir, service);
    let found = tokio::task::spawn_blocking(move || spools(&dir, &told)).await;
    let found = found.unwrap_or_default();
    if found.is_empty() {
        return LeftBehind::default();
    }
    let epochs: Vec<_> = found.iter().map(|spool| spool.epoch.0).collect();
    // What cannot be asked counts as not committed, as far as its segment is there.
    let cursors = store::ingest::cursors(&shared.db, &epochs).await.unwrap_or_default();
    found.iter().fold(LeftBehind::default(), |sum, spool| {
        let committed = cursors.get(&spool.epoch.0).copied().unwrap_or_default();
        LeftBehind {
            records: sum.records + spool.next.saturating_sub(committed.max(spool.first)),
            bytes: sum.bytes + spool.bytes,
        }
    })
}

fn spools(dir: &Path, told: &[Epoch]) -> Vec<Spool> {
    // A service that never ran has no directory.
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let epochs = entries.filter_map(|entry| {
        let epoch = entry.file_name().to_str()?.parse::<Epoch>().ok()?;
        (!told.contains(&epoch)).then(|| (epoch, entry.path()))
    });
    epochs.filter_map(|(epoch, path)| spool(epoch, &path)).collect()
}

fn spool(epoch: Epoch, dir: &Path) -> Option<Spool> {
    let mut firsts = Vec::new();
    let mut bytes = 0;
    for entry in fs::read_dir(dir).ok()?.flatten() {
        // One that was just deleted is committed.
        if let Some(first) = entry.file_name().to_str().and_then(segment::parse_name)
            && let Ok(metadata) = entry.metadata()
        {
            firsts.push(first);
            bytes += metadata.len();
        }
    }
    let (first, last) = (*firsts.iter().min()?, *firsts.iter().max()?);
    // Of one that cannot be read, as much is certain.
    let next = end(dir.join(segment::file_name(last)), last).unwrap_or(last + 1);
    Some(Spool {
        epoch,
        first,
        next,
        bytes,
    })
}

/// The file lies where a worker may write: it must be one.
fn end(file: PathBuf, first: u64) -> io::Result<u64> {
    let file = File::options()
        .read(true)
        .custom_flags(O_NOFOLLOW | O_NONBLOCK)
        .open(file)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    segment::end(&mut BufReader::new(file), first)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proxyplane_record::{Complete, Kind, Record, frame};

    use super::*;

    fn segment_of(dir: &Path, first: u64, records: u64) {
        let mut data = BytesMut::new();
        for seq in first..first + records {
            let complete = Kind::Complete(Complete::default());
            frame::put(&mut data, seq, &Record { kind: Some(complete) });
        }
        fs::write(dir.join(segment::file_name(first)), data).unwrap();
    }

    #[test]
    fn spools_are_counted_from_their_first_record_to_the_last_unless_a_worker_tells_of_them() {
        let service = tempfile::tempdir().unwrap();
        let [left, told, empty] = [(); 3].map(|()| Epoch::new());
        for epoch in [left, told, empty] {
            fs::create_dir(service.path().join(epoch.to_string())).unwrap();
        }
        let dir = service.path().join(left.to_string());
        segment_of(&dir, 3, 4);
        segment_of(&dir, 7, 2);
        fs::write(dir.join("lock"), "").unwrap();
        segment_of(&service.path().join(told.to_string()), 0, 9);
        let found = spools(service.path(), &[told]);
        let bytes = fs::metadata(dir.join(segment::file_name(3))).unwrap().len()
            + fs::metadata(dir.join(segment::file_name(7))).unwrap().len();
        let expected = Spool {
            epoch: left,
            first: 3,
            next: 9,
            bytes,
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn what_cannot_be_read_counts_as_one_record() {
        let service = tempfile::tempdir().unwrap();
        let dir = service.path().join(Epoch::new().to_string());
        fs::create_dir(&dir).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.join(segment::file_name(5))).unwrap();
        let found = spools(service.path(), &[]);
        assert_eq!((found[0].first, found[0].next), (5, 6));
    }

    #[test]
    fn a_service_without_a_directory_has_nothing() {
        assert_eq!(spools(Path::new("/nowhere"), &[]), []);
    }
}
