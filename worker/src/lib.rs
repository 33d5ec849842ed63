//! The worker of Proxyplane: carries one service's traffic, makes records of it and streams them to the control plane.
//!
//! `ARCHITECTURE.md` at the root of the repository says what each module is for.

pub mod alarms;
pub mod app;
pub mod capture;
pub mod core;
mod disconnect;
pub mod forward;
pub mod handoff;
pub mod http2;
pub mod link;
pub mod listener;
pub mod panics;
pub mod sandbox;
pub mod service;
pub mod tls;
pub mod tunnel;
pub mod upstream;
pub mod websocket;

#[cfg(test)]
mod testing;
