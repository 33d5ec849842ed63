//! `proxyctl proxy watch`

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use proxyplane_proto::v1::{WatchProxyServicesRequest, watch_proxy_services_response::Event};
use serde_json::json;

use super::super::Context;
use crate::{
    completion,
    error::Error,
    follow::Connection,
    names,
    output::{Text, Tone},
    view::Proxy,
};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// NAME, WORKSPACE/NAME or id; without it every proxy, or those of --workspace.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(completion::proxies))]
    name: Option<String>,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<(), Error> {
    let (workspace_id, id) = names::scope(&context.client, arguments.name.as_deref(), context.workspace()).await?;
    let request = WatchProxyServicesRequest { id, workspace_id };
    let mut connection = Connection::default();
    loop {
        match watch(context, &request, &mut connection).await {
            Ok(true) => return Ok(()),
            end => connection.lost(end.err()).await?,
        }
    }
}

/// Until the stream ends; true if the one proxy that was watched is gone.
async fn watch(
    context: &Context,
    request: &WatchProxyServicesRequest,
    connection: &mut Connection,
) -> Result<bool, Error> {
    let mut stream = context
        .client
        .proxies()
        .watch_proxy_services(request.clone())
        .await?
        .into_inner();
    connection.up("what follows is current; states of the meantime are not shown");
    while let Some(message) = stream.message().await? {
        match message.event {
            Some(Event::Changed(proxy)) => {
                let proxy = Proxy::from(proxy);
                context.output.item(&proxy, || line(&proxy))?;
            }
            Some(Event::DeletedId(id)) => {
                let line = || vec![Text::new(format!("{id}  deleted"), Tone::Faint)];
                context.output.item(&json!({ "id": id, "deleted": true }), line)?;
                if id == request.id {
                    return Ok(true);
                }
            }
            // An event that a newer server knows.
            None => {}
        }
    }
    Ok(false)
}

fn line(proxy: &Proxy) -> Vec<Text> {
    let mut line = vec![Text::plain(format!("{}  ", proxy.full_name())), proxy.state_text()];
    line.push(Text::plain(format!("  {}", proxy.address())));
    if let Some(pid) = proxy.pid {
        line.push(Text::new(format!("  worker {pid}"), Tone::Faint));
    }
    if let Some(error) = &proxy.last_error {
        line.push(Text::new(format!("  {error}"), Tone::Bad));
    }
    line
}
