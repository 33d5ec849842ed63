//! `proxyctl event list`

use std::time::SystemTime;

use clap::Args;
use proxyplane_proto::v1::ListEventsRequest;

use super::{super::Context, Which};
use crate::{error::Error, names, view::Event, when};

/// Rows of a page.
const PAGE: u64 = 500;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Only what happened at this time or later: RFC 3339, or an age such as 10m.
    #[arg(long, value_name = "TIME", value_parser = when::parse_since)]
    since: Option<SystemTime>,
    /// At most this many; 0 means all.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    limit: u64,
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Result<(), Error> {
    let which = arguments.which;
    // Events of a deleted proxy stay.
    let scope = names::stored_scope(&context.client, which.proxy.as_deref(), context.workspace()).await?;
    let mut request = ListEventsRequest {
        filter: Some(which.filter(scope)),
        since: arguments.since.map(Into::into),
        ..ListEventsRequest::default()
    };
    let mut list = context.output.list();
    let mut left = if arguments.limit == 0 {
        u64::MAX
    } else {
        arguments.limit
    };
    while left > 0 {
        request.page_size = left.min(PAGE) as i32;
        let page = context.client.events().list_events(request.clone()).await?.into_inner();
        for event in page.events {
            list.push(Event::from(event))?;
            left -= 1;
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    list.finish("no events match")
}
