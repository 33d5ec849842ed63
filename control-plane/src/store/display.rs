//! The display form of captured text: what is stored in text columns and shown to people.

use std::borrow::Cow;

/// Shows bytes as text: printable UTF-8 as it is, every other byte as `\xNN`.
///
/// Not printable are control characters and the invisible ones that reorder or hide text (bidirectional overrides,
/// zero-width characters). A backslash before an `x` is shown as `\x5c`, so that nothing captured looks like an escape.
/// What was printable ASCII comes back borrowed.
pub fn display(bytes: &[u8]) -> Cow<'_, str> {
    if bytes.iter().all(|byte| matches!(byte, 0x20..=0x7e) && *byte != b'\\')
        && let Ok(text) = std::str::from_utf8(bytes)
    {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        let mut characters = chunk.valid().chars().peekable();
        while let Some(character) = characters.next() {
            if is_hidden(character) || (character == '\\' && characters.peek() == Some(&'x')) {
                escape(character.encode_utf8(&mut [0; 4]).as_bytes(), &mut shown);
            } else {
                shown.push(character);
            }
        }
        escape(chunk.invalid(), &mut shown);
    }
    Cow::Owned(shown)
}

fn escape(bytes: &[u8], shown: &mut String) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    for byte in bytes {
        shown.push_str("\\x");
        shown.push(DIGITS[usize::from(byte >> 4)]);
        shown.push(DIGITS[usize::from(byte & 15)]);
    }
}

fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn printable_text_stays() {
        assert!(matches!(display(b"/a?q=<b>&c=\"d\""), Cow::Borrowed(_)));
        assert_eq!(display("/päth/日本/🦀".as_bytes()), "/päth/日本/🦀");
        assert_eq!(display(br"a\b"), r"a\b");
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(display(b"a\x1b[31m\r\n\0\x7f"), r"a\x1b[31m\x0d\x0a\x00\x7f");
        assert_eq!(display("\u{202e}gpj\u{9b}".as_bytes()), r"\xe2\x80\xaegpj\xc2\x9b");
    }

    #[test]
    fn bytes_that_are_no_text_are_escaped() {
        assert_eq!(display(b"a\xff\xfeb\xe2\x82"), r"a\xff\xfeb\xe2\x82");
    }

    #[test]
    fn captured_text_cannot_pose_as_an_escape() {
        assert_eq!(display(br"\x1b"), r"\x5cx1b");
        assert_eq!(display(br"\\x"), r"\\x5cx");
    }

    proptest! {
        #[test]
        fn the_form_can_be_undone(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\\'), Just(b'x')], 0..60)) {
            let shown = display(&bytes);
            prop_assert!(shown.chars().all(|c| !is_hidden(c)));
            prop_assert_eq!(undo(shown.as_bytes()), bytes);
        }
    }

    fn undo(mut shown: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some((&first, rest)) = shown.split_first() {
            if let Some(hex) = shown.strip_prefix(b"\\x") {
                bytes.push(u8::from_str_radix(std::str::from_utf8(&hex[..2]).unwrap(), 16).unwrap());
                shown = &hex[2..];
            } else {
                bytes.push(first);
                shown = rest;
            }
        }
        bytes
    }
}
