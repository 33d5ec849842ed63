//! The Session: configuration and orders down; readiness, statistics and live updates up.

mod change;
mod connection;
mod reporter;

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use proxyplane_proto::worker::{self as wire, session_request::Message as Up, session_response::Message as Down};
use proxyplane_spec::{Violation, limits};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::connection::{Connection, SessionError};
use self::{change::Staged, reporter::Reporter};
use super::{Link, configure};
use crate::{
    alarms::{self, LOCAL},
    handoff::Held,
    listener::DataPlane,
    service::{Service, ServiceConfig},
    tls::{Authority, AuthorityError, Identity},
};

/// A renewal that was asked for and not answered is asked for again after this; also the longest sleep until the next
/// one, so that a clock that jumps is noticed.
const RENEW_AGAIN: Duration = Duration::from_hours(1);

/// When everything must be over, once it is to end.
pub(crate) type Deadline = watch::Sender<Option<Instant>>;

/// Sets the deadline, or brings it forward.
pub(crate) fn end_within(deadline: &Deadline, timeout: Duration) {
    let at = Instant::now() + timeout.min(limits::DRAIN_TIMEOUT_MAX);
    deadline.send_modify(|known| *known = Some(known.map_or(at, |known| known.min(at))));
}

/// What the task that keeps the Session needs.
pub(crate) struct Session {
    pub(crate) link: Arc<Link>,
    pub(crate) identity: Identity,
    pub(crate) service: Arc<Service>,
    /// Exchanges that began, for watchers.
    pub(crate) updates: mpsc::Receiver<Bytes>,
    /// What a control plane that adopts this worker wants back.
    pub(crate) held: Arc<Held>,
    /// Accepts elsewhere when a configuration says so.
    pub(crate) data_plane: Arc<DataPlane>,
    /// For its uptime, as [`proxyplane_spec::monotonic_us`] has it.
    pub(crate) serving_since_us: u64,
    pub(crate) deadline: Deadline,
    /// Draining is over.
    pub(crate) drained: CancellationToken,
}

/// What the first Welcome held.
pub(crate) struct First {
    pub(crate) connection: Connection,
    pub(crate) config: ServiceConfig,
}

/// Why a worker cannot begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotBegin {
    #[error("the control plane refused this worker: {0}")]
    Refused(SessionError),
    #[error("the configuration was rejected: {0}")]
    Rejected(Violation),
    #[error("the certificate cannot be used: {0}")]
    Authority(#[from] AuthorityError),
}

/// Dials until the control plane welcomes this worker, and builds its first configuration.
pub(crate) async fn begin(link: &Link, identity: &Identity) -> Result<First, CannotBegin> {
    let (connection, welcome) = loop {
        match Connection::open(link, identity, 0).await {
            Ok(opened) => break opened,
            Err(error) if error.is_refusal() => return Err(CannotBegin::Refused(error)),
            Err(error) => tracing::warn!(target: LOCAL, %error, "cannot open the session; trying again"),
        }
        tokio::time::sleep(limits::REDIAL).await;
    };
    let certificates = welcome.certificates.unwrap_or_default();
    let authority = Authority::new(identity, &certificates.intermediate_der, &certificates.root_der)?;
    let config = welcome.config.unwrap_or_default();
    let revision = config.revision;
    match configure::build(config, authority) {
        Ok(config) => Ok(First { connection, config }),
        Err(violations) => {
            let first = violations.first().cloned();
            let rejected = wire::Rejected {
                revision,
                violations: configure::to_wire(violations),
            };
            // If it does not arrive, the exit status and the log say the same.
            let _ = connection.send(Up::Rejected(rejected)).await;
            connection.close().await;
            Err(CannotBegin::Rejected(
                first.unwrap_or_else(|| Violation::new("", "no reason was given")),
            ))
        }
    }
}

/// Why [`Session::converse`] ended.
enum Over {
    Drained,
    Lost(SessionError),
}

impl Session {
    /// Keeps the session until the worker has drained.
    pub(crate) async fn run(mut self, mut connection: Connection) {
        let drained = self.drained.clone();
        loop {
            match self.converse(&mut connection).await {
                Over::Drained => return connection.close().await,
                Over::Lost(error) => {
                    tracing::warn!(target: LOCAL, %error, "lost the control plane; serving on and redialling");
                }
            }
            self.service.capture.set_watched(false);
            tokio::select! {
                () = drained.cancelled() => return,
                redialled = self.redial() => connection = redialled,
            }
            tracing::info!("the control plane is back");
        }
    }

    async fn redial(&mut self) -> Connection {
        loop {
            tokio::time::sleep(limits::REDIAL).await;
            match Connection::open(&self.link, &self.identity, self.serving_since_us).await {
                Ok((mut connection, welcome)) => match self.catch_up(&mut connection, welcome).await {
                    Ok(()) => return connection,
                    Err(error) => tracing::debug!(%error, "lost the control plane again"),
                },
                Err(error) => tracing::debug!(%error, "cannot reach the control plane"),
            }
        }
    }

    /// The control plane's database says what is in force. A configuration that cannot be built changes nothing.
    async fn catch_up(&mut self, connection: &mut Connection, welcome: wire::Welcome) -> Result<(), SessionError> {
        self.renewed(&welcome.certificates.unwrap_or_default());
        let Some(config) = welcome.config else { return Ok(()) };
        let revision = config.revision;
        match configure::build(config, self.service.config().tls.authority()) {
            Ok(config) => {
                self.service.apply(config);
                Ok(())
            }
            Err(violations) => {
                let violations = configure::to_wire(violations);
                connection
                    .send(Up::Rejected(wire::Rejected { revision, violations }))
                    .await
            }
        }
    }

    async fn converse(&mut self, connection: &mut Connection) -> Over {
        let revision = self.service.config().revision;
        let greeting = self.draining().unwrap_or(Up::Ready(wire::Ready { revision }));
        if let Err(error) = connection.send(greeting).await {
            return Over::Lost(error);
        }
        let mut staged = None;
        let mut reporter = Reporter::default();
        let mut renew_at = self.renewal();
        loop {
            let done = tokio::select! {
                message = connection.receive() => match message {
                    Ok(message) => {
                        let renewed = matches!(message, Down::Certificates(_));
                        let obeyed = self.obey(message, connection, &mut staged, &mut reporter).await;
                        if renewed {
                            renew_at = self.next_renewal();
                        }
                        obeyed
                    }
                    Err(error) => Err(error),
                },
                Some(update) = self.updates.recv() => connection.offer(Up::LiveRecord(update)),
                line = alarms::next() => connection.offer(Up::LogLine(line)),
                stats = reporter.next(&self.service) => connection.offer(Up::Stats(stats)),
                () = tokio::time::sleep_until(renew_at) => {
                    let due = self.renewal() <= Instant::now();
                    renew_at = if due { Instant::now() + RENEW_AGAIN } else { self.renewal() };
                    let csr_der = Bytes::copy_from_slice(self.identity.csr_der());
                    if due { connection.send(Up::Renew(wire::Renew { csr_der })).await } else { Ok(()) }
                }
                () = self.drained.cancelled() => {
                    // A control plane that is gone meanwhile sees the exit status.
                    let _ = connection.send(Up::Drained(wire::Drained {})).await;
                    return Over::Drained;
                }
            };
            if let Err(error) = done {
                return Over::Lost(error);
            }
        }
    }

    async fn obey(
        &mut self,
        message: Down,
        connection: &mut Connection,
        staged: &mut Option<Staged>,
        reporter: &mut Reporter,
    ) -> Result<(), SessionError> {
        match message {
            Down::Stage(config) => {
                let answer = self.stage(config, staged).await;
                connection.send(answer).await
            }
            Down::Activate(wire::Activate { revision }) => {
                let answer = self.activate(revision, staged).await;
                connection.send(answer).await
            }
            Down::ReportStats(wire::ReportStats {}) => {
                let stats = reporter.now(&self.service);
                connection.send(Up::Stats(stats)).await
            }
            Down::Drain(wire::Drain { timeout_ms, idle_ms }) => {
                self.service.drain.keep_idle(Duration::from_millis(idle_ms));
                end_within(&self.deadline, Duration::from_millis(timeout_ms));
                Ok(())
            }
            Down::Interest(wire::Interest { live }) => {
                self.service.capture.set_watched(live);
                Ok(())
            }
            Down::Certificates(certificates) => {
                self.renewed(&certificates);
                Ok(())
            }
            Down::ReturnListeners(wire::ReturnListeners {}) => {
                let given = self.give_back().await?;
                match self.draining() {
                    Some(draining) if !given => connection.send(draining).await,
                    _ => Ok(()),
                }
            }
            // Only the answer to Hello; nothing is wrong with hearing it again.
            Down::Welcome(_) => Ok(()),
        }
    }

    /// Gives the listeners back; `false` if they are closed. After a failure the session is dialled anew, and asked again.
    async fn give_back(&self) -> Result<bool, SessionError> {
        let held = Arc::clone(&self.held);
        let given = tokio::task::spawn_blocking(move || held.give_back()).await;
        given
            .unwrap_or_else(|failed| Err(io::Error::other(failed)))
            .map_err(SessionError::NotReturned)
    }

    /// What is to be said instead of Ready once there is a deadline.
    fn draining(&self) -> Option<Up> {
        let deadline = (*self.deadline.borrow())?;
        let remaining = deadline.saturating_duration_since(Instant::now()).as_millis();
        Some(Up::Draining(wire::Draining {
            remaining_ms: u64::try_from(remaining).unwrap_or(u64::MAX),
        }))
    }

    fn renewed(&self, certificates: &wire::Certificates) {
        let tls = Arc::clone(&self.service.config().tls);
        match Authority::new(&self.identity, &certificates.intermediate_der, &certificates.root_der) {
            Ok(authority) => tls.replace_authority(authority),
            Err(error) => tracing::error!(%error, "new certificate not used; the one before stays"),
        }
    }

    /// The same after new certificates came. The root may be so near to its end that even those are due: asking at once
    /// would get no better ones.
    fn next_renewal(&self) -> Instant {
        let (due, now) = (self.renewal(), Instant::now());
        if due <= now { now + RENEW_AGAIN } else { due }
    }

    /// When to look next whether a renewal is due.
    fn renewal(&self) -> Instant {
        let due = self.service.config().tls.authority().renew_at();
        let remaining = due.duration_since(SystemTime::now()).unwrap_or_default();
        Instant::now() + remaining.min(RENEW_AGAIN)
    }
}
