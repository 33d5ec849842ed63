//! `proxyctl proxy rollback`

use clap::Args;
use proxyplane_proto::v1::RollbackProxyServiceRequest;

use super::{
    super::{Context, present},
    Named, revisions,
};
use crate::{error::Error, output, view::Proxy};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    named: Named,
    /// The revision to return to (the one before the current unless given).
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    revision: Option<i64>,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<(), Error> {
    let current = arguments.named.resolve(context).await?;
    let (revision, etag) = match arguments.revision {
        Some(revision) => (revision, String::new()),
        // It is the one before what was read, so that has to be current still.
        None => (revisions::previous(context, &current).await?, current.etag),
    };
    let request = RollbackProxyServiceRequest {
        id: current.id,
        revision,
        etag,
        validate_only: false,
    };
    let answer = context
        .client
        .proxies()
        .rollback_proxy_service(request)
        .await?
        .into_inner();
    let proxy = present(answer.proxy_service)?;
    let now = proxy.revision;
    let proxy = Proxy::from(proxy);
    output::talk(&format!(
        "proxy '{}' rolled back to revision {revision}; that is revision {now} now",
        proxy.full_name()
    ));
    context.output.changed(&proxy)
}
