//! Why bytes are not a message that may be carried.

/// Why a head or a body is refused. The code is stable: it is stored with the exchange and told to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The head is over the limit of bytes.
    #[error("the head is too large")]
    HeadTooLarge,
    /// The head is over the limit of fields.
    #[error("the head has too many fields")]
    TooManyFields,
    /// The bytes end before the empty line.
    #[error("the head has no end")]
    IncompleteHead,
    /// A line feed without a carriage return before it.
    #[error("a line ends with a bare LF")]
    BareLf,
    /// A carriage return inside a line.
    #[error("a line contains a bare CR")]
    BareCr,
    /// A NUL inside a head.
    #[error("the head contains a NUL byte")]
    NulByte,
    /// A line that continues the one before (obs-fold).
    #[error("a field is folded over several lines")]
    ObsFold,
    /// White space between field name and colon.
    #[error("there is white space before a field's colon")]
    SpaceBeforeColon,
    /// A field name that is not a token, or a line without colon.
    #[error("a field name is not a token")]
    InvalidFieldName,
    /// There is no start line before the empty line.
    #[error("the start line is empty")]
    EmptyStartLine,
    /// The request line is not method, target and version with one space between.
    #[error("the request line is malformed")]
    InvalidRequestLine,
    /// A request without version (HTTP/0.9).
    #[error("HTTP/0.9 is not supported")]
    Http09,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("the HTTP version is not supported")]
    UnsupportedVersion,
    /// The target has none of the four forms, or one that its method cannot have.
    #[error("the request target is malformed")]
    InvalidTarget,
    /// An absolute target that is neither http nor https.
    #[error("the target's scheme is not supported")]
    UnsupportedScheme,
    /// An HTTP/1.1 request without Host.
    #[error("the Host field is missing")]
    MissingHost,
    /// More than one Host.
    #[error("there are several Host fields")]
    SeveralHosts,
    /// A Host that is not host and optional port.
    #[error("the Host field is malformed")]
    InvalidHost,
    /// The target names another authority than Host.
    #[error("the target and the Host field disagree")]
    HostMismatch,
    /// A CONNECT with a body.
    #[error("CONNECT cannot have a body")]
    ConnectWithBody,
    /// The status line is not version, three digits and a reason.
    #[error("the status line is malformed")]
    InvalidStatusLine,
    /// Content-Length together with Transfer-Encoding.
    #[error("Content-Length and Transfer-Encoding are both present")]
    LengthWithTransferEncoding,
    /// More than one Content-Length, be they equal.
    #[error("there are several Content-Length fields")]
    SeveralLengths,
    /// A Content-Length that is not plain digits, or too large to be true.
    #[error("Content-Length is not a plain number")]
    InvalidLength,
    /// A Transfer-Encoding that is not exactly `chunked`.
    #[error("Transfer-Encoding is not exactly 'chunked'")]
    InvalidTransferEncoding,
    /// Transfer-Encoding in an HTTP/1.0 message.
    #[error("Transfer-Encoding in HTTP/1.0")]
    TransferEncodingInHttp10,
    /// A chunk size that is not hexadecimal digits and a line end.
    #[error("a chunk size is malformed")]
    InvalidChunkSize,
    /// A chunk that is not followed by a line end.
    #[error("a chunk is longer than its size says")]
    InvalidChunkEnd,
    /// Chunk extensions over their limit.
    #[error("chunk extensions are too long")]
    ChunkExtensionsTooLong,
    /// A trailer field that decides about framing or routing.
    #[error("a trailer field is not allowed there")]
    TrailerNotAllowed,
}

impl Refusal {
    /// Stable name.
    pub const fn code(self) -> &'static str {
        match self {
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::IncompleteHead => "incomplete_head",
            Self::BareLf => "bare_lf",
            Self::BareCr => "bare_cr",
            Self::NulByte => "nul_byte",
            Self::ObsFold => "obs_fold",
            Self::SpaceBeforeColon => "space_before_colon",
            Self::InvalidFieldName => "invalid_field_name",
            Self::EmptyStartLine => "empty_start_line",
            Self::InvalidRequestLine => "invalid_request_line",
            Self::Http09 => "http_0_9",
            Self::UnsupportedVersion => "unsupported_version",
            Self::InvalidTarget => "invalid_target",
            Self::UnsupportedScheme => "unsupported_scheme",
            Self::MissingHost => "missing_host",
            Self::SeveralHosts => "several_hosts",
            Self::InvalidHost => "invalid_host",
            Self::HostMismatch => "host_mismatch",
            Self::ConnectWithBody => "connect_with_body",
            Self::InvalidStatusLine => "invalid_status_line",
            Self::LengthWithTransferEncoding => "length_with_transfer_encoding",
            Self::SeveralLengths => "several_lengths",
            Self::InvalidLength => "invalid_length",
            Self::InvalidTransferEncoding => "invalid_transfer_encoding",
            Self::TransferEncodingInHttp10 => "transfer_encoding_in_http_1_0",
            Self::InvalidChunkSize => "invalid_chunk_size",
            Self::InvalidChunkEnd => "invalid_chunk_end",
            Self::ChunkExtensionsTooLong => "chunk_extensions_too_long",
            Self::TrailerNotAllowed => "trailer_not_allowed",
        }
    }

    /// Is it about size, to be answered 431, and not about form, to be answered 400?
    pub const fn is_too_large(self) -> bool {
        matches!(self, Self::HeadTooLarge | Self::TooManyFields)
    }
}
