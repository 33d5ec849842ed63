//! Limits and defaults, each with its unit and why it is what it is.

use std::time::Duration;

/// Captured bytes per body and direction, unless a service says otherwise.
pub const CAPTURE_LIMIT_DEFAULT: u64 = 10 * 1024 * 1024;
/// Largest capture limit that may be asked for.
pub const CAPTURE_LIMIT_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Largest bundle of extra roots, in bytes of PEM.
pub const EXTRA_CA_MAX: usize = 1024 * 1024;
/// Most passthrough patterns of one service.
pub const PASSTHROUGH_HOSTS_MAX: usize = 1_000;

/// Bytes of one HTTP head of a capture service, requests and responses, both protocols: real cookie jars fit.
pub const HEAD_BYTES_MAX: usize = 256 * 1024;
/// Fields in one HTTP head of a capture service.
pub const HEAD_FIELDS_MAX: usize = 1_000;
/// Until a request head is complete, from its first byte (slow headers).
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Without progress inside a request body.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// Of a kept-alive client connection between requests.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_mins(2);
/// For connecting to an origin, all of its addresses together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For a TLS handshake on either side.
pub const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// After CONNECT, until either side says something.
pub const SNIFF_TIMEOUT: Duration = Duration::from_secs(10);
/// TCP keepalive on both legs, so that open streams and tunnels whose peer is gone end.
pub const TCP_KEEPALIVE: Duration = Duration::from_mins(1);
/// Until our own 100 Continue goes out when the origin sent none.
pub const CONTINUE_AFTER: Duration = Duration::from_secs(1);
/// Bytes read from one side before the other must take them.
pub const COPY_BUFFER: usize = 64 * 1024;

/// Records a worker keeps in memory that are neither in its spool nor committed, in bytes. When it is full, new
/// exchanges wait.
pub const RECORD_QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// Records a worker keeps on disk that are not yet committed, in bytes, unless a service says otherwise.
pub const SPOOL_LIMIT_DEFAULT: u64 = 1024 * 1024 * 1024;
/// Are four fifths of a spool taken? From there on new bodies are not kept.
pub const fn spool_is_nearly_full(used: u64, limit: u64) -> bool {
    limit > 0 && used >= limit / 5 * 4
}
/// Smallest spool that may be asked for.
pub const SPOOL_LIMIT_MIN: u64 = 1024 * 1024;
/// Largest.
pub const SPOOL_LIMIT_MAX: u64 = 1024 * 1024 * 1024 * 1024;
/// Records on their way to the control plane without an acknowledgement, in bytes.
pub const RECORD_WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// Most bytes of one batch of records.
pub const RECORD_BATCH_BYTES: usize = 1024 * 1024;

/// Between attempts of a worker to reach its control plane.
pub const REDIAL: Duration = Duration::from_millis(250);
/// Accept queue of a listener: connections that wait while a worker is replaced.
pub const LISTEN_BACKLOG: i32 = 4096;
/// How long a stop lets open exchanges finish, unless told otherwise.
pub const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Longest drain that may be asked for.
pub const DRAIN_TIMEOUT_MAX: Duration = Duration::from_hours(1);
