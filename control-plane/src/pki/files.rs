//! The authority's files: whole or not there, and the key for nobody else.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use super::PkiError;

/// The file's text; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes).map_err(|_| PkiError::Unusable {
                path: path.to_owned(),
                reason: "not a PEM file".to_owned(),
            })?;
            Ok(Some(text))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path, error)),
    }
}

/// Writes a file that only its owner can read.
pub(super) fn write_secret(path: &Path, text: &str) -> Result<(), PkiError> {
    write(path, text, 0o600).map_err(|error| at(path, error))
}

/// Writes a file that everybody may read who reaches its directory.
pub(super) fn write_public(path: &Path, text: &str) -> Result<(), PkiError> {
    write(path, text, 0o644).map_err(|error| at(path, error))
}

/// Takes the rights of others on a key away, should a restored copy have any.
pub(super) fn tighten(path: &Path) -> Result<(), PkiError> {
    let mode = fs::metadata(path)
        .map_err(|error| at(path, error))?
        .permissions()
        .mode();
    let of_others = mode & 0o077;
    if of_others == 0 {
        return Ok(());
    }
    tracing::warn!(path = %path.display(), mode = format!("{:o}", mode & 0o777), "others had rights on the CA key; taken away");
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|error| at(path, error))
}

/// Under another name first, then renamed, so that a crash leaves either nothing or all of it.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn at(path: &Path, error: io::Error) -> PkiError {
    PkiError::File {
        path: path.to_owned(),
        error,
    }
}
