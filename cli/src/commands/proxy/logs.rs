//! `proxyctl proxy logs`

use clap::Args;
use proxyplane_proto::v1::ReadProxyServiceLogsRequest;
use serde_json::json;

use super::{super::Context, Named};
use crate::{error::Error, follow::Connection, output::Text};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    named: Named,
    /// Stay for new lines.
    #[arg(short, long)]
    follow: bool,
    /// Lines to begin with, from the end.
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = 200, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    tail: i32,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<(), Error> {
    let id = arguments.named.resolve(context).await?.id;
    let mut connection = Connection::default();
    let mut request = ReadProxyServiceLogsRequest {
        id,
        tail: arguments.tail,
        follow: arguments.follow,
    };
    loop {
        let end = read(context, &request, &mut connection).await;
        if !arguments.follow {
            return end;
        }
        connection.lost(end.err()).await?;
        // There is no place in a log to resume from: the last line is where people see it go on.
        request.tail = 1;
    }
}

async fn read(
    context: &Context,
    request: &ReadProxyServiceLogsRequest,
    connection: &mut Connection,
) -> Result<(), Error> {
    let mut stream = context
        .client
        .proxies()
        .read_proxy_service_logs(request.clone())
        .await?
        .into_inner();
    if request.follow {
        connection.up("lines of the meantime may be missing");
    }
    while let Some(batch) = stream.message().await? {
        for line in batch.lines {
            context
                .output
                .item(&json!({ "line": line }), || vec![Text::plain(&line)])?;
        }
    }
    Ok(())
}
