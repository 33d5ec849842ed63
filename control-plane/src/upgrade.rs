//! The upgrade in place: this process executes the program that is now at its own path.
//!
//! The process id stays, and with it whatever watches the process and whatever it started. All descriptors of ours are
//! close-on-exec, but for the proxies' listeners, which the program that takes over finds open (`supervisor/inherited.rs`).
//! What comes up is a control plane like one after a crash: it adopts the workers and finds Postgres running.

use std::{
    env,
    ffi::{CString, OsStr, OsString},
    io,
    os::{fd::OwnedFd, unix::ffi::OsStringExt as _},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::{
    sys::signal::{SigSet, Signal, raise},
    unistd::execv,
};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::supervisor::{Bequest, INHERITS_LISTENERS, Inherited};

/// What this program can do for the one that it follows, as `proxyplane features` prints it.
pub const FEATURES: [&str; 1] = [INHERITS_LISTENERS];
/// The command that does so.
const ASK_FEATURES: &str = "features";
/// For the program to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// What `--version` begins with.
const NAME: &str = "proxyplane ";
/// Characters of what a program said that are told.
const SAID_MAX: usize = 500;

/// Why the program at our path is not executed. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// It cannot be started, or does not answer.
    #[error("{program} cannot be executed: {source}")]
    Unusable {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is another program, or does not take our flags and settings.
    #[error("{program} is not fit to take over: {why}")]
    Unfit {
        /// The program.
        program: PathBuf,
        /// What it said.
        why: String,
    },
}

/// The upgrade of this process. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Upgrade(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    program: PathBuf,
    arguments: Vec<OsString>,
    begun: CancellationToken,
    inherited: Mutex<Inherited>,
    bequest: Mutex<Bequest>,
    /// The program takes listeners over.
    inherits: AtomicBool,
}

impl Upgrade {
    /// Of this process: its program by the path it was started by, its arguments, and what the program before left in it.
    /// To be called first of all: while that path still leads to the program that runs, and before anything else is
    /// opened or started.
    pub fn of_process() -> io::Result<Self> {
        let inherited = Inherited::take();
        let arguments: Vec<OsString> = env::args_os().collect();
        let program = own_path(arguments.first().map(OsString::as_os_str), &env::current_exe()?);
        Ok(Self::to(program, arguments, inherited))
    }

    fn to(program: PathBuf, arguments: Vec<OsString>, inherited: Inherited) -> Self {
        Self(Arc::new(Inner {
            program,
            arguments,
            begun: CancellationToken::new(),
            inherited: Mutex::new(inherited),
            bequest: Mutex::default(),
            inherits: AtomicBool::new(false),
        }))
    }

    /// The listeners that the program before left; those that are asked for again are gone.
    pub(crate) fn inherited(&self) -> Inherited {
        std::mem::take(&mut *self.0.inherited.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The program that is executed is to have these.
    pub(crate) fn bequeath(&self, bequest: Bequest) {
        *self.0.bequest.lock().unwrap_or_else(PoisonError::into_inner) = bequest;
    }

    /// Asks the program what it is and whether it takes our flags and settings: its version.
    pub async fn check(&self) -> Result<String, UpgradeError> {
        let version = self.run(&[OsString::from("--version")]).await?;
        let version = String::from_utf8_lossy(&version.stdout);
        let Some(version) = version.trim().strip_prefix(NAME) else {
            return Err(self.unfit(format!("it calls itself '{}'", cut(version.trim()))));
        };
        let mut arguments: Vec<OsString> = self.0.arguments.iter().skip(1).cloned().collect();
        arguments.push("--print-config".into());
        // What it prints is the settings, of which nobody is to be told here.
        self.run(&arguments).await?;
        // One from before the question does not know it.
        let features = self.run(&[OsString::from(ASK_FEATURES)]).await;
        let inherits = features.is_ok_and(|said| {
            let said = String::from_utf8_lossy(&said.stdout);
            said.lines().any(|feature| feature == INHERITS_LISTENERS)
        });
        self.0.inherits.store(inherits, Ordering::Relaxed);
        Ok(version.to_owned())
    }

    /// From now on the process is on its way out of the present program.
    pub fn begin(&self) {
        self.0.begun.cancel();
    }

    /// Until somebody calls [`Self::begin`].
    pub async fn begun(&self) {
        self.0.begun.cancelled().await;
    }

    /// Executes the program; if that fails, the one that runs now once more. Returns only if both fail. A signal to stop
    /// that comes meanwhile, or came before (`stopping`), is there for the program to find. To be called by the thread
    /// that the process began with.
    pub fn execute(&self, stopping: &CancellationToken) -> io::Error {
        let held: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
        // Not `Command::exec`: it unblocks signals before it executes.
        let blocked = held.thread_block();
        if stopping.is_cancelled() {
            let _ = raise(Signal::SIGTERM);
        }
        let inherits = self.0.inherits.load(Ordering::Relaxed);
        let mut left = inherits.then(|| self.leave_listeners());
        if let Err(error) = blocked.and_then(|()| exec(&self.0.program, &self.0.arguments)) {
            tracing::error!(program = %self.0.program.display(), %error, "the new program cannot be executed; going on with the old one");
        }
        // We take them ourselves.
        left.get_or_insert_with(|| self.leave_listeners());
        match exec(Path::new("/proc/self/exe"), &self.0.arguments) {
            Ok(()) => io::ErrorKind::Other.into(),
            Err(error) => error.into(),
        }
    }

    /// They are open for the program that is executed as long as what is returned lives. Without them it has them back
    /// from the workers.
    fn leave_listeners(&self) -> Option<OwnedFd> {
        let bequest = self.0.bequest.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = bequest.open();
        opened
            .inspect_err(|error| tracing::warn!(%error, "the listeners cannot be handed on"))
            .ok()
    }

    async fn run(&self, arguments: &[OsString]) -> Result<Output, UpgradeError> {
        let mut command = Command::new(&self.0.program);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(ANSWER_TIMEOUT, command.output())
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let output = output.map_err(|source| UpgradeError::Unusable {
            program: self.0.program.clone(),
            source,
        })?;
        if output.status.success() {
            Ok(output)
        } else {
            let said = cut(String::from_utf8_lossy(&output.stderr).trim());
            Err(self.unfit(if said.is_empty() {
                output.status.to_string()
            } else {
                said
            }))
        }
    }

    fn unfit(&self, why: String) -> UpgradeError {
        UpgradeError::Unfit {
            program: self.0.program.clone(),
            why,
        }
    }
}

/// Signals that an upgrade held back are let through; their handlers must be installed. Else without effect.
pub fn let_signals_through() -> nix::Result<()> {
    let held: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    held.thread_unblock()
}

/// A path that we were called by is kept as it is: whoever installs versions side by side changes a link.
fn own_path(called: Option<&OsStr>, executable: &Path) -> PathBuf {
    called
        .map(Path::new)
        .filter(|called| called.components().count() > 1)
        .and_then(|called| std::path::absolute(called).ok())
        .filter(|called| called.canonicalize().is_ok_and(|real| real == executable))
        .unwrap_or_else(|| executable.to_owned())
}

fn exec(program: &Path, arguments: &[OsString]) -> nix::Result<()> {
    let text = |text: OsString| CString::new(text.into_vec()).map_err(|_| nix::Error::EINVAL);
    let program = text(program.as_os_str().to_owned())?;
    let arguments: Result<Vec<CString>, _> = arguments.iter().cloned().map(text).collect();
    execv(&program, &arguments?).map(|never| match never {})
}

fn cut(text: &str) -> String {
    text.chars().take(SAID_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn upgrade_to(program: &str, arguments: &[&str]) -> Upgrade {
        let arguments = arguments.iter().map(Into::into).collect();
        Upgrade::to(program.into(), arguments, Inherited::default())
    }

    #[tokio::test]
    async fn another_program_is_not_fit_and_a_missing_one_is_named() {
        let error = upgrade_to("/bin/true", &["proxyplane"]).check().await.unwrap_err();
        assert!(error.to_string().contains("/bin/true"), "{error}");
        let error = upgrade_to("/bin/false", &["proxyplane"]).check().await.unwrap_err();
        assert!(matches!(error, UpgradeError::Unfit { .. }), "{error}");
        let error = upgrade_to("/nowhere", &["proxyplane"]).check().await.unwrap_err();
        assert!(matches!(error, UpgradeError::Unusable { .. }), "{error}");
    }

    #[test]
    fn a_link_that_led_to_the_program_is_followed_again() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("proxyplane-1");
        std::fs::write(&real, "").unwrap();
        let link = dir.path().join("proxyplane");
        symlink(&real, &link).unwrap();
        assert_eq!(own_path(Some(link.as_os_str()), &real), link);
        assert_eq!(own_path(Some(OsStr::new("proxyplane")), &real), real);
        assert_eq!(own_path(Some(OsStr::new("/bin/true")), &real), real);
        assert_eq!(own_path(None, &real), real);
    }
}
