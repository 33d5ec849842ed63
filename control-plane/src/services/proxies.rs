//! ProxyServices: create, read, delete, and their lifecycle.

use std::time::Duration;

use proxyplane_spec::{
    CaptureSpec, ListenHost, OnPortConflict, RawCapture, ServiceId, ServiceName, Violation, WorkspaceId,
};
use tokio::sync::mpsc;

use super::{
    Error, Services,
    check::{self, Checks},
    workspaces,
};
use crate::{
    store::{
        self, StoreError,
        page::{Page, Paged},
        services::{NewService, ServiceFilter, ServiceRow},
    },
    supervisor::{ServiceStatus, Supervisor, certificates},
};

/// Ports that are tried for port 0 when others take them between the look and the store.
const PICK_ATTEMPTS: usize = 16;
/// Log lines when nothing is said, and at most.
const LOG_LINES: (usize, i32) = (200, 10_000);
/// Log lines of one message.
const LOG_BATCH: usize = 500;

/// Raw values of a new service.
#[derive(Clone, Debug)]
pub struct NewProxy {
    /// Where it belongs.
    pub workspace_id: WorkspaceId,
    /// Unique in its workspace.
    pub name: String,
    /// Address to listen on; empty means 127.0.0.1.
    pub host: String,
    /// 0 picks a free one.
    pub port: u32,
    /// What happens when it stays taken at boot.
    pub on_port_conflict: OnPortConflict,
    /// `None` means true.
    pub verbose: Option<bool>,
    /// `None` means true.
    pub log_out_of_scope: Option<bool>,
    /// What it does with what passes.
    pub capture: RawCapture,
    /// Start it as well.
    pub start: bool,
    /// Check and answer as if done, change nothing.
    pub validate_only: bool,
}

/// What goes with a service that is deleted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deletion {
    /// Its traffic.
    pub purge: bool,
    /// What its workers recorded and is not stored yet; otherwise that is waited for.
    pub discard: bool,
    /// For what is open; `None` means the server's time-out.
    pub drain: Option<Duration>,
}

/// A service: its configuration and what is observed of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Desired configuration.
    pub row: ServiceRow,
    /// Observed status.
    pub status: ServiceStatus,
    /// Exchanges committed since creation.
    pub stored: u64,
}

impl Services {
    /// Makes a service, and starts it if asked to; one that cannot be started is not made.
    pub async fn create_proxy(&self, new: NewProxy) -> Result<Proxy, Error> {
        let service = checked(&new)?;
        if store::workspaces::get(&self.db, service.workspace_id).await?.is_none() {
            return Err(workspaces::not_found(service.workspace_id));
        }
        let row = if service.port == 0 {
            self.insert_on_free_port(service, new.validate_only).await?
        } else {
            self.supervisor
                .probe(service.host, service.port)
                .await
                .map_err(|error| Error::of_fields(ServiceId::new(), error))?;
            self.insert(&service, new.validate_only).await?
        };
        if new.validate_only {
            return Ok(Proxy {
                row,
                status: ServiceStatus::default(),
                stored: 0,
            });
        }
        self.supervisor.announce(row.id);
        if new.start
            && let Err(error) = self.supervisor.start(row.id).await
        {
            if let Err(left) = self.supervisor.remove(row.id, None, false).await {
                tracing::warn!(service = %row.id, error = %left, "a proxy that could not be started stays");
            }
            return Err(Error::of_fields(row.id, error));
        }
        self.get_proxy(row.id).await
    }

    /// Reads one with its status.
    pub async fn get_proxy(&self, id: ServiceId) -> Result<Proxy, Error> {
        let row = store::services::get(&self.db, id)
            .await?
            .ok_or_else(|| Error::proxy_not_found(id))?;
        let mut proxies = self.with_status(vec![row]).await?;
        proxies.pop().ok_or_else(|| Error::proxy_not_found(id))
    }

    /// A page of those that match, by name, with their status.
    pub async fn list_proxies(&self, filter: &ServiceFilter, page: &Page) -> Result<Paged<Proxy>, Error> {
        let Paged { rows, next_page_token } = store::services::list(&self.db, filter, page).await?;
        Ok(Paged {
            rows: self.with_status(rows).await?,
            next_page_token,
        })
    }

    /// Stops a service, then deletes it.
    ///
    /// Goes on when the caller goes away: traffic of a service that is gone could not be removed any more.
    pub async fn delete_proxy(&self, id: ServiceId, etag: &str, how: Deletion) -> Result<(), Error> {
        check::drain(how.drain)?;
        let (services, etag) = (self.clone(), etag.to_owned());
        let deletion = async move { services.stop_and_delete(id, &etag, how).await };
        // It ends early only with the server.
        self.supervisor
            .spawn(deletion)
            .await
            .unwrap_or(Err(Error::ShuttingDown))
    }

    async fn stop_and_delete(&self, id: ServiceId, etag: &str, how: Deletion) -> Result<(), Error> {
        let row = store::services::get(&self.db, id)
            .await?
            .ok_or_else(|| Error::proxy_not_found(id))?;
        if !etag.is_empty() && etag != row.etag() {
            return Err(Error::EtagMismatch);
        }
        let of = |error| Error::of(id, error);
        self.supervisor.stop(id, how.drain).await.map_err(of)?;
        self.supervisor
            .remove(id, check::etag(etag.to_owned()), how.discard)
            .await
            .map_err(of)?;
        self.supervisor.announce(id);
        if how.purge {
            self.supervisor.records_settled().await;
            let exchanges = store::purge::service(&self.db, id).await?;
            tracing::info!(service = %id, exchanges, "traffic of a deleted proxy removed");
        }
        Ok(())
    }

    /// Starts a service; answers once it serves.
    pub async fn start_proxy(&self, id: ServiceId) -> Result<Proxy, Error> {
        self.supervisor.start(id).await.map_err(|error| Error::of(id, error))?;
        self.get_proxy(id).await
    }

    /// Drains and stops a service.
    pub async fn stop_proxy(&self, id: ServiceId, drain: Option<Duration>) -> Result<Proxy, Error> {
        let drain = check::drain(drain)?;
        self.supervisor
            .stop(id, drain)
            .await
            .map_err(|error| Error::of(id, error))?;
        self.get_proxy(id).await
    }

    /// Ends running and enabled, whatever came before.
    pub async fn restart_proxy(&self, id: ServiceId, drain: Option<Duration>) -> Result<Proxy, Error> {
        let drain = check::drain(drain)?;
        self.supervisor
            .restart(id, drain)
            .await
            .map_err(|error| Error::of(id, error))?;
        self.get_proxy(id).await
    }

    /// The last `tail` log lines (0 means 200), oldest first; with `follow` then new ones until the receiver is
    /// dropped.
    pub async fn read_logs(
        &self,
        id: ServiceId,
        tail: i32,
        follow: bool,
    ) -> Result<mpsc::Receiver<Vec<String>>, Error> {
        let (default, most) = LOG_LINES;
        let lines = match usize::try_from(tail) {
            Ok(0) => default,
            Ok(lines) if tail <= most => lines,
            _ => return Err(vec![Violation::new("tail", "must be 0 to 10000")].into()),
        };
        if store::services::get(&self.db, id).await?.is_none() {
            return Err(Error::proxy_not_found(id));
        }
        let log = self.supervisor.log(id);
        if follow {
            return Ok(log.follow(lines));
        }
        let read = tokio::task::spawn_blocking(move || log.tail(lines)).await;
        let read = read.map_err(std::io::Error::other).and_then(|read| read);
        let read = read.map_err(|error| Error::from(sqlx::Error::Io(error)))?;
        let batches: Vec<_> = read.chunks(LOG_BATCH).map(<[String]>::to_vec).collect();
        let (sender, receiver) = mpsc::channel(batches.len().max(1));
        for batch in batches {
            // There is room for all of them.
            let _ = sender.try_send(batch);
        }
        Ok(receiver)
    }

    /// Adds what is observed; all workers are asked at once.
    pub(super) async fn with_status(&self, rows: Vec<ServiceRow>) -> Result<Vec<Proxy>, Error> {
        let ids: Vec<ServiceId> = rows.iter().map(|row| row.id).collect();
        let statuses = futures_util::future::join_all(ids.iter().map(|id| self.supervisor.status_and_spools(*id)));
        let (stored, statuses) = tokio::join!(store::services::stored(&self.db, &ids), statuses);
        let stored = stored?;
        let proxies = rows.into_iter().zip(statuses).map(|(row, status)| {
            let stored = stored.get(&row.id).copied().unwrap_or_default();
            Proxy { row, status, stored }
        });
        Ok(proxies.collect())
    }

    /// Stores the service on a port that is free here and in the store.
    async fn insert_on_free_port(&self, mut service: NewService, validate_only: bool) -> Result<ServiceRow, Error> {
        for _ in 0..PICK_ATTEMPTS {
            let picked = Supervisor::pick_port(service.host);
            let picked = picked.map_err(|error| Error::of_fields(ServiceId::new(), error))?;
            service.port = picked.ok_or(Error::NoFreePort)?;
            match self.insert(&service, validate_only).await {
                Err(Error::PortInUse { .. }) => {}
                done => return done,
            }
        }
        Err(Error::NoFreePort)
    }

    async fn insert(&self, service: &NewService, validate_only: bool) -> Result<ServiceRow, Error> {
        let mut transaction = self.db.begin().await?;
        match store::services::create(&mut transaction, service).await {
            Ok(row) => {
                if !validate_only {
                    transaction.commit().await?;
                }
                Ok(row)
            }
            Err(error) => {
                drop(transaction);
                Err(self.proxy_error(error, service.workspace_id).await)
            }
        }
    }

    /// Adds who has the name or the port.
    pub(super) async fn proxy_error(&self, error: StoreError, workspace_id: WorkspaceId) -> Error {
        match error {
            StoreError::NameTaken { name } => {
                let filter = ServiceFilter {
                    workspace_id: Some(workspace_id),
                    name: Some(name.clone()),
                };
                let found = store::services::list(&self.db, &filter, &Page::first()).await;
                let holder = found
                    .ok()
                    .and_then(|found| found.rows.first().map(|row| row.id.to_string()));
                Error::NameTaken { name, holder }
            }
            StoreError::PortTaken { port } => {
                let holder = self.supervisor.holder(ListenHost::DEFAULT, port).await;
                Error::PortInUse { port, holder }
            }
            StoreError::NotFound => workspaces::not_found(workspace_id),
            error => error.into(),
        }
    }
}

impl NewProxy {
    /// What is wrong with its values, whatever workspace it is for.
    pub fn violations(&self) -> Vec<Violation> {
        check::violations(checked(self))
    }
}

fn checked(new: &NewProxy) -> Result<NewService, Error> {
    let mut checks = Checks::default();
    let name = checks.take(ServiceName::parse("name", &new.name));
    let host = if new.host.is_empty() {
        Some(ListenHost::DEFAULT)
    } else {
        checks.take(ListenHost::parse("host", &new.host))
    };
    let port = checks.take(check::port("port", new.port, true));
    let spec = checks.take_all(capture(&new.capture));
    let values = name.zip(host).zip(port).zip(spec);
    let (((name, host), port), spec) = checks.finish(values)?;
    Ok(NewService {
        workspace_id: new.workspace_id,
        name,
        host,
        port,
        on_port_conflict: new.on_port_conflict,
        verbose: new.verbose.unwrap_or(true),
        log_out_of_scope: new.log_out_of_scope.unwrap_or(true),
        enabled: false,
        spec,
    })
}

/// The specification, with certificates that can be used.
fn capture(raw: &RawCapture) -> Result<CaptureSpec, Vec<Violation>> {
    let spec = CaptureSpec::parse(raw)?;
    certificates::check("capture.extra_ca_pem", &spec.extra_ca_pem)?;
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> NewProxy {
        NewProxy {
            workspace_id: WorkspaceId::new(),
            name: "a".into(),
            host: String::new(),
            port: 0,
            on_port_conflict: OnPortConflict::default(),
            verbose: None,
            log_out_of_scope: None,
            capture: RawCapture::default(),
            start: false,
            validate_only: false,
        }
    }

    #[test]
    fn defaults_are_verbose_and_not_enabled_on_loopback() {
        let service = checked(&new()).unwrap();
        assert!(service.verbose && service.log_out_of_scope && !service.enabled);
        assert_eq!(service.host, ListenHost::DEFAULT);
    }

    #[test]
    fn every_wrong_field_is_reported_at_once() {
        let capture = RawCapture {
            extra_ca_pem: "garbage".into(),
            ..RawCapture::default()
        };
        let bad = NewProxy {
            name: "a/b".into(),
            host: "example.com".into(),
            port: 70_000,
            capture,
            ..new()
        };
        let error = checked(&bad).unwrap_err();
        let fields: Vec<_> = error
            .violations()
            .iter()
            .map(|violation| violation.field.as_str())
            .collect();
        assert_eq!(fields, ["name", "host", "port", "capture.extra_ca_pem"]);
    }
}
