//! The current value of services, then every change.

use std::collections::HashSet;

use proxyplane_spec::{ServiceId, WorkspaceId};
use tokio::sync::{broadcast, mpsc};

use super::{Error, Proxy, Services};
use crate::store::{
    self,
    page::Page,
    services::{ServiceFilter, ServiceRow},
};

/// Events that a watcher has not read. When full, reading waits; changes that pile up meanwhile are read as one.
const WATCH_QUEUE: usize = 16;

/// Which services.
#[derive(Clone, Copy, Debug, Default)]
pub struct WatchScope {
    /// One.
    pub id: Option<ServiceId>,
    /// A workspace's.
    pub workspace_id: Option<WorkspaceId>,
}

/// What a watcher is told.
#[derive(Clone, Debug)]
pub enum ProxyEvent {
    /// A current value.
    Changed(Box<Proxy>),
    /// It is gone.
    Deleted(ServiceId),
}

impl WatchScope {
    fn covers(&self, row: &ServiceRow) -> bool {
        self.id.is_none_or(|id| id == row.id) && self.workspace_id.is_none_or(|id| id == row.workspace_id)
    }
}

impl Services {
    /// Watches the services in `scope` until the receiver is dropped.
    pub async fn watch_proxies(&self, scope: WatchScope) -> Result<mpsc::Receiver<Result<ProxyEvent, Error>>, Error> {
        if let Some(id) = scope.id {
            self.get_proxy(id).await?;
        }
        if let Some(id) = scope.workspace_id {
            self.get_workspace(id).await?;
        }
        // Subscribed before the first reading: a change between the two is told twice rather than never.
        let changes = self.supervisor.watch();
        let (sender, receiver) = mpsc::channel(WATCH_QUEUE);
        let watcher = Watcher {
            services: self.clone(),
            scope,
            sender,
            known: HashSet::new(),
        };
        tokio::spawn(watcher.run(changes));
        Ok(receiver)
    }
}

struct Watcher {
    services: Services,
    scope: WatchScope,
    sender: mpsc::Sender<Result<ProxyEvent, Error>>,
    /// Those the watcher was told of.
    known: HashSet<ServiceId>,
}

/// The watcher went away.
struct Unwatched;

impl Watcher {
    async fn run(mut self, mut changes: broadcast::Receiver<ServiceId>) {
        let mut told = self.tell_all().await;
        while let Ok(()) = told {
            let change = tokio::select! {
                change = changes.recv() => change,
                () = self.sender.closed() => return,
            };
            told = match change {
                Ok(id) if self.scope.id.is_some_and(|wanted| wanted != id) => Ok(()),
                Ok(id) => {
                    let mut ids = HashSet::from([id]);
                    while let Ok(more) = changes.try_recv() {
                        ids.insert(more);
                    }
                    self.tell(ids).await
                }
                Err(broadcast::error::RecvError::Lagged(_)) => self.tell_all().await,
                Err(broadcast::error::RecvError::Closed) => return,
            };
        }
    }

    async fn tell(&mut self, ids: HashSet<ServiceId>) -> Result<(), Unwatched> {
        for id in ids {
            match store::services::get(&self.services.db, id).await {
                Ok(Some(row)) if self.scope.covers(&row) => self.changed(vec![row]).await?,
                Ok(_) => self.deleted(id).await?,
                Err(error) => self.send(Err(error.into())).await?,
            }
        }
        Ok(())
    }

    async fn tell_all(&mut self) -> Result<(), Unwatched> {
        let mut gone = self.known.clone();
        let filter = ServiceFilter {
            workspace_id: self.scope.workspace_id,
            name: None,
        };
        let mut page = Page::first();
        loop {
            let found = match store::services::list(&self.services.db, &filter, &page).await {
                Ok(found) => found,
                Err(error) => return self.send(Err(error.into())).await,
            };
            let rows: Vec<_> = found.rows.into_iter().filter(|row| self.scope.covers(row)).collect();
            for row in &rows {
                gone.remove(&row.id);
            }
            self.changed(rows).await?;
            if found.next_page_token.is_empty() {
                break;
            }
            page = page.next(&found.next_page_token);
        }
        for id in gone {
            self.deleted(id).await?;
        }
        Ok(())
    }

    async fn changed(&mut self, rows: Vec<ServiceRow>) -> Result<(), Unwatched> {
        match self.services.with_status(rows).await {
            Ok(proxies) => {
                for proxy in proxies {
                    self.known.insert(proxy.row.id);
                    self.send(Ok(ProxyEvent::Changed(Box::new(proxy)))).await?;
                }
                Ok(())
            }
            Err(error) => self.send(Err(error)).await,
        }
    }

    async fn deleted(&mut self, id: ServiceId) -> Result<(), Unwatched> {
        if self.known.remove(&id) {
            self.send(Ok(ProxyEvent::Deleted(id))).await?;
        }
        Ok(())
    }

    /// An error ends the watch: the client begins again and gets everything anew.
    async fn send(&self, event: Result<ProxyEvent, Error>) -> Result<(), Unwatched> {
        let failed = event.is_err();
        let sent = self.sender.send(event).await.map_err(|_| Unwatched);
        if failed { Err(Unwatched) } else { sent }
    }
}
