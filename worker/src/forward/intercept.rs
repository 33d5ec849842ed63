//! Interception of TLS: a handshake with the origin that offers what the client offers, then one with the client that
//! answers what the origin chose.

use std::{io::ErrorKind, sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};
use proxyplane_h1::Scheme;
use proxyplane_record::{Flags, TlsInfo, error_code};
use tokio::net::TcpStream;

use super::{
    connect::{Asked, Tunnel},
    replay::Replay,
};
use crate::{
    core::{self, Leg},
    disconnect::{self, Peer},
    http2,
    tls::{Alpn, ClientHello, Sniffed, Tls, sniff},
    upstream::{DialError, Origin, Upstream},
};

/// Serves a tunnel whose client began with TLS.
pub(super) async fn serve(tunnel: Tunnel) {
    let Tunnel {
        asked,
        client,
        upstream,
    } = tunnel;
    let (mut client, read) = client.into_parts();
    let mut read = BytesMut::from(read);
    let sniffed = sniff::read(&mut client, &mut read).await;
    let read = read.freeze();
    let hello = match sniffed {
        Ok(Sniffed::Hello(hello)) => hello,
        Ok(Sniffed::NotTls | Sniffed::Incomplete) => {
            return Tunnel {
                asked,
                client: Leg::new(client, &read),
                upstream,
            }
            .run_raw(0, None)
            .await;
        }
        Err(error) => {
            let detail = match error.kind() {
                ErrorKind::TimedOut => "no complete ClientHello came in time".to_owned(),
                _ => format!(
                    "{} inside of its ClientHello",
                    disconnect::in_words(Peer::Client, &error)
                ),
            };
            return asked.failed(error_code::CLIENT_TLS_FAILED, detail, None).await;
        }
    };
    let config = asked.ctx.service.config();
    if config.spec.passes_through(asked.host_str())
        || hello.sni.as_deref().is_some_and(|sni| config.spec.passes_through(sni))
    {
        let tunnel = Tunnel {
            asked,
            client: Leg::new(client, &read),
            upstream,
        };
        return tunnel.run_raw(Flags::PASSTHROUGH, Some(named(&hello))).await;
    }
    let tls = Arc::clone(&config.tls);
    drop(config);
    Box::pin(intercept(asked, &tls, &hello, Replay::new(read, client), upstream)).await;
}

/// The handshakes, and what follows them.
async fn intercept(mut asked: Asked, tls: &Tls, hello: &ClientHello, client: Replay<TcpStream>, upstream: TcpStream) {
    asked.ctx.flags |= Flags::INTERCEPTED;
    if tls.insecure_upstream() {
        asked.ctx.flags |= Flags::INSECURE_UPSTREAM;
    }
    let begun = Instant::now();
    let host = asked.host.clone();
    let host = std::str::from_utf8(&host).unwrap_or_default();
    let handshake = tls
        .connect_upstream(upstream, host, hello.sni.as_deref(), &hello.alpn)
        .await;
    let Some(facts) = &mut asked.facts else { return };
    facts.timings.tls_us = Some(begun.elapsed().as_micros() as u64);
    let facts = facts.clone();
    let (stream, info) = match handshake {
        Ok(connected) => connected,
        Err(failure) => return origin_failed(asked, tls, hello, client, DialError::tls(failure, facts)).await,
    };
    let chosen = Alpn::agreed(&info);
    let upstream = Upstream::tls(stream, info, facts);
    match tls.accept_client(client, host, hello, chosen).await {
        Ok((client, info)) => {
            asked.ctx.client_tls = Some(info.clone());
            let alpn = if chosen == Alpn::Http11 {
                vec![b"http/1.1".to_vec()]
            } else {
                Vec::new()
            };
            let origin = Origin {
                sni: hello.sni.clone(),
                alpn,
                ..origin(&asked)
            };
            asked.ctx.origin = Some(origin.clone());
            let ctx = asked.ctx.clone();
            let served = if chosen == Alpn::H2 {
                Box::pin(http2::serve(ctx, origin, client, Some(upstream))).await
            } else {
                Box::pin(core::serve_h1(ctx, client, &[], upstream)).await
            };
            if !served && !asked.ctx.service.drain.draining() {
                // Some TLS libraries (GnuTLS) end like this, without an alert, when they do not trust a certificate.
                let detail = "the client closed the connection after its TLS handshake without a request; it may not \
                              trust the proxy's CA";
                asked.failed(error_code::CLIENT_SENT_NOTHING, detail, Some(info)).await;
            }
        }
        Err(failure) => asked.failed(failure.code, failure.detail, Some(named(hello))).await,
    }
}

/// The origin's TLS failed: the client's handshake is finished all the same, so that the cause can be told in an
/// answer instead of an unexplained alert.
async fn origin_failed(mut asked: Asked, tls: &Tls, hello: &ClientHello, client: Replay<TcpStream>, error: DialError) {
    let alpn = Alpn::without_origin(&hello.alpn);
    let accepted = tls.accept_client(client, asked.host_str(), hello, alpn).await;
    let told = match accepted {
        Ok((client, info)) => {
            let origin = Origin {
                sni: hello.sni.clone(),
                ..origin(&asked)
            };
            asked.ctx.client_tls = Some(info);
            asked.ctx.origin = Some(origin.clone());
            if alpn == Alpn::H2 {
                // There every request dials by itself: what it is told may be newer.
                Box::pin(http2::serve(asked.ctx.clone(), origin, client, None)).await
            } else {
                core::serve_error(asked.ctx.clone(), client, &error).await
            }
        }
        Err(_) => false,
    };
    if !told {
        asked.failed(error.code, error.detail, Some(named(hello))).await;
    }
}

fn origin(asked: &Asked) -> Origin {
    Origin::new(Scheme::Https, &asked.host, asked.port)
}

/// All that is known of a client's TLS without a handshake.
fn named(hello: &ClientHello) -> TlsInfo {
    let sni = hello.sni.as_deref().unwrap_or_default();
    TlsInfo {
        sni: Bytes::copy_from_slice(sni.as_bytes()),
        ..TlsInfo::default()
    }
}
