//! Is there room on the database's disk?
//!
//! A private Postgres whose disk is full cannot write its log either: it panics, restarts, and cannot recover before
//! there is room again, so nothing can be read meanwhile. Ingest is what fills the disk; it pauses while some is left.

use std::{io, path::PathBuf};

use nix::sys::statvfs::statvfs;

/// Bytes that ingest leaves free: for the two transactions that are in flight when they are reached (each at most 4 MiB of
/// records, once in the tables and once in the log), and for what else Postgres and the control plane write while ingest waits.
const LEFT_FREE: u64 = 64 * 1024 * 1024;

/// Where the database's disk is, if that is known.
#[derive(Clone, Debug, Default)]
pub struct Room(Option<PathBuf>);

/// There is too little.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("only {} MiB are free on the database's disk ({})", .free / (1024 * 1024), .place.display())]
pub(super) struct NoRoom {
    free: u64,
    place: PathBuf,
}

impl Room {
    /// On the file system of `place`.
    pub fn at(place: PathBuf) -> Self {
        Self(Some(place))
    }

    /// The database is elsewhere: its own errors tell.
    pub fn unknown() -> Self {
        Self::default()
    }

    pub(super) fn check(&self) -> Result<(), NoRoom> {
        let Some(place) = &self.0 else { return Ok(()) };
        match free(place) {
            Ok(free) if free < LEFT_FREE => Err(NoRoom {
                free,
                place: place.clone(),
            }),
            Ok(_) => Ok(()),
            Err(error) => {
                // Postgres will say more.
                tracing::debug!(%error, place = %place.display(), "cannot tell how much room there is");
                Ok(())
            }
        }
    }
}

/// Bytes that an ordinary account may still take: the private server never runs as root.
fn free(place: &PathBuf) -> io::Result<u64> {
    let found = statvfs(place)?;
    Ok(found.blocks_available() * found.fragment_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_not_known_has_room() {
        assert_eq!(Room::unknown().check(), Ok(()));
        assert_eq!(Room::at("/nowhere".into()).check(), Ok(()));
    }

    #[test]
    fn a_disk_without_room_is_named() {
        // No block of it is ever free.
        let refused = Room::at("/proc".into()).check().unwrap_err();
        assert_eq!(
            refused.to_string(),
            "only 0 MiB are free on the database's disk (/proc)"
        );
    }
}
