//! The public API: gRPC, grpc-web and plain HTTP on one port.
//!
//! Handlers are thin: decode → one call → encode. `api/status.rs` is the only place that builds a `tonic::Status`.

mod auth;
mod bodies;
mod convert;
mod decode;
mod front;
mod http;
mod origin;
mod server;
mod status;
mod streams;
mod system;
mod traffic;

pub use auth::Token;
