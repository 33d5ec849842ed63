//! Proxyplane as its users meet it: real processes, real traffic.

mod api;
mod command_line;
mod exchanges;
mod history;
mod lifecycle;
mod proxies;
mod serve;
mod workspaces;
