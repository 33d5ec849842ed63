//! The table of raw requests that the HTTP/1 codec is tested with.

const TABLE: &str = include_str!("../../crates/h1/tests/raw_requests.tsv");

/// A request of the table, as bytes, and what becomes of it.
#[derive(Debug)]
pub struct RawRequest {
    /// `accept`, or the code of the refusal.
    pub verdict: &'static str,
    /// What is odd about it.
    pub name: &'static str,
    /// For an origin that calls itself `h`.
    pub bytes: Vec<u8>,
}

impl RawRequest {
    /// Every request of the table.
    pub fn all() -> Vec<Self> {
        TABLE.lines().filter(|line| !line.starts_with('#')).map(parse).collect()
    }

    /// Those that are refused.
    pub fn refused() -> Vec<Self> {
        let mut all = Self::all();
        all.retain(|request| !request.is_accepted());
        all
    }

    /// Is it to be carried?
    pub fn is_accepted(&self) -> bool {
        self.verdict == "accept"
    }

    /// The same as a client sends it that knows it speaks to a proxy: with `authority` in target and Host.
    pub fn absolute(&self, authority: &str) -> Vec<u8> {
        let target = replaced(
            &self.bytes,
            b" / HTTP/",
            format!(" http://{authority}/ HTTP/").as_bytes(),
        );
        replaced(&target, b"Host: h\r", format!("Host: {authority}\r").as_bytes())
    }
}

fn parse(line: &'static str) -> RawRequest {
    let [verdict, name, bytes] = line.split('\t').collect::<Vec<_>>()[..] else {
        panic!("not three columns: {line}")
    };
    RawRequest {
        verdict,
        name,
        bytes: unescaped(bytes),
    }
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut rest = text.bytes();
    let mut bytes = Vec::new();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'x') => {
                    let digits: String = rest.by_ref().take(2).map(char::from).collect();
                    u8::from_str_radix(&digits, 16).expect("two hexadecimal digits follow \\x")
                }
                other => other.expect("something follows a backslash"),
            },
            other => other,
        });
    }
    bytes
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}
