//! Generates the gRPC code with protox, so that building needs no `protoc`.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 6] = [
    "proxyplane/v1/workspace.proto",
    "proxyplane/v1/proxy.proto",
    "proxyplane/v1/traffic.proto",
    "proxyplane/v1/system.proto",
    "proxyplane/v1/event.proto",
    "proxyplane/worker/v1/link.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    // Only the public API is offered by reflection.
    let mut public = descriptors.clone();
    public
        .file
        .retain(|file| !file.package().starts_with("proxyplane.worker"));
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("public.bin"), public.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".proxyplane")
        .compile_fds(descriptors)?;
    Ok(())
}
