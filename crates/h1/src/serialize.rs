//! Heads for the next hop: same order, same case, same bytes, without what belongs to this hop (RFC 9110 §7.6.1).

use crate::{FieldRef, Head, Known, RequestHead, ResponseHead, field::list};

/// Fields that Connection cannot take away: framing, routing, and what a later hop decides by.
const PROTECTED: [&[u8]; 20] = [
    b"authorization",
    b"cache-control",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"forwarded",
    b"host",
    b"origin",
    b"set-cookie",
    b"trailer",
    b"transfer-encoding",
    b"via",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-proto",
    b"x-real-ip",
];

/// What becomes of a field.
enum Fate {
    Keep,
    Drop,
    /// Its name stays, its value is this.
    Replace(&'static [u8]),
}

/// What a client is talking to, by which it depends whom fields about proxies are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// A proxy, which is us: they end here.
    Proxy,
    /// An origin, through a tunnel: they pass, since neither side knows of us.
    Tunnel,
}

impl RequestHead {
    /// Appends the head for an origin: origin-form target, byte for byte what came.
    pub fn write_to(&self, out: &mut Vec<u8>, hop: Hop) {
        let (added, rest) = self.origin_form();
        out.reserve(self.head().raw().len() + 8);
        out.extend_from_slice(self.method());
        out.push(b' ');
        out.extend_from_slice(added);
        out.extend_from_slice(&rest);
        out.push(b' ');
        out.extend_from_slice(self.version().as_str().as_bytes());
        out.extend_from_slice(b"\r\n");
        let upgrade = self.upgrade().is_some();
        write_fields(self.head(), out, |field| match field.known {
            Known::Connection if upgrade => Fate::Replace(b"Upgrade"),
            Known::Upgrade if upgrade => Fate::Keep,
            Known::Te if list(field.value).any(is_trailers) => Fate::Replace(b"trailers"),
            _ => fate(self.head(), field, hop),
        });
        out.extend_from_slice(b"\r\n");
    }
}

impl ResponseHead {
    /// Appends the head for the client; with `Connection: close` if its connection ends with this response.
    pub fn write_to(&self, out: &mut Vec<u8>, hop: Hop, closing: bool) {
        let upgrade = self.status() == 101;
        // After a 101 it is no longer HTTP's connection to close.
        let mut closing_said = !closing || upgrade;
        out.reserve(self.head().raw().len() + 20);
        out.extend_from_slice(self.head().start_line());
        out.extend_from_slice(b"\r\n");
        write_fields(self.head(), out, |field| match field.known {
            Known::Connection if upgrade => Fate::Replace(b"Upgrade"),
            Known::Connection if !closing_said => {
                closing_said = true;
                Fate::Replace(b"close")
            }
            // Also of a 426, which says by it what the client should ask for.
            Known::Upgrade if upgrade || self.status() == 426 => Fate::Keep,
            _ => fate(self.head(), field, hop),
        });
        out.extend_from_slice(if closing_said {
            b"\r\n"
        } else {
            b"Connection: close\r\n\r\n"
        });
    }
}

/// What becomes of a field that is neither about upgrading nor about closing.
fn fate(head: &Head, field: FieldRef<'_>, hop: Hop) -> Fate {
    match field.known {
        Known::TransferEncoding => Fate::Replace(b"chunked"),
        Known::Connection
        | Known::Http2Settings
        | Known::KeepAlive
        | Known::ProxyConnection
        | Known::Te
        | Known::Upgrade => Fate::Drop,
        Known::ProxyAuthenticate | Known::ProxyAuthorization if hop == Hop::Proxy => Fate::Drop,
        _ if head.connection.names_fields && is_named(head, field.name) => Fate::Drop,
        _ => Fate::Keep,
    }
}

fn is_named(head: &Head, name: &[u8]) -> bool {
    head.values(Known::Connection)
        .flat_map(list)
        .any(|option| option.eq_ignore_ascii_case(name))
        && !PROTECTED.iter().any(|protected| name.eq_ignore_ascii_case(protected))
}

fn is_trailers(member: &[u8]) -> bool {
    member.eq_ignore_ascii_case(b"trailers")
}

fn write_fields<'a>(head: &'a Head, out: &mut Vec<u8>, mut fate: impl FnMut(FieldRef<'a>) -> Fate) {
    for field in head.fields() {
        match fate(field) {
            Fate::Keep => out.extend_from_slice(field.line),
            Fate::Drop => {}
            // What stands there already in another case or spacing is left as it came.
            Fate::Replace(value)
                if field.known != Known::TransferEncoding && field.value.eq_ignore_ascii_case(value) =>
            {
                out.extend_from_slice(field.line);
            }
            Fate::Replace(value) => {
                out.extend_from_slice(field.name);
                out.extend_from_slice(b": ");
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}
