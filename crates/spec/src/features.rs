//! Names of what a worker's build can do beyond the first version of the link (`Hello.features`).
//!
//! A control plane talks to workers of the release before: what it wants of one that may lack it, it looks up first.

/// `Stats` counts what is open: requests, WebSockets, tunnels.
pub const FEATURE_OPEN_COUNTS: &str = "open_counts";
