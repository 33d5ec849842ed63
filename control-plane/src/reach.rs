//! Can another account get to a path of ours? Only what ordinary modes say; an error of its own says the rest.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// What could not be looked at, and why.
pub(crate) type Unseen = (PathBuf, io::Error);

/// The directory on the way to `path`, or `path` itself, that `uid` with its only group `gid` may not search.
pub(crate) fn barrier(path: &Path, uid: u32, gid: u32) -> Result<Option<PathBuf>, Unseen> {
    for directory in path.ancestors().filter(|path| !path.as_os_str().is_empty()) {
        let found = fs::metadata(directory).map_err(|error| (directory.to_owned(), error))?;
        let bit = if found.uid() == uid {
            0o100
        } else if found.gid() == gid {
            0o010
        } else {
            0o001
        };
        if found.mode() & bit == 0 {
            return Ok(Some(directory.to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_directory_in_the_way_is_named() {
        let root = tempfile::tempdir().unwrap();
        let (closed, inner) = (root.path().join("closed"), root.path().join("closed/inner"));
        fs::create_dir_all(&inner).unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        mode(root.path(), 0o711);
        mode(&closed, 0o700);
        mode(&inner, 0o711);
        let owner = fs::metadata(&closed).unwrap().uid();
        let stranger = owner + 1;
        assert_eq!(barrier(&inner, stranger, stranger).unwrap(), Some(closed.clone()));
        assert_eq!(barrier(&inner, owner, stranger).unwrap(), None, "the owner passes");
        mode(&closed, 0o711);
        assert_eq!(barrier(&inner, stranger, stranger).unwrap(), None);
    }
}
