//! Bytes as pairs of hex digits.

use std::fmt::Write as _;

/// In lower case.
pub(crate) fn encode(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// `None` if it is anything else.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok()))
        .collect();
    let (pairs, rest) = digits.as_ref()?.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_nothing_else_is() {
        assert_eq!(encode(&[0, 0xab, 9]), "00ab09");
        assert_eq!(decode("00aB09"), Some(vec![0, 0xab, 9]));
        assert_eq!(decode(""), Some(vec![]));
        for other in ["0", "zz", "+1", "é", "0 "] {
            assert_eq!(decode(other), None, "{other}");
        }
    }
}
