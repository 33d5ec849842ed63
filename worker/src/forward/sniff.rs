//! What a tunnel's first bytes are.

/// First byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
/// The HTTP/2 connection preface (RFC 9113 §3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Most that [`is_settings`] looks at: the header of a frame (RFC 9113 §4.1).
pub(super) const SETTINGS_LEN: usize = 9;
/// Methods whose request line is recognised before it is complete.
const METHODS: [&[u8]; 8] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE",
];
/// A longer first line with an unknown method is not taken for a request line.
const LINE_MAX: usize = 8 * 1024;

/// What may be made of the client's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Cannot be told yet.
    More,
    /// TLS: a ClientHello is to be expected.
    Tls,
    /// An HTTP/1 request.
    Http1,
    /// HTTP/2 without TLS.
    Http2,
    /// Something else.
    Raw,
}

/// Looks at everything that came so far.
pub(super) fn classify(bytes: &[u8]) -> Verdict {
    match bytes.first() {
        None => return Verdict::More,
        Some(&TLS_HANDSHAKE) => return Verdict::Tls,
        Some(_) => {}
    }
    if bytes.starts_with(H2_PREFACE) {
        return Verdict::Http2;
    }
    if H2_PREFACE.starts_with(bytes) {
        return Verdict::More;
    }
    request_line(bytes)
}

/// Do an origin's first bytes begin an HTTP/2 SETTINGS frame? They are enough once they hold its type.
pub(super) fn is_settings(bytes: &[u8]) -> bool {
    const LENGTH_MAX: u8 = 20 * 6;
    match bytes {
        [0, 0, length, 4, rest @ ..] => {
            *length <= LENGTH_MAX && length.is_multiple_of(6) && rest.iter().take(5).all(|byte| *byte == 0)
        }
        _ => false,
    }
}

fn request_line(bytes: &[u8]) -> Verdict {
    let method_len = bytes
        .iter()
        .position(|b| !b.is_ascii_alphanumeric() && !b"-_!".contains(b));
    let Some(method_len) = method_len else {
        return if bytes.len() > 32 { Verdict::Raw } else { Verdict::More };
    };
    let (method, rest) = bytes.split_at(method_len);
    if method.is_empty() || rest[0] != b' ' {
        return Verdict::Raw;
    }
    let target = &rest[1..];
    if METHODS.contains(&method) && (target.starts_with(b"/") || target.starts_with(b"http")) {
        return Verdict::Http1;
    }
    match memchr::memchr(b'\n', target) {
        Some(end) if is_versioned(&target[..end]) => Verdict::Http1,
        None if bytes.len() < LINE_MAX => Verdict::More,
        _ => Verdict::Raw,
    }
}

/// Does the rest of a line end like a request line?
fn is_versioned(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.split(|&b| b == b' ')
        .next_back()
        .is_some_and(|last| last.len() == 8 && last.starts_with(b"HTTP/1."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_told_apart() {
        for (bytes, verdict) in [
            ("", Verdict::More),
            ("\x16", Verdict::Tls),
            ("GET /x", Verdict::Http1),
            ("GET ", Verdict::More),
            ("PURGE /x HTTP/1.1\r\n", Verdict::Http1),
            ("PURGE /x", Verdict::More),
            ("P", Verdict::More),
            ("PRI * HTTP/2.0\r\n\r\nSM", Verdict::More),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n...", Verdict::Http2),
            ("OPTIONS * HTTP/1.1\r\n", Verdict::Http1),
            ("SSH-2.0-OpenSSH_9.6\r\n", Verdict::Raw),
            ("EHLO me.example\r\n", Verdict::Raw),
            ("*1\r\n$4\r\nPING\r\n", Verdict::Raw),
            ("NICK me\r\n", Verdict::Raw),
            ("\0\0\0\x08", Verdict::Raw),
            ("GET\r\n", Verdict::Raw),
        ] {
            assert_eq!(classify(bytes.as_bytes()), verdict, "{bytes:?}");
        }
        assert_eq!(classify(&[b'A'; 64]), Verdict::Raw);
    }

    #[test]
    fn an_http2_server_is_known_by_its_settings() {
        let settings = [0, 0, 18, 4, 0, 0, 0, 0, 0, 0, 3];
        assert!((4..=settings.len()).all(|end| is_settings(&settings[..end])));
        for bytes in [
            &b""[..],
            &settings[..3],
            &[0, 0, 18, 4, 1, 0, 0, 0, 0],
            &[0, 0, 17, 4, 0, 0, 0, 0, 0],
            &[0, 0, 6, 4, 0, 0, 0, 0, 1],
            b"220 ready",
            b"SSH-2.0-",
            &[0x4a, 0, 0, 0, 10],
        ] {
            assert!(!is_settings(bytes), "{bytes:?}");
        }
    }

    #[test]
    fn a_verdict_stands_whatever_follows() {
        let stream = b"PATCH http://x/ HTTP/1.1\r\nHost: x\r\n\r\n";
        let verdicts: Vec<_> = (0..=stream.len()).map(|end| classify(&stream[..end])).collect();
        let first = verdicts.iter().position(|v| *v != Verdict::More).unwrap();
        assert!(verdicts[first..].iter().all(|v| *v == Verdict::Http1));
    }
}
