//! What there is before the database answers: the address is served, and whoever asks is told what is waited for.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::net::TcpListener;
use tracing::info;
use uuid::Uuid;

use super::StartError;
use crate::{
    api::{Api, Opening, Token},
    client,
    config::{Config, Environment},
    data_dir::DataDir,
    health::Health,
    lifecycle::Lifecycle,
    pki::Pki,
    upgrade::Upgrade,
};

/// The API, served, of which that part waits which needs the database.
pub(super) struct Reception {
    pub(super) address: SocketAddr,
    /// This run of the control plane.
    pub(super) run: Uuid,
    pub(super) pki: Arc<Pki>,
    pub(super) health: Health,
    /// The API's.
    pub(super) calls: Lifecycle,
    pub(super) opening: Opening,
}

impl Reception {
    /// Serves on `listener` until the soft token of `process`.
    pub(super) async fn open(
        config: &Config,
        data: &DataDir,
        listener: std::net::TcpListener,
        process: &Lifecycle,
        upgrade: &Upgrade,
    ) -> Result<Self, StartError> {
        let pki = Arc::new(Pki::load_or_create(&data.secrets()).map_err(StartError::of("certificate authority"))?);
        export(&data.ca_certificate(), pki.root_pem()).map_err(StartError::of("CA certificate"))?;
        let token = Token::load_or_create(&data.token()).map_err(StartError::of("API token"))?;
        let listener = TcpListener::from_std(listener).map_err(StartError::of("API address"))?;
        let address = listener.local_addr().map_err(StartError::of("API address"))?;
        let (run, health, calls) = (Uuid::now_v7(), Health::new(pki.clone()), process.apart());
        let api = Api {
            pki: pki.clone(),
            health: health.clone(),
            token,
            allowed_origins: config.allowed_origins.clone(),
            upgrade: upgrade.clone(),
            run,
        };
        let opening = api.serve(listener, &calls).await.map_err(StartError::of("API"))?;
        info!(%address, "the API is served");
        Ok(Self {
            address,
            run,
            pki,
            health,
            calls,
            opening,
        })
    }
}

/// Has `proxyctl` of this account find the server at `address`.
pub(super) fn announce(address: SocketAddr, environment: &Environment, data: &DataDir) -> io::Result<PathBuf> {
    let server = format!("http://{}", client::reachable(address));
    if let Some(former) = client::announced(environment).filter(|former| *former != server) {
        info!(%server, %former, "proxyctl of this account, which was logged in at another server, is logged in at this one");
    }
    client::announce(environment, &server, &data.token())
}

/// Writes the CA certificate where everybody may read it.
fn export(path: &Path, pem: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|present| present == pem) {
        return Ok(());
    }
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, pem)?;
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o644))?;
    fs::rename(unfinished, path)
}
