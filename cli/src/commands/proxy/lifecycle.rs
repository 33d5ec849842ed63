//! `proxyctl proxy start`, `stop` and `restart`

use std::time::Duration;

use clap::Args;
use proxyplane_proto::v1::{RestartProxyServiceRequest, StartProxyServiceRequest, StopProxyServiceRequest};

use super::{
    super::{Context, present},
    Named,
};
use crate::{error::Error, output, view::Proxy, when};

#[derive(Args, Debug)]
pub(crate) struct Stopping {
    #[command(flatten)]
    named: Named,
    /// How long open exchanges may take to finish, such as 5s (the server's setting unless given).
    #[arg(long, value_name = "DURATION", value_parser = when::parse_duration)]
    drain_timeout: Option<Duration>,
}

impl Stopping {
    fn drain_timeout(&self) -> Result<Option<prost_types::Duration>, Error> {
        let convert = |timeout: Duration| {
            timeout
                .try_into()
                .map_err(|_| Error::Usage("--drain-timeout is too long".into()))
        };
        self.drain_timeout.map(convert).transpose()
    }
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
        id,
        drain_timeout: stopping.drain_timeout()?,
    };
    let answer = context.client.proxies().stop_proxy_service(request).await?.into_inner();
    let proxy = Proxy::from(present(answer.proxy_service)?);
    output::talk(&format!("proxy '{}' stopped", proxy.full_name()));
    context.output.changed(&proxy)
}

pub(super) async fn restart(context: &Context, stopping: &Stopping) -> Result<(), Error> {
    let id = stopping.named.resolve(context).await?.id;
    let request = RestartProxyServiceRequest {
        id,
        drain_timeout: stopping.drain_timeout()?,
    };
    let answer = context
        .client
        .proxies()
        .restart_proxy_service(request)
        .await?
        .into_inner();
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
