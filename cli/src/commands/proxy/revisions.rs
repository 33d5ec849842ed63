//! `proxyctl proxy revisions`

use clap::Args;
use proxyplane_proto::v1::{ListProxyServiceRevisionsRequest, ProxyService};

use super::{super::Context, Named};
use crate::{
    error::Error,
    names::{self, PAGE},
    view::Revision,
};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    named: Named,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<(), Error> {
    let proxy = arguments.named.resolve(context).await?;
    let mut list = context.output.list();
    let mut page_token = String::new();
    loop {
        let request = ListProxyServiceRevisionsRequest {
            id: proxy.id.clone(),
            page_size: PAGE,
            page_token,
        };
        let page = context
            .client
            .proxies()
            .list_proxy_service_revisions(request)
            .await?
            .into_inner();
        for revision in &page.revisions {
            list.push(Revision::new(revision, proxy.revision))?;
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return list.finish("no revisions");
        }
    }
}

/// The revision before the one that `proxy` has.
pub(super) async fn previous(context: &Context, proxy: &ProxyService) -> Result<i64, Error> {
    // One that is newer than what was read may have come in between.
    let request = ListProxyServiceRevisionsRequest {
        id: proxy.id.clone(),
        page_size: PAGE,
        page_token: String::new(),
    };
    let page = context
        .client
        .proxies()
        .list_proxy_service_revisions(request)
        .await?
        .into_inner();
    let mut numbers = page.revisions.iter().map(|row| row.revision);
    numbers
        .find(|revision| *revision < proxy.revision)
        .ok_or_else(|| names::not_found("a revision before", &proxy.revision.to_string(), None))
}
