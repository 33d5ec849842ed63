//! `proxyctl proxy diff`

use clap::Args;
use proxyplane_proto::v1::{GetProxyServiceRevisionRequest, ProxyConfiguration, ProxyServiceRevision};

use super::{
    super::{Context, present},
    Named, revisions,
};
use crate::{
    error::Error,
    output,
    view::{Change, Configuration},
};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    named: Named,
    /// The older revision (the one before the current unless given).
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    a: Option<i64>,
    /// The newer revision (the current unless given).
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    b: Option<i64>,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<(), Error> {
    let proxy = arguments.named.resolve(context).await?;
    let b = arguments.b.unwrap_or(proxy.revision);
    let a = match arguments.a {
        Some(a) => a,
        None => revisions::previous(context, &proxy).await?,
    };
    let (old, new) = tokio::try_join!(held(context, &proxy.id, a), held(context, &proxy.id, b))?;
    let changes = Change::between(&Configuration::from(old), &Configuration::from(new))?;
    let same = if changes.is_empty() { ": nothing differs" } else { "" };
    output::talk(&format!(
        "{}/{}: revision {a} → {b}{same}",
        proxy.workspace_code, proxy.name
    ));
    context.output.items(&changes, Change::lines)
}

async fn held(context: &Context, id: &str, revision: i64) -> Result<ProxyConfiguration, Error> {
    let request = GetProxyServiceRevisionRequest {
        id: id.to_owned(),
        revision,
    };
    let answer = context
        .client
        .proxies()
        .get_proxy_service_revision(request)
        .await?
        .into_inner();
    let ProxyServiceRevision { configuration, .. } = present(answer.revision)?;
    present(configuration)
}
