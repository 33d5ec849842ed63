//! Which Host and Origin a request may have.
//!
//! A web page cannot choose either. A page whose name was rebound to our address shows in `Host`, a page of another
//! site in `Origin`.

use std::net::{IpAddr, SocketAddr};

use http::{
    Request,
    header::{HOST, ORIGIN},
    uri::Authority,
};
use proxyplane_spec::reasons;

use super::status::Refusal;
use crate::config::WebOrigin;

/// What is ours.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    hosts: Vec<String>,
    /// Listening on an address that others reach: any address may be meant, and an address cannot be rebound.
    any_address: bool,
    origins: Vec<WebOrigin>,
}

impl Guard {
    pub(super) fn new(listen: SocketAddr, origins: Vec<WebOrigin>) -> Self {
        let mut hosts = vec![
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "::1".to_owned(),
            listen.ip().to_string(),
        ];
        hosts.extend(origins.iter().map(WebOrigin::host));
        let any_address = !listen.ip().is_loopback();
        if any_address && let Ok(name) = nix::unistd::gethostname() {
            hosts.push(name.to_string_lossy().to_ascii_lowercase());
        }
        Self {
            hosts,
            any_address,
            origins,
        }
    }

    /// The pages that may call us besides our own.
    pub(super) fn allows_page(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|allowed| allowed.matches(origin))
    }

    /// Refuses a request with a foreign Host or Origin.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let refuse = |what| Err(Refusal::new(reasons::ORIGIN_REFUSED, what));
        let Some(authority) = authority(request) else {
            return refuse("the request has no single, valid Host");
        };
        if !self.is_own(authority.host()) {
            return refuse("the request's Host is not this server's; see --allowed-origin");
        }
        let mut origins = request.headers().get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Ok(()),
            (Some(origin), None) if self.allows_page(origin.as_bytes()) => Ok(()),
            (Some(origin), None) if is_same(origin.as_bytes(), &authority) => Ok(()),
            _ => refuse("pages of this Origin may not call this server; see --allowed-origin"),
        }
    }

    fn is_own(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let known = self.hosts.iter().any(|own| own.eq_ignore_ascii_case(bare));
        known || (self.any_address && bare.parse::<IpAddr>().is_ok())
    }
}

/// `:authority` of HTTP/2, else the one Host of HTTP/1; both, if both are there, must agree.
fn authority<B>(request: &Request<B>) -> Option<Authority> {
    let target = request.uri().authority().cloned();
    let mut hosts = request.headers().get_all(HOST).iter();
    let Some(host) = hosts.next() else { return target };
    let host: Authority = host.to_str().ok()?.parse().ok()?;
    let agree = hosts.next().is_none() && target.is_none_or(|target| target == host);
    agree.then_some(host)
}

/// Is `origin` the page that this very server served, under the name it was called by?
fn is_same(origin: &[u8], authority: &Authority) -> bool {
    let bare = origin
        .strip_prefix(b"http://")
        .or_else(|| origin.strip_prefix(b"https://"));
    bare.is_some_and(|bare| bare.eq_ignore_ascii_case(authority.as_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(listen: &str, host: &str, origin: Option<&str>) -> bool {
        let guard = Guard::new(listen.parse().unwrap(), vec!["http://localhost:5173".parse().unwrap()]);
        let mut request = Request::builder().uri("/").header(HOST, host);
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        guard.check(&request.body(()).unwrap()).is_ok()
    }

    #[test]
    fn a_rebound_name_is_refused() {
        let own = "127.0.0.1:7070";
        for host in [
            "127.0.0.1:7070",
            "localhost:7070",
            "LOCALHOST",
            "[::1]:7070",
            "localhost:9999",
        ] {
            assert!(passes(own, host, None), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:7070",
            "127.0.0.1.evil.example",
            "10.0.0.1:7070",
            "",
            "a b",
        ] {
            assert!(!passes(own, host, None), "{host}");
        }
        assert!(passes("0.0.0.0:7070", "10.0.0.1:7070", None) && !passes("0.0.0.0:7070", "evil.example:7070", None));
    }

    #[test]
    fn only_our_own_and_named_pages_may_call() {
        for origin in ["http://localhost:7070", "http://localhost:5173"] {
            assert!(passes("127.0.0.1:7070", "localhost:7070", Some(origin)), "{origin}");
        }
        for origin in [
            "http://evil.example",
            "null",
            "http://localhost:8080",
            "http://127.0.0.1:7070",
            "",
            "localhost:7070",
        ] {
            assert!(!passes("127.0.0.1:7070", "localhost:7070", Some(origin)), "{origin}");
        }
    }

    #[test]
    fn two_hosts_are_refused() {
        let guard = Guard::new("127.0.0.1:7070".parse().unwrap(), Vec::new());
        let twice = Request::builder()
            .uri("/")
            .header(HOST, "localhost")
            .header(HOST, "localhost")
            .body(())
            .unwrap();
        let unlike = Request::builder()
            .uri("http://localhost/")
            .header(HOST, "evil.example")
            .body(())
            .unwrap();
        assert!(guard.check(&twice).is_err() && guard.check(&unlike).is_err());
    }
}
