//! `proxyctl event watch`

use clap::Args;
use proxyplane_proto::v1::{WatchEventsRequest, watch_events_response::Item};

use super::{super::Context, Which};
use crate::{error::Error, follow::Connection, names, view::Event};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Result<(), Error> {
    let which = arguments.which;
    let scope = names::stored_scope(&context.client, which.proxy.as_deref(), context.workspace()).await?;
    let mut request = WatchEventsRequest {
        filter: Some(which.filter(scope)),
        after_id: String::new(),
    };
    let mut connection = Connection::default();
    loop {
        let end = watch(context, &mut request, &mut connection).await;
        connection.lost(end.err()).await?;
    }
}

/// Until the stream ends. `request` is then where to resume.
async fn watch(context: &Context, request: &mut WatchEventsRequest, connection: &mut Connection) -> Result<(), Error> {
    let mut stream = context
        .client
        .events()
        .watch_events(request.clone())
        .await?
        .into_inner();
    while let Some(message) = stream.message().await? {
        match message.item {
            Some(Item::SubscribedAfterId(id)) => {
                connection.up("what happened in the meantime follows");
                request.after_id = id;
            }
            Some(Item::Event(event)) => {
                request.after_id.clone_from(&event.id);
                let event = Event::from(event);
                context.output.item(&event, || event.line())?;
            }
            // An item that a newer server knows.
            None => {}
        }
    }
    Ok(())
}
