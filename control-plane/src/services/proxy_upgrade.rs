//! Replacing the worker of a ProxyService.

use std::time::Duration;

use proxyplane_spec::ServiceId;

use super::{Error, Proxy, Services, check};

impl Services {
    /// Replaces a service's worker by one of the worker binary as it is now, without a pause; answers once that serves.
    /// What the old one still has open is in the status.
    pub async fn upgrade_proxy(&self, id: ServiceId, drain: Option<Duration>) -> Result<Proxy, Error> {
        let drain = check::drain(drain)?;
        let upgraded = self.supervisor.upgrade(id, drain).await;
        upgraded.map_err(|error| Error::of(id, error))?;
        self.get_proxy(id).await
    }
}
