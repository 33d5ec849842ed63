//! What becomes of a service whose port is somebody else's when the control plane comes up.

/// What happens when the port is still taken after the control plane has waited for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnPortConflict {
    /// The service is disabled.
    #[default]
    Disable,
    /// It stays enabled, and its port is tried for ever.
    Retry,
}
