//! What follows a 101.

use std::{panic::AssertUnwindSafe, sync::Arc};

use bytes::Bytes;
use futures_util::FutureExt as _;
use proxyplane_h1::{RequestHead, ResponseHead};

use super::{
    describe,
    leg::{Downstream, Leg},
    session::Session,
};
use crate::{
    capture::Recorder,
    service::Service,
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

    /// Carries the other protocol to its end, in a task of its own: the futures of everything that led here, some
    /// 50 KiB of them, end with this call and not with a connection that may stay open for hours.
    pub(crate) fn spawn<C: Downstream + 'static>(self, session: Session<C>) {
        let service = Arc::clone(&session.ctx.service);
        let counted = service.stats.connection();
        let tracker = service.drain.tracker().clone();
        let carried = AssertUnwindSafe(self.carry(Arc::clone(&service), session.client));
        tracker.spawn(async move {
            let _counted = counted;
            if carried.catch_unwind().await.is_err() {
                service.stats.panicked();
                tracing::error!("the task of an upgraded connection panicked; the others go on");
            }
        });
    }

    async fn carry<C: Downstream>(self, service: Arc<Service>, client: Leg<C>) {
        let (client, client_prefix) = client.into_parts();
        let (upstream, upstream_prefix) = self.upstream.into_parts();
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
