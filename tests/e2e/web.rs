//! The API as a browser sees it: grpc-web over HTTP/1.1, framed by hand, and what pages of others are told.

use prost::Message;
use proxyplane_proto::v1::{
    DeleteProxyServiceRequest, ListProxyServicesRequest, ListProxyServicesResponse, WatchTrafficRequest,
    WatchTrafficResponse, watch_traffic_response::Event,
};
use proxyplane_tests::{RawClient, RawOrigin, World, eventually, nginx};

const LIST: &str = "proxyplane.v1.ProxyLifecycleService/ListProxyServices";
const DELETE: &str = "proxyplane.v1.ProxyLifecycleService/DeleteProxyService";
const WATCH: &str = "proxyplane.v1.TrafficService/WatchTraffic";
/// A page that `serve` was told of.
const PAGE: &str = "http://localhost:5173";

#[test]
fn a_page_manages_proxies() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("shown").create();
    let mut answer = Answer::to(workspace.world(), LIST, &ListProxyServicesRequest::default(), &bearer());
    assert!(answer.head.starts_with("HTTP/1.1 200"), "{}", answer.head);
    assert!(
        answer.head.contains("content-type: application/grpc-web+proto"),
        "{}",
        answer.head
    );
    let list: ListProxyServicesResponse = answer.message();
    assert!(list.proxy_services.iter().any(|shown| shown.id == proxy.id()));
    assert!(answer.trailers().contains("grpc-status:0"));
}

#[test]
fn a_page_watches_traffic_as_it_comes() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("watched").start();
    let watch = WatchTrafficRequest {
        proxy_id: proxy.id().into(),
        ..WatchTrafficRequest::default()
    };
    let mut answer = Answer::to(workspace.world(), WATCH, &watch, &bearer());
    let mut next = || answer.message::<WatchTrafficResponse>().event.expect("a known event");
    assert!(matches!(next(), Event::Subscribed(_)));
    proxy.curl().get(&nginx().http("/query?from-a-page"));
    let stored = loop {
        if let Event::Stored(exchange) = next() {
            break exchange;
        }
    };
    assert_eq!((stored.query.as_str(), stored.status), ("from-a-page", 200));
}

#[test]
fn a_call_ends_at_its_deadline() {
    let headers = format!("{}grpc-timeout: 200m\r\n", bearer());
    let mut answer = Answer::to(World::shared(), WATCH, &WatchTrafficRequest::default(), &headers);
    // A slow server does not even get as far as the answer's beginning.
    if answer.head.contains("grpc-status: 4") {
        return;
    }
    let trailers = loop {
        if let (0x80, trailers) = answer.frame() {
            break String::from_utf8(trailers).unwrap();
        }
    };
    assert!(trailers.contains("grpc-status:4"), "{trailers}");
}

#[test]
fn a_deletion_that_is_not_over_at_its_deadline_says_what_it_waits_for_and_goes_on() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("busy").start();
    let origin = RawOrigin::serving(|peer| {
        peer.send("hello")?;
        peer.read_to_end().map(drop)
    });
    let mut tunnel = proxy.connect().tunnel(&origin.address());
    tunnel.read_exactly(5);
    let deletion = DeleteProxyServiceRequest {
        id: proxy.id().to_owned(),
        ..Default::default()
    };
    let headers = format!("{}grpc-timeout: 1S\r\n", bearer());
    let answer = Answer::to(workspace.world(), DELETE, &deletion, &headers);
    assert!(answer.head.contains("grpc-status: 4"), "{}", answer.head);
    let message = answer.head.replace("%20", " ").replace("%60", "`");
    assert!(
        message.contains("the deletion goes on") && message.contains("`discard`"),
        "{message}"
    );
    drop(tunnel);
    eventually("it is deleted all the same", || {
        (proxy.ctl("get", [""; 0]).code == 4).then_some(())
    });
}

#[test]
fn without_the_token_a_page_is_told_so() {
    for path in [LIST, WATCH] {
        let answer = Answer::to(World::shared(), path, &ListProxyServicesRequest::default(), "");
        assert!(answer.head.contains("grpc-status: 16"), "{path}: {}", answer.head);
    }
}

#[test]
fn only_pages_that_the_server_was_told_of_may_call() {
    let world = World::start_with(&["--allowed-origin", PAGE]);
    let preflight = |origin: &str| {
        let mut client = RawClient::connect(world.listen());
        client.send(format!(
            "OPTIONS /{LIST} HTTP/1.1\r\nHost: {}\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: authorization,content-type,x-grpc-web\r\n\r\n",
            world.listen()
        ));
        client.read_head().to_ascii_lowercase()
    };
    let allowed = preflight(PAGE);
    assert!(allowed.starts_with("http/1.1 200"), "{allowed}");
    assert!(
        allowed.contains(&format!("access-control-allow-origin: {PAGE}")),
        "{allowed}"
    );
    assert!(
        allowed.contains("access-control-allow-headers") && allowed.contains("authorization"),
        "{allowed}"
    );

    let token = format!("Authorization: Bearer {}\r\n", world.token());
    let call = |headers: &str| {
        let headers = format!("{token}{headers}");
        Answer::to(&world, LIST, &ListProxyServicesRequest::default(), &headers)
            .head
            .to_ascii_lowercase()
    };
    let called = call(&format!("Origin: {PAGE}\r\n"));
    assert!(
        called.starts_with("http/1.1 200") && called.contains(&format!("access-control-allow-origin: {PAGE}")),
        "{called}"
    );
    for origin in ["http://evil.example", "null", "http://localhost:5174"] {
        let refused = preflight(origin);
        assert!(refused.starts_with("http/1.1 403"), "{origin}: {refused}");
        assert!(!refused.contains("access-control-allow-origin"), "{origin}: {refused}");
        // With the token, too: a page that got hold of one is still another's.
        let refused = call(&format!("Origin: {origin}\r\n"));
        assert!(refused.starts_with("http/1.1 403"), "{origin}: {refused}");
        assert!(refused.contains("grpc-status: 7"), "{origin}: {refused}");
    }
}

#[test]
fn a_name_that_was_rebound_to_us_is_refused() {
    let world = World::shared();
    for host in ["evil.example", "evil.example:7070", "127.0.0.1.evil.example"] {
        let mut client = RawClient::connect(world.listen());
        client.send(request(LIST, host, &bearer(), &[0; 5]));
        let head = client.read_head();
        assert!(
            head.starts_with("HTTP/1.1 403") && head.contains("grpc-status: 7"),
            "{host}: {head}"
        );
    }
}

fn bearer() -> String {
    format!("Authorization: Bearer {}\r\n", World::shared().token())
}

fn request(path: &str, host: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/grpc-web+proto\r\nX-Grpc-Web: 1\r\n\
         {headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// An answer of grpc-web: frames of a flag byte, a length and a message or, at the end, trailers.
struct Answer {
    client: RawClient,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn to(world: &World, path: &str, message: &impl Message, headers: &str) -> Self {
        let message = message.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let body = [&[0], length.as_slice(), &message].concat();
        let mut client = RawClient::connect(world.listen());
        client.send(request(path, world.listen(), headers, &body));
        Self {
            head: client.read_head(),
            client,
            body: Vec::new(),
        }
    }

    fn message<M: Message + Default>(&mut self) -> M {
        let (flag, message) = self.frame();
        assert_eq!(flag, 0, "trailers: {}", String::from_utf8_lossy(&message));
        M::decode(message.as_slice()).unwrap()
    }

    fn trailers(&mut self) -> String {
        let (flag, trailers) = self.frame();
        assert_eq!(flag, 0x80, "a message");
        String::from_utf8(trailers).unwrap()
    }

    fn frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.take(5);
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        (head[0], self.take(length as usize))
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        while self.body.len() < count {
            let size = String::from_utf8(self.client.read_until(b"\r\n")).unwrap();
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            self.body.extend(self.client.read_exactly(size));
            self.client.read_exactly(2);
        }
        self.body.drain(..count).collect()
    }
}
