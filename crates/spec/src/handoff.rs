//! The manifest of a handoff: what a worker is given at birth, before any configuration.
//!
//! It travels as JSON in the one message of a `SOCK_SEQPACKET` pair whose far end is the worker's standard input; the
//! listeners' descriptors ride on the same message (SCM_RIGHTS), in the order of `listeners`. A worker gives them back
//! to a control plane that adopts it by the same message, on the socket [`HANDOFF_SOCKET`]. There it also gets those of a
//! configuration that listens elsewhere: it sends the message without any, and one with the new ones comes back.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Account, Epoch, ServiceId};

/// Version of the manifest that this build writes and reads.
pub const HANDOFF_VERSION: u32 = 1;

/// What a worker's build says that it can: listen elsewhere without being replaced.
pub const FEATURE_LISTENERS: &str = "listeners";

/// Name of the `SOCK_SEQPACKET` socket, beside the link's, on which workers give their listeners back and get others.
pub const HANDOFF_SOCKET: &str = "handoff.sock";

/// What a worker is given with its descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`HANDOFF_VERSION`] of the control plane.
    pub version: u32,
    /// This worker instance.
    pub epoch: Epoch,
    /// Secret that the worker shows on its link, 32 bytes in hex. Never logged.
    pub nonce: String,
    /// The service it runs.
    pub service_id: ServiceId,
    /// Unix socket of the control plane's worker link.
    pub link: PathBuf,
    /// Directory for this instance's records, made by the control plane; without one they are kept in memory.
    #[serde(default)]
    pub spool: Option<PathBuf>,
    /// Address of each descriptor, in their order. The worker refuses to start if one is missing, does not listen or
    /// has another address.
    pub listeners: Vec<SocketAddr>,
    /// Whom the worker is to run as; `None` when the control plane is not root, and the worker stays who it is.
    #[serde(default)]
    pub account: Option<Account>,
}
