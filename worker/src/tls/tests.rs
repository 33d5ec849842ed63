//! Handshakes between real peers.
