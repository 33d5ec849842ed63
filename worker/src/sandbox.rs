//! What a worker gives up before its first thread, so that whoever takes it over from the network gets little.
//!
//! In this order: name in the process table, descriptors' limit, account, capabilities, no_new_privs, the other limits,
//! Landlock. The first needs rights that the second gives up; Landlock comes last because it also refuses what the
//! steps before read.
//!
//! Nothing here is undone by a child, an `exec` or a thread that comes later. What stays open is what was opened
//! before: the listeners and the log.

mod files;
mod limits;

use std::{io, path::Path};

use nix::{
    sys::prctl,
    unistd::{self, Gid, Uid},
};
use proxyplane_spec::{Account, Sandbox};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// What the process table shows; the kernel keeps 15 bytes. We are executed by a descriptor, whose number would stand
/// there.
const NAME: &std::ffi::CStr = c"proxyplane-work";

/// Why a worker does not begin. Without Landlock it does, with a warning.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// It runs as root and was told of no other account.
    #[error("runs as root and was given no account to change to")]
    Root,
    /// It cannot become the account.
    #[error("cannot change to uid {uid}, gid {gid}: {error}")]
    Account {
        /// The user it was to become.
        uid: u32,
        /// Its group.
        gid: u32,
        /// Why not.
        error: io::Error,
    },
    /// A right cannot be given up.
    #[error("cannot give up {what}: {error}")]
    GiveUp {
        /// Which.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
}

/// Puts the calling process, which has one thread, into its sandbox: `account` is whom it becomes if it is root, `spool`
/// the only directory in which it may write afterwards.
pub fn enter(account: Option<Account>, spool: Option<&Path>) -> Result<Sandbox, SandboxError> {
    // Only a name: without it the worker is as good.
    let _ = prctl::set_name(NAME);
    let open_files = limits::raise_open_files();
    change_account(account)?;
    give_up_capabilities()?;
    prctl::set_no_new_privs().map_err(give_up("new privileges"))?;
    limits::no_core_dumps().map_err(give_up("core dumps"))?;
    let memory = limits::bound_memory().map_err(give_up("boundless memory"))?;
    let landlock_abi = match files::restrict(spool) {
        Ok(abi) => abi,
        Err(error) => {
            tracing::warn!(%error, "landlock refused the rules");
            0
        }
    };
    if landlock_abi == 0 {
        tracing::warn!("landlock is not in force: this worker can read what its account can read");
    }
    Ok(Sandbox {
        uid: unistd::geteuid().as_raw(),
        no_new_privs: prctl::get_no_new_privs().unwrap_or(false),
        landlock_abi,
        open_files,
        memory,
    })
}

fn change_account(account: Option<Account>) -> Result<(), SandboxError> {
    if !unistd::geteuid().is_root() {
        return Ok(());
    }
    let Account { uid, gid } = account.filter(|account| account.uid != 0).ok_or(SandboxError::Root)?;
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    unistd::setgroups(&[])
        .and_then(|()| unistd::setresgid(group, group, group))
        .and_then(|()| unistd::setresuid(user, user, user))
        .map_err(|error| SandboxError::Account {
            uid,
            gid,
            error: error.into(),
        })
}

/// A control plane that is not root may still have been given capabilities, such as to bind port 80. A worker binds
/// nothing.
fn give_up_capabilities() -> Result<(), SandboxError> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::clear_ambient_capability_set()
        .and_then(|()| rustix::thread::set_capabilities(None, none))
        .map_err(give_up("capabilities"))
}

fn give_up<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> SandboxError {
    move |error| SandboxError::GiveUp {
        what,
        error: error.into(),
    }
}
