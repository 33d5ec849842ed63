//! `proxyctl proxy update`

use clap::Args;
use prost_types::FieldMask;
use proxyplane_proto::v1::{ProxyService, StartProxyServiceRequest, UpdateProxyServiceRequest};

use super::{
    super::{Context, present},
    Named, lifecycle,
    settings::Settings,
};
use crate::{error::Error, output, view::Proxy};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    named: Named,
    /// New name.
    #[arg(long, value_name = "NAME")]
    rename: Option<String>,
    #[command(flatten)]
    settings: Settings,
    /// Start it afterwards.
    #[arg(long)]
    start: bool,
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Result<(), Error> {
    let current = arguments.named.resolve(context).await?;
    let start = arguments.start;
    let (change, paths) = change(arguments, current.id.clone())?;
    if paths.is_empty() && !start {
        return Err(Error::Usage(
            "nothing to change was given; see proxyctl proxy update --help".into(),
        ));
    }
    let before = current.revision;
    let mut proxy = current;
    if !paths.is_empty() {
        let request = UpdateProxyServiceRequest {
            proxy_service: Some(change),
            update_mask: Some(FieldMask { paths }),
            ..Default::default()
        };
        let answer = context
            .client
            .proxies()
            .update_proxy_service(request)
            .await?
            .into_inner();
        proxy = present(answer.proxy_service)?;
    }
    if start {
        let answer = context
            .client
            .proxies()
            .start_proxy_service(StartProxyServiceRequest { id: proxy.id })
            .await?;
        proxy = present(answer.into_inner().proxy_service)?;
    }
    let changed = proxy.revision != before;
    let proxy = Proxy::from(proxy);
    match (start, changed) {
        (true, true) => lifecycle::tell_running(&proxy, "updated and running"),
        (true, false) => lifecycle::tell_running(&proxy, "running"),
        (false, true) => output::talk(&format!("proxy '{}' updated", proxy.full_name())),
        (false, false) => output::talk(&format!("proxy '{}' is so already", proxy.full_name())),
    }
    context.output.changed(&proxy)
}

/// What was given, as a service, and the paths of it.
fn change(arguments: Arguments, id: String) -> Result<(ProxyService, Vec<String>), Error> {
    let settings = arguments.settings;
    let (capture, mut paths) = settings.capture()?;
    let (verbose, log_out_of_scope) = (settings.verbose(), settings.log_out_of_scope());
    let on_port_conflict = settings.on_port_conflict();
    let given = [
        ("name", arguments.rename.is_some()),
        ("host", settings.host.is_some()),
        ("port", settings.port.is_some()),
        ("on_port_conflict", on_port_conflict.is_some()),
        ("verbose", verbose.is_some()),
        ("log_out_of_scope", log_out_of_scope.is_some()),
    ];
    paths.extend(given.iter().filter(|(_, set)| *set).map(|(path, _)| *path));
    let change = ProxyService {
        id,
        name: arguments.rename.unwrap_or_default(),
        host: settings.host.unwrap_or_default(),
        port: settings.port.unwrap_or(0).into(),
        on_port_conflict: on_port_conflict.unwrap_or_default().into(),
        verbose: verbose.unwrap_or_default(),
        log_out_of_scope: log_out_of_scope.unwrap_or_default(),
        capture: Some(capture),
        ..Default::default()
    };
    Ok((change, paths.into_iter().map(str::to_owned).collect()))
}
