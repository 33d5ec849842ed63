//! The installed servers.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::PostgresError;

/// What to do when none is installed.
pub(super) const HINT: &str = "apt-get install postgresql (Debian, Ubuntu), dnf install postgresql-server (Fedora, RHEL) \
    or pacman -S postgresql (Arch)";
/// Oldest version that has what we need (lz4 for TOAST, detaching concurrently).
const OLDEST: u32 = 14;

/// An installed server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Install {
    /// Major version.
    pub(super) version: u32,
    /// Directory of `postgres`, `initdb` and `pg_ctl`.
    pub(super) bin: PathBuf,
}

impl Install {
    /// The newest, or the one of the version that made the data.
    pub(super) fn find(data: &Path, version: Option<u32>) -> Result<Self, PostgresError> {
        let found = installed();
        match version {
            None => found
                .into_iter()
                .max_by_key(|install| install.version)
                .ok_or(PostgresError::NotInstalled),
            Some(version) => {
                let same = found.into_iter().find(|install| install.version == version);
                same.ok_or_else(|| PostgresError::VersionGone {
                    data: data.to_owned(),
                    version,
                })
            }
        }
    }

    /// One of its programs.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

fn installed() -> Vec<Install> {
    let mut directories = Vec::new();
    // Debian and Ubuntu; the PostgreSQL project's packages for Fedora and RHEL.
    for (parent, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")] {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        directories.extend(named.map(|entry| entry.path().join("bin")));
    }
    directories.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    directories
        .into_iter()
        .filter_map(install_in)
        .filter(|install| install.version >= OLDEST)
        .collect()
}

fn install_in(bin: PathBuf) -> Option<Install> {
    let complete = ["postgres", "initdb", "pg_ctl"]
        .iter()
        .all(|program| bin.join(program).is_file());
    if !complete {
        return None;
    }
    let output = Command::new(bin.join("postgres")).arg("--version").output().ok()?;
    let version = major(&String::from_utf8_lossy(&output.stdout))?;
    Some(Install { version, bin })
}

/// The major version in `postgres (PostgreSQL) 15.20 (Debian …)`.
fn major(text: &str) -> Option<u32> {
    let number = text.split(") ").nth(1)?;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_they_are_printed() {
        assert_eq!(
            major("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(major("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major("nonsense"), None);
    }

    #[test]
    fn data_of_a_version_that_is_gone_say_what_to_install() {
        let error = Install::find(Path::new("/data/pg"), Some(9)).unwrap_err();
        assert!(error.to_string().contains("apt-get install postgresql-9"), "{error}");
    }
}
