//! One line per exchange, for services with `verbose` on.
//!
//! Data-plane threads append to a buffer; the control thread writes it to standard error, at once when little
//! happens and at most every [`PAUSE`] when much does. What passed is foreign: everything that is not printable ASCII
//! is escaped.

use std::{io::Write, sync::Mutex, time::Duration};

use proxyplane_record::{Exchange, ExchangeKind};
use time::{OffsetDateTime, macros::format_description};
use tokio::sync::Notify;

use super::lock;

/// Between two writes.
const PAUSE: Duration = Duration::from_millis(50);
/// Lines that are not written yet, in bytes; when it is full, lines are counted and dropped.
const BUFFER_MAX: usize = 1024 * 1024;
/// A buffer that grew larger is given back.
const BUFFER_KEEP: usize = 16 * 1024;
/// Longest URL in a line; a longer one ends with `…`.
const URL_MAX: usize = 2_000;

/// The lines of one worker.
#[derive(Default)]
pub(crate) struct AccessLog {
    buffer: Mutex<Buffer>,
    wake: Notify,
}

#[derive(Default)]
struct Buffer {
    lines: Vec<u8>,
    dropped: u64,
    /// The writer is at work; it need not be woken.
    writing: bool,
    clock: Clock,
}

impl AccessLog {
    /// Appends the line of an exchange that is over.
    pub(super) fn exchange(&self, exchange: &Exchange) {
        let mut buffer = lock(&self.buffer);
        if buffer.lines.len() > BUFFER_MAX {
            buffer.dropped += 1;
            return;
        }
        let Buffer { lines, clock, .. } = &mut *buffer;
        clock.stamp(lines, exchange.started_at_us);
        write_line(lines, exchange);
        if !std::mem::replace(&mut buffer.writing, true) {
            drop(buffer);
            self.wake.notify_one();
        }
    }

    /// Writes lines to `out` until it is dropped.
    pub(crate) async fn run(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            self.wake.notified().await;
            while self.swap(&mut lines) {
                // Standard error is a file: the write does not wait. If it fails there is nobody left to tell.
                let _ = out.write_all(&lines);
                lines.clear();
                lines.shrink_to(BUFFER_KEEP);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Writes what is left.
    pub(crate) fn flush(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        if self.swap(&mut lines) {
            let _ = out.write_all(&lines);
        }
    }

    /// Exchanges the lines for the empty `spare`; false, and the writer rests, if there are none.
    fn swap(&self, spare: &mut Vec<u8>) -> bool {
        let mut buffer = lock(&self.buffer);
        let dropped = std::mem::take(&mut buffer.dropped);
        if dropped > 0 {
            // A Vec takes every write.
            let _ = writeln!(
                buffer.lines,
                "{dropped} lines were dropped: more exchanges than the log can take"
            );
        }
        buffer.writing = !buffer.lines.is_empty();
        std::mem::swap(&mut buffer.lines, spare);
        buffer.writing
    }
}

/// Writes `2026-01-02T03:04:05.678Z `, formatting date and second once per second only.
#[derive(Default)]
struct Clock {
    second: i64,
    text: String,
}

impl Clock {
    fn stamp(&mut self, out: &mut Vec<u8>, at_us: i64) {
        let second = at_us.div_euclid(1_000_000);
        if second != self.second || self.text.is_empty() {
            let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
            let at = OffsetDateTime::from_unix_timestamp(second).unwrap_or(OffsetDateTime::UNIX_EPOCH);
            self.text = at.format(format).unwrap_or_default();
            self.second = second;
        }
        let millis = at_us.rem_euclid(1_000_000) / 1_000;
        out.extend_from_slice(self.text.as_bytes());
        let _ = write!(out, ".{millis:03}Z ");
    }
}

/// Writing into a Vec cannot fail, so results are not looked at here and below.
fn write_line(out: &mut Vec<u8>, exchange: &Exchange) {
    escape(out, &exchange.client, usize::MAX);
    out.push(b' ');
    escape(
        out,
        if exchange.method.is_empty() {
            b"-"
        } else {
            &exchange.method
        },
        64,
    );
    out.push(b' ');
    write_url(out, exchange);
    let _ = write!(out, " {} ", exchange.status);
    write_size(out, exchange.request_size);
    out.push(b'/');
    write_size(out, exchange.response_size);
    let _ = write!(
        out,
        " {}.{:03}ms",
        exchange.duration_us / 1_000,
        exchange.duration_us % 1_000
    );
    if !exchange.error.is_empty() {
        out.push(b' ');
        escape(out, &exchange.error, 64);
        out.extend_from_slice(b": ");
        escape_text(out, &exchange.error_detail, 300);
    }
    out.push(b'\n');
}

fn write_url(out: &mut Vec<u8>, exchange: &Exchange) {
    let tunnel = exchange.kind == i32::from(ExchangeKind::Tunnel) || exchange.kind == i32::from(ExchangeKind::Connect);
    if !tunnel && !exchange.scheme.is_empty() {
        escape(out, &exchange.scheme, 16);
        out.extend_from_slice(b"://");
    }
    let brackets = exchange.host.contains(&b':');
    out.extend_from_slice(if brackets { b"[" } else { b"" });
    escape(out, &exchange.host, 255);
    out.extend_from_slice(if brackets { b"]" } else { b"" });
    let usual = match &exchange.scheme[..] {
        b"http" | b"ws" => 80,
        b"https" | b"wss" => 443,
        _ => 0,
    };
    if exchange.port != 0 && (tunnel || exchange.port != usual) {
        let _ = write!(out, ":{}", exchange.port);
    }
    escape(out, &exchange.path, URL_MAX);
    if let Some(query) = &exchange.query {
        out.push(b'?');
        escape(out, query, URL_MAX);
    }
}

fn write_size(out: &mut Vec<u8>, bytes: u64) {
    let _ = write!(out, "{bytes}");
}

/// One word: printable ASCII without blanks and backslashes as it is, the rest as `\xNN`.
fn escape(out: &mut Vec<u8>, text: &[u8], max: usize) {
    escape_where(out, text, max, |byte| byte.is_ascii_graphic() && byte != b'\\');
}

/// The same, but blanks stay.
fn escape_text(out: &mut Vec<u8>, text: &[u8], max: usize) {
    escape_where(out, text, max, |byte| {
        byte == b' ' || (byte.is_ascii_graphic() && byte != b'\\')
    });
}

fn escape_where(out: &mut Vec<u8>, text: &[u8], max: usize, plain: impl Fn(u8) -> bool) {
    let shown = &text[..text.len().min(max)];
    if shown.iter().all(|&byte| plain(byte)) {
        out.extend_from_slice(shown);
    } else {
        for &byte in shown {
            if plain(byte) {
                out.push(byte);
            } else {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    if shown.len() < text.len() {
        out.extend_from_slice("…".as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn line(exchange: &Exchange) -> String {
        let mut out = Vec::new();
        Clock::default().stamp(&mut out, exchange.started_at_us);
        write_line(&mut out, exchange);
        String::from_utf8(out).unwrap()
    }

    fn exchange() -> Exchange {
        Exchange {
            kind: ExchangeKind::Http.into(),
            started_at_us: 1_767_323_045_678_901,
            duration_us: 12_034,
            client: Bytes::from_static(b"127.0.0.1:50000"),
            method: Bytes::from_static(b"GET"),
            scheme: Bytes::from_static(b"https"),
            host: Bytes::from_static(b"example.com"),
            port: 443,
            path: Bytes::from_static(b"/a"),
            query: Some(Bytes::from_static(b"q=1")),
            status: 200,
            response_size: 5,
            ..Exchange::default()
        }
    }

    #[test]
    fn a_line_says_who_asked_what_and_how_it_went() {
        assert_eq!(
            line(&exchange()),
            "2026-01-02T03:04:05.678Z 127.0.0.1:50000 GET https://example.com/a?q=1 200 0/5 12.034ms\n"
        );
    }

    #[test]
    fn nothing_foreign_reaches_the_terminal() {
        let hostile = Exchange {
            method: Bytes::from_static(b"G\x1b[31m"),
            path: Bytes::from_static(b"/\r\nfake line \xff\\"),
            error: Bytes::from_static(b"internal"),
            error_detail: Bytes::from_static(b"two words\x07"),
            ..exchange()
        };
        let line = line(&hostile);
        assert!(
            line.contains(r"G\x1b[31m https://example.com/\x0d\x0afake\x20line\x20\xff\x5c?q=1"),
            "{line}"
        );
        assert!(
            line.ends_with("internal: two words\\x07\n") && line.matches('\n').count() == 1,
            "{line}"
        );
    }

    #[test]
    fn ports_and_ipv6_hosts_are_shown_as_in_urls() {
        let odd = Exchange {
            host: Bytes::from_static(b"::1"),
            port: 8443,
            query: None,
            ..exchange()
        };
        assert!(line(&odd).contains(" https://[::1]:8443/a 200"));
        let tunnel = Exchange {
            kind: ExchangeKind::Tunnel.into(),
            path: Bytes::new(),
            query: None,
            ..exchange()
        };
        assert!(line(&tunnel).contains(" example.com:443 200"));
    }

    #[tokio::test(start_paused = true)]
    async fn lines_come_out_and_the_writer_rests() {
        let log = AccessLog::default();
        log.exchange(&exchange());
        let mut out = Vec::new();
        tokio::select! {
            () = log.run(&mut out) => {}
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        assert!(out.ends_with(b"12.034ms\n"));
        assert!(!lock(&log.buffer).writing);
    }
}
