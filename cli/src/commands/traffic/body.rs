//! `proxyctl traffic body`

use std::io::{self, IsTerminal as _};

use clap::{Args, ValueEnum};
use proxyplane_proto::v1::{BodySide, Exchange, GetExchangeRequest, StreamBodyRequest};

use super::super::{Context, present};
use crate::{error::Error, escape, output, when};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The exchange's id.
    id: String,
    /// Whose body.
    #[arg(value_enum)]
    side: Side,
    /// The bytes as sent: do not undo the content encoding.
    #[arg(long)]
    raw: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Side {
    Request,
    Response,
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Result<(), Error> {
    let get = GetExchangeRequest {
        id: arguments.id.clone(),
    };
    let detail = present(context.client.traffic().get_exchange(get).await?.into_inner().exchange)?;
    let side = match arguments.side {
        Side::Request => BodySide::Request,
        Side::Response => BodySide::Response,
    };
    let request = StreamBodyRequest {
        exchange_id: arguments.id,
        side: side.into(),
        decode: !arguments.raw,
    };
    let mut stream = context.client.traffic().stream_body(request).await?.into_inner();
    let mut sink = BodySink::new();
    while let Some(chunk) = stream.message().await? {
        sink.write(&chunk.data)?;
    }
    sink.finish()?;
    if let Some(exchange) = &detail.exchange {
        tell_truncation(exchange, arguments.side);
    }
    Ok(())
}

fn tell_truncation(exchange: &Exchange, side: Side) {
    let (cut, kept, whole) = match side {
        Side::Request => (
            exchange.request_truncated,
            exchange.request_captured,
            exchange.request_size,
        ),
        Side::Response => (
            exchange.response_truncated,
            exchange.response_captured,
            exchange.response_size,
        ),
    };
    if cut {
        output::talk(&format!(
            "truncated: {} of {} were kept",
            when::bytes(kept),
            when::bytes(whole)
        ));
    }
}

/// Bytes on their way to standard output: as they are, or made harmless for a terminal.
pub(crate) enum BodySink {
    File,
    Terminal { escape: escape::Stream, line_ended: bool },
}

impl BodySink {
    pub(crate) fn new() -> Self {
        if io::stdout().is_terminal() {
            Self::Terminal {
                escape: escape::Stream::default(),
                line_ended: true,
            }
        } else {
            Self::File
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::File => output::write_bytes(bytes),
            Self::Terminal { escape, line_ended } => {
                let text = escape.push(bytes);
                *line_ended = text.chars().last().map_or(*line_ended, |last| last == '\n');
                output::write_out(&text)
            }
        }
    }

    pub(crate) fn finish(self) -> Result<(), Error> {
        let Self::Terminal { escape, line_ended } = self else {
            return Ok(());
        };
        let rest = escape.finish();
        // The prompt belongs on a line of its own.
        let end = if rest.is_empty() && line_ended { "" } else { "\n" };
        output::write_out(&(rest + end))
    }
}
