//! Wires the parts together, starts them in order and stops them in the other.
//!
//! Start: data directory, address, API, database, event log, lease, ingest, supervisor, worker link, proxies. From the
//! third on whoever asks is answered; calls that need what is not there yet wait for a moment and are told so. Stop: the
//! API ends its streams, workers drain, ingest commits what they sent, the last events are stored, Postgres stops.

mod database;
mod error;
mod lease;
mod listen;
mod reception;
mod sockets;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use database::Database;
pub use error::StartError;
use lease::Lease;
use reception::{Reception, announce};
use sockets::Sockets;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    api::Resources,
    bootstrap, client,
    config::{Config, Environment},
    data_dir::DataDir,
    events::{EventLog, Writer},
    health::Health,
    ingest::{Ingest, IngestHandle},
    lifecycle::{Lifecycle, Signals},
    link::Link,
    live::Hub,
    pki::Pki,
    services::Services,
    supervisor::{self, Supervisor},
    upgrade::{self, Upgrade},
};

/// For records to be committed after the last worker is gone; what a database that is away longer does not take stays in
/// the workers' spools.
const INGEST_TIMEOUT: Duration = Duration::from_secs(20);
/// For the last events to be stored; a database that is away longer loses them.
const EVENTS_TIMEOUT: Duration = Duration::from_secs(2);
/// For open calls to end after everything else has.
const CALLS_TIMEOUT: Duration = Duration::from_secs(5);
/// For open calls to end before an upgrade; the API is to be back within two seconds.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);
/// For blocking calls to end after everything else has.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(2);

/// How the control plane ended.
#[derive(Debug)]
pub enum Ended {
    /// Everything is stopped.
    Stopped,
    /// Workers and Postgres run on, for the program that is to be executed now.
    Left(Box<Left>),
}

/// What is left in this process until it executes another program, which ends it all at once.
#[derive(Debug)]
pub struct Left {
    upgrade: Upgrade,
    process: Lifecycle,
    /// Hears signals until then.
    _runtime: Runtime,
    /// Keeps its lock until then.
    _data: DataDir,
}

impl Left {
    /// Executes the program; returns only if that fails.
    pub fn execute(&self) -> std::io::Error {
        self.upgrade.execute(self.process.stopping())
    }
}

/// Runs the control plane until it is told to stop, or to make room for its successor in this process.
pub fn run(config: Config, environment: &Environment, writer: Writer) -> Result<Ended, StartError> {
    let upgrade = Upgrade::of_process().map_err(StartError::of("this program's path"))?;
    // One provider for everything that speaks TLS; already installed only in tests.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let data = DataDir::open(&config.data_dir)?;
    if let Some(account) = config.worker_user {
        data.check_reached_by(account)?;
    }
    let listener = listen::bind(config.listen)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(StartError::of("runtime"))?;
    let process = Lifecycle::new();
    let done = runtime.block_on(serve(config, environment, &data, listener, writer, &upgrade, &process));
    if let Ok(Done::MadeRoom) = done {
        return Ok(Ended::Left(Box::new(Left {
            upgrade,
            process,
            _runtime: runtime,
            _data: data,
        })));
    }
    // A blocking call that hangs, such as a name look-up, must not keep the process.
    runtime.shutdown_timeout(RUNTIME_TIMEOUT);
    done.map(|_| Ended::Stopped)
}

/// What [`serve`] did in the end.
enum Done {
    Stopped,
    MadeRoom,
}

async fn serve(
    config: Config,
    environment: &Environment,
    data: &DataDir,
    listener: std::net::TcpListener,
    writer: Writer,
    upgrade: &Upgrade,
    process: &Lifecycle,
) -> Result<Done, StartError> {
    let signals = Signals::install().map_err(StartError::of("signals"))?;
    upgrade::let_signals_through().map_err(StartError::of("signals"))?;
    tokio::spawn(signals.drive(process.clone()));
    let reception = Reception::open(&config, data, listener, process, upgrade).await?;
    if !client::is_announced(environment) {
        // Whoever has no other server to ask finds this one while it waits, too. Trouble is told once it is ready.
        let _ = announce(reception.address, environment, data);
    }
    let mut database = Database::open(&config, data).await?;
    let events = writer.events();
    let reached = tokio::select! {
        reached = database.reach(&reception.health, &events) => Some(reached),
        () = database.holds_up_stop(process) => None,
    };
    match reached {
        Some(Ok(())) => {}
        // A private server that lets nobody in is left as it is.
        Some(Err(error @ StartError::Postgres(_))) => return Err(error),
        Some(Err(error)) => {
            database.stop().await;
            return Err(error);
        }
        None => return Ok(give_up(&[process], None, database).await),
    }
    database.keep_running();
    let log = writer.start(database.pool().clone());
    let ingesting = Lifecycle::new();
    let started = tokio::select! {
        started = Running::start(&config, data, &database, &log, reception, process, &ingesting, upgrade) => Some(started),
        () = database.holds_up_stop(process) => None,
    };
    let Some(started) = started else {
        return Ok(give_up(&[process, &ingesting], Some(log), database).await);
    };
    let result = match started {
        Ok(running) => {
            let serving = async {
                running.begin(&config, environment, data).await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = serving => {}
                () = process.soft().cancelled() => {}
                () = upgrade.begun() => running.end_calls(process).await,
            }
            // Told to stop while it was on its way to the upgrade, it stops.
            if !process.stopping().is_cancelled() {
                info!("making room for the program that takes over");
                upgrade.bequeath(running.supervisor.leave().await);
                log.finish(EVENTS_TIMEOUT).await;
                return Ok(Done::MadeRoom);
            }
            running.stop(config.shutdown_timeout, process, &ingesting).await
        }
        Err(error) => {
            end(&[process, &ingesting]).await;
            Err(error)
        }
    };
    log.finish(EVENTS_TIMEOUT).await;
    database.stop().await;
    info!("stopped");
    result.map(|()| Done::Stopped)
}

/// Ends a start that is to stop and would have to wait for the database.
async fn give_up(begun: &[&Lifecycle], log: Option<EventLog>, database: Database) -> Done {
    warn!("stopping without the database, which does not answer; workers that run are left to the next start");
    end(begun).await;
    if let Some(log) = log {
        log.finish(EVENTS_TIMEOUT).await;
    }
    database.abandon().await;
    info!("stopped");
    Done::Stopped
}

/// Ends tasks at once.
async fn end(lifecycles: &[&Lifecycle]) {
    for lifecycle in lifecycles {
        lifecycle.hard().cancel();
        lifecycle.finish().await;
    }
}

/// Everything but the database.
struct Running {
    address: SocketAddr,
    /// The API's.
    calls: Lifecycle,
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
    #[expect(clippy::too_many_arguments, reason = "the parts that exist before, called once")]
    async fn start(
        config: &Config,
        data: &DataDir,
        database: &Database,
        log: &EventLog,
        reception: Reception,
        process: &Lifecycle,
        ingesting: &Lifecycle,
        upgrade: &Upgrade,
    ) -> Result<Self, StartError> {
        let (db, events) = (database.pool().clone(), log.events());
        let Reception {
            address,
            run,
            pki,
            health,
            calls,
            opening,
        } = reception;
        let lease = Lease::acquire(&db, run, data, process).await?;
        let hub = Hub::new(db.clone());
        let ingest = Ingest::start(
            db.clone(),
            hub.clone(),
            events.clone(),
            Some(run),
            database.room(),
            ingesting,
        );
        ingesting.spawn(events.clone().follow_ingest(ingest.health()));
        let link = Link::new(pki.clone(), ingest.clone(), hub.clone(), events.clone());
        let unlink = CancellationToken::new();
        let link_socket = data.run().join("link.sock");
        let options = supervisor::Options {
            worker_binary: config.worker_bin.clone(),
            run_dir: data.run().to_owned(),
            spool_dir: data.spool(),
            account: config.worker_user,
            log_dir: data.log(),
            link_socket: link_socket.clone(),
            control_addresses: vec![address],
            drain_timeout: config.shutdown_timeout,
            events,
        };
        let supervisor = Supervisor::open(
            options,
            db.clone(),
            link.clone(),
            ingest.clone(),
            process.tracker().clone(),
        );
        let supervisor = supervisor.await.map_err(StartError::of("--worker-bin"))?;
        // Workers that are started while others are found dial at once, and wait until those are expected.
        let sockets = Sockets::bind(&link_socket, config.worker_user)?;
        supervisor.adopt(upgrade.inherited()).await?;
        sockets.serve(&link, &unlink, process);
        let services = Services::new(db.clone(), supervisor.clone(), hub.clone());
        health.watch(db.clone(), ingest.clone(), supervisor.clone());
        opening.open(Resources {
            db,
            hub,
            feed: log.feed(),
            services: services.clone(),
        });
        Ok(Self {
            address,
            calls,
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
        let announced = announce(self.address, environment, data);
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
            api: client::reachable(self.address),
            token: &token,
            client: client.as_deref(),
        };
        if let Err(error) = greeting.print() {
            warn!(%error, "nobody reads standard output");
        }
    }

    /// Lets nobody in any more, and open calls come to their end, for a moment.
    async fn end_calls(&self, process: &Lifecycle) {
        info!("upgrading");
        process.soft().cancel();
        if tokio::time::timeout(LEAVE_TIMEOUT, self.calls.finish()).await.is_err() {
            warn!("calls were still open");
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
        let calls = async { tokio::join!(self.calls.finish(), process.finish()) };
        if tokio::time::timeout(CALLS_TIMEOUT, calls).await.is_err() {
            warn!("calls were still open");
            process.hard().cancel();
        }
        info!(fingerprint = self.pki.fingerprint(), "proxies and ingest stopped");
        self.lease.release().await
    }
}
