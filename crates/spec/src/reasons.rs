//! The published table of error reasons: reason → gRPC code → HTTP equivalent → exit code of `proxyctl`.
//!
//! A reason is the stable part of an error: it is sent as `ErrorInfo.reason`, and the exit code follows it, not the
//! transport.

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reason {
    /// UPPER_SNAKE name, stable.
    pub name: &'static str,
    /// Name of the google.rpc.Code.
    pub grpc: &'static str,
    /// HTTP status with the same meaning.
    pub http: u16,
    /// Exit code of `proxyctl`: 1 failure, 2 invalid argument, 3 unreachable, 4 not found, 5 conflict.
    pub exit: u8,
    /// What it means and what to do.
    pub meaning: &'static str,
}

macro_rules! reasons {
    ($($name:ident $grpc:literal $http:literal $exit:literal $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $name: Reason = Reason {
            name: stringify!($name), grpc: $grpc, http: $http, exit: $exit, meaning: $meaning,
        };)*
        /// Every reason, in the order of the published table.
        pub const ALL: &[Reason] = &[$($name),*];
    };
}

reasons! {
    INVALID_ARGUMENT "INVALID_ARGUMENT" 400 2 "A field is wrong; the field violations name it.";
    INVALID_PAGE_TOKEN "INVALID_ARGUMENT" 400 2 "The page token is damaged or belongs to another query; start from the first page.";
    UNAUTHENTICATED "UNAUTHENTICATED" 401 1 "The bearer token is missing or wrong; `serve` prints where it is kept.";
    ORIGIN_REFUSED "PERMISSION_DENIED" 403 1 "The Host or Origin of the request is not this server's.";
    NOT_FOUND "NOT_FOUND" 404 4 "There is no such resource.";
    NAME_TAKEN "ALREADY_EXISTS" 409 5 "Another resource has this name; the metadata names it.";
    PORT_IN_USE "ALREADY_EXISTS" 409 5 "The port is taken; the metadata names the holder.";
    ADDRESS_NOT_AVAILABLE "FAILED_PRECONDITION" 400 2 "The host is no address of this machine, or may not be bound; the field violations name it where the call has it.";
    NO_FREE_PORT "RESOURCE_EXHAUSTED" 503 1 "No free port was found for port 0.";
    ALREADY_STARTING "ABORTED" 409 5 "A start is under way; wait for it.";
    ALREADY_STOPPING "ABORTED" 409 5 "A stop is under way; wait for it.";
    ALREADY_UPGRADING "ABORTED" 409 5 "The worker is being replaced; wait for it.";
    TOO_MANY_DRAINING "ABORTED" 409 5 "As many replaced workers as may are still finishing what they have open; wait for one of them, at most until its deadline.";
    WORKER_BINARY_REFUSED "FAILED_PRECONDITION" 400 1 "The worker binary is none that this server can run; the message says why. Nothing changed.";
    ETAG_MISMATCH "ABORTED" 409 5 "Somebody changed the resource first; read it again.";
    WORKSPACE_NOT_EMPTY "FAILED_PRECONDITION" 409 5 "The workspace still has services; `force` removes them with it.";
    RESTART_REQUIRED "FAILED_PRECONDITION" 409 5 "The proxy's worker is of an older build, which cannot do this live; restart the proxy first.";
    WORKER_REJECTED_CONFIG "FAILED_PRECONDITION" 400 2 "The worker refused the configuration; the field violations say why. Nothing changed.";
    WORKER_FAILED "UNAVAILABLE" 503 1 "The worker did not become ready; its last log lines are in the message.";
    WORKER_UNRESPONSIVE "UNAVAILABLE" 503 1 "The worker does not answer or is not connected; a restart of the proxy replaces it. Nothing changed.";
    SHUTTING_DOWN "UNAVAILABLE" 503 3 "The server is stopping.";
    STORAGE_UNAVAILABLE "UNAVAILABLE" 503 3 "Postgres cannot be reached; try again.";
    UPGRADE_REFUSED "FAILED_PRECONDITION" 400 1 "The program at the control plane's own path is not fit to take over; the message says why. Nothing changed.";
    BODY_NOT_DECODABLE "FAILED_PRECONDITION" 422 1 "The body's content encoding is unknown or damaged; ask for the raw bytes.";
    BODY_TOO_LARGE_TO_DECODE "FAILED_PRECONDITION" 422 1 "Decoded, the body is over 16 MiB, or over 512 KiB and 100 times its size; ask for the raw bytes.";
    TOO_MANY_REQUESTS "RESOURCE_EXHAUSTED" 429 1 "Too many streams or calls at once; try again.";
    DEADLINE_EXCEEDED "DEADLINE_EXCEEDED" 504 1 "The call was not over within the time that the client gave it (`grpc-timeout`).";
    OUT_OF_RANGE "OUT_OF_RANGE" 400 2 "The message is longer than the server takes.";
    UNIMPLEMENTED "UNIMPLEMENTED" 501 1 "The server has no such method; it may be older than the client.";
    INTERNAL "INTERNAL" 500 1 "A fault in the server; its log has the details.";
}

/// The reason of that name.
pub fn by_name(name: &str) -> Option<&'static Reason> {
    ALL.iter().find(|reason| reason.name == name)
}
