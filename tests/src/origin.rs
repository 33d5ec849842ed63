//! Where traffic goes: a real nginx, and origins that say and log exact bytes.

mod deaf;
mod http2;
mod nginx;
mod raw;

pub use deaf::DeafOrigin;
pub use http2::Http2Origin;
pub use nginx::{Nginx, nginx};
pub use raw::{Peer, RawOrigin};
