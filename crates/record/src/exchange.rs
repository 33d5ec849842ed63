//! The exchange: one request and its answer, or the failure to get one.

use bytes::Bytes;

/// Everything stored of an exchange apart from its bodies.
///
/// Texts are bytes as they came: what is shown is escaped by the control plane. They are [`Bytes`] so that constants
/// and values that a connection's exchanges share cost no copy.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Exchange {
    /// UUIDv7, made when it began; 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// What it was.
    #[prost(enumeration = "ExchangeKind", tag = "2")]
    pub kind: i32,
    /// How far it came.
    #[prost(enumeration = "ExchangeState", tag = "3")]
    pub state: i32,
    /// Wall time of its beginning, microseconds since 1970.
    #[prost(int64, tag = "4")]
    pub started_at_us: i64,
    /// From beginning to end, monotonic; so far, in a `Head`.
    #[prost(uint64, tag = "5")]
    pub duration_us: u64,
    /// The client's `address:port`.
    #[prost(bytes = "bytes", tag = "6")]
    pub client: Bytes,
    /// Request method; `CONNECT` for tunnels and failed handshakes.
    #[prost(bytes = "bytes", tag = "7")]
    pub method: Bytes,
    /// `http`, `https`, `ws`, `wss` or `tcp`.
    #[prost(bytes = "bytes", tag = "8")]
    pub scheme: Bytes,
    /// Host without port; IPv6 without brackets.
    #[prost(bytes = "bytes", tag = "9")]
    pub host: Bytes,
    /// Port of the origin; 0 if it was never known.
    #[prost(uint32, tag = "10")]
    pub port: u32,
    /// Path of the target, from its `/`.
    #[prost(bytes = "bytes", tag = "11")]
    pub path: Bytes,
    /// Without `?`; absent when the target had none.
    #[prost(bytes = "bytes", optional, tag = "12")]
    pub query: Option<Bytes>,
    /// 10, 11 or 20; 0 when unknown.
    #[prost(uint32, tag = "13")]
    pub request_version: u32,
    /// 10, 11 or 20; 0 without an answer.
    #[prost(uint32, tag = "14")]
    pub response_version: u32,
    /// Status of the final answer; 0 without one.
    #[prost(uint32, tag = "15")]
    pub status: u32,
    /// Exact request head: HTTP/1 start line to empty line; HTTP/2 as `name: value` lines, pseudo-headers first.
    #[prost(bytes = "bytes", tag = "16")]
    pub request_head: Bytes,
    /// Exact head of the final answer.
    #[prost(bytes = "bytes", tag = "17")]
    pub response_head: Bytes,
    /// Heads of 1xx answers, concatenated.
    #[prost(bytes = "bytes", tag = "18")]
    pub informational_heads: Bytes,
    /// Request trailer fields as lines.
    #[prost(bytes = "bytes", tag = "19")]
    pub request_trailers: Bytes,
    /// Response trailer fields as lines.
    #[prost(bytes = "bytes", tag = "20")]
    pub response_trailers: Bytes,
    /// True size of the request body (tunnels: bytes from the client).
    #[prost(uint64, tag = "21")]
    pub request_size: u64,
    /// True size of the response body (tunnels: bytes from the origin).
    #[prost(uint64, tag = "22")]
    pub response_size: u64,
    /// Captured bytes of the request body.
    #[prost(uint64, tag = "23")]
    pub request_captured: u64,
    /// Captured bytes of the response body.
    #[prost(uint64, tag = "24")]
    pub response_captured: u64,
    /// Less was captured than passed.
    #[prost(bool, tag = "25")]
    pub request_truncated: bool,
    /// Less was captured than passed.
    #[prost(bool, tag = "26")]
    pub response_truncated: bool,
    /// One of [`error_code`]; empty when all went well.
    #[prost(bytes = "bytes", tag = "27")]
    pub error: Bytes,
    /// The same for people, with the cause.
    #[prost(bytes = "bytes", tag = "28")]
    pub error_detail: Bytes,
    /// How long each step took.
    #[prost(message, required, tag = "29")]
    pub timings: Timings,
    /// `address:port` that was connected to; empty if none was.
    #[prost(bytes = "bytes", tag = "30")]
    pub origin_address: Bytes,
    /// TLS between client and proxy.
    #[prost(message, optional, tag = "31")]
    pub client_tls: Option<TlsInfo>,
    /// TLS between proxy and origin.
    #[prost(message, optional, tag = "32")]
    pub origin_tls: Option<TlsInfo>,
    /// Bits of [`Flags`].
    #[prost(uint32, tag = "33")]
    pub flags: u32,
    /// Value of the request's Content-Type.
    #[prost(bytes = "bytes", tag = "34")]
    pub request_content_type: Bytes,
    /// Value of the response's Content-Type.
    #[prost(bytes = "bytes", tag = "35")]
    pub response_content_type: Bytes,
    /// Value of the request's Content-Encoding.
    #[prost(bytes = "bytes", tag = "36")]
    pub request_content_encoding: Bytes,
    /// Value of the response's Content-Encoding.
    #[prost(bytes = "bytes", tag = "37")]
    pub response_content_encoding: Bytes,
    /// Of a WebSocket: what its handshake agreed and its messages summed up to.
    #[prost(message, optional, tag = "38")]
    pub websocket: Option<WebSocketSummary>,
}

/// Microseconds of each step; absent where it did not happen.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Timings {
    /// Name resolution.
    #[prost(uint64, optional, tag = "1")]
    pub dns_us: Option<u64>,
    /// TCP connect.
    #[prost(uint64, optional, tag = "2")]
    pub connect_us: Option<u64>,
    /// TLS handshake with the origin.
    #[prost(uint64, optional, tag = "3")]
    pub tls_us: Option<u64>,
    /// From the exchange's beginning to the first byte of the answer.
    #[prost(uint64, optional, tag = "4")]
    pub first_byte_us: Option<u64>,
}

/// What one side's TLS handshake agreed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    #[prost(bytes = "bytes", tag = "1")]
    pub version: Bytes,
    /// IANA name of the cipher suite.
    #[prost(bytes = "bytes", tag = "2")]
    pub cipher: Bytes,
    /// `h2`, `http/1.1`, or empty.
    #[prost(bytes = "bytes", tag = "3")]
    pub alpn: Bytes,
    /// Server name that was sent; empty if none was.
    #[prost(bytes = "bytes", tag = "4")]
    pub sni: Bytes,
}

/// A WebSocket connection, beside its exchange.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WebSocketSummary {
    /// Sec-WebSocket-Protocol of the answer.
    #[prost(bytes = "bytes", tag = "1")]
    pub subprotocol: Bytes,
    /// Sec-WebSocket-Extensions of the answer.
    #[prost(bytes = "bytes", tag = "2")]
    pub extensions: Bytes,
    /// Wall time of the 101, microseconds since 1970.
    #[prost(int64, tag = "3")]
    pub opened_at_us: i64,
    /// Wall time of its end; 0 while open.
    #[prost(int64, tag = "4")]
    pub closed_at_us: i64,
    /// From the first Close frame; 0 if none passed, 1005 if it had no code.
    #[prost(uint32, tag = "5")]
    pub close_code: u32,
    /// From the first Close frame.
    #[prost(bytes = "bytes", tag = "6")]
    pub close_reason: Bytes,
    /// Messages, control frames included.
    #[prost(uint64, tag = "7")]
    pub messages_from_client: u64,
    /// Messages, control frames included.
    #[prost(uint64, tag = "8")]
    pub messages_from_server: u64,
    /// Inflated payload bytes.
    #[prost(uint64, tag = "9")]
    pub bytes_from_client: u64,
    /// Inflated payload bytes.
    #[prost(uint64, tag = "10")]
    pub bytes_from_server: u64,
}

/// What an exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ExchangeKind {
    /// A kind that a newer worker sent.
    Unknown = 0,
    /// A request and its answer, or the failure to get one.
    Http = 1,
    /// An upgrade to WebSocket.
    WebSocket = 2,
    /// Bytes carried untouched after CONNECT or an upgrade.
    Tunnel = 3,
    /// A CONNECT or TLS handshake that did not come to an exchange.
    Connect = 4,
}

/// How far an exchange came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ExchangeState {
    /// Not set.
    Unknown = 0,
    /// Under way.
    Open = 1,
    /// Came to its end.
    Complete = 2,
    /// Ended early or was refused; `error` says why.
    Failed = 3,
}

/// Direction of a body or message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Side {
    /// Not set.
    Unknown = 0,
    /// From client to origin.
    Request = 1,
    /// From origin to client.
    Response = 2,
}

/// Bits of [`Exchange::flags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags;

impl Flags {
    /// The upstream connection had carried an exchange before.
    pub const REUSED_UPSTREAM: u32 = 1 << 0;
    /// Sent a second time, on a new upstream connection.
    pub const RETRIED: u32 = 1 << 1;
    /// The client's TLS was terminated here.
    pub const INTERCEPTED: u32 = 1 << 2;
    /// Tunnelled because its host is on the passthrough list.
    pub const PASSTHROUGH: u32 = 1 << 3;
    /// Answered by the proxy itself (a refusal, an error page, the CA page).
    pub const LOCAL_ANSWER: u32 = 1 << 4;
    /// The answer came before the request's end.
    pub const EARLY_RESPONSE: u32 = 1 << 5;
    /// The origin's certificate was not verified.
    pub const INSECURE_UPSTREAM: u32 = 1 << 6;
    /// A body was cut because the queue or spool was full, not because of the service's limit.
    pub const SPOOL_TRUNCATED: u32 = 1 << 7;

    /// Every bit with the name shown to users.
    pub const NAMES: [(u32, &'static str); 8] = [
        (Self::REUSED_UPSTREAM, "reused_upstream"),
        (Self::RETRIED, "retried"),
        (Self::INTERCEPTED, "intercepted"),
        (Self::PASSTHROUGH, "passthrough"),
        (Self::LOCAL_ANSWER, "local_answer"),
        (Self::EARLY_RESPONSE, "early_response"),
        (Self::INSECURE_UPSTREAM, "insecure_upstream"),
        (Self::SPOOL_TRUNCATED, "spool_truncated"),
    ];
}

/// Stable codes of [`Exchange::error`]. What was at fault comes first: client, upstream, proxy.
pub mod error_code {
    /// The request head could not be parsed or is refused as ambiguous framing (RFC 9112 §6.3).
    pub const REQUEST_REFUSED: &str = "request_refused";
    /// The request head is over the limits (431).
    pub const REQUEST_HEAD_TOO_LARGE: &str = "request_head_too_large";
    /// The client did not send a complete request in time.
    pub const CLIENT_TIMEOUT: &str = "client_timeout";
    /// The client closed before the request or the answer was complete.
    pub const CLIENT_ABORTED: &str = "client_aborted";
    /// The client's TLS handshake failed, such as by not trusting our CA.
    pub const CLIENT_TLS_FAILED: &str = "client_tls_failed";
    /// A CONNECT that never sent anything.
    pub const CLIENT_SENT_NOTHING: &str = "client_sent_nothing";
    /// The name could not be resolved.
    pub const DNS_FAILED: &str = "dns_failed";
    /// The origin refused the connection.
    pub const UPSTREAM_REFUSED: &str = "upstream_refused";
    /// The origin is not reachable.
    pub const UPSTREAM_UNREACHABLE: &str = "upstream_unreachable";
    /// Connecting to the origin took too long.
    pub const UPSTREAM_CONNECT_TIMEOUT: &str = "upstream_connect_timeout";
    /// The origin's TLS handshake or certificate failed.
    pub const UPSTREAM_TLS_FAILED: &str = "upstream_tls_failed";
    /// The origin closed before its answer was complete.
    pub const UPSTREAM_ABORTED: &str = "upstream_aborted";
    /// The origin's answer could not be parsed or is ambiguous.
    pub const UPSTREAM_RESPONSE_REFUSED: &str = "upstream_response_refused";
    /// The origin's response head is over the limits.
    pub const UPSTREAM_HEAD_TOO_LARGE: &str = "upstream_head_too_large";
    /// The proxy's intermediate certificate has expired, because the control plane was away when it was to be renewed
    /// (502). A renewal mends it; hosts that are passed through are not affected.
    pub const PROXY_TLS_EXPIRED: &str = "proxy_tls_expired";
    /// A request to the proxy's own listener or the control plane (508).
    pub const LOOP_DETECTED: &str = "loop_detected";
    /// The stream was reset (HTTP/2 RST_STREAM, with its code).
    pub const STREAM_RESET: &str = "stream_reset";
    /// The WebSocket stream broke RFC 6455; carried on untouched, recording stopped.
    pub const WEBSOCKET_UNPARSABLE: &str = "websocket_unparsable";
    /// Closed by a stop or restart of the service at its drain deadline.
    pub const DRAINED: &str = "drained";
    /// The worker ended before the exchange did.
    pub const WORKER_LOST: &str = "worker_lost";
    /// A fault in the proxy itself.
    pub const INTERNAL: &str = "internal";
}
