//! `proxyctl proxy start`, `stop` and `restart`

use clap::Args;
use proxyplane_proto::v1::{RestartProxyServiceRequest, StartProxyServiceRequest, StopProxyServiceRequest};

use super::{
    super::{Context, present},
    Named,
    progress::{self, DrainTimeout},
};
use crate::{error::Error, output, view::Proxy};

#[derive(Args, Debug)]
pub(crate) struct Stopping {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    drain: DrainTimeout,
}

pub(super) async fn start(context: &Context, named: &Named) -> Result<(), Error> {
    let id = named.resolve(context).await?.id;
    let answer = context
        .client
        .proxies()
        .start_proxy_service(StartProxyServiceRequest { id })
        .await?
        .into_inner();
    let proxy = Proxy::from(present(answer.proxy_service)?);
    tell_running(&proxy, "running");
    context.output.changed(&proxy)
}

pub(super) async fn stop(context: &Context, stopping: &Stopping) -> Result<(), Error> {
    let id = stopping.named.resolve(context).await?.id;
    let request = StopProxyServiceRequest {
        id: id.clone(),
        drain_timeout: stopping.drain.value()?,
    };
    let mut proxies = context.client.proxies();
    let answer = progress::told(context, &id, proxies.stop_proxy_service(request), progress::open).await?;
    let answer = answer.into_inner();
    let proxy = Proxy::from(present(answer.proxy_service)?);
    output::talk(&format!("proxy '{}' stopped", proxy.full_name()));
    context.output.changed(&proxy)
}

pub(super) async fn restart(context: &Context, stopping: &Stopping) -> Result<(), Error> {
    let id = stopping.named.resolve(context).await?.id;
    let request = RestartProxyServiceRequest {
        id: id.clone(),
        drain_timeout: stopping.drain.value()?,
    };
    let mut proxies = context.client.proxies();
    let answer = progress::told(context, &id, proxies.restart_proxy_service(request), progress::open).await?;
    let answer = answer.into_inner();
    let proxy = Proxy::from(present(answer.proxy_service)?);
    tell_running(&proxy, "restarted");
    context.output.changed(&proxy)
}

/// Says where a proxy that was just started can be reached.
pub(super) fn tell_running(proxy: &Proxy, what: &str) {
    let pid = proxy.pid.map(|pid| format!(", worker {pid}")).unwrap_or_default();
    output::talk(&format!(
        "proxy '{}' {what} on {}{pid}",
        proxy.full_name(),
        proxy.address()
    ));
}
