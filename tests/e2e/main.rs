//! Proxyplane as its users meet it: real processes, real traffic.

mod api;
mod bodies;
mod command_line;
mod exchanges;
mod framing;
mod history;
mod lifecycle;
mod proxies;
mod serve;
mod tunnels;
mod websockets;
mod workspaces;
