//! Landlock: which files the worker can still open, and whom it can reach by signals and abstract sockets.
//!
//! Reading is restricted too: as a plain user's process, a worker has the account of the control plane, and could read
//! the CA's key. What is left to read is what name resolution and certificate verification need.
//!
//! Unix sockets with a path stay reachable, the control plane's among them: connecting to one is governed by a right of
//! its own since ABI 9, which is not handled here. TCP goes out freely; binding, which a worker never does, is refused.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, make_bitflags,
};

use crate::capture::PRESSURE_FILE;

/// The newest ABI whose rights were considered here. Of those, what the kernel does not know is left out.
const CONSIDERED: ABI = ABI::V6;

/// Configuration, libraries and certificates, and how busy the machine is.
const READABLE: [&str; 11] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    // Where certificates and resolv.conf of some distributions really are.
    "/nix/store",
    "/var/lib/ca-certificates",
    "/run/systemd/resolve",
    "/dev/urandom",
    "/dev/random",
    PRESSURE_FILE,
];

/// Puts the calling thread, and all that it starts, under the rules. Says which ABI of Landlock is in force, 0 if none.
pub(super) fn restrict(spool: Option<&Path>) -> Result<u32, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = make_bitflags!(AccessFs::{
        ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | RemoveFile | RemoveDir | Refer
    });
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(CONSIDERED))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(CONSIDERED))?
        .create()?
        .add_rules(rules(READABLE.iter().map(PathBuf::from).chain(own(spool)), read))?
        .add_rules(rules(
            [PathBuf::from("/dev/null")],
            AccessFs::ReadFile | AccessFs::WriteFile,
        ))?
        .add_rules(rules(spool.map(Path::to_owned), write))?
        .restrict_self()?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => 0,
        (_, LandlockStatus::Available { effective_abi, .. }) => effective_abi as u32,
        _ => 0,
    })
}

/// Paths that are not there on this machine are left out; on a file, rights of directories are.
fn rules(
    paths: impl IntoIterator<Item = PathBuf>,
    access: BitFlags<AccessFs>,
) -> impl Iterator<Item = Result<PathBeneath<PathFd>, RulesetError>> {
    landlock::path_beneath_rules(paths, access)
}

/// What this machine and this environment add: resolv.conf's target, certificates named by the environment, and our own
/// program, from which a backtrace takes its names.
fn own(spool: Option<&Path>) -> impl Iterator<Item = PathBuf> {
    let certificates = ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().filter_map(env::var_os);
    let certificates = certificates.flat_map(|paths| env::split_paths(&paths).collect::<Vec<_>>());
    let resolver = fs::canonicalize("/etc/resolv.conf").ok();
    let resolver = resolver.map(|file| resolver_path(file, spool));
    let program = PathBuf::from("/proc/self/exe");
    resolver.into_iter().chain(certificates).chain([program])
}

/// The directory, because the file is replaced when the machine changes networks; but only one that is clearly the
/// resolver's, such as `/run/NetworkManager`: not all of `/run`, nor what the data directory lies in.
fn resolver_path(file: PathBuf, spool: Option<&Path>) -> PathBuf {
    let clear = |directory: &&Path| {
        directory.components().count() > 2
            && directory.file_name() != Some(OsStr::new("run"))
            && !spool.is_some_and(|spool| spool.starts_with(directory))
    };
    file.parent().filter(clear).map(Path::to_owned).unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolvers_directory_is_readable_and_no_wider_one() {
        for (file, readable) in [
            ("/run/NetworkManager/resolv.conf", "/run/NetworkManager"),
            ("/mnt/wsl/resolv.conf", "/mnt/wsl"),
            ("/run/resolv.conf", "/run/resolv.conf"),
            ("/var/run/resolv.conf", "/var/run/resolv.conf"),
            ("/resolv.conf", "/resolv.conf"),
            ("/srv/proxyplane/resolv.conf", "/srv/proxyplane/resolv.conf"),
        ] {
            let spool = Path::new("/srv/proxyplane/data/spool/1");
            assert_eq!(resolver_path(file.into(), Some(spool)), Path::new(readable));
        }
    }
}
