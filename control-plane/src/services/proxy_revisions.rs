//! Revisions of a ProxyService: what it was, and the way back there.

use proxyplane_spec::ServiceId;

use super::{Error, Proxy, Services, check};
use crate::store::{
    self,
    page::{Page, Paged},
    revisions::{Configuration, RevisionRow},
};

/// A return to an earlier configuration.
#[derive(Clone, Debug)]
pub struct RollbackProxy {
    /// Which service.
    pub id: ServiceId,
    /// The revision to return to.
    pub revision: i64,
    /// The etag the change is based on; empty means any.
    pub etag: String,
    /// Check and answer as if done, change nothing.
    pub validate_only: bool,
}

impl Services {
    /// A page of a service's revisions, newest first.
    pub async fn list_proxy_revisions(&self, id: ServiceId, page: &Page) -> Result<Paged<RevisionRow>, Error> {
        let found = store::revisions::list(&self.db, id, page).await?;
        if found.rows.is_empty() && store::services::name(&self.db, id).await?.is_none() {
            return Err(Error::proxy_not_found(id));
        }
        Ok(found)
    }

    /// Reads one with its configuration.
    pub async fn get_proxy_revision(
        &self,
        id: ServiceId,
        revision: i64,
    ) -> Result<(RevisionRow, Configuration), Error> {
        match store::revisions::get(&self.db, id, revision).await? {
            Some(found) => Ok(found),
            None if store::services::name(&self.db, id).await?.is_none() => Err(Error::proxy_not_found(id)),
            None => Err(Error::NotFound {
                kind: "revision",
                id: revision.to_string(),
            }),
        }
    }

    /// Makes a revision's configuration the present one again; in force when this returns.
    ///
    /// It is a change of every field, so whatever holds for a change holds here.
    pub async fn rollback_proxy(&self, rollback: RollbackProxy) -> Result<Proxy, Error> {
        let RollbackProxy {
            id,
            revision,
            etag,
            validate_only,
        } = rollback;
        let (_, configuration) = self.get_proxy_revision(id, revision).await?;
        let change = configuration.restored(revision);
        let changed = self
            .supervisor
            .reconfigure(id, check::etag(etag), change, validate_only)
            .await;
        let row = match changed {
            Ok(row) => row,
            Err(error) => return Err(self.change_error(error, id).await),
        };
        let mut proxies = self.with_status(vec![row]).await?;
        proxies.pop().ok_or_else(|| Error::proxy_not_found(id))
    }
}
