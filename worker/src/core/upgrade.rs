//! What follows a 101.

use bytes::Bytes;
use proxyplane_h1::{RequestHead, ResponseHead};

use super::{
    describe,
    leg::{Downstream, Leg},
    session::Session,
};
use crate::{
    capture::Recorder,
    tunnel,
    upstream::Stream,
    websocket::{self, Handshake},
};

/// An exchange that switched protocols.
pub(crate) struct Upgrade {
    recorder: Recorder,
    upstream: Leg<Stream>,
    /// What was agreed on, if it is a WebSocket.
    websocket: Option<(Bytes, Bytes)>,
}

impl Upgrade {
    pub(super) fn new(recorder: Recorder, request: &RequestHead, answer: &ResponseHead, upstream: Leg<Stream>) -> Self {
        let is = |protocol: Option<&[u8]>| protocol.is_some_and(|p| p.eq_ignore_ascii_case(b"websocket"));
        let websocket = (is(request.upgrade()) && is(answer.upgrade())).then(|| {
            let value = |name| describe::joined(answer.head(), name);
            (value("Sec-WebSocket-Protocol"), value("Sec-WebSocket-Extensions"))
        });
        Self {
            recorder,
            upstream,
            websocket,
        }
    }

    /// Carries the other protocol to its end.
    pub(crate) async fn run<C: Downstream>(self, session: Session<C>) {
        let Session { ctx, client, .. } = session;
        let (client, client_prefix) = client.into_parts();
        let (upstream, upstream_prefix) = self.upstream.into_parts();
        let service = ctx.service;
        let (recorder, drain) = (self.recorder, &service.drain);
        if let Some((subprotocol, extensions)) = self.websocket {
            let capture_limit = service.config().spec.capture_limit;
            let handshake = Handshake {
                subprotocol,
                extensions,
                capture_limit,
            };
            websocket::run(
                recorder,
                client,
                client_prefix,
                upstream,
                upstream_prefix,
                handshake,
                drain,
            )
            .await;
        } else {
            tunnel::run(recorder, client, client_prefix, upstream, upstream_prefix, drain).await;
        }
    }
}
