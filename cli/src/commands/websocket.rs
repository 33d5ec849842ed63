//! `proxyctl websocket …`

use clap::Subcommand;
use proxyplane_proto::v1::{
    GetWebSocketConnectionRequest, ListWebSocketConnectionsRequest, ListWebSocketMessagesRequest,
    StreamWebSocketMessageRequest,
};

use super::{
    Context, present,
    traffic::{BodySink, OfProxy},
};
use crate::{
    error::Error,
    names,
    view::{Connection, Message},
};

/// Rows of a page of connections.
const CONNECTIONS: u64 = 500;
/// Rows of a page of messages, each up to 64 KiB.
const MESSAGES: u64 = 100;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List WebSocket connections, newest first.
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        of: OfProxy,
        /// At most this many; 0 means all.
        #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
        limit: u64,
    },
    /// Show one connection.
    Get {
        /// Id of the connection, which is that of its exchange.
        id: String,
    },
    /// List a connection's messages in the order in which they passed.
    Messages {
        /// Id of the connection.
        id: String,
        /// At most this many; 0 means all.
        #[arg(short = 'n', long, value_name = "N", default_value_t = 0)]
        limit: u64,
    },
    /// Write a message's whole payload to standard output.
    Payload {
        /// Id of the connection.
        id: String,
        /// Sequence number of the message.
        sequence: u64,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Error> {
    match verb {
        Verb::List { of, limit } => list(context, &of, limit).await,
        Verb::Get { id } => get(context, id).await,
        Verb::Messages { id, limit } => messages(context, id, limit).await,
        Verb::Payload { id, sequence } => payload(context, id, sequence).await,
    }
}

async fn list(context: &Context, of: &OfProxy, limit: u64) -> Result<(), Error> {
    let (workspace_id, proxy_id) =
        names::stored_scope(&context.client, of.proxy.as_deref(), context.workspace()).await?;
    let mut list = context.output.list();
    let mut left = if limit == 0 { u64::MAX } else { limit };
    let mut request = ListWebSocketConnectionsRequest {
        proxy_id,
        workspace_id,
        ..Default::default()
    };
    while left > 0 {
        request.page_size = left.min(CONNECTIONS) as i32;
        let page = context
            .client
            .traffic()
            .list_web_socket_connections(request.clone())
            .await?
            .into_inner();
        for connection in page.connections {
            list.push(Connection::from(connection))?;
            left -= 1;
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    list.finish("no WebSocket connections yet")
}

async fn get(context: &Context, exchange_id: String) -> Result<(), Error> {
    let request = GetWebSocketConnectionRequest { exchange_id };
    let answer = context
        .client
        .traffic()
        .get_web_socket_connection(request)
        .await?
        .into_inner();
    context.output.object(&Connection::from(present(answer.connection)?))
}

async fn messages(context: &Context, exchange_id: String, limit: u64) -> Result<(), Error> {
    let mut list = context.output.list();
    let mut left = if limit == 0 { u64::MAX } else { limit };
    let mut request = ListWebSocketMessagesRequest {
        exchange_id,
        ..Default::default()
    };
    while left > 0 {
        request.page_size = left.min(MESSAGES) as i32;
        let page = context
            .client
            .traffic()
            .list_web_socket_messages(request.clone())
            .await?
            .into_inner();
        for message in page.messages {
            list.push(Message::from(message))?;
            left -= 1;
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    list.finish("no messages")
}

async fn payload(context: &Context, exchange_id: String, sequence: u64) -> Result<(), Error> {
    let request = StreamWebSocketMessageRequest { exchange_id, sequence };
    let mut stream = context
        .client
        .traffic()
        .stream_web_socket_message(request)
        .await?
        .into_inner();
    let mut sink = BodySink::new();
    while let Some(chunk) = stream.message().await? {
        sink.write(&chunk.data)?;
    }
    sink.finish()
}
