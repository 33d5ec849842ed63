//! Resolving and connecting.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use proxyplane_record::{Timings, error_code};
use proxyplane_spec::limits;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, lookup_host},
    time::{sleep, timeout},
};

use super::{DialError, UpstreamFacts, loops};
use crate::{disconnect, service::Service};

/// Before the next address is tried as well (RFC 8305 §5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// A TCP connection to an origin.
#[derive(Debug)]
pub struct Connected {
    /// Without Nagle's delay, with keepalive.
    pub stream: TcpStream,
    /// `address:port` that it is connected to.
    pub address: Bytes,
    /// Name resolution; `None` for an address.
    pub dns_us: Option<u64>,
    /// TCP connect, attempts at other addresses included.
    pub connect_us: u64,
}

impl Connected {
    /// What is recorded of it.
    pub fn facts(&self) -> UpstreamFacts {
        let timings = Timings {
            dns_us: self.dns_us,
            connect_us: Some(self.connect_us),
            ..Timings::default()
        };
        UpstreamFacts {
            address: self.address.clone(),
            timings,
        }
    }
}

/// Resolves `host` once and connects to one of its addresses, all within [`limits::CONNECT_TIMEOUT`].
///
/// If any address is a listener of this service or of the control plane, nothing is connected to.
pub async fn connect(service: &Service, host: &str, port: u16) -> Result<Connected, DialError> {
    let begun = Instant::now();
    let (addresses, dns_us) = if let Ok(ip) = host.parse::<IpAddr>() {
        (Ok(vec![SocketAddr::new(ip, port)]), None)
    } else {
        (resolve(host, port).await, Some(begun.elapsed().as_micros() as u64))
    };
    let reached = |connect_us| UpstreamFacts {
        timings: Timings {
            dns_us,
            connect_us,
            ..Timings::default()
        },
        ..UpstreamFacts::default()
    };
    let addresses = addresses.map_err(|detail| DialError::new(error_code::DNS_FAILED, detail, reached(None)))?;
    let config = service.config();
    if addresses
        .iter()
        .any(|&a| loops::leads_to(a, &service.listeners()) || loops::leads_to(a, &config.control_addresses))
    {
        let detail = "the request leads back to this proxy or to its control plane";
        return Err(DialError::new(error_code::LOOP_DETECTED, detail, reached(None)));
    }
    drop(config);
    let resolved = Instant::now();
    let left = limits::CONNECT_TIMEOUT.saturating_sub(begun.elapsed());
    let raced = timeout(left, race(interleave(addresses)))
        .await
        .unwrap_or_else(|_| Err(late()));
    let connect_us = resolved.elapsed().as_micros() as u64;
    let (stream, address) = raced.map_err(|(code, detail)| DialError::new(code, detail, reached(Some(connect_us))))?;
    Ok(Connected {
        stream,
        address: address.to_string().into(),
        dns_us,
        connect_us,
    })
}

/// The addresses of a name, or what is wrong.
async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let detail = match timeout(limits::CONNECT_TIMEOUT, lookup_host((host, port))).await {
        Ok(Ok(found)) => {
            let addresses: Vec<_> = found.collect();
            if !addresses.is_empty() {
                return Ok(addresses);
            }
            "the name has no address".to_owned()
        }
        Ok(Err(error)) => format!("the name cannot be resolved: {error}"),
        Err(_) => format!(
            "the name was not resolved within {} seconds",
            limits::CONNECT_TIMEOUT.as_secs()
        ),
    };
    Err(detail)
}

/// An error code, and the cause for people.
type Refused = (&'static str, String);

fn late() -> Refused {
    let detail = format!("no connection within {} seconds", limits::CONNECT_TIMEOUT.as_secs());
    (error_code::UPSTREAM_CONNECT_TIMEOUT, detail)
}

/// Families in turn, beginning with that of the resolver's first choice (RFC 8305 §4).
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    let mut second = second.into_iter();
    let mut all: Vec<_> = first
        .into_iter()
        .flat_map(|address| [Some(address), second.next()])
        .flatten()
        .collect();
    all.extend(second);
    all
}

/// Connects to the first address that answers; the next one is tried when one fails or hesitates.
async fn race(addresses: Vec<SocketAddr>) -> Result<(TcpStream, SocketAddr), Refused> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last_error = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(attempt(address));
        }
        let more = waiting.len() > 0;
        tokio::select! {
            biased;
            Some(result) = attempts.next() => match result {
                Ok(connected) => return Ok(connected),
                Err(error) => last_error = Some(error),
            },
            () = sleep(ATTEMPT_DELAY), if more => {}
            else => return Err(refused(last_error.as_ref())),
        }
    }
}

async fn attempt(address: SocketAddr) -> io::Result<(TcpStream, SocketAddr)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(limits::TCP_KEEPALIVE))?;
    Ok((stream, address))
}

fn refused(error: Option<&io::Error>) -> Refused {
    let code = match error.map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => error_code::UPSTREAM_REFUSED,
        Some(io::ErrorKind::TimedOut) => error_code::UPSTREAM_CONNECT_TIMEOUT,
        _ => error_code::UPSTREAM_UNREACHABLE,
    };
    let detail = error.map_or_else(
        || "there is no address to connect to".to_owned(),
        |error| format!("cannot connect: {}", disconnect::without_number(error)),
    );
    (code, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let all = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]
            .map(|a| a.parse().unwrap())
            .to_vec();
        let turns: Vec<_> = interleave(all).iter().map(ToString::to_string).collect();
        assert_eq!(turns, ["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]);
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_followed_by_the_next() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let closed = {
            let unused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            unused.local_addr().unwrap()
        };
        assert_eq!(race(vec![closed, open]).await.unwrap().1, open);
        assert_eq!(race(vec![closed]).await.unwrap_err().0, error_code::UPSTREAM_REFUSED);
    }
}
