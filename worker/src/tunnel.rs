//! Bytes carried untouched in both directions, and counted.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use proxyplane_record::{ExchangeKind, error_code};
use proxyplane_spec::limits;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep},
};

use crate::{
    capture::Recorder,
    core::ReadBuffer,
    disconnect::{self, Peer},
    service::Drain,
};

/// After one side has ended, the other may go on for as long as it says something this often.
const HALF_CLOSED_IDLE: Duration = Duration::from_mins(1);

/// Carries bytes until both sides have ended, or one fails, or the service's drain deadline has passed.
///
/// The prefixes are bytes already read from either side. Sizes are recorded, contents are not.
pub async fn run<C, U>(
    recorder: Recorder,
    mut client: C,
    client_prefix: Bytes,
    mut upstream: U,
    upstream_prefix: Bytes,
    drain: &Drain,
) where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    recorder.with(|exchange| exchange.kind = ExchangeKind::Tunnel.into());
    recorder.open();
    let mut up = Direction::new(&client_prefix);
    let mut down = Direction::new(&upstream_prefix);
    let carry = async {
        let mut idle = std::pin::pin!(sleep(HALF_CLOSED_IDLE));
        poll_fn(|cx| {
            let moved_up = up.poll(cx, &mut client, &mut upstream, |count| recorder.count_request(count));
            let moved_down = down.poll(cx, &mut upstream, &mut client, |count| recorder.count_response(count));
            if let Some(fault) = up.fault(Peer::Client).or_else(|| down.fault(Peer::Origin)) {
                return Poll::Ready(Some(fault));
            }
            if up.is_over() && down.is_over() {
                return Poll::Ready(None);
            }
            if up.is_over() || down.is_over() {
                if moved_up || moved_down {
                    idle.as_mut().reset(Instant::now() + HALF_CLOSED_IDLE);
                }
                return idle.as_mut().poll(cx).map(|()| None);
            }
            Poll::Pending
        })
        .await
    };
    let ended = tokio::select! {
        biased;
        ended = carry => ended,
        () = drain.deadline() => Some((error_code::DRAINED, "closed at the deadline of a stop".to_owned())),
    };
    if let Some((code, detail)) = ended {
        recorder.fail(code, detail);
    }
    recorder.finish();
}

enum State {
    Reading,
    Writing,
    Flushing,
    /// The sender has ended, the receiver is to be told.
    Ending,
    Over,
    ReadFailed(io::Error),
    WriteFailed(io::Error),
}

/// One direction and its buffer, which is small until more passes.
struct Direction {
    buffer: ReadBuffer,
    state: State,
}

impl Direction {
    fn new(prefix: &[u8]) -> Self {
        let state = if prefix.is_empty() {
            State::Reading
        } else {
            State::Writing
        };
        Self {
            buffer: ReadBuffer::holding(prefix),
            state,
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    fn fault(&self, from: Peer) -> Option<(&'static str, String)> {
        let (peer, error) = match (&self.state, from) {
            (State::ReadFailed(error), Peer::Client) | (State::WriteFailed(error), Peer::Origin) => {
                (Peer::Client, error)
            }
            (State::ReadFailed(error), Peer::Origin) | (State::WriteFailed(error), Peer::Client) => {
                (Peer::Origin, error)
            }
            _ => return None,
        };
        Some((peer.aborted(), disconnect::in_words(peer, error)))
    }

    /// Goes on as far as it can; true if anything passed.
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W, count: impl Fn(u64)) -> bool
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut moved = false;
        loop {
            self.state = match self.state {
                State::Reading => match self.buffer.poll_fill(cx, from, limits::COPY_BUFFER) {
                    Poll::Ready(Ok(0)) => State::Ending,
                    Poll::Ready(Ok(_)) => State::Writing,
                    Poll::Ready(Err(error)) => State::ReadFailed(error),
                    Poll::Pending => return moved,
                },
                State::Writing => match self.poll_write(cx, to) {
                    Poll::Ready(Ok(written)) => {
                        moved = true;
                        count(written);
                        if self.buffer.is_empty() {
                            State::Flushing
                        } else {
                            State::Writing
                        }
                    }
                    Poll::Ready(Err(error)) => State::WriteFailed(error),
                    Poll::Pending => return moved,
                },
                State::Flushing => match Pin::new(&mut *to).poll_flush(cx) {
                    Poll::Ready(Ok(())) => State::Reading,
                    Poll::Ready(Err(error)) => State::WriteFailed(error),
                    Poll::Pending => return moved,
                },
                State::Ending => match Pin::new(&mut *to).poll_shutdown(cx) {
                    // The receiver may be gone already, which is an end just as well.
                    Poll::Ready(_) => State::Over,
                    Poll::Pending => return moved,
                },
                State::Over | State::ReadFailed(_) | State::WriteFailed(_) => return moved,
            };
        }
    }

    fn poll_write<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<io::Result<u64>> {
        let written = ready!(Pin::new(to).poll_write(cx, self.buffer.filled()))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.buffer.consume(written);
        Poll::Ready(Ok(written as u64))
    }
}
