//! `proxyctl proxy delete`

use clap::Args;
use proxyplane_proto::v1::DeleteProxyServiceRequest;
use serde_json::json;

use super::{
    super::Context,
    Named,
    progress::{self, DrainTimeout},
};
use crate::{error::Error, output, view::Proxy};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    named: Named,
    /// Remove its traffic as well.
    #[arg(long)]
    purge: bool,
    /// Do not wait for records that are left in spools of workers that died: they are lost.
    #[arg(long)]
    discard: bool,
    #[command(flatten)]
    drain: DrainTimeout,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<(), Error> {
    let proxy = Proxy::from(arguments.named.resolve(context).await?);
    let name = proxy.full_name();
    if arguments.purge && !arguments.yes && !output::confirm(&format!("Delete proxy '{name}' and all of its traffic?"))?
    {
        return Err(Error::Usage("nothing was deleted".into()));
    }
    let request = DeleteProxyServiceRequest {
        id: proxy.id.clone(),
        purge: arguments.purge,
        discard: arguments.discard,
        drain_timeout: arguments.drain.value()?,
        ..Default::default()
    };
    let mut proxies = context.client.proxies();
    let deletion = proxies.delete_proxy_service(request);
    let waits_for = |proxy: &Proxy| {
        let records = || progress::records(proxy).filter(|_| !arguments.discard);
        progress::open(proxy).or_else(records)
    };
    progress::told(context, &proxy.id, deletion, waits_for).await?;
    let traffic = if arguments.purge {
        "with its traffic"
    } else {
        "and its traffic kept"
    };
    output::talk(&format!("proxy '{name}' deleted {traffic}"));
    context
        .output
        .changed(&json!({ "id": proxy.id, "name": proxy.name, "deleted": true, "purged": arguments.purge }))
}
