//! Everything that is known of an exchange but its bodies.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use proxyplane_proto::v1;
use serde::Serialize;

use super::{
    Exchange,
    head::{Field, display, fields_of},
    some,
};
use crate::{
    output::{Text, Tone},
    when,
};

/// Microseconds; null where the step did not happen.
#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the unit belongs into the JSON")]
struct Timings {
    dns_us: Option<i64>,
    connect_us: Option<i64>,
    tls_us: Option<i64>,
    first_byte_us: Option<i64>,
    total_us: Option<i64>,
}

#[derive(Serialize)]
struct Tls {
    version: String,
    cipher: String,
    alpn: Option<String>,
    sni: Option<String>,
}

impl From<v1::TlsInfo> for Tls {
    fn from(from: v1::TlsInfo) -> Self {
        Self {
            version: from.version,
            cipher: from.cipher,
            alpn: some(from.alpn),
            sni: some(from.sni),
        }
    }
}

/// Everything that is known of an exchange but its bodies.
#[derive(Serialize)]
pub(crate) struct Detail {
    #[serde(flatten)]
    pub(crate) exchange: Exchange,
    /// In order, with names as sent; values that are not UTF-8 are shown with `\xNN`.
    request_headers: Vec<Field>,
    response_headers: Vec<Field>,
    request_trailers: Vec<Field>,
    response_trailers: Vec<Field>,
    /// The exact bytes.
    request_head_base64: String,
    response_head_base64: String,
    informational_heads_base64: String,
    request_trailers_base64: String,
    response_trailers_base64: String,
    timings: Timings,
    origin_address: Option<String>,
    client_tls: Option<Tls>,
    origin_tls: Option<Tls>,
    #[serde(skip)]
    heads: Vec<(&'static str, Vec<u8>)>,
}

impl From<v1::ExchangeDetail> for Detail {
    fn from(from: v1::ExchangeDetail) -> Self {
        let timings = from.timings.unwrap_or_default();
        let exchange = Exchange::from(from.exchange.unwrap_or_default());
        Self {
            request_headers: fields_of(&from.request_head, true),
            response_headers: fields_of(&from.response_head, true),
            request_trailers: fields_of(&from.request_trailers, false),
            response_trailers: fields_of(&from.response_trailers, false),
            request_head_base64: BASE64_STANDARD.encode(&from.request_head),
            response_head_base64: BASE64_STANDARD.encode(&from.response_head),
            informational_heads_base64: BASE64_STANDARD.encode(&from.informational_heads),
            request_trailers_base64: BASE64_STANDARD.encode(&from.request_trailers),
            response_trailers_base64: BASE64_STANDARD.encode(&from.response_trailers),
            timings: Timings {
                dns_us: timings.dns_us,
                connect_us: timings.connect_us,
                tls_us: timings.tls_us,
                first_byte_us: timings.first_byte_us,
                total_us: timings.total_us.filter(|_| exchange.has_ended()),
            },
            origin_address: some(from.origin_address),
            client_tls: from.client_tls.map(Tls::from),
            origin_tls: from.origin_tls.map(Tls::from),
            exchange,
            heads: vec![
                ("REQUEST", from.request_head.into()),
                ("REQUEST TRAILERS", from.request_trailers.into()),
                ("BEFORE THE RESPONSE", from.informational_heads.into()),
                ("RESPONSE", from.response_head.into()),
                ("RESPONSE TRAILERS", from.response_trailers.into()),
            ],
        }
    }
}

impl Detail {
    /// The lines for people.
    pub(crate) fn lines(&self) -> Vec<Vec<Text>> {
        let exchange = &self.exchange;
        let mut lines = vec![exchange.line(), Vec::new()];
        for (name, value) in self.facts() {
            if let Some(value) = value {
                lines.push(vec![Text::new(format!("{name:<15}"), Tone::Faint), Text::plain(value)]);
            }
        }
        for (title, head) in &self.heads {
            if head.is_empty() {
                continue;
            }
            lines.extend([Vec::new(), vec![Text::new(title, Tone::Faint)]]);
            lines.extend(display(head).into_iter().map(|line| vec![Text::plain(line)]));
        }
        lines
    }

    fn facts(&self) -> [(&'static str, Option<String>); 10] {
        let exchange = &self.exchange;
        let body = |size: Option<u64>, captured: Option<u64>, cut: bool| {
            let note = match captured {
                Some(captured) if cut => format!(", {} stored (truncated)", when::bytes(captured)),
                _ => String::new(),
            };
            Some(size.map_or_else(|| "pending".to_owned(), |size| format!("{size} bytes{note}")))
        };
        let tls = |tls: &Option<Tls>| {
            let tls = tls.as_ref()?;
            let named = |name: &str, value: &Option<String>| Some(format!("{name} {}", value.as_ref()?));
            // A handshake that failed has no version and no cipher.
            let protocol = some(format!("{} {}", tls.version, tls.cipher).trim().to_owned());
            let parts = [protocol, named("ALPN", &tls.alpn), named("SNI", &tls.sni)];
            some(parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
        };
        [
            ("id", Some(exchange.id.clone())),
            (
                "error",
                exchange.error_detail.clone().or_else(|| exchange.error.clone()),
            ),
            ("client", some(exchange.client.clone())),
            ("origin", self.origin_address.clone()),
            ("client TLS", tls(&self.client_tls)),
            ("origin TLS", tls(&self.origin_tls)),
            (
                "request body",
                body(
                    exchange.request_size,
                    exchange.request_captured,
                    exchange.request_truncated,
                ),
            ),
            (
                "response body",
                body(
                    exchange.response_size,
                    exchange.response_captured,
                    exchange.response_truncated,
                ),
            ),
            ("timings", Some(self.timings.text(exchange.was_intercepted()))),
            ("flags", some(exchange.flags.join(", "))),
        ]
    }
}

impl Timings {
    /// `connected_before`: the connection was made for the client's CONNECT, so that its steps are no part of the total.
    fn text(&self, connected_before: bool) -> String {
        let connection = steps(&[("dns", self.dns_us), ("connect", self.connect_us), ("tls", self.tls_us)]);
        let answer = steps(&[("first byte", self.first_byte_us), ("total", self.total_us)]);
        if connection.is_empty() {
            answer
        } else if connected_before {
            format!("{answer}; the connection before: {connection}")
        } else {
            format!("{connection}, {answer}")
        }
    }
}

/// Those that happened.
fn steps(steps: &[(&str, Option<i64>)]) -> String {
    let known = steps
        .iter()
        .filter_map(|(name, us)| Some(format!("{name} {}", when::micros((*us)?))));
    known.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_made_for_the_connect_is_no_part_of_the_total() {
        let timings = Timings {
            dns_us: None,
            connect_us: Some(200),
            tls_us: Some(900),
            first_byte_us: Some(300),
            total_us: Some(400),
        };
        assert_eq!(
            timings.text(true),
            "first byte 300 µs, total 400 µs; the connection before: connect 200 µs, tls 900 µs"
        );
        assert_eq!(
            timings.text(false),
            "connect 200 µs, tls 900 µs, first byte 300 µs, total 400 µs"
        );
    }
}
