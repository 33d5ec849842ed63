//! Request heads.

use std::ops::Range;

use bytes::Bytes;

use crate::{Authority, Framing, Head, Known, Limits, Refusal, Version, field::is_token, framing};

/// A request head that has one meaning only.
#[derive(Clone, Debug)]
pub struct RequestHead {
    head: Head,
    method_end: usize,
    target: Range<usize>,
    version: Version,
    form: Form,
    framing: Framing,
}

/// The form of a request target (RFC 9112 §3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`.
    Origin,
    /// `http://host/path?query`.
    Absolute {
        /// Of the target.
        scheme: Scheme,
        /// Where its authority lies in the target.
        authority: Range<usize>,
    },
    /// `host:port`, of CONNECT.
    Authority,
    /// `*`, of OPTIONS.
    Asterisk,
}

/// Scheme of an absolute target. `ws` and `wss`, which some clients write there, mean `http` and `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

impl Scheme {
    /// As in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Port that a URL need not name.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl RequestHead {
    /// Parses a whole head, from its request line to its empty line.
    pub fn parse(raw: Bytes, limits: Limits) -> Result<Self, Refusal> {
        let head = Head::parse(raw, limits)?;
        let (method_end, target, version) = request_line(head.start_line())?;
        let form = form(&head.raw()[..method_end], &head.raw()[target.clone()])?;
        let framing = framing::declared(&head, version)?.unwrap_or(Framing::None);
        let request = Self {
            head,
            method_end,
            target,
            version,
            form,
            framing,
        };
        request.check_host()?;
        if request.form == Form::Authority && !request.framing.is_empty() {
            return Err(Refusal::ConnectWithBody);
        }
        Ok(request)
    }

    /// Bytes and fields.
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The method, as it came.
    pub fn method(&self) -> &[u8] {
        &self.head.raw()[..self.method_end]
    }

    /// The method, sharing the head's memory.
    pub fn shared_method(&self) -> Bytes {
        self.head.raw().slice(..self.method_end)
    }

    /// The target, as it came.
    pub fn target(&self) -> &[u8] {
        &self.head.raw()[self.target.clone()]
    }

    /// Version of the request.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Form of the target.
    pub const fn form(&self) -> &Form {
        &self.form
    }

    /// How long the body is.
    pub const fn framing(&self) -> Framing {
        self.framing
    }

    /// Authority of an absolute target or of CONNECT.
    pub fn authority(&self) -> Option<Authority<'_>> {
        match &self.form {
            Form::Absolute { authority, .. } => Authority::parse(&self.target()[authority.clone()]),
            Form::Authority => Authority::parse(self.target()),
            Form::Origin | Form::Asterisk => None,
        }
    }

    /// What the Host field says.
    pub fn host(&self) -> Option<Authority<'_>> {
        self.head.values(Known::Host).next().and_then(Authority::parse)
    }

    /// The target for an origin, in two pieces: what is added before, and the exact rest of what came.
    ///
    /// Something is added only to an absolute target without path.
    pub fn origin_form(&self) -> (&'static [u8], Bytes) {
        let rest = self
            .head
            .raw()
            .slice(self.target.start + self.path_start()..self.target.end);
        let added: &[u8] = match (&self.form, rest.first()) {
            (Form::Absolute { .. }, None) if self.method() == b"OPTIONS" => b"*",
            (Form::Absolute { .. }, None | Some(b'?')) => b"/",
            _ => b"",
        };
        (added, rest)
    }

    /// Path and query of the target. The query is `None` without `?`, and comes without it.
    pub fn path_and_query(&self) -> (Bytes, Option<Bytes>) {
        let (added, rest) = self.origin_form();
        let (path, query) = match memchr::memchr(b'?', &rest) {
            Some(at) => (rest.slice(..at), Some(rest.slice(at + 1..))),
            None => (rest, None),
        };
        (
            if path.is_empty() {
                Bytes::from_static(added)
            } else {
                path
            },
            query,
        )
    }

    /// May further requests follow on the connection, as far as the client is concerned?
    pub const fn keeps_alive(&self) -> bool {
        matches!(self.version, Version::Http11) && !self.head.connection.close
    }

    /// Does the client wait for 100 Continue before it sends the body?
    pub fn expects_continue(&self) -> bool {
        self.version == Version::Http11
            && !self.framing.is_empty()
            && self
                .head
                .values(Known::Expect)
                .any(|value| value.eq_ignore_ascii_case(b"100-continue"))
    }

    /// The protocol that the client asks to change to.
    ///
    /// An offer of h2c is none: nobody needs it, and it would hide the exchanges that follow.
    pub fn upgrade(&self) -> Option<&[u8]> {
        if self.version == Version::Http10 || !self.head.connection.upgrade {
            return None;
        }
        let protocol = self.head.values(Known::Upgrade).next()?;
        (!protocol.is_empty() && !protocol.eq_ignore_ascii_case(b"h2c")).then_some(protocol)
    }

    /// May it be sent again without harm (RFC 9110 §9.2.2)?
    pub fn is_idempotent(&self) -> bool {
        matches!(
            self.method(),
            b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
        )
    }

    fn path_start(&self) -> usize {
        match &self.form {
            Form::Absolute { authority, .. } => authority.end,
            Form::Origin | Form::Authority | Form::Asterisk => 0,
        }
    }

    fn check_host(&self) -> Result<(), Refusal> {
        let mut values = self.head.values(Known::Host);
        let Some(value) = values.next() else {
            // CONNECT names its authority in the target, and old clients leave Host out there.
            let needed = self.version == Version::Http11 && self.form != Form::Authority;
            return if needed { Err(Refusal::MissingHost) } else { Ok(()) };
        };
        if values.next().is_some() {
            return Err(Refusal::SeveralHosts);
        }
        let host = Authority::parse(value).ok_or(Refusal::InvalidHost)?;
        match (&self.form, self.authority()) {
            (Form::Absolute { scheme, .. }, Some(target)) if !target.agrees(&host, scheme.default_port()) => {
                Err(Refusal::HostMismatch)
            }
            _ => Ok(()),
        }
    }
}

/// Where method and target lie in the line, and the version.
fn request_line(line: &[u8]) -> Result<(usize, Range<usize>, Version), Refusal> {
    let method_end = line
        .iter()
        .position(|&b| !is_token(b))
        .ok_or(Refusal::InvalidRequestLine)?;
    if method_end == 0 || line[method_end] != b' ' {
        return Err(Refusal::InvalidRequestLine);
    }
    let target_start = method_end + 1;
    let target_len = line[target_start..].iter().position(|&b| b <= b' ' || b == 0x7f);
    let Some(target_len) = target_len else {
        return Err(if target_start == line.len() {
            Refusal::InvalidRequestLine
        } else {
            Refusal::Http09
        });
    };
    let target_end = target_start + target_len;
    if target_len == 0 || line[target_end] != b' ' {
        return Err(Refusal::InvalidRequestLine);
    }
    let version = &line[target_end + 1..];
    if version.len() != 8 || !version.starts_with(b"HTTP/") {
        return Err(Refusal::InvalidRequestLine);
    }
    Ok((method_end, target_start..target_end, Version::parse(version)?))
}

fn form(method: &[u8], target: &[u8]) -> Result<Form, Refusal> {
    if method == b"CONNECT" {
        let port = Authority::parse(target).and_then(|authority| authority.port);
        return if port.is_some_and(|port| port != 0) {
            Ok(Form::Authority)
        } else {
            Err(Refusal::InvalidTarget)
        };
    }
    match target {
        [b'/', ..] => Ok(Form::Origin),
        b"*" if method == b"OPTIONS" => Ok(Form::Asterisk),
        _ => absolute(target),
    }
}

fn absolute(target: &[u8]) -> Result<Form, Refusal> {
    let scheme_len = memchr::memchr(b':', target).ok_or(Refusal::InvalidTarget)?;
    let (scheme, rest) = target.split_at(scheme_len);
    let rest = rest.strip_prefix(b"://").ok_or(Refusal::InvalidTarget)?;
    let scheme = match scheme.to_ascii_lowercase().as_slice() {
        b"http" | b"ws" => Scheme::Http,
        b"https" | b"wss" => Scheme::Https,
        _ => return Err(Refusal::UnsupportedScheme),
    };
    let len = rest
        .iter()
        .position(|b| matches!(b, b'/' | b'?' | b'#'))
        .unwrap_or(rest.len());
    let start = scheme_len + 3;
    if rest.get(len) == Some(&b'#') || Authority::parse(&rest[..len]).is_none_or(|a| a.port == Some(0)) {
        return Err(Refusal::InvalidTarget);
    }
    Ok(Form::Absolute {
        scheme,
        authority: start..start + len,
    })
}
