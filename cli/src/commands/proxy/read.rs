//! `proxyctl proxy list` and `get`

use proxyplane_proto::v1::ListProxyServicesRequest;

use super::{super::Context, Named};
use crate::{
    error::Error,
    names::{self, PAGE},
    view::Proxy,
};

pub(super) async fn list(context: &Context) -> Result<(), Error> {
    let (workspace_id, _) = names::scope(&context.client, None, context.workspace()).await?;
    let mut list = context.output.list();
    let mut page_token = String::new();
    loop {
        let request = ListProxyServicesRequest {
            workspace_id: workspace_id.clone(),
            page_size: PAGE,
            page_token,
            ..Default::default()
        };
        let page = context
            .client
            .proxies()
            .list_proxy_services(request)
            .await?
            .into_inner();
        for proxy in page.proxy_services {
            list.push(Proxy::from(proxy))?;
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return list.finish("no proxies yet; make one: proxyctl proxy create NAME --start");
        }
    }
}

pub(super) async fn get(context: &Context, named: &Named) -> Result<(), Error> {
    context.output.object(&Proxy::from(named.resolve(context).await?))
}
