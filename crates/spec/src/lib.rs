//! Validated specifications: what a workspace or a ProxyService may be.
//!
//! Raw values from the API are parsed here, once; what comes out is valid by construction. The worker and the control
//! plane use the same code, so a stopped service is validated as a running one is. Every refusal is a [`Violation`]
//! with the path of the field.

mod capture;
mod features;
mod handoff;
mod host;
mod ids;
pub mod limits;
mod monotonic;
mod names;
mod port_conflict;
pub mod reasons;
mod sandbox;

pub use capture::{CaptureSpec, RawCapture, SpoolFull};
pub use features::FEATURE_OPEN_COUNTS;
pub use handoff::{FEATURE_LISTENERS, HANDOFF_SOCKET, HANDOFF_VERSION, Manifest};
pub use host::{HostPattern, ListenHost};
pub use ids::{Epoch, EventId, ExchangeId, ServiceId, WorkspaceId};
pub use monotonic::monotonic_us;
pub use names::{ServiceName, WorkspaceCode, check_description, check_title};
pub use port_conflict::OnPortConflict;
pub use sandbox::{Account, Sandbox};

/// A field that was refused, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {description}")]
pub struct Violation {
    /// Path of the field in the request, such as `capture.extra_ca_pem` or `port`.
    pub field: String,
    /// What is wrong and what would be right.
    pub description: String,
}

impl Violation {
    /// A violation of `field`.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            description: description.into(),
        }
    }
}
