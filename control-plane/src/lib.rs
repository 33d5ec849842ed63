//! The control plane of Proxyplane: API, supervisor of workers, ingest of what they record, and their store.
//!
//! `ARCHITECTURE.md` at the root of the repository says what each module is for.

pub mod api;
pub mod app;
pub mod bootstrap;
pub mod client;
pub mod clock;
pub mod config;
pub mod data_dir;
pub mod events;
pub mod health;
mod hex;
pub mod ingest;
pub mod lifecycle;
pub mod link;
pub mod live;
pub mod pki;
pub mod postgres;
mod process_table;
mod reach;
pub mod services;
pub mod store;
pub mod supervisor;
pub mod telemetry;
pub mod upgrade;
