//! Recognising a TLS ClientHello (RFC 8446 §4.1.2) among a connection's first bytes, without consuming them.
//!
//! The parser is our own because whatever is not a ClientHello has to be carried on untouched, so the raw bytes are
//! kept and nothing may be answered yet. It reads what the proxy needs and nothing else; the handshake proper, on the
//! same bytes replayed, is rustls's.

use std::{borrow::Cow, io, time::Duration};

use bytes::BytesMut;
use proxyplane_spec::limits;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::Semaphore,
    time::timeout,
};

/// Longest ClientHello that is read: what rustls takes as well.
pub const HELLO_MAX: usize = 0xffff;
/// Most bytes on the wire for it: record headers of a fragmented one come on top. Beyond, it is no ClientHello.
const WIRE_MAX: usize = HELLO_MAX + 16 * 1024;
/// A connection may buffer this much by itself; real ClientHellos have 0.3–2 KiB, 1.8 with a post-quantum key share.
const SMALL: usize = 8 * 1024;
/// Connections that may buffer more than [`SMALL`] at once: 128 × 80 KiB = 10 MiB. The next ones wait for their turn
/// inside their own time-out, so senders of long unfinished ClientHellos hold up each other and nobody else.
static LARGE: Semaphore = Semaphore::const_new(128);
/// Room for each read: one is enough for nearly every ClientHello.
const READ: usize = 2 * 1024;
/// Longest record of plaintext (RFC 8446 §5.1).
const RECORD_MAX: usize = 1 << 14;

/// What the proxy needs to know of a ClientHello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Server name, as it was sent; `None` if none was. May be an IP address, although RFC 6066 forbids it.
    pub sni: Option<String>,
    /// Application protocols in the client's order; empty if there is no such extension.
    pub alpn: Vec<Vec<u8>>,
}

/// What the bytes so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sniffed {
    /// May become a ClientHello; more bytes are needed.
    Incomplete,
    /// A whole ClientHello.
    Hello(ClientHello),
    /// Something else, or a ClientHello that is longer than [`HELLO_MAX`] or malformed.
    NotTls,
}

/// Looks at a growing buffer; each byte is looked at a bounded number of times, however small the pieces.
#[derive(Debug, Default)]
pub struct Sniffer {
    /// Where the first record that is not complete yet begins.
    next_record: usize,
    /// Handshake bytes in the complete records.
    payload: usize,
    /// Length of the handshake message with its header, once known.
    message: Option<usize>,
}

impl Sniffer {
    /// Looks at `bytes`: everything that came so far, from the connection's first byte.
    pub fn look(&mut self, bytes: &[u8]) -> Sniffed {
        self.try_look(bytes).unwrap_or(Sniffed::NotTls)
    }

    fn try_look(&mut self, bytes: &[u8]) -> Option<Sniffed> {
        loop {
            let rest = bytes.get(self.next_record..)?;
            let Some(payload) = record(rest)? else { break };
            self.next_record += HEADER + payload.len();
            self.payload += payload.len();
            if self.message.is_none() && self.payload >= 4 {
                self.message = Some(message_length(bytes, self.next_record)?);
            }
            if self.message.is_some_and(|length| self.payload >= length) {
                let handshake = assemble(bytes, self.next_record);
                let mut message = Reader(&handshake);
                message.take(4)?;
                return parse(&mut message).map(Sniffed::Hello);
            }
        }
        // The type of the handshake message tells a ClientHello from other TLS before its record is complete.
        let not_hello = self.payload == 0 && bytes.get(HEADER).is_some_and(|kind| *kind != CLIENT_HELLO);
        (!not_hello && bytes.len() < WIRE_MAX).then_some(Sniffed::Incomplete)
    }
}

/// Reads from `io` into `buffer`, which may hold bytes already, until they are a ClientHello or are not one.
///
/// Fails with `TimedOut` after [`limits::TLS_TIMEOUT`] and with `UnexpectedEof` if the client closes first; what came
/// is in `buffer` in every case.
pub async fn read<R>(io: &mut R, buffer: &mut BytesMut) -> io::Result<Sniffed>
where
    R: AsyncRead + Unpin,
{
    read_within(io, buffer, limits::TLS_TIMEOUT).await
}

async fn read_within<R>(io: &mut R, buffer: &mut BytesMut, limit: Duration) -> io::Result<Sniffed>
where
    R: AsyncRead + Unpin,
{
    let reading = async {
        let mut sniffer = Sniffer::default();
        let mut permit = None;
        loop {
            match sniffer.look(buffer) {
                Sniffed::Incomplete => {}
                done => return Ok(done),
            }
            if buffer.len() >= SMALL && permit.is_none() {
                permit = LARGE.acquire().await.ok();
            }
            buffer.reserve(READ);
            if io.read_buf(buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    };
    timeout(limit, reading)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Bytes of a record's header.
const HEADER: usize = 5;
/// Type of the handshake message.
const CLIENT_HELLO: u8 = 1;

/// The payload of the handshake record that `bytes` begins with: `None` if it cannot be one, `Some(None)` if bytes are
/// missing.
#[expect(
    clippy::option_option,
    reason = "impossible and incomplete are two things, and this never leaves the module"
)]
fn record(bytes: &[u8]) -> Option<Option<&[u8]>> {
    const HANDSHAKE: u8 = 22;
    const MAJOR_VERSION: u8 = 3;
    let plausible =
        bytes.first().is_none_or(|kind| *kind == HANDSHAKE) && bytes.get(1).is_none_or(|major| *major == MAJOR_VERSION);
    if !plausible {
        return None;
    }
    let Some([_, _, _, high, low]) = bytes.first_chunk::<HEADER>() else {
        return Some(None);
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length == 0 || length > RECORD_MAX {
        return None;
    }
    Some(bytes.get(HEADER..HEADER + length))
}

/// Payloads of the complete records in `bytes`, which end at `end`.
fn payloads(bytes: &[u8], end: usize) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes.get(..end).unwrap_or_default();
    std::iter::from_fn(move || {
        let payload = record(rest)??;
        rest = rest.get(HEADER + payload.len()..)?;
        Some(payload)
    })
}

/// Length of the handshake message, its header included.
fn message_length(bytes: &[u8], end: usize) -> Option<usize> {
    let mut header = payloads(bytes, end).flatten().copied();
    let (kind, a, b, c) = (header.next()?, header.next()?, header.next()?, header.next()?);
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    (kind == CLIENT_HELLO && length <= HELLO_MAX).then_some(4 + length)
}

/// The handshake bytes of all complete records; copied only if there are several.
fn assemble(bytes: &[u8], end: usize) -> Cow<'_, [u8]> {
    let mut all = payloads(bytes, end);
    let first = all.next().unwrap_or_default();
    match all.next() {
        None => Cow::Borrowed(first),
        Some(second) => {
            let mut whole = [first, second].concat();
            all.for_each(|payload| whole.extend_from_slice(payload));
            Cow::Owned(whole)
        }
    }
}

fn parse(hello: &mut Reader<'_>) -> Option<ClientHello> {
    const SERVER_NAME: u16 = 0;
    const ALPN: u16 = 16;
    let mut found = ClientHello::default();
    hello.take(2 + 32)?; // version, random
    hello.vec8()?; // session id
    hello.vec16()?; // cipher suites
    hello.vec8()?; // compression methods
    if hello.0.is_empty() {
        return Some(found); // TLS 1.2 allows a hello without extensions
    }
    let mut extensions = hello.vec16()?;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let mut body = extensions.vec16()?;
        match kind {
            SERVER_NAME => found.sni = server_name(&mut body)?,
            ALPN => found.alpn = protocols(&mut body)?,
            _ => {}
        }
    }
    Some(found)
}

#[expect(
    clippy::option_option,
    reason = "malformed and absent are two things, and this never leaves the module"
)]
fn server_name(body: &mut Reader<'_>) -> Option<Option<String>> {
    const HOST_NAME: u8 = 0;
    let mut list = body.vec16()?;
    while !list.0.is_empty() {
        let kind = list.u8()?;
        let name = list.vec16()?.0;
        if kind == HOST_NAME && !name.is_empty() {
            return Some(Some(String::from_utf8_lossy(name).into_owned()));
        }
    }
    Some(None)
}

fn protocols(body: &mut Reader<'_>) -> Option<Vec<Vec<u8>>> {
    let mut list = body.vec16()?;
    let mut all = Vec::new();
    while !list.0.is_empty() {
        all.push(list.vec8()?.0.to_vec());
    }
    Some(all)
}

/// Takes fields off the front of a slice; `None` where it is too short.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }

    fn vec8(&mut self) -> Option<Reader<'a>> {
        let length = self.u8()?;
        self.take(length.into()).map(Reader)
    }

    fn vec16(&mut self) -> Option<Reader<'a>> {
        let length = self.u16()?;
        self.take(length.into()).map(Reader)
    }
}
