//! HTTP/2 (RFC 9113) on both legs: every stream is an exchange, carried to a stream of the same client's connection to
//! the origin. Nothing is translated: heads, trailers, 1xx and reset codes pass as they come.

mod answer;
mod budget;
mod exchange;
mod fault;
mod head;
mod origin;
mod pump;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use h2::{Reason, RecvStream, server};
use http::Request;
use proxyplane_record::ExchangeKind;
use proxyplane_spec::limits;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use self::{budget::Budget, exchange::Outcome, origin::Origins};
use crate::{
    forward::Connection,
    upstream::{Origin, Upstream},
};

/// Streams that a client may have open at once. Those that an origin allows fewer of wait here.
const STREAMS_MAX: u32 = 250;
/// Exchanges that may still be ending while a client opens and resets new ones (rapid reset, CVE-2023-44487).
const EXCHANGES_MAX: usize = 2 * STREAMS_MAX as usize;
/// Flow-control windows: large from the start, for a window of 64 KiB is a speed limit. What bounds memory is that
/// capacity is released only when the other side has taken the bytes.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Bytes of a stream that wait to be written.
const SEND_BUFFER: usize = limits::COPY_BUFFER;
/// Largest DATA frame that is taken: fewer frames cost less than small ones.
const FRAME_MAX: u32 = 64 * 1024;
/// h2 refuses longer heads by itself and without a row, so it is told more than our limit. It takes this for a measure
/// of CONTINUATION frames too: so many of [`FRAME_MAX`] bytes, and clients make them of 16 KiB.
const HEADER_LIST_MAX: u32 = 4 * limits::HEAD_BYTES_MAX as u32;
/// Streams that were reset here are remembered so that what is still on its way is not taken for an error.
const RESETS_REMEMBERED: usize = 1_000;
/// Streams that a client may reset before we have seen them.
const RESETS_UNSEEN: usize = 100;
/// After a GOAWAY, until a client that has nothing open must have closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the exchanges of a client's connection share.
struct Shared {
    ctx: Connection,
    /// What CONNECT asked for.
    origin: Origin,
    origins: Origins,
}

/// Serves a client that speaks HTTP/2, over TLS or with prior knowledge; `upstream` speaks it too and is the first
/// connection to `origin`. More are dialled when that one ends, or if there is none. False if nothing was asked for.
pub async fn serve<C>(ctx: Connection, origin: Origin, client: C, upstream: Option<Upstream>) -> bool
where
    C: AsyncRead + AsyncWrite + Send + Unpin,
{
    let origins = Origins::new(Arc::clone(&ctx.service), origin.clone(), upstream).await;
    let shared = Arc::new(Shared { ctx, origin, origins });
    let handshake = builder().handshake::<_, Bytes>(client);
    let mut asked = false;
    // Who does not finish the preface has asked for nothing.
    if let Ok(Ok(connection)) = timeout(limits::HEAD_TIMEOUT, handshake).await {
        let client = Client {
            shared,
            connection,
            exchanges: JoinSet::new(),
            resets: Budget::default(),
        };
        client.serve(&mut asked).await;
    }
    asked
}

fn builder() -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_MAX)
        .max_header_list_size(HEADER_LIST_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .max_pending_accept_reset_streams(RESETS_UNSEEN)
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

struct Client<C> {
    shared: Arc<Shared>,
    connection: server::Connection<C, Bytes>,
    exchanges: JoinSet<Outcome>,
    /// Streams that the client may reset before it has an answer.
    resets: Budget,
}

type Accepted = (Request<RecvStream>, server::SendResponse<Bytes>);

impl<C: AsyncRead + AsyncWrite + Unpin> Client<C> {
    /// Serves to the end of the connection; `asked` becomes true with the first request.
    async fn serve(mut self, asked: &mut bool) {
        let drain = self.shared.ctx.service.drain.clone();
        let mut draining = std::pin::pin!(drain.started());
        let mut deadline = std::pin::pin!(drain.deadline());
        let mut idle = std::pin::pin!(sleep(limits::KEEP_ALIVE_TIMEOUT));
        let mut closing = false;
        loop {
            tokio::select! {
                biased;
                () = &mut deadline => return self.close(Reason::NO_ERROR).await,
                () = &mut draining, if !closing => {
                    closing = true;
                    self.connection.graceful_shutdown();
                    idle.as_mut().reset(Instant::now() + CLOSE_TIMEOUT);
                }
                Some(ended) = self.exchanges.join_next(), if !self.exchanges.is_empty() => {
                    if !self.ended(&ended) {
                        return self.close(Reason::ENHANCE_YOUR_CALM).await;
                    }
                    let wait = if closing { CLOSE_TIMEOUT } else { limits::KEEP_ALIVE_TIMEOUT };
                    idle.as_mut().reset(Instant::now() + wait);
                }
                () = &mut idle, if self.exchanges.is_empty() => {
                    if closing {
                        return;
                    }
                    closing = true;
                    self.connection.graceful_shutdown();
                    idle.as_mut().reset(Instant::now() + CLOSE_TIMEOUT);
                }
                accepted = self.connection.accept() => match accepted {
                    Some(Ok(accepted)) if self.exchanges.len() < EXCHANGES_MAX => {
                        *asked = true;
                        self.begin(accepted);
                    }
                    Some(Ok(_)) => return self.close(Reason::ENHANCE_YOUR_CALM).await,
                    // The streams are told by h2; their exchanges end by themselves.
                    Some(Err(_)) | None => return self.finish().await,
                },
            }
        }
    }

    fn begin(&mut self, (request, respond): Accepted) {
        let shared = Arc::clone(&self.shared);
        let start = shared.ctx.start(ExchangeKind::Http);
        self.exchanges.spawn(exchange::run(shared, start, request, respond));
    }

    /// Minds how an exchange ended; false if the client resets too much.
    fn ended(&mut self, ended: &Result<Outcome, tokio::task::JoinError>) -> bool {
        match ended {
            Ok(Outcome::Served) => true,
            Ok(Outcome::Cancelled) => self.resets.take(Instant::now()),
            Err(error) => {
                if error.is_panic() {
                    self.shared.ctx.service.stats.panicked();
                    tracing::error!("an exchange's task panicked; the connection's others go on");
                }
                true
            }
        }
    }

    /// Tells the client that this is the end, whatever is open, and ends the exchanges.
    async fn close(mut self, reason: Reason) {
        self.connection.abrupt_shutdown(reason);
        let flush = std::future::poll_fn(|cx| self.connection.poll_closed(cx));
        let _ = timeout(CLOSE_TIMEOUT, flush).await;
        self.exchanges.shutdown().await;
    }

    /// Waits for exchanges to notice that the connection is gone.
    async fn finish(mut self) {
        drop(self.connection);
        while self.exchanges.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests;
