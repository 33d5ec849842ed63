//! Wires the parts together, starts them in order and stops them in the other.
//!
//! Start: data directory, address, database, lease, ingest, worker link, supervisor, API, proxies. Stop: the API ends
//! its streams, workers drain, ingest commits what they sent, Postgres stops.

mod database;
mod error;
mod lease;
mod listen;

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use database::Database;
pub use error::StartError;
use lease::Lease;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    api::{Api, Token},
    bootstrap, client,
    config::{Config, Environment},
    data_dir::DataDir,
    health::Health,
    ingest::{Ingest, IngestHandle},
    lifecycle::{Lifecycle, Signals},
    link::{self, Link},
    live::Hub,
    pki::Pki,
    services::Services,
    supervisor::{self, Supervisor},
};

/// For records to be committed after the last worker is gone; what a database that is away longer does not take stays in
/// the workers' spools.
const INGEST_TIMEOUT: Duration = Duration::from_secs(20);
/// For open calls to end after everything else has.
const CALLS_TIMEOUT: Duration = Duration::from_secs(5);
/// For blocking calls to end after everything else has.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the control plane until it is told to stop.
pub fn run(config: Config, environment: &Environment) -> Result<(), StartError> {
    // One provider for everything that speaks TLS; already installed only in tests.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let data = DataDir::open(&config.data_dir)?;
    let listener = listen::bind(config.listen)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(StartError::of("runtime"))?;
    let done = runtime.block_on(serve(config, environment, data, listener));
    // A blocking call that hangs, such as a name look-up, must not keep the process.
    runtime.shutdown_timeout(RUNTIME_TIMEOUT);
    done
}

async fn serve(
    config: Config,
    environment: &Environment,
    data: DataDir,
    listener: std::net::TcpListener,
) -> Result<(), StartError> {
    let process = Lifecycle::new();
    let signals = Signals::install().map_err(StartError::of("signals"))?;
    tokio::spawn(signals.drive(process.clone()));
    let database = Database::start(&config, &data).await?;
    let ingesting = Lifecycle::new();
    let result = match Running::start(&config, &data, &database, listener, &process, &ingesting).await {
        Ok(running) => {
            process
                .soft()
                .run_until_cancelled(running.begin(&config, environment, &data))
                .await;
            process.soft().cancelled().await;
            running.stop(config.shutdown_timeout, &process, &ingesting).await
        }
        Err(error) => {
            for lifecycle in [&process, &ingesting] {
                lifecycle.hard().cancel();
                lifecycle.finish().await;
            }
            Err(error)
        }
    };
    database.stop().await;
    info!("stopped");
    result
}

/// Everything but the database.
struct Running {
    address: SocketAddr,
    lease: Lease,
    pki: Arc<Pki>,
    ingest: IngestHandle,
    /// Stops the worker link.
    unlink: CancellationToken,
    supervisor: Supervisor,
    services: Services,
    health: Health,
}

impl Running {
    async fn start(
        config: &Config,
        data: &DataDir,
        database: &Database,
        listener: std::net::TcpListener,
        process: &Lifecycle,
        ingesting: &Lifecycle,
    ) -> Result<Self, StartError> {
        let db = database.pool().clone();
        let lease = Lease::acquire(&db, data, process).await?;
        let pki = Arc::new(Pki::load_or_create(&data.secrets()).map_err(StartError::of("certificate authority"))?);
        export(&data.ca_certificate(), pki.root_pem()).map_err(StartError::of("CA certificate"))?;
        let token = Token::load_or_create(&data.token()).map_err(StartError::of("API token"))?;
        let listener = TcpListener::from_std(listener).map_err(StartError::of("API address"))?;
        let address = listener.local_addr().map_err(StartError::of("API address"))?;

        let hub = Hub::new(db.clone());
        let ingest = Ingest::start(db.clone(), hub.clone(), Some(lease.boot()), ingesting);
        let link = Link::new(pki.clone(), ingest.clone(), hub.clone());
        let unlink = CancellationToken::new();
        let link_socket = data.run().join("link.sock");
        serve_link(&link, &link_socket, &unlink, process)?;
        let options = supervisor::Options {
            worker_binary: config.worker_bin.clone(),
            run_dir: data.run().to_owned(),
            log_dir: data.log(),
            spool_dir: data.spool(),
            link_socket,
            control_addresses: vec![address],
            drain_timeout: config.shutdown_timeout,
        };
        let supervisor = Supervisor::open(options, db.clone(), link, ingest.clone(), process.tracker().clone());
        let supervisor = supervisor.await.map_err(StartError::of("--worker-bin"))?;
        let services = Services::new(db.clone(), supervisor.clone());
        let health = Health::new(db.clone(), ingest.clone(), pki.clone(), supervisor.clone());

        let api = Api {
            db,
            hub,
            services: services.clone(),
            pki: pki.clone(),
            health: health.clone(),
            token,
            allowed_origins: config.allowed_origins.clone(),
        };
        api.serve(listener, process).await.map_err(StartError::of("API"))?;
        info!(%address, "the API is served");
        Ok(Self {
            address,
            lease,
            pki,
            ingest,
            unlink,
            supervisor,
            services,
            health,
        })
    }

    /// Starts the proxies that are to run; with --bootstrap, makes what there is to make on an empty database. Only
    /// then is everything ready.
    async fn begin(&self, config: &Config, environment: &Environment, data: &DataDir) {
        let address = client::reachable(self.address);
        let announced = client::announce(environment, &format!("http://{address}"), &data.token());
        if let Err(error) = &announced {
            warn!(%error, "proxyctl will not find this server by itself");
        }
        if let Err(error) = self.supervisor.boot().await {
            error!(%error, "the enabled proxies could not be read");
        }
        if !config.bootstrap {
            self.health.started();
            return;
        }
        let (proxy, trouble) = match bootstrap::proxy(&self.services).await {
            Ok(proxy) => (proxy, String::new()),
            Err(error) => {
                error!(%error, "the capture proxy could not be made");
                (None, error.to_string())
            }
        };
        self.health.started();
        let (ca, token, client) = (data.ca_certificate(), data.token(), announced.ok());
        let greeting = bootstrap::Greeting {
            proxy,
            trouble,
            ca: &ca,
            api: address,
            token: &token,
            client: client.as_deref(),
        };
        if let Err(error) = greeting.print() {
            warn!(%error, "nobody reads standard output");
        }
    }

    /// `ingesting` is apart from `process`: ingest goes on while workers drain.
    async fn stop(self, drain: Duration, process: &Lifecycle, ingesting: &Lifecycle) -> Result<(), StartError> {
        info!(timeout = %humantime::format_duration(drain), "draining proxies");
        tokio::select! {
            () = self.supervisor.shutdown(drain) => {}
            // In a hurry: what drains is cut.
            () = process.hard().cancelled() => self.supervisor.shutdown(Duration::ZERO).await,
        }
        if tokio::time::timeout(INGEST_TIMEOUT, self.ingest.shutdown())
            .await
            .is_err()
        {
            error!("the database did not take the last records; those in spools are taken at the next start");
            ingesting.hard().cancel();
        }
        ingesting.finish().await;
        self.unlink.cancel();
        if tokio::time::timeout(CALLS_TIMEOUT, process.finish()).await.is_err() {
            warn!("calls were still open");
            process.hard().cancel();
        }
        info!(fingerprint = self.pki.fingerprint(), "proxies and ingest stopped");
        self.lease.release().await
    }
}

/// Binds the worker link's socket; what a former control plane left there is removed: the data directory is ours.
fn serve_link(link: &Link, path: &Path, stop: &CancellationToken, process: &Lifecycle) -> Result<(), StartError> {
    let failed = || StartError::of("worker link");
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed()(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed())?;
    let serving = link::serve(link.clone(), listener, stop.clone());
    process.spawn(async move {
        if let Err(error) = serving.await {
            error!(%error, "the worker link ended");
        }
    });
    Ok(())
}

/// Writes the CA certificate where everybody may read it.
fn export(path: &Path, pem: &str) -> std::io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|present| present == pem) {
        return Ok(());
    }
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, pem)?;
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o644))?;
    fs::rename(unfinished, path)
}
