//! The front door of a capture proxy: what a client asks of an explicit proxy, and who answers.
//!
//! Absolute-form requests go to the exchange core, `proxyplane.local` is answered here, CONNECT is sniffed and becomes
//! an interception, plain HTTP or a tunnel.

pub mod ca_page;
mod connect;
mod intercept;
mod replay;
mod sniff;

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use proxyplane_h1::{Form, Scheme};
use proxyplane_record::{ExchangeKind, TlsInfo};
use tokio::net::TcpStream;

use crate::{
    capture::{Recorder, Start},
    core::{After, Request, Session},
    service::Service,
    upstream::Origin,
};

/// A client's connection, as its exchanges see it.
#[derive(Clone)]
pub struct Connection {
    /// What all connections share.
    pub service: Arc<Service>,
    /// The client's `ip:port`.
    pub client: Bytes,
    /// The client's address.
    pub peer: SocketAddr,
    /// The address that it connected to.
    pub local: SocketAddr,
    /// TLS between client and proxy.
    pub client_tls: Option<TlsInfo>,
    /// Where every request goes; known once CONNECT fixed it.
    pub origin: Option<Origin>,
    /// Bits of `Flags` that every exchange gets.
    pub flags: u32,
}

impl Connection {
    /// A client's connection that is not yet more than that.
    pub fn new(service: Arc<Service>, peer: SocketAddr, local: SocketAddr) -> Self {
        let client = peer.to_string().into();
        Self {
            service,
            client,
            peer,
            local,
            client_tls: None,
            origin: None,
            flags: 0,
        }
    }

    /// An exchange that begins now.
    pub fn start(&self, kind: ExchangeKind) -> Start {
        Start::new(self.client.clone(), kind, self.service.config().spec.capture_limit)
    }

    /// Begins the record of an exchange; waits while the record queue is full.
    pub async fn begin(&self, start: Start) -> Recorder {
        self.service.capture.begin(start).await
    }
}

/// Serves a client's connection to its end.
pub async fn serve(service: Arc<Service>, stream: TcpStream, peer: SocketAddr, local: SocketAddr) {
    let mut session = Session::new(Connection::new(service, peer, local), stream, &[]);
    while let Some(request) = session.next_request().await {
        let after = match destination(&request) {
            Destination::Tunnel => return Box::pin(connect::serve(session, request)).await,
            Destination::CaPage => ca_page(&mut session, request).await,
            Destination::Nowhere => explain(&mut session, request).await,
            Destination::Origin(origin) => session.exchange(request, &origin).await,
        };
        match after {
            After::Continue => {}
            After::Close => break,
            After::Drop => return,
            After::Upgrade(upgrade) => return upgrade.spawn(session),
        }
    }
    session.close().await;
}

enum Destination {
    Origin(Origin),
    CaPage,
    Tunnel,
    /// A request that was meant for a web server.
    Nowhere,
}

fn destination(request: &Request) -> Destination {
    let is_ours = |host: &[u8]| host.eq_ignore_ascii_case(ca_page::HOST.as_bytes());
    match request.head.form() {
        Form::Authority => Destination::Tunnel,
        Form::Origin | Form::Asterisk if request.head.host().is_some_and(|host| is_ours(host.host)) => {
            Destination::CaPage
        }
        Form::Origin | Form::Asterisk => Destination::Nowhere,
        Form::Absolute { scheme, .. } => match request.head.authority() {
            Some(authority) if *scheme == Scheme::Http && is_ours(authority.host) => Destination::CaPage,
            Some(authority) => {
                let host = request.head.head().raw().slice_ref(authority.host);
                Destination::Origin(Origin::new(
                    *scheme,
                    &host,
                    authority.port.unwrap_or(scheme.default_port()),
                ))
            }
            None => Destination::Nowhere,
        },
    }
}

/// Answers for `proxyplane.local`.
async fn ca_page(session: &mut Session<TcpStream>, request: Request) -> After {
    let origin = Origin::new(Scheme::Http, &Bytes::from_static(ca_page::HOST.as_bytes()), 80);
    let root = session.ctx.service.config().tls.authority().root_der().clone();
    let (path, _) = request.head.path_and_query();
    let page = ca_page::answer(request.head.method(), &path, &root);
    session.answer_request(request, &origin, &page).await;
    After::Drop
}

/// Answers a request for a path: somebody opened the proxy's address in a browser, or forgot to configure it.
async fn explain(session: &mut Session<TcpStream>, request: Request) -> After {
    let text = "this is a proxy: set it as the HTTP and HTTPS proxy of a client, for example with curl -x; \
                its CA certificate is at http://proxyplane.local/ through the proxy";
    let origin = Origin::new(
        Scheme::Http,
        &session.ctx.local.ip().to_string().into(),
        session.ctx.local.port(),
    );
    session.refuse_request(request, &origin, text).await;
    After::Drop
}
