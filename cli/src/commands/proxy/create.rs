//! `proxyctl proxy create`

use clap::Args;
use proxyplane_proto::v1::{CreateProxyServiceRequest, ProxyKind};

use super::{
    super::{Context, present},
    lifecycle,
    settings::Settings,
};
use crate::{
    error::Error,
    names::{self, DEFAULT_WORKSPACE},
    output,
    view::Proxy,
};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Its name, or WORKSPACE/NAME.
    name: String,
    #[command(flatten)]
    settings: Settings,
    /// Start it as well.
    #[arg(long)]
    start: bool,
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Result<(), Error> {
    let settings = arguments.settings;
    let (capture, _) = settings.capture()?;
    let (own, name) = names::split(&arguments.name);
    names::agree(&context.client, &arguments.name, context.workspace()).await?;
    let workspace = own.or(context.workspace()).unwrap_or(DEFAULT_WORKSPACE);
    let workspace_id = names::workspace(&context.client, workspace).await?.id;
    let request = CreateProxyServiceRequest {
        workspace_id,
        name: name.to_owned(),
        kind: ProxyKind::Capture.into(),
        on_port_conflict: settings.on_port_conflict().unwrap_or_default().into(),
        verbose: settings.verbose(),
        log_out_of_scope: settings.log_out_of_scope(),
        host: settings.host.unwrap_or_default(),
        port: settings.port.unwrap_or(0).into(),
        capture: Some(capture),
        start: arguments.start,
        validate_only: false,
    };
    let answer = context
        .client
        .proxies()
        .create_proxy_service(request)
        .await?
        .into_inner();
    let proxy = Proxy::from(present(answer.proxy_service)?);
    if arguments.start {
        lifecycle::tell_running(&proxy, "created and running");
    } else {
        let name = proxy.full_name();
        output::talk(&format!(
            "proxy '{name}' created for {}; start it: proxyctl proxy start '{name}'",
            proxy.address()
        ));
    }
    context.output.changed(&proxy)
}
