//! CONNECT: dial, answer, sniff, and go on as what the first bytes ask for.

use std::{future::poll_fn, task::Poll};

use bytes::Bytes;
use proxyplane_h1::Scheme;
use proxyplane_record::{Flags, TlsInfo, error_code};
use proxyplane_spec::limits;
use time::OffsetDateTime;
use tokio::{
    io::{AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    time::timeout,
};

use super::{
    Connection, intercept,
    replay::Replay,
    sniff::{SETTINGS_LEN, Verdict, classify, is_settings},
};
use crate::{
    capture::Recorder,
    core::{self, Leg, Request, Session, describe_connect},
    disconnect::{self, Peer},
    http2,
    tls::TlsFailure,
    tunnel,
    upstream::{self, Origin, Upstream, UpstreamFacts},
};

/// What a CONNECT asked for, and where it led.
pub(super) struct Asked {
    pub(super) ctx: Connection,
    pub(super) request: Request,
    pub(super) host: Bytes,
    pub(super) port: u16,
    /// Once it is connected.
    pub(super) facts: Option<UpstreamFacts>,
}

impl Asked {
    pub(super) fn host_str(&self) -> &str {
        std::str::from_utf8(&self.host).unwrap_or_default()
    }

    /// Is it for a host that is not looked into?
    fn passes_through(&self) -> bool {
        self.ctx.service.config().spec.passes_through(self.host_str())
    }

    /// Why TLS in the tunnel could not be intercepted, if it is known now. Said before the tunnel is there: inside of it
    /// there is no way to tell a client. That refuses tunnels without TLS, too.
    fn cannot_intercept(&self) -> Option<TlsFailure> {
        if self.passes_through() {
            return None;
        }
        let authority = self.ctx.service.config().tls.authority();
        authority.expired(OffsetDateTime::now_utc())
    }

    /// Begins the record of a tunnel, or of what came to nothing.
    pub(super) async fn record(&self) -> Recorder {
        let recorder = self.ctx.begin(self.request.start.clone()).await;
        describe_connect(&recorder, &self.ctx, &self.request.head, &self.host, self.port);
        if let Some(facts) = &self.facts {
            recorder.with(|exchange| {
                exchange.status = 200;
                exchange.origin_address = facts.address.clone();
                exchange.timings = facts.timings;
            });
        }
        recorder
    }

    /// Records that nothing came of it.
    pub(super) async fn failed(&self, code: &'static str, detail: impl Into<Bytes>, client_tls: Option<TlsInfo>) {
        let recorder = self.record().await;
        recorder.with(|exchange| exchange.client_tls = client_tls);
        recorder.fail(code, detail);
        recorder.finish();
    }
}

/// A tunnel that was asked for, and is connected.
pub(super) struct Tunnel {
    pub(super) asked: Asked,
    pub(super) client: Leg<TcpStream>,
    pub(super) upstream: TcpStream,
}

impl Tunnel {
    /// Carries the bytes untouched; `flags` say why.
    pub(super) async fn run_raw(self, flags: u32, client_tls: Option<TlsInfo>) {
        let recorder = self.asked.record().await;
        recorder.with(|exchange| {
            exchange.flags |= flags;
            exchange.client_tls = client_tls;
        });
        let (client, client_prefix) = self.client.into_parts();
        let drain = &self.asked.ctx.service.drain;
        tunnel::run(recorder, client, client_prefix, self.upstream, Bytes::new(), drain).await;
    }
}

/// Serves a CONNECT and everything after it on the connection.
pub(super) async fn serve(mut session: Session<TcpStream>, request: Request) {
    let Some(authority) = request.head.authority() else {
        return;
    };
    let port = authority.port.unwrap_or_default();
    let origin = Origin::new(Scheme::Http, &request.head.head().raw().slice_ref(authority.host), port);
    let mut asked = Asked {
        ctx: session.ctx.clone(),
        request,
        host: origin.host.clone(),
        port,
        facts: None,
    };
    if let Some(failure) = asked.cannot_intercept() {
        let recorder = asked.record().await;
        recorder.fail(failure.code, failure.detail.clone());
        let page = core::error_answer(502, failure.code, &failure.detail, false);
        return session.answer(&recorder, &page).await;
    }
    let dialling = upstream::connect(&asked.ctx.service, origin.host_str(), port);
    let connected = match session.while_present(dialling).await {
        Ok(Ok(connected)) => connected,
        Err(gone) => return gone.record(&asked.record().await),
        Ok(Err(error)) => {
            let recorder = asked.record().await;
            recorder.fail(error.code, error.detail.clone());
            let page = core::error_answer(error.status(), error.code, &error.detail, false);
            error.reached.describe(&recorder);
            return session.answer(&recorder, &page).await;
        }
    };
    if let Err(error) = session
        .client
        .io
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await
    {
        let detail = disconnect::in_words(Peer::Client, &error);
        return asked.failed(error_code::CLIENT_ABORTED, detail, None).await;
    }
    asked.facts = Some(connected.facts());
    let mut tunnel = Tunnel {
        asked,
        client: session.client,
        upstream: connected.stream,
    };
    let first = first_bytes(&mut tunnel.client, &tunnel.upstream).await;
    let passthrough = tunnel.asked.passes_through();
    match first {
        First::Spoken(Verdict::Tls) => Box::pin(intercept::serve(tunnel)).await,
        First::Spoken(_) if passthrough => tunnel.run_raw(Flags::PASSTHROUGH, None).await,
        First::Nothing(_) if passthrough && !tunnel.client.eof => tunnel.run_raw(Flags::PASSTHROUGH, None).await,
        First::Spoken(Verdict::Http1) => serve_plain(tunnel, origin, false).await,
        First::Spoken(Verdict::Http2) => serve_plain(tunnel, origin, true).await,
        First::Spoken(Verdict::Raw | Verdict::More) => tunnel.run_raw(0, None).await,
        First::Nothing(detail) => tunnel.asked.failed(error_code::CLIENT_SENT_NOTHING, detail, None).await,
    }
}

/// HTTP without TLS inside of the tunnel.
async fn serve_plain(tunnel: Tunnel, origin: Origin, h2: bool) {
    let Tunnel {
        asked: Asked { mut ctx, facts, .. },
        client,
        upstream,
    } = tunnel;
    let Some(facts) = facts else { return };
    ctx.origin = Some(origin.clone());
    let (client, prefix) = client.into_parts();
    let upstream = Upstream::plain(upstream, facts);
    if h2 {
        http2::serve(ctx, origin, Replay::new(prefix, client), Some(upstream)).await;
    } else {
        Box::pin(core::serve_h1(ctx, client, &prefix, upstream)).await;
    }
}

/// Who spoke first, and what.
enum First {
    Spoken(Verdict),
    Nothing(&'static str),
}

/// Waits until it is known what this is. The client's bytes are read, the origin's only looked at.
async fn first_bytes(client: &mut Leg<TcpStream>, upstream: &TcpStream) -> First {
    let mut greeted = false;
    let reading = async {
        loop {
            match classify(client.buffer.filled()) {
                Verdict::More => {}
                verdict => return First::Spoken(verdict),
            }
            let spoke = poll_fn(|cx| {
                if let Poll::Ready(read) = client.poll_fill(cx) {
                    return Poll::Ready(Spoke::Client(read.unwrap_or_default()));
                }
                if greeted {
                    return Poll::Pending;
                }
                let mut start = [0; SETTINGS_LEN];
                let mut start = ReadBuf::new(&mut start);
                upstream.poll_peek(cx, &mut start).map(|_| {
                    let settings = is_settings(start.filled());
                    Spoke::Upstream { settings }
                })
            })
            .await;
            match spoke {
                Spoke::Client(1..) => {}
                // HTTP/2 servers need not wait for the client's preface (RFC 9113 §3.4): that still has to come.
                Spoke::Upstream { settings: true } => greeted = true,
                Spoke::Client(0) if client.buffer.is_empty() => {
                    return First::Nothing("the client closed the connection without sending anything");
                }
                // Who lets the server speak first does not mean HTTP/1. An origin that closes is noticed later.
                Spoke::Client(0) | Spoke::Upstream { settings: false } => return First::Spoken(Verdict::Raw),
            }
        }
    };
    let first = timeout(limits::SNIFF_TIMEOUT, reading).await;
    first.unwrap_or_else(|_| {
        if client.buffer.is_empty() && !greeted {
            First::Nothing("neither side said anything")
        } else {
            First::Spoken(Verdict::Raw)
        }
    })
}

enum Spoke {
    /// This many bytes; 0 is the end.
    Client(usize),
    Upstream {
        /// What it says begins as HTTP/2 does.
        settings: bool,
    },
}
