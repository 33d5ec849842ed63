//! The worker of Proxyplane: carries one service's traffic, makes records of it and streams them to the control plane.
//!
//! `ARCHITECTURE.md` at the root of the repository says what each module is for.

pub mod capture;
pub mod service;
pub mod tls;
