//! `http://proxyplane.local/` through the proxy: the CA certificate, and how to install it.

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;

/// The host that the proxy answers for itself, on port 80.
pub const HOST: &str = "proxyplane.local";

const PAGE: &str = include_str!("ca_page.html");

/// A complete answer, to be written by the exchange core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Content-Type.
    pub content_type: &'static str,
    /// Content-Length; of a HEAD request, what GET would have.
    pub content_length: usize,
    /// The body; empty for a HEAD request.
    pub body: Bytes,
    /// Further fields.
    pub headers: Vec<(&'static str, &'static str)>,
}

/// Answers a request for `path` (a query is ignored) with the root certificate `root_der`.
pub fn answer(method: &[u8], path: &[u8], root_der: &[u8]) -> Answer {
    let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
    let mut answer = match path {
        b"" | b"/" => page(root_der),
        b"/ca.pem" => certificate(
            "application/x-pem-file",
            r#"attachment; filename="ca.pem""#,
            pem(root_der),
        ),
        // Inline: iOS offers to install it only if it is not a download.
        b"/ca.crt" | b"/ca.der" => certificate(
            "application/x-x509-ca-cert",
            r#"inline; filename="ca.crt""#,
            Bytes::copy_from_slice(root_der),
        ),
        _ => text(404, "not found; the page is http://proxyplane.local/\n"),
    };
    if !matches!(method, b"GET" | b"HEAD") && answer.status == 200 {
        answer = text(405, "only GET and HEAD\n");
        answer.headers.push(("Allow", "GET, HEAD"));
    }
    answer.headers.push(("Cache-Control", "no-store"));
    answer.headers.push(("X-Content-Type-Options", "nosniff"));
    if method == b"HEAD" {
        answer.body = Bytes::new();
    }
    answer
}

fn page(root_der: &[u8]) -> Answer {
    let html = PAGE.replace("{{fingerprint}}", &fingerprint(root_der));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    new(
        200,
        "text/html; charset=utf-8",
        html.into(),
        vec![("Content-Security-Policy", policy)],
    )
}

fn certificate(content_type: &'static str, disposition: &'static str, body: Bytes) -> Answer {
    new(200, content_type, body, vec![("Content-Disposition", disposition)])
}

fn text(status: u16, body: &'static str) -> Answer {
    new(
        status,
        "text/plain; charset=utf-8",
        Bytes::from_static(body.as_bytes()),
        Vec::new(),
    )
}

fn new(status: u16, content_type: &'static str, body: Bytes, headers: Vec<(&'static str, &'static str)>) -> Answer {
    Answer {
        status,
        content_type,
        content_length: body.len(),
        body,
        headers,
    }
}

/// RFC 7468: 64 characters a line.
fn pem(der: &[u8]) -> Bytes {
    const LINE: usize = 64;
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = STANDARD.encode(der);
    while rest.len() > LINE {
        let tail = rest.split_off(LINE);
        text += &rest;
        text.push('\n');
        rest = tail;
    }
    text += &rest;
    text += "\n-----END CERTIFICATE-----\n";
    text.into()
}

/// SHA-256, as browsers show it.
fn fingerprint(der: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, der);
    let pairs: Vec<_> = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::{CertificateDer, pem::PemObject as _};

    use super::*;

    /// The tests of what is served do not care that this is not a certificate.
    const DER: &[u8] = &[0x30; 500];

    fn get(path: &str) -> Answer {
        answer(b"GET", path.as_bytes(), DER)
    }

    #[test]
    fn the_page_shows_the_fingerprint_and_loads_nothing_from_elsewhere() {
        let page = get("/");
        let html = std::str::from_utf8(&page.body).unwrap();
        assert!(html.contains(&fingerprint(DER)) && !html.contains("{{"), "{html}");
        assert!(!html.contains("src=") && !html.contains("href=\"http"), "{html}");
        assert_eq!((page.status, page.content_length), (200, page.body.len()));
    }

    #[test]
    fn both_forms_are_the_same_certificate() {
        let pem = CertificateDer::from_pem_slice(&get("/ca.pem").body).unwrap();
        assert_eq!(*pem, *DER);
        assert_eq!(get("/ca.crt").body, DER);
        assert_eq!(get("/ca.der?again").content_type, "application/x-x509-ca-cert");
        assert!(
            get("/ca.pem")
                .body
                .split(|byte| *byte == b'\n')
                .all(|line| line.len() <= 64)
        );
    }

    #[test]
    fn head_has_the_length_of_get_and_no_body() {
        let head = answer(b"HEAD", b"/ca.pem", DER);
        assert_eq!((head.content_length, head.body.len()), (get("/ca.pem").body.len(), 0));
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        assert_eq!(get("/favicon.ico").status, 404);
        assert_eq!(answer(b"POST", b"/nothing", DER).status, 404);
        let refused = answer(b"POST", b"/", DER);
        assert_eq!(refused.status, 405);
        assert!(refused.headers.contains(&("Allow", "GET, HEAD")));
    }
}
