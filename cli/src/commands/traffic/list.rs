//! `proxyctl traffic list`

use std::time::SystemTime;

use clap::Args;
use proxyplane_proto::v1::{ExchangeFilter, ListExchangesRequest};

use super::{super::Context, OfProxy};
use crate::{error::Error, names, view::Exchange, when};

/// Rows of a page: large enough to be quick, small enough to appear at once.
const PAGE: u64 = 500;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    of: OfProxy,
    /// Only this method, as sent.
    #[arg(short, long)]
    method: Option<String>,
    /// Only this host, or *.example.com for every host below it.
    #[arg(long)]
    host: Option<String>,
    /// Only this status: 404, 500-599 or 5xx.
    #[arg(short, long, value_parser = parse_status)]
    status: Option<Statuses>,
    /// Only what began at this time or later: RFC 3339, or an age such as 10m.
    #[arg(long, value_name = "TIME", value_parser = when::parse_since)]
    since: Option<SystemTime>,
    /// Only what began before this time.
    #[arg(long, value_name = "TIME", value_parser = when::parse_since)]
    until: Option<SystemTime>,
    /// At most this many; 0 means all.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    limit: u64,
}

/// Statuses from the first to the second, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Statuses(u32, u32);

pub(super) async fn run(context: &Context, arguments: Arguments) -> Result<(), Error> {
    let (workspace_id, proxy_id) =
        names::stored_scope(&context.client, arguments.of.proxy.as_deref(), context.workspace()).await?;
    let Statuses(status_min, status_max) = arguments.status.unwrap_or(Statuses(0, 0));
    let filter = ExchangeFilter {
        proxy_id,
        workspace_id,
        method: arguments.method.unwrap_or_default(),
        host: arguments.host.unwrap_or_default(),
        status_min,
        status_max,
        since: arguments.since.map(Into::into),
        until: arguments.until.map(Into::into),
    };
    let mut list = context.output.list();
    let mut left = if arguments.limit == 0 {
        u64::MAX
    } else {
        arguments.limit
    };
    let mut page_token = String::new();
    while left > 0 {
        let request = ListExchangesRequest {
            filter: Some(filter.clone()),
            page_size: left.min(PAGE) as i32,
            page_token,
        };
        let page = context.client.traffic().list_exchanges(request).await?.into_inner();
        for exchange in page.exchanges {
            list.push(Exchange::from(exchange))?;
            left -= 1;
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    list.finish("no exchanges match; `proxyctl proxy list` shows where clients can connect")
}

fn parse_status(text: &str) -> Result<Statuses, String> {
    let wrong = || "expected a status such as 404, a range such as 500-599, or 5xx".to_owned();
    let number = |text: &str| {
        let status: u32 = text.parse().map_err(|_| wrong())?;
        if (100..=999).contains(&status) {
            Ok(status)
        } else {
            Err(wrong())
        }
    };
    if let Some(class) = text.strip_suffix("xx") {
        let class = number(&format!("{class}00"))?;
        return Ok(Statuses(class, class + 99));
    }
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let range = Statuses(number(low)?, number(high)?);
    if range.0 <= range.1 { Ok(range) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_one_a_range_or_a_class() {
        assert_eq!(parse_status("404").unwrap(), Statuses(404, 404));
        assert_eq!(parse_status("500-599").unwrap(), Statuses(500, 599));
        assert_eq!(parse_status("5xx").unwrap(), Statuses(500, 599));
        for bad in ["", "xx", "5x", "599-500", "-", "20", "abc", "55xx"] {
            assert!(parse_status(bad).is_err(), "{bad:?}");
        }
    }
}
