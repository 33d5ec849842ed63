//! Captured data made harmless for a terminal.
//!
//! Whatever came over the wire, or a stranger could have chosen, passes through here before it is printed for people:
//! control characters (C0, DEL, C1) could be commands to the terminal, bidirectional controls could hide what a line
//! says. Valid text stays readable; anything else appears as `\xNN` or `\u{NNNN}`.

use std::{borrow::Cow, fmt::Write as _};

/// May this character not reach a terminal?
pub(crate) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{feff}'
            | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One line: line breaks and tabs are escaped as well.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// Text of several lines: line feeds and tabs stay.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

/// Bytes as one line.
pub(crate) fn bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&line(chunk.valid()));
        push_invalid(&mut out, chunk.invalid());
    }
    out
}

/// Makes a stream of bytes harmless, however it is cut into chunks.
#[derive(Default)]
pub(crate) struct Stream {
    /// What may be the beginning of a character: at most three bytes.
    pending: Vec<u8>,
}

impl Stream {
    /// The next bytes, as far as they are complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        let mut input = std::mem::take(&mut self.pending);
        input.extend_from_slice(bytes);
        let mut out = String::with_capacity(input.len());
        let mut chunks = input.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            out.push_str(&text(chunk.valid()));
            if chunks.peek().is_none() {
                self.pending = chunk.invalid().to_vec();
            } else {
                push_invalid(&mut out, chunk.invalid());
            }
        }
        out
    }

    /// What is left at the end.
    pub(crate) fn finish(self) -> String {
        let mut out = String::new();
        push_invalid(&mut out, &self.pending);
        out
    }
}

fn push_invalid(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(out, "\\x{byte:02x}");
    }
}

fn escaped(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(|c| is_harmful(c) && !keep(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !is_harmful(c) || keep(c) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x80 => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_reaches_the_terminal() {
        let evil = "a\u{1b}[31m\u{9b}2J\u{7f}\u{202e}b\r\n\tс";
        assert_eq!(line(evil), "a\\x1b[31m\\u{9b}2J\\x7f\\u{202e}b\\r\\n\\tс");
        assert!(!line(evil).chars().any(is_harmful));
        assert_eq!(text("a\n\tb\r"), "a\n\tb\\r");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_hex() {
        assert_eq!(bytes(b"\xff\x00\xc3\xa4\xe2\x82"), "\\xff\\x00ä\\xe2\\x82");
    }

    #[test]
    fn a_character_cut_between_chunks_stays_whole() {
        let whole = "ä€𝄞\u{1b}z".as_bytes();
        for cut in 0..=whole.len() {
            let mut stream = Stream::default();
            let mut out = stream.push(&whole[..cut]);
            out.push_str(&stream.push(&whole[cut..]));
            out.push_str(&stream.finish());
            assert_eq!(out, "ä€𝄞\\x1bz", "cut at {cut}");
        }
    }

    #[test]
    fn a_cut_off_end_is_shown() {
        let mut stream = Stream::default();
        assert_eq!(stream.push(b"a\xe2\x82"), "a");
        assert_eq!(stream.finish(), "\\xe2\\x82");
    }
}
