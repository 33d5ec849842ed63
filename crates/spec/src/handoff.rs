//! The manifest of a handoff: what a worker is given at birth, before any configuration.
//!
//! It travels as JSON in the one message of a `SOCK_SEQPACKET` pair whose far end is the worker's standard input; the
//! listeners' descriptors ride on the same message (SCM_RIGHTS), in the order of `listeners`.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Epoch, ServiceId};

/// Version of the manifest that this build writes and reads.
pub const HANDOFF_VERSION: u32 = 1;

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
}
