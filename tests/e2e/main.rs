//! Proxyplane as its users meet it: real processes, real traffic.

#![expect(clippy::unwrap_used, reason = "a test that meets something else has failed")]

mod api;
mod bodies;
mod command_line;
mod drain;
mod exchanges;
mod framing;
mod history;
mod hostile;
mod http2;
mod lifecycle;
mod proxies;
mod serve;
mod spool;
mod storage;
mod streams;
mod tls;
mod tunnels;
mod web;
mod websockets;
mod workspaces;
