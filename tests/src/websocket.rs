//! WebSocket frames (RFC 6455 §5.2) as bytes, and what the history says of WebSockets.

use std::io;

use serde_json::Value;

use crate::{Peer, Proxy, RawClient};

/// Set in the second byte of a frame that is masked.
const MASKED: u8 = 0x80;
/// In place of a length: it follows in two bytes, or in eight.
const LENGTH_16: u8 = 0x7e;
const LENGTH_64: u8 = 0x7f;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A handshake's answer of an origin, as far as a client looks at it.
pub const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Is it the last of its message?
    pub last: bool,
    /// The first reserved bit: permessage-deflate compressed it.
    pub compressed: bool,
    /// Opcode.
    pub opcode: u8,
    /// Payload, unmasked.
    pub payload: Vec<u8>,
}

impl Frame {
    fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        let payload = payload.as_ref().to_vec();
        Self {
            last: true,
            compressed: false,
            opcode,
            payload,
        }
    }

    /// A text message.
    pub fn text(payload: &str) -> Self {
        Self::new(1, payload)
    }

    /// A binary message.
    pub fn binary(payload: impl AsRef<[u8]>) -> Self {
        Self::new(2, payload)
    }

    /// Goes on with a message.
    pub fn continuation(payload: impl AsRef<[u8]>) -> Self {
        Self::new(0, payload)
    }

    /// A Ping.
    pub fn ping(payload: &str) -> Self {
        Self::new(9, payload)
    }

    /// A Pong.
    pub fn pong(payload: &str) -> Self {
        Self::new(10, payload)
    }

    /// A Close with code and reason.
    pub fn close(code: u16, reason: &str) -> Self {
        Self::new(8, [&code.to_be_bytes()[..], reason.as_bytes()].concat())
    }

    /// More of its message follows.
    #[must_use]
    pub fn unfinished(self) -> Self {
        Self { last: false, ..self }
    }

    /// Its payload is compressed.
    #[must_use]
    pub fn compressed(self) -> Self {
        Self {
            compressed: true,
            ..self
        }
    }

    fn bytes(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let masked = if mask.is_some() { MASKED } else { 0 };
        let mut bytes = vec![u8::from(self.last) << 7 | u8::from(self.compressed) << 6 | self.opcode];
        let length = self.payload.len();
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ ..LENGTH_16), _) => bytes.push(masked | short),
            (_, Ok(medium)) => {
                bytes.push(masked | LENGTH_16);
                bytes.extend(medium.to_be_bytes());
            }
            _ => {
                bytes.push(masked | LENGTH_64);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(mask.into_iter().flatten());
        let mask = mask.unwrap_or_default();
        bytes.extend(
            self.payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        bytes
    }

    fn read(mut read: impl FnMut(usize) -> io::Result<Vec<u8>>) -> io::Result<Self> {
        let mut exactly = |count: usize| match read(count) {
            Ok(bytes) if bytes.len() == count => Ok(bytes),
            Ok(_) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Err(error) => Err(error),
        };
        let head = exactly(2)?;
        let length = match head[1] & !MASKED {
            LENGTH_16 => exactly(2)?,
            LENGTH_64 => exactly(8)?,
            short => vec![short],
        };
        let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let mask = if head[1] & MASKED == 0 { vec![0; 4] } else { exactly(4)? };
        let payload = exactly(length)?;
        Ok(Self {
            last: head[0] & 0x80 != 0,
            compressed: head[0] & 0x40 != 0,
            opcode: head[0] & 0x0f,
            payload: payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask)
                .collect(),
        })
    }
}

impl RawClient {
    /// Asks for a WebSocket at `target` (a URL for a proxy, a path in a tunnel) with more fields, each with its line
    /// end: the head of the answer.
    #[track_caller]
    pub fn handshake(&mut self, target: &str, host: &str, fields: &str) -> String {
        self.send(format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
        ));
        self.read_head()
    }

    /// Sends a frame, masked as a client's must be.
    #[track_caller]
    pub fn send_frame(&mut self, frame: &Frame) -> &mut Self {
        self.send(frame.bytes(Some(MASK)))
    }

    /// Reads a frame.
    #[track_caller]
    pub fn read_frame(&mut self) -> Frame {
        Frame::read(|count| Ok(self.read_exactly(count))).expect("a frame comes")
    }
}

impl Peer {
    /// Sends a frame, unmasked as a server's must be.
    pub fn send_frame(&mut self, frame: &Frame) -> io::Result<()> {
        self.send(frame.bytes(None))
    }

    /// Reads a frame; an error at the end of the connection.
    pub fn read_frame(&mut self) -> io::Result<Frame> {
        Frame::read(|count| self.read_exactly(count))
    }
}

impl Proxy<'_> {
    /// Its WebSocket connections as they are stored now, newest first.
    #[track_caller]
    pub fn websockets(&self) -> Vec<Value> {
        self.rows(["websocket", "list", "-n", "0", "--proxy", self.id()])
    }

    /// Messages of a WebSocket as they are stored now, in order.
    #[track_caller]
    pub fn messages(&self, websocket: &str) -> Vec<Value> {
        self.rows(["websocket", "messages", websocket])
    }

    #[track_caller]
    fn rows<const N: usize>(&self, words: [&str; N]) -> Vec<Value> {
        let list = self.world().proxyctl([&["-o", "json"][..], &words].concat()).json();
        list.as_array().expect("a list is an array").clone()
    }
}
