//! Where traffic goes: a real nginx, and origins that say and log exact bytes.

mod nginx;
mod raw;

pub use nginx::{Nginx, nginx};
pub use raw::{Peer, RawOrigin};
