//! What a worker records of the traffic it carries, and how records are framed.
//!
//! A [`Record`] is the unit that is captured, sent over the worker link, committed and acknowledged. The same bytes
//! serve as frames of a batch on the link and as entries of a spool segment (see [`frame`] and [`segment`]): a batch is
//! a run of frames, never re-encoded on its way.
//!
//! An exchange becomes either one [`Complete`], when it is over within two seconds and its bodies fit into
//! [`INLINE_BODY_MAX`], or a `Head` while it is open, [`BodyChunk`]s as bytes pass, and an `End` that repeats every
//! field with its final value. Failures, tunnels and WebSocket connections are exchanges too, told apart by
//! [`ExchangeKind`] and [`ExchangeState`].
//!
//! Fields are protobuf (prost), so that a worker of the previous release and a control plane of this one understand
//! each other: new fields get new tags, tags are never reused.

pub mod exchange;
pub mod frame;
pub mod segment;

use bytes::Bytes;
pub use exchange::{
    Exchange, ExchangeKind, ExchangeState, Flags, Side, Timings, TlsInfo, WebSocketSummary, error_code,
};

/// Bodies of one exchange up to this size together travel inside its [`Complete`] record.
pub const INLINE_BODY_MAX: usize = 64 * 1024;
/// Most bytes of body in one [`BodyChunk`] and of payload in one [`WsMessage`] part.
pub const CHUNK_MAX: usize = 64 * 1024;
/// An exchange that is open for longer gets a row while it is open.
pub const OPEN_ROW_AFTER_MS: u64 = 2_000;

/// One captured fact.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Record {
    /// What it is. `None` only for a kind that a newer worker sent.
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    pub kind: Option<Kind>,
}

/// The kinds of [`Record`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    /// A whole exchange.
    #[prost(message, tag = "1")]
    Complete(Complete),
    /// An exchange that is still open: everything known so far.
    #[prost(message, tag = "2")]
    Head(Exchange),
    /// A piece of a captured body.
    #[prost(message, tag = "3")]
    BodyChunk(BodyChunk),
    /// The end of an exchange that had a `Head`; repeats every field.
    #[prost(message, tag = "4")]
    End(Exchange),
    /// A WebSocket message, or a part of a long one.
    #[prost(message, tag = "5")]
    WsMessage(WsMessage),
    /// Records that were dropped because the spool was full.
    #[prost(message, tag = "6")]
    Gap(Gap),
}

/// An exchange with its bodies.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Complete {
    /// The exchange, with its final values.
    #[prost(message, required, tag = "1")]
    pub exchange: Exchange,
    /// Captured request body; its length is `exchange.request_captured`.
    #[prost(bytes = "bytes", tag = "2")]
    pub request_body: Bytes,
    /// Captured response body; its length is `exchange.response_captured`.
    #[prost(bytes = "bytes", tag = "3")]
    pub response_body: Bytes,
}

/// A piece of a captured body, at most [`CHUNK_MAX`] bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BodyChunk {
    /// UUID of the exchange, 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub exchange_id: Bytes,
    /// Which body.
    #[prost(enumeration = "Side", tag = "2")]
    pub side: i32,
    /// Position of the first byte in the captured body.
    #[prost(uint64, tag = "3")]
    pub offset: u64,
    /// The bytes, transfer coding removed, content encoding kept.
    #[prost(bytes = "bytes", tag = "4")]
    pub data: Bytes,
}

/// A WebSocket message, or one part of it when its payload is longer than [`CHUNK_MAX`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct WsMessage {
    /// UUID of the exchange that was upgraded, 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub exchange_id: Bytes,
    /// Order in the connection, from 0, both directions counted together. Parts of a message share it.
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    /// From 0; the parts' payloads joined are the captured payload.
    #[prost(uint32, tag = "3")]
    pub part: u32,
    /// Who sent it: `Request` is the client, `Response` the server.
    #[prost(enumeration = "Side", tag = "4")]
    pub side: i32,
    /// RFC 6455 §5.2 opcode of the message's first frame.
    #[prost(uint32, tag = "5")]
    pub opcode: u32,
    /// Wall time of its last byte (parts: of this part), microseconds since 1970.
    #[prost(int64, tag = "6")]
    pub at_us: i64,
    /// Captured payload, inflated where permessage-deflate was in force.
    #[prost(bytes = "bytes", tag = "7")]
    pub payload: Bytes,
    /// Size of the whole message, inflated; set in its last part, 0 in the others.
    #[prost(uint64, tag = "8")]
    pub size: u64,
    /// Captured less than `size`.
    #[prost(bool, tag = "9")]
    pub truncated: bool,
    /// It came compressed (RSV1, RFC 7692).
    #[prost(bool, tag = "10")]
    pub compressed: bool,
    /// No more parts follow.
    #[prost(bool, tag = "11")]
    pub last: bool,
}

/// Records that were lost, exactly counted.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Gap {
    /// First sequence number that is missing.
    #[prost(uint64, tag = "1")]
    pub first_seq: u64,
    /// How many are missing.
    #[prost(uint64, tag = "2")]
    pub records: u64,
    /// How many exchanges were among them.
    #[prost(uint64, tag = "3")]
    pub exchanges: u64,
    /// Wall time of the first, microseconds since 1970.
    #[prost(int64, tag = "4")]
    pub from_us: i64,
    /// Wall time of the last, microseconds since 1970.
    #[prost(int64, tag = "5")]
    pub to_us: i64,
}
