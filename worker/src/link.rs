//! The worker's side of the link to its control plane.
//!
//! The worker dials, twice, so that an unread Records stream cannot use up the window of the Session: a lost connection
//! is dialled again every 250 ms for ever, while traffic goes on with the configuration in force.

mod configure;
pub(crate) mod records;
pub(crate) mod session;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use bytes::Bytes;
use proxyplane_proto::worker::{self as wire, worker_link_service_client::WorkerLinkServiceClient};
use proxyplane_spec::{FEATURE_LISTENERS, FEATURE_OPEN_COUNTS, Manifest, Sandbox};
use tonic::transport::{Channel, Endpoint};

/// What a configuration may require of this build, and what the control plane may count on.
pub const FEATURES: &[&str] = &["capture", FEATURE_LISTENERS, FEATURE_OPEN_COUNTS];

/// Bytes of the nonce.
const NONCE: usize = 32;

/// Where the control plane is, what proves to it who we are, and what we may do.
pub(crate) struct Link {
    path: PathBuf,
    identity: wire::Identity,
    sandbox: Sandbox,
}

/// The manifest's nonce is not 32 bytes in hex.
#[derive(Debug, thiserror::Error)]
#[error("the nonce in the manifest is malformed")]
pub(crate) struct MalformedNonce;

impl Link {
    pub(crate) fn new(manifest: &Manifest, sandbox: Sandbox) -> Result<Self, MalformedNonce> {
        let identity = wire::Identity {
            epoch: Bytes::copy_from_slice(manifest.epoch.0.as_bytes()),
            nonce: parse_hex(&manifest.nonce)
                .filter(|nonce| nonce.len() == NONCE)
                .ok_or(MalformedNonce)?
                .into(),
            service_id: Bytes::copy_from_slice(manifest.service_id.0.as_bytes()),
        };
        Ok(Self {
            path: manifest.link.clone(),
            identity,
            sandbox,
        })
    }

    /// A connection of its own.
    async fn dial(&self) -> Result<WorkerLinkServiceClient<Channel>, tonic::transport::Error> {
        // The path was text in the manifest: nothing of it is lost.
        let channel = Endpoint::from_shared(format!("unix://{}", self.path.display()))?
            .connect()
            .await?;
        Ok(WorkerLinkServiceClient::new(channel))
    }
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).map(|value| value as u8))
        .collect();
    let digits = digits?;
    digits
        .len()
        .is_multiple_of(2)
        .then(|| digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
