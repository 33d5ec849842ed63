//! A program that a control plane takes for a worker, and that never comes to serve: how, is what the file `fake-worker`
//! beside the data directory says.
//!
//! `dies`: at once. `hangs`: says nothing, for ever. `refuses`: refuses its first configuration.

use std::{
    error::Error,
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use bytes::Bytes;
use proxyplane_proto::{
    LINK_PROTOCOL,
    worker::{
        FieldViolation, Hello, Identity, Rejected, SessionRequest, session_request::Message,
        worker_link_service_client::WorkerLinkServiceClient,
    },
};
use proxyplane_spec::{HANDOFF_VERSION, Manifest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

/// Longest manifest.
const MANIFEST_MAX: usize = 64 * 1024;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if std::env::args().any(|argument| argument == "--version-json") {
        let version = serde_json::json!({
            "version": "0.0.0-fake",
            "link_protocol": LINK_PROTOCOL,
            "handoff_version": HANDOFF_VERSION,
        });
        writeln!(io::stdout(), "{version}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = vec![0; MANIFEST_MAX];
    let length = io::stdin().read(&mut text)?;
    let manifest: Manifest = serde_json::from_slice(&text[..length])?;
    let behaviour = fs::read_to_string(behaviour_file(&manifest.link)?)?;
    match behaviour.trim() {
        "hangs" => loop {
            thread::park();
        },
        "refuses" => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(refuse(&manifest))?;
        }
        _ => {}
    }
    Ok(ExitCode::from(3))
}

/// `…/data/run/link.sock` → `…/fake-worker`
fn behaviour_file(link: &Path) -> io::Result<PathBuf> {
    let world = link.ancestors().nth(3).ok_or(io::ErrorKind::NotFound)?;
    Ok(world.join("fake-worker"))
}

async fn refuse(manifest: &Manifest) -> Result<(), Box<dyn Error>> {
    let channel = Endpoint::from_shared(format!("unix://{}", manifest.link.display()))?
        .connect()
        .await?;
    let (up, messages) = mpsc::channel(2);
    up.send(message(Message::Hello(hello(manifest)?))).await?;
    let mut client = WorkerLinkServiceClient::new(channel);
    let mut down = client.session(ReceiverStream::new(messages)).await?.into_inner();
    // Welcome, with the configuration.
    down.message().await?;
    let violation = FieldViolation {
        field: "capture".to_owned(),
        description: "is not to the fake worker's liking".to_owned(),
    };
    up.send(message(Message::Rejected(Rejected {
        revision: 1,
        violations: vec![violation],
    })))
    .await?;
    drop(up);
    while let Ok(Some(_)) = down.message().await {}
    Ok(())
}

fn message(message: Message) -> SessionRequest {
    SessionRequest { message: Some(message) }
}

fn hello(manifest: &Manifest) -> Result<Hello, Box<dyn Error>> {
    let nonce: Result<Vec<u8>, _> = (0..manifest.nonce.len() / 2)
        .map(|at| u8::from_str_radix(manifest.nonce.get(2 * at..2 * at + 2).unwrap_or_default(), 16))
        .collect();
    let key = rcgen::KeyPair::generate()?;
    let request = rcgen::CertificateParams::default().serialize_request(&key)?;
    Ok(Hello {
        identity: Some(Identity {
            epoch: Bytes::copy_from_slice(manifest.epoch.0.as_bytes()),
            nonce: nonce?.into(),
            service_id: Bytes::copy_from_slice(manifest.service_id.0.as_bytes()),
        }),
        protocol: LINK_PROTOCOL,
        build: "0.0.0-fake".to_owned(),
        pid: std::process::id().cast_signed(),
        csr_der: Bytes::copy_from_slice(request.der()),
        ..Hello::default()
    })
}
