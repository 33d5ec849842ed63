//! One direction of a WebSocket's bytes.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{future::poll_fn, io};

use bytes::Bytes;
use proxyplane_record::Side;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::frame;
use super::track::Track;
use crate::service::Drain;

/// Bytes read at once. The buffer is the thread's, not the connection's: an idle WebSocket holds none.
const READ: usize = 16 * 1024;
/// RFC 6455 §7.4.1: an endpoint is going away.
const GOING_AWAY: u16 = 1001;
/// After our Close frame, until the peer has closed too.
const CLOSE_LINGER: Duration = Duration::from_secs(5);

thread_local! {
    static BUFFER: RefCell<Box<[u8; READ]>> = RefCell::new(Box::new([0; READ]));
}

/// One direction: where from, where to, and what reads along.
pub(super) struct Leg<'a, R, W> {
    pub(super) from: R,
    pub(super) to: W,
    /// Read behind the handshake's head.
    pub(super) prefix: Bytes,
    pub(super) track: Track<'a>,
    pub(super) drain: &'a Drain,
    /// When our Close frame goes out, as a share of the drain's spread.
    pub(super) jitter: f64,
}

/// How a direction ended in order.
#[derive(Debug)]
pub(super) enum End {
    /// Its sender closed, and so did we towards its receiver.
    Eof,
    /// We sent a Close frame because the service stops.
    SaidGoodbye,
}

/// Which end of a direction failed.
#[derive(Debug)]
pub(super) enum Fault {
    Read(io::Error),
    Write(io::Error),
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Leg<'_, R, W> {
    /// Carries until the sender's end or the service's.
    pub(super) async fn carry(&mut self) -> Result<End, Fault> {
        let (drain, jitter) = (self.drain, self.jitter);
        let mut stop = std::pin::pin!(async {
            drain.started().await;
            tokio::time::sleep(drain.spread().mul_f64(jitter)).await;
        });
        let mut stopping = false;
        let mut chunk = Vec::from(std::mem::take(&mut self.prefix));
        loop {
            if stopping {
                if self.pass_to_boundary(&mut chunk).await? {
                    return self.say_goodbye().await;
                }
            } else {
                self.pass(&mut chunk).await?;
            }
            chunk = tokio::select! {
                biased;
                () = &mut stop, if !stopping => {
                    stopping = true;
                    Vec::new()
                }
                read = read(&mut self.from) => {
                    let chunk = read.map_err(Fault::Read)?;
                    if chunk.is_empty() {
                        return self.eof().await;
                    }
                    chunk
                }
            };
        }
    }

    async fn eof(&mut self) -> Result<End, Fault> {
        // The receiver may be gone already, which is an end just as well.
        let _ = self.to.shutdown().await;
        Ok(End::Eof)
    }

    /// Writes at once, reads along afterwards.
    async fn pass(&mut self, chunk: &mut [u8]) -> Result<(), Fault> {
        if !chunk.is_empty() {
            self.write(chunk).await?;
            self.track.watch(chunk).await;
        }
        Ok(())
    }

    /// Writes up to the first place where a Close frame of ours may stand; true if there is one.
    async fn pass_to_boundary(&mut self, chunk: &mut [u8]) -> Result<bool, Fault> {
        let mut copy = chunk.to_vec();
        let boundary = self.track.watch_to_boundary(&mut copy).await;
        self.write(&chunk[..boundary.unwrap_or(chunk.len())]).await?;
        Ok(boundary.is_some())
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.to.write_all(bytes).await.map_err(Fault::Write)?;
        self.to.flush().await.map_err(Fault::Write)
    }

    /// Sends our Close frame, then waits for the sender's own, or its end, without passing on what it still says.
    async fn say_goodbye(&mut self) -> Result<End, Fault> {
        let mask = (self.track.side() == Side::Request).then(rand::random);
        self.write(&frame::close(GOING_AWAY, "the proxy is stopping", mask))
            .await?;
        self.track.said_goodbye(GOING_AWAY);
        let answer = async {
            while let Ok(mut chunk) = read(&mut self.from).await {
                if chunk.is_empty() || self.track.ignore(&mut chunk) {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(CLOSE_LINGER, answer).await;
        let _ = self.to.shutdown().await;
        Ok(End::SaidGoodbye)
    }
}

/// What is there to read, at most [`READ`] bytes; empty at the end. Safe to cancel.
async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    poll_fn(|context| poll_read(Pin::new(from), context)).await
}

fn poll_read(from: Pin<&mut impl AsyncRead>, context: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
    BUFFER.with_borrow_mut(|bytes| {
        let mut buffer = ReadBuf::new(&mut bytes[..]);
        ready!(from.poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().to_vec()))
    })
}
