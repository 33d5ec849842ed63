//! Proxyplane as its users meet it: real processes, real traffic.

#![expect(clippy::unwrap_used, reason = "a test that meets something else has failed")]

mod adoption;
mod api;
mod bodies;
mod chaos;
mod command_line;
mod drain;
mod events;
mod exchanges;
mod framing;
mod hardening;
mod history;
mod hostile;
mod http2;
mod lifecycle;
mod moves;
mod overlap;
mod previous;
mod proxies;
mod revisions;
mod sandbox;
mod serve;
mod spool;
mod startup;
mod storage;
mod streams;
mod tls;
mod tunnels;
mod upgrade;
mod web;
mod websockets;
mod workspaces;
