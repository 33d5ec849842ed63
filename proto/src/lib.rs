//! The wire contract of Proxyplane, and nothing else.
//!
//! [`v1`] is the public API, spoken by `proxyctl`, browsers and any gRPC client. [`worker`] is the link between a
//! worker process and its control plane; it is never exposed. The `.proto` files in this crate are the source;
//! the code is generated at build time.

/// The public API, package `proxyplane.v1`.
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    reason = "generated from the .proto files, which carry the documentation"
)]
pub mod v1 {
    tonic::include_proto!("proxyplane.v1");
}

/// The worker link, package `proxyplane.worker.v1`.
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated from the .proto files, which carry the documentation"
)]
pub mod worker {
    tonic::include_proto!("proxyplane.worker.v1");
}

/// Encoded `FileDescriptorSet` of the public API, for reflection.
pub const PUBLIC_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/public.bin"));

/// Version of the worker link that this build speaks; see `Hello.protocol`.
pub const LINK_PROTOCOL: u32 = 1;

/// Domain of every `ErrorInfo` this product answers with.
pub const ERROR_DOMAIN: &str = "proxyplane";
