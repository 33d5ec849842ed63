//! `proxyctl traffic tail`

use std::collections::HashSet;

use clap::Args;
use proxyplane_proto::v1::{
    Exchange as Message, ExchangeKind, ExchangeState, WatchTrafficRequest, watch_traffic_response::Event,
};
use serde::Serialize;
use serde_json::json;

use super::{super::Context, OfProxy};
use crate::{
    error::Error,
    follow::Connection as Link,
    names, output,
    output::{Text, Tone},
    view,
};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    of: OfProxy,
    /// Every event: begun, completed, stored, WebSocket opened, message, closed. All but stored may be dropped when this
    /// reader is slow, and it is told how many.
    #[arg(long)]
    events: bool,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<(), Error> {
    let (workspace_id, proxy_id) =
        names::scope(&context.client, arguments.of.proxy.as_deref(), context.workspace()).await?;
    let mut tail = Tail {
        context,
        request: WatchTrafficRequest {
            proxy_id,
            workspace_id,
            after_position: 0,
            stored_only: !arguments.events,
        },
        shown_open: HashSet::new(),
    };
    let mut link = Link::default();
    loop {
        let end = tail.watch(&mut link).await;
        link.lost(end.err()).await?;
    }
}

struct Tail<'a> {
    context: &'a Context,
    /// `after_position` is where the next attempt resumes.
    request: WatchTrafficRequest,
    /// Exchanges that were shown when they opened and have not ended.
    shown_open: HashSet<String>,
}

impl Tail<'_> {
    /// Until the stream ends.
    async fn watch(&mut self, link: &mut Link) -> Result<(), Error> {
        let mut stream = self
            .context
            .client
            .traffic()
            .watch_traffic(self.request.clone())
            .await?
            .into_inner();
        while let Some(message) = stream.message().await? {
            let Some(event) = message.event else { continue };
            match event {
                Event::Subscribed(subscribed) => {
                    let resumed = if self.request.after_position > 0 {
                        "what was stored in the meantime follows"
                    } else {
                        "what was stored in the meantime is not shown"
                    };
                    link.up(resumed);
                    self.request.after_position = self.request.after_position.max(subscribed.position);
                }
                Event::Missed(count) => output::talk(&format!("{count} live events were dropped: this reader is slow")),
                event => self.show(event)?,
            }
        }
        Ok(())
    }

    fn show(&mut self, event: Event) -> Result<(), Error> {
        if let Event::Stored(exchange) = &event {
            self.request.after_position = self.request.after_position.max(exchange.position);
        }
        if !self.request.stored_only {
            return show_event(self.context, event);
        }
        let Event::Stored(exchange) = event else { return Ok(()) };
        if !self.is_due(&exchange) {
            return Ok(());
        }
        let exchange = view::Exchange::from(exchange);
        self.context.output.item(&exchange, || exchange.line())
    }

    /// One line per exchange: WebSockets and tunnels when they open, all others when they have ended.
    fn is_due(&mut self, exchange: &Message) -> bool {
        let lasting = matches!(exchange.kind(), ExchangeKind::Websocket | ExchangeKind::Tunnel);
        match exchange.state() {
            ExchangeState::Open => lasting && self.shown_open.insert(exchange.id.clone()),
            _ => !self.shown_open.remove(&exchange.id),
        }
    }
}

fn show_event(context: &Context, event: Event) -> Result<(), Error> {
    match event {
        Event::Begun(exchange) => show_exchange(context, "begun", exchange),
        Event::Completed(exchange) => show_exchange(context, "completed", exchange),
        Event::Stored(exchange) => show_exchange(context, "stored", exchange),
        Event::WebsocketOpened(connection) => show_connection(context, "websocket_opened", connection),
        Event::WebsocketClosed(connection) => show_connection(context, "websocket_closed", connection),
        Event::WebsocketMessage(message) => {
            let message = view::Message::from(message);
            emit(context, "websocket_message", "message", &message, || message.line())
        }
        Event::Missed(_) | Event::Subscribed(_) => Ok(()),
    }
}

fn show_exchange(context: &Context, event: &'static str, exchange: Message) -> Result<(), Error> {
    let exchange = view::Exchange::from(exchange);
    emit(context, event, "exchange", &exchange, || exchange.line())
}

fn show_connection(
    context: &Context,
    event: &'static str,
    connection: proxyplane_proto::v1::WebSocketConnection,
) -> Result<(), Error> {
    let connection = view::Connection::from(connection);
    emit(context, event, "connection", &connection, || connection.line())
}

fn emit<T: Serialize>(
    context: &Context,
    event: &'static str,
    key: &'static str,
    value: &T,
    line: impl FnOnce() -> Vec<Text>,
) -> Result<(), Error> {
    context.output.item(&json!({ "event": event, key: value }), || {
        let mut pieces = vec![Text::new(format!("{event:<18}"), Tone::Faint)];
        pieces.extend(line());
        pieces
    })
}
