//! Finding the end of a head in bytes that come piece by piece.

use std::ops::Range;

use memchr::memchr_iter;

use crate::{Limits, Refusal};

/// Finds the empty line that ends a head; looks at every byte once.
#[derive(Clone, Debug)]
pub struct Scanner {
    limits: Limits,
    start: usize,
    line: usize,
    scanned: usize,
    lines: usize,
    may_skip_line: bool,
}

impl Scanner {
    /// For a request head. One empty line before it is skipped (RFC 9112 §2.2).
    pub const fn request(limits: Limits) -> Self {
        Self {
            limits,
            start: 0,
            line: 0,
            scanned: 0,
            lines: 0,
            may_skip_line: true,
        }
    }

    /// For a response head.
    pub const fn response(limits: Limits) -> Self {
        Self {
            may_skip_line: false,
            ..Self::request(limits)
        }
    }

    /// Looks at what is new in `buffer`, which holds everything from the first byte on.
    ///
    /// Returns where the head lies once it is complete. A bare line feed is refused as soon as it is seen: a head with
    /// bare ones only would never end.
    pub fn find(&mut self, buffer: &[u8]) -> Result<Option<Range<usize>>, Refusal> {
        let new = buffer.get(self.scanned..).unwrap_or_default();
        for at in memchr_iter(b'\n', new) {
            let at = self.scanned + at;
            if at >= self.start + self.limits.bytes {
                return Err(Refusal::HeadTooLarge);
            }
            if at == self.line || buffer[at - 1] != b'\r' {
                return Err(Refusal::BareLf);
            }
            let empty = at == self.line + 1;
            self.line = at + 1;
            if !empty {
                self.lines += 1;
                self.may_skip_line = false;
                if self.lines > self.limits.fields + 1 {
                    return Err(Refusal::TooManyFields);
                }
            } else if self.may_skip_line {
                self.may_skip_line = false;
                self.start = at + 1;
            } else {
                return Ok(Some(self.start..at + 1));
            }
        }
        self.scanned = buffer.len().max(self.scanned);
        if self.scanned >= self.start + self.limits.bytes {
            Err(Refusal::HeadTooLarge)
        } else {
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMALL: Limits = Limits { bytes: 40, fields: 3 };

    fn whole(bytes: &[u8]) -> Result<Option<Range<usize>>, Refusal> {
        Scanner::request(SMALL).find(bytes)
    }

    #[test]
    fn a_head_ends_after_its_empty_line() {
        assert_eq!(whole(b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest"), Ok(Some(0..24)));
        assert_eq!(whole(b"GET / HTTP/1.1\r\nA: b\r\n"), Ok(None));
    }

    #[test]
    fn one_empty_line_before_a_request_is_skipped_and_no_second() {
        assert_eq!(whole(b"\r\nA\r\n\r\n"), Ok(Some(2..7)));
        assert_eq!(whole(b"\r\n\r\nA\r\n\r\n"), Ok(Some(2..4)));
        assert_eq!(Scanner::response(SMALL).find(b"\r\nA\r\n\r\n"), Ok(Some(0..2)));
    }

    #[test]
    fn bare_line_feeds_are_refused_at_once() {
        assert_eq!(whole(b"GET / HTTP/1.1\n"), Err(Refusal::BareLf));
        assert_eq!(whole(b"\n"), Err(Refusal::BareLf));
        assert_eq!(whole(b"A\r\n\n"), Err(Refusal::BareLf));
    }

    #[test]
    fn limits_hold() {
        assert_eq!(whole(&[b'a'; 39]), Ok(None));
        assert_eq!(whole(&[b'a'; 40]), Err(Refusal::HeadTooLarge));
        assert_eq!(whole(b"r\r\na\r\nb\r\nc\r\n\r\n"), Ok(Some(0..14)));
        assert_eq!(whole(b"r\r\na\r\nb\r\nc\r\nd\r\n"), Err(Refusal::TooManyFields));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in "[a\r\n]{0,60}", cut in 0..60usize) {
            let bytes = bytes.as_bytes();
            let cut = cut.min(bytes.len());
            let mut scanner = Scanner::request(SMALL);
            let pieces = match scanner.find(&bytes[..cut]) {
                Ok(None) => scanner.find(bytes),
                decided => decided,
            };
            prop_assert_eq!(pieces, whole(bytes));
        }
    }
}
