//! The Session stream of one worker: control down, its life, counters and live exchanges up.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use proxyplane_proto::worker::{
    self as wire, Certificates, Hello, Interest, LogLine, SessionRequest, SessionResponse, Stats,
    session_request::Message as FromWorkerMessage, session_response::Message as ToWorker,
};
use proxyplane_record::{Kind, Record};
use proxyplane_spec::{Sandbox, Violation, limits, monotonic_us};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{
    Link,
    instance::{ChangeError, FromWorker, Instance, SESSION_QUEUE, Session, Step},
    worker_lines::Told,
};
use crate::{events::Subject, ingest::Source};

/// Welcomes the worker and reads its session in a task of its own.
pub(super) fn open(
    link: &Link,
    instance: Arc<Instance>,
    hello: &Hello,
    inbound: Streaming<SessionRequest>,
    stop: CancellationToken,
) -> Result<ReceiverStream<Result<SessionResponse, Status>>, Status> {
    let certificates = sign(link, &instance, &hello.csr_der)?;
    let (sender, receiver) = mpsc::channel(SESSION_QUEUE);
    let session = Session::new(sender);
    instance.is_able(hello.features.clone());
    if let Some(sandbox) = &hello.sandbox {
        instance.confined(parse(sandbox));
    }
    instance.welcome(hello.build.clone(), serving(hello), session.clone(), certificates);
    let reader = Reader {
        link: link.clone(),
        instance,
    };
    tokio::spawn(async move {
        tokio::select! {
            () = reader.run(inbound) => {}
            // The worker is gone.
            () = session.sender.closed() => {}
            () = session.ended.cancelled() => {}
            () = stop.cancelled() => {}
        }
        reader.instance.detach(&session);
    });
    Ok(ReceiverStream::new(receiver))
}

/// For how long the worker has been serving.
fn serving(hello: &Hello) -> Duration {
    match hello.serving_since_us {
        0 => Duration::from_millis(hello.serving_ms),
        since => Duration::from_micros(monotonic_us().saturating_sub(since)),
    }
}

struct Reader {
    link: Link,
    instance: Arc<Instance>,
}

impl Reader {
    async fn run(&self, mut inbound: Streaming<SessionRequest>) {
        let mut interest = self.link.shared.hub.interest();
        interest.mark_changed();
        loop {
            tokio::select! {
                message = inbound.message() => match message {
                    Ok(Some(SessionRequest { message: Some(message) })) => self.receive(message).await,
                    // A kind that a newer worker sends.
                    Ok(Some(SessionRequest { message: None })) => {}
                    Ok(None) => return,
                    Err(error) => {
                        tracing::debug!(service = %self.instance.expected.service_id, %error, "a worker's session broke");
                        return;
                    }
                },
                Ok(()) = interest.changed() => {
                    let live = *interest.borrow_and_update();
                    self.instance.send(ToWorker::Interest(Interest { live }));
                }
            }
        }
    }

    async fn receive(&self, message: FromWorkerMessage) {
        match message {
            FromWorkerMessage::Ready(ready) => {
                let revision = ready.revision;
                self.instance.tell(FromWorker::Ready { revision }).await;
            }
            FromWorkerMessage::Draining(draining) => {
                let remaining = Duration::from_millis(draining.remaining_ms);
                self.instance.tell(FromWorker::Draining { remaining }).await;
            }
            FromWorkerMessage::Drained(_) => self.instance.tell(FromWorker::Drained).await,
            FromWorkerMessage::Staged(staged) => self.instance.answered(Step::Stage, staged.revision, Ok(())),
            FromWorkerMessage::Applied(applied) => self.instance.answered(Step::Activate, applied.revision, Ok(())),
            FromWorkerMessage::Rejected(rejected) => {
                let violations = rejected.violations.into_iter();
                let violations: Vec<_> = violations.map(|v| Violation::new(v.field, v.description)).collect();
                let Source {
                    service_id,
                    workspace_id,
                    ..
                } = source(&self.instance);
                let proxy = Subject::proxy_in(service_id, workspace_id);
                self.link
                    .shared
                    .events
                    .config_rejected(proxy, rejected.revision, &violations);
                self.instance.refuses(violations.clone());
                // A worker may also refuse to activate what it did not stage.
                for step in [Step::Stage, Step::Activate] {
                    let answer = Err(ChangeError::Rejected(violations.clone()));
                    self.instance.answered(step, rejected.revision, answer);
                }
            }
            FromWorkerMessage::Stats(stats) => self.count(stats),
            FromWorkerMessage::LiveRecord(record) => self.live(record),
            FromWorkerMessage::Renew(renew) => match sign(&self.link, &self.instance, &renew.csr_der) {
                Ok(certificates) => {
                    self.instance.send(ToWorker::Certificates(certificates));
                }
                Err(error) => tracing::warn!(service = %self.instance.expected.service_id, %error, "no renewal"),
            },
            FromWorkerMessage::LogLine(line) => self.tell(line),
            FromWorkerMessage::Hello(_) => {
                tracing::warn!(service = %self.instance.expected.service_id, "a worker said hello twice");
            }
        }
    }

    fn count(&self, stats: Stats) {
        let (used, limit) = (stats.spool_bytes, stats.spool_limit);
        let before = self.instance.count(stats);
        if limits::spool_is_nearly_full(used, limit)
            && !limits::spool_is_nearly_full(before.spool_bytes, before.spool_limit)
        {
            let source = source(&self.instance);
            let proxy = Subject::proxy_in(source.service_id, source.workspace_id);
            self.link.shared.events.spool_above_80(proxy, used, limit);
        }
    }

    fn tell(&self, line: LogLine) {
        if let Some(Told {
            severity,
            text,
            withheld,
        }) = self.instance.logged(line)
        {
            let source = source(&self.instance);
            let proxy = Subject::proxy_in(source.service_id, source.workspace_id);
            self.link.shared.events.worker_logged(proxy, severity, &text, withheld);
        }
    }

    fn live(&self, record: Bytes) {
        if let Ok(Record {
            kind: Some(Kind::Head(exchange)),
        }) = Record::decode(record)
        {
            self.link.shared.hub.begun(source(&self.instance), exchange);
        }
    }
}

/// Whose records these are.
pub(super) fn source(instance: &Instance) -> Source {
    let expected = &instance.expected;
    Source {
        epoch: expected.epoch,
        service_id: expected.service_id,
        workspace_id: expected.workspace_id,
    }
}

fn parse(sandbox: &wire::Sandbox) -> Sandbox {
    let wire::Sandbox {
        uid,
        no_new_privs,
        landlock_abi,
        open_files,
        memory,
    } = *sandbox;
    Sandbox {
        uid,
        no_new_privs,
        landlock_abi,
        open_files,
        memory,
    }
}

fn sign(link: &Link, instance: &Instance, csr_der: &[u8]) -> Result<Certificates, Status> {
    let pki = &link.shared.pki;
    let intermediate = pki.sign_intermediate(csr_der, instance.expected.epoch);
    let intermediate = intermediate.map_err(|error| Status::invalid_argument(format!("signing request: {error}")))?;
    Ok(Certificates {
        intermediate_der: Bytes::from(intermediate),
        root_der: Bytes::copy_from_slice(pki.root_der()),
    })
}
