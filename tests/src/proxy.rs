//! A proxy of a test.

use std::ffi::{OsStr, OsString};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{Authority, Curl, Exchange, Ran, RawClient, Workspace, World, eventually, nginx};

/// A proxy to be.
pub struct ProxyBuilder<'w> {
    workspace: &'w Workspace<'w>,
    name: String,
    arguments: Vec<OsString>,
}

impl<'w> ProxyBuilder<'w> {
    pub(crate) fn new(workspace: &'w Workspace<'w>, name: &str) -> Self {
        Self {
            workspace,
            name: name.to_owned(),
            arguments: Vec::new(),
        }
    }

    /// More arguments of `proxyctl proxy create`.
    #[must_use]
    pub fn with<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// It trusts origins with certificates of this CA.
    #[must_use]
    pub fn trusting(self, authority: &Authority) -> Self {
        let file = authority.file();
        self.with([OsStr::new("--extra-ca"), file.as_ref()])
    }

    /// It trusts the shared nginx.
    #[must_use]
    pub fn trusting_nginx(self) -> Self {
        self.trusting(nginx().authority())
    }

    /// Creates it and leaves it stopped.
    #[track_caller]
    pub fn create(self) -> Proxy<'w> {
        self.made(false)
    }

    /// Creates it and starts it.
    #[track_caller]
    pub fn start(self) -> Proxy<'w> {
        self.made(true)
    }

    #[track_caller]
    fn made(self, start: bool) -> Proxy<'w> {
        let mut arguments: Vec<OsString> = ["-o", "json", "proxy", "create", &self.name].map(Into::into).to_vec();
        arguments.extend(self.arguments);
        if start {
            arguments.push("--start".into());
        }
        let made = self.workspace.proxyctl(arguments).json();
        let id = made["id"].as_str().expect("a proxy has an id").to_owned();
        let port = made["port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .expect("a proxy has a port");
        Proxy {
            workspace: self.workspace,
            id,
            name: self.name,
            port,
        }
    }
}

/// A proxy of a test.
pub struct Proxy<'w> {
    workspace: &'w Workspace<'w>,
    id: String,
    name: String,
    port: u16,
}

impl Proxy<'_> {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its name in its workspace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The world it is in.
    pub fn world(&self) -> &World {
        self.workspace.world()
    }

    /// `proxyctl proxy VERB ID …`
    pub fn ctl<A: AsRef<OsStr>>(&self, verb: &str, more: impl IntoIterator<Item = A>) -> Ran {
        let mut arguments: Vec<OsString> = ["-o", "json", "proxy", verb, &self.id].map(Into::into).to_vec();
        arguments.extend(more.into_iter().map(|argument| argument.as_ref().to_owned()));
        self.workspace.proxyctl(arguments)
    }

    /// Starts it.
    #[track_caller]
    pub fn start(&self) -> Value {
        self.ctl("start", [""; 0]).json()
    }

    /// Stops it.
    #[track_caller]
    pub fn stop(&self) -> Value {
        self.ctl("stop", [""; 0]).json()
    }

    /// Restarts it.
    #[track_caller]
    pub fn restart(&self) -> Value {
        self.ctl("restart", [""; 0]).json()
    }

    /// Changes it: arguments of `proxyctl proxy update`.
    #[track_caller]
    pub fn update<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Value {
        self.ctl("update", arguments).json()
    }

    /// Itself as it is now.
    #[track_caller]
    pub fn get(&self) -> Value {
        self.ctl("get", [""; 0]).json()
    }

    /// Its state now.
    #[track_caller]
    pub fn state(&self) -> String {
        self.get()["state"].as_str().expect("a proxy has a state").to_owned()
    }

    /// Waits for a state.
    #[track_caller]
    pub fn becomes(&self, state: &str) -> Value {
        eventually(&format!("'{}' becomes {state}", self.name), || {
            let now = self.ctl("get", [""; 0]).json_if_there()?;
            (now["state"] == state).then_some(now)
        })
    }

    /// Process id of its worker.
    #[track_caller]
    pub fn worker(&self) -> i32 {
        let pid = self.get()["pid"]
            .as_i64()
            .unwrap_or_else(|| panic!("'{}' has no worker", self.name));
        i32::try_from(pid).expect("process ids fit")
    }

    /// Sends its worker a signal.
    #[track_caller]
    pub fn signal_worker(&self, signal: Signal) {
        kill(Pid::from_raw(self.worker()), signal).expect("the worker can be signalled");
    }

    /// Waits until every record its worker has made is committed.
    #[track_caller]
    pub fn drained(&self) -> Value {
        eventually(&format!("'{}' has committed everything", self.name), || {
            let now = self.ctl("get", [""; 0]).json_if_there()?;
            (now["backlog"] == 0).then_some(now)
        })
    }

    /// Waits until so many exchanges are stored and nothing waits any more: each once, and counted once.
    #[track_caller]
    pub fn exactly_once(&self, carried: usize) {
        let stored = || {
            let count = self.world().sql(&format!(
                "SELECT count(*) FROM exchanges WHERE service_id = '{}' AND state <> 1",
                self.id()
            ));
            count.parse::<usize>().expect("a count")
        };
        eventually(&format!("all {carried} exchanges are stored"), || {
            (stored() >= carried).then_some(())
        });
        self.drained();
        assert_eq!(stored(), carried, "none twice");
        assert_eq!(self.get()["stored"], carried, "and counted once");
    }

    /// Waits until `count` exchanges have ended and are stored: those, oldest first. More than that is a failure.
    #[track_caller]
    pub fn exchanges(&self, count: usize) -> Vec<Exchange> {
        let mut seen = Vec::new();
        eventually(&format!("'{}' has stored {count} exchanges", self.name), || {
            seen = self.stored();
            assert!(seen.len() <= count, "more than {count} exchanges: {seen:#?}");
            (seen.len() == count && seen.iter().all(Exchange::has_ended)).then_some(())
        });
        seen
    }

    /// Waits for its one exchange.
    #[track_caller]
    pub fn exchange(&self) -> Exchange {
        self.exchanges(1).remove(0)
    }

    /// What is stored now, oldest first.
    #[track_caller]
    pub fn stored(&self) -> Vec<Exchange> {
        let list = self
            .workspace
            .proxyctl(["-o", "json", "traffic", "list", "-n", "0", "--proxy", &self.id])
            .json();
        let rows = list.as_array().expect("a list is an array");
        rows.iter()
            .rev()
            .map(|row| Exchange::new(self.workspace.code(), row.clone()))
            .collect()
    }

    /// Everything that is known of an exchange.
    #[track_caller]
    pub fn detail(&self, exchange: &Exchange) -> Value {
        self.workspace
            .proxyctl(["-o", "json", "traffic", "get", exchange.id()])
            .json()
    }

    /// A stored head as it was on the wire.
    #[track_caller]
    pub fn head(&self, exchange: &Exchange, side: crate::Side) -> Vec<u8> {
        let detail = self.detail(exchange);
        let head = detail[format!("{}_head_base64", side.word())].as_str();
        BASE64_STANDARD
            .decode(head.expect("a detail has heads"))
            .expect("it is Base64")
    }

    /// A stored body, decoded.
    #[track_caller]
    pub fn body(&self, exchange: &Exchange, side: crate::Side) -> Vec<u8> {
        self.workspace
            .proxyctl(["traffic", "body", exchange.id(), side.word()])
            .ok()
            .stdout
    }

    /// A stored body as it was on the wire.
    #[track_caller]
    pub fn raw_body(&self, exchange: &Exchange, side: crate::Side) -> Vec<u8> {
        self.workspace
            .proxyctl(["traffic", "body", "--raw", exchange.id(), side.word()])
            .ok()
            .stdout
    }

    /// curl through it, trusting the installation's CA.
    pub fn curl(&self) -> Curl {
        Curl::direct()
            .trusting(&self.world().ca_file())
            .through(&self.address())
    }

    /// A connection to it, to speak byte by byte.
    #[track_caller]
    pub fn connect(&self) -> RawClient {
        RawClient::connect(&self.address())
    }
}
