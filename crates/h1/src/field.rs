//! Field lines of a head: where they lie, and which ones the codec knows.

use bytes::Bytes;
use memchr::{memchr, memchr2};

use crate::{Limits, Refusal};

/// The exact bytes of a head and where its fields are in them.
#[derive(Clone, Debug)]
pub struct Head {
    raw: Bytes,
    start_line_end: usize,
    fields: Vec<Field>,
    pub(crate) connection: ConnectionOptions,
}

/// Offsets into the head; a head is far below 4 GiB.
#[derive(Clone, Copy, Debug)]
struct Field {
    line: u32,
    name_end: u32,
    value: u32,
    value_end: u32,
    end: u32,
    known: Known,
}

/// One field of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldRef<'a> {
    /// Name in the case it came in.
    pub name: &'a [u8],
    /// Value without the white space around it.
    pub value: &'a [u8],
    /// Which one it is.
    pub known: Known,
    /// The whole line with its CRLF.
    pub line: &'a [u8],
}

/// Fields that mean something to this hop or to the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the field of that name")]
pub enum Known {
    Other,
    Connection,
    ContentEncoding,
    ContentLength,
    ContentType,
    Expect,
    Host,
    Http2Settings,
    KeepAlive,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Te,
    TransferEncoding,
    Upgrade,
}

impl Known {
    /// Which field `name` is, in any case.
    pub fn of(name: &[u8]) -> Self {
        let candidates: &[(&[u8], Self)] = match name.len() {
            2 => &[(b"te", Self::Te)],
            4 => &[(b"host", Self::Host)],
            6 => &[(b"expect", Self::Expect)],
            7 => &[(b"upgrade", Self::Upgrade)],
            10 => &[(b"connection", Self::Connection), (b"keep-alive", Self::KeepAlive)],
            12 => &[(b"content-type", Self::ContentType)],
            14 => &[
                (b"content-length", Self::ContentLength),
                (b"http2-settings", Self::Http2Settings),
            ],
            16 => &[
                (b"content-encoding", Self::ContentEncoding),
                (b"proxy-connection", Self::ProxyConnection),
            ],
            17 => &[(b"transfer-encoding", Self::TransferEncoding)],
            18 => &[(b"proxy-authenticate", Self::ProxyAuthenticate)],
            19 => &[(b"proxy-authorization", Self::ProxyAuthorization)],
            _ => &[],
        };
        candidates
            .iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known))
            .map_or(Self::Other, |&(_, known)| known)
    }
}

/// What the Connection fields of a head say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectionOptions {
    pub(crate) close: bool,
    pub(crate) upgrade: bool,
    /// It names fields, which are then of this hop only.
    pub(crate) names_fields: bool,
}

impl ConnectionOptions {
    fn add(&mut self, value: &[u8]) {
        for option in list(value) {
            match option.len() {
                0 => {}
                5 if option.eq_ignore_ascii_case(b"close") => self.close = true,
                7 if option.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
                10 if option.eq_ignore_ascii_case(b"keep-alive") => {}
                _ => self.names_fields = true,
            }
        }
    }
}

/// Members of a comma-separated list, trimmed; empty ones included.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim)
}

/// Without the optional white space (RFC 9110 §5.6.3) around it.
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Is `byte` a tchar (RFC 9110 §5.6.2)?
pub(crate) const fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\''
            | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

impl Head {
    /// Splits a whole head, from its start line to its empty line and nothing after it.
    pub(crate) fn parse(raw: Bytes, limits: Limits) -> Result<Self, Refusal> {
        if raw.len() > limits.bytes {
            return Err(Refusal::HeadTooLarge);
        }
        let (line, start_line_end) = line(&raw, 0)?;
        if line.is_empty() {
            return Err(Refusal::EmptyStartLine);
        }
        check_text(line)?;
        let (fields, connection) = parse_fields(&raw, start_line_end, limits)?;
        Ok(Self {
            raw,
            start_line_end,
            fields,
            connection,
        })
    }

    /// The exact bytes, from start line to empty line.
    pub const fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The start line without its CRLF.
    pub(crate) fn start_line(&self) -> &[u8] {
        &self.raw[..self.start_line_end - 2]
    }

    /// Every field, in order.
    pub fn fields(&self) -> impl Iterator<Item = FieldRef<'_>> {
        self.fields.iter().map(|field| FieldRef {
            name: &self.raw[field.line as usize..field.name_end as usize],
            value: &self.raw[field.value as usize..field.value_end as usize],
            known: field.known,
            line: &self.raw[field.line as usize..field.end as usize],
        })
    }

    /// Values of a known field, in order.
    pub fn values(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.fields
            .iter()
            .filter(move |f| f.known == known)
            .map(|f| &self.raw[f.value as usize..f.value_end as usize])
    }

    /// First value of a known field, sharing the head's memory; empty when there is none.
    pub fn shared_value(&self, known: Known) -> Bytes {
        self.fields
            .iter()
            .find(|field| field.known == known)
            .map_or_else(Bytes::new, |field| {
                self.raw.slice(field.value as usize..field.value_end as usize)
            })
    }

    /// First value of the field called `name`, in any case.
    pub fn value_of(&self, name: &str) -> Option<&[u8]> {
        self.fields()
            .find(|field| field.name.eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| field.value)
    }
}

/// The line that begins at `at`, without its CRLF, and where the next one begins.
fn line(raw: &[u8], at: usize) -> Result<(&[u8], usize), Refusal> {
    let rest = raw.get(at..).unwrap_or_default();
    let end = memchr(b'\n', rest).ok_or(Refusal::IncompleteHead)?;
    match &rest[..end] {
        [line @ .., b'\r'] => Ok((line, at + end + 1)),
        _ => Err(Refusal::BareLf),
    }
}

fn check_text(text: &[u8]) -> Result<(), Refusal> {
    match memchr2(b'\r', 0, text) {
        None => Ok(()),
        Some(at) if text[at] == 0 => Err(Refusal::NulByte),
        Some(_) => Err(Refusal::BareCr),
    }
}

fn parse_fields(raw: &[u8], mut at: usize, limits: Limits) -> Result<(Vec<Field>, ConnectionOptions), Refusal> {
    let mut fields = Vec::with_capacity(16);
    let mut connection = ConnectionOptions::default();
    loop {
        let (text, end) = line(raw, at)?;
        if text.is_empty() {
            // Bytes after the empty line are no part of this head: whoever cut it here was wrong.
            return if end == raw.len() {
                Ok((fields, connection))
            } else {
                Err(Refusal::IncompleteHead)
            };
        }
        if fields.len() == limits.fields {
            return Err(Refusal::TooManyFields);
        }
        let name_len = name_len(text)?;
        check_text(&text[name_len..])?;
        let padded = &text[name_len + 1..];
        let value = trim(padded);
        let leading = padded.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        let value_at = if value.is_empty() {
            at + text.len()
        } else {
            at + name_len + 1 + leading
        };
        let known = Known::of(&text[..name_len]);
        if known == Known::Connection {
            connection.add(value);
        }
        fields.push(Field {
            line: at as u32,
            name_end: (at + name_len) as u32,
            value: value_at as u32,
            value_end: (value_at + value.len()) as u32,
            end: end as u32,
            known,
        });
        at = end;
    }
}

/// Length of the field name in a line; right after it is the colon.
fn name_len(text: &[u8]) -> Result<usize, Refusal> {
    let len = text
        .iter()
        .position(|&b| !is_token(b))
        .ok_or(Refusal::InvalidFieldName)?;
    match (len, text[len]) {
        (0, b' ' | b'\t') => Err(Refusal::ObsFold),
        (1.., b':') => Ok(len),
        (_, b' ' | b'\t') => Err(Refusal::SpaceBeforeColon),
        (_, b'\r') => Err(Refusal::BareCr),
        (_, 0) => Err(Refusal::NulByte),
        _ => Err(Refusal::InvalidFieldName),
    }
}

/// Checks trailer lines, `lines` being whole lines with the empty one at their end.
pub(crate) fn check_trailers(lines: &[u8], limits: Limits) -> Result<(), Refusal> {
    let (fields, _) = parse_fields(lines, 0, limits)?;
    let decides = |known| {
        matches!(
            known,
            Known::ContentLength | Known::TransferEncoding | Known::Host | Known::Connection
        )
    };
    if fields.iter().any(|field| decides(field.known)) {
        Err(Refusal::TrailerNotAllowed)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Head, Refusal> {
        Head::parse(Bytes::copy_from_slice(text.as_bytes()), Limits::CAPTURE)
    }

    #[test]
    fn fields_keep_case_order_and_exact_lines() {
        let head = head("X\r\nB-b:  two words \r\na:\r\nA:\t1\r\n\r\n").unwrap();
        let seen: Vec<_> = head.fields().map(|f| (f.name, f.value)).collect();
        let expected: [(&[u8], &[u8]); 3] = [(b"B-b", b"two words"), (b"a", b""), (b"A", b"1")];
        assert_eq!(seen, expected);
        assert_eq!(head.fields().next().unwrap().line, b"B-b:  two words \r\n");
        assert_eq!(head.value_of("A"), Some(&b""[..]));
    }

    #[test]
    fn malformed_lines_are_refused() {
        for (text, refusal) in [
            ("X\r\n: v\r\n\r\n", Refusal::InvalidFieldName),
            ("X\r\nnocolon\r\n\r\n", Refusal::InvalidFieldName),
            ("X\r\na b: v\r\n\r\n", Refusal::SpaceBeforeColon),
            ("X\r\na : v\r\n\r\n", Refusal::SpaceBeforeColon),
            ("X\r\na: v\r\n more\r\n\r\n", Refusal::ObsFold),
            ("X\r\n a: v\r\n\r\n", Refusal::ObsFold),
            ("X\r\na: v\rw\r\n\r\n", Refusal::BareCr),
            ("X\r\na: v\0w\r\n\r\n", Refusal::NulByte),
            ("X\r\na: v\n\r\n", Refusal::BareLf),
            ("X\r\na: v\r\n", Refusal::IncompleteHead),
            ("X\r\na: v\r\n\r\nz", Refusal::IncompleteHead),
            ("X\ry\r\n\r\n", Refusal::BareCr),
        ] {
            assert_eq!(head(text).unwrap_err(), refusal, "{text:?}");
        }
    }

    #[test]
    fn connection_options_are_read_from_every_line() {
        let head = head("X\r\nConnection: keep-alive, X-A\r\nconnection: ,CLOSE\r\n\r\n").unwrap();
        let all = ConnectionOptions {
            close: true,
            upgrade: false,
            names_fields: true,
        };
        assert_eq!(head.connection, all);
    }
}
