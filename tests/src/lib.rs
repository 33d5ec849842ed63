//! The language in which the end-to-end tests are written.
//!
//! A [`World`] is a real `proxyplane serve` with its own Postgres. Tests share one and keep to a [`Workspace`] of their
//! own in it; tests of the server's own life start worlds of their own. Traffic is made with [`Curl`] or, where every
//! byte counts, with [`RawClient`]; it goes to [`nginx`] or to a [`RawOrigin`], which logs every byte it gets.
//!
//! Tests wait for what they expect ([`eventually`]) and never sleep. A failed expectation panics with what was seen; a
//! test that hangs ends the run and is named.

#![expect(
    clippy::missing_panics_doc,
    reason = "panicking is how a test's language says what went wrong"
)]

mod api;
mod certificates;
pub mod chaos;
mod ctl;
mod curl;
mod dice;
mod follow;
mod freeze;
mod held;
pub mod kernel;
mod load;
mod origin;
mod own_postgres;
mod pattern;
mod plain_user;
mod previous;
mod process;
mod proxy;
mod raw_client;
mod raw_requests;
mod skewed_clock;
mod small_disk;
mod traffic;
mod unsure_load;
mod wait;
mod watchdog;
mod websocket;
mod workspace;
mod world;

pub use api::{Api, Authorized, blamed, metadata, reason};
pub use certificates::{Authority, Leaf};
pub use ctl::Ran;
pub use curl::{Curl, Response};
pub use dice::Dice;
pub use follow::Follow;
pub use freeze::{Frozen, kill_tree};
pub use held::Held;
pub use load::Load;
pub use origin::{DeafOrigin, Http2Origin, Nginx, Peer, RawOrigin, nginx};
pub use own_postgres::OwnPostgres;
pub use pattern::pattern;
pub use previous::Previous;
pub use process::Process;
pub use proxy::{Proxy, ProxyBuilder};
pub use raw_client::{RawClient, tls_client};
pub use raw_requests::RawRequest;
pub use skewed_clock::SkewedClock;
pub use small_disk::SmallDisk;
pub use traffic::{Exchange, Side};
pub use unsure_load::{Answered, UnsureLoad};
pub use wait::{LONG_ENOUGH, eventually, eventually_within, free_port};
pub use websocket::{Frame, SWITCHING};
pub use workspace::Workspace;
pub use world::{World, relink};
