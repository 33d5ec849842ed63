//! Heads for people: exact bytes cut into lines and fields.

use serde::Serialize;

use crate::escape;

/// A header or trailer field.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Field {
    name: String,
    value: String,
}

/// The fields of a head (`starts`: it has a start line or pseudo-headers, which are left out) or of a trailer section.
pub(super) fn fields_of(head: &[u8], starts: bool) -> Vec<Field> {
    let lines = lines(head);
    // HTTP/2 heads have pseudo-headers and no start line.
    let skip = usize::from(starts && !head.starts_with(b":"));
    lines.into_iter().skip(skip).filter_map(field).collect()
}

/// The lines of a head, control characters shown.
pub(super) fn display(head: &[u8]) -> Vec<String> {
    lines(head).into_iter().map(escape::bytes).collect()
}

fn lines(head: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<_> = head
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .collect();
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    lines
}

fn field(line: &[u8]) -> Option<Field> {
    if line.starts_with(b":") {
        return None;
    }
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = line.split_at(colon);
    let value = value.strip_prefix(b":").unwrap_or(value);
    Some(Field {
        name: text(name),
        value: text(value.trim_ascii()),
    })
}

/// UTF-8 stays as it is, JSON can carry it; other bytes are shown.
fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| escape::bytes(bytes), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(head: &[u8], starts: bool) -> Vec<(String, String)> {
        fields_of(head, starts)
            .into_iter()
            .map(|field| (field.name, field.value))
            .collect()
    }

    #[test]
    fn fields_keep_order_case_and_repetition() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nX-a:1\r\nx-A: \xff \r\n\r\n";
        let expected = [("Host", "a"), ("X-a", "1"), ("x-A", "\\xff")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(pairs(head, true), expected);
    }

    #[test]
    fn pseudo_headers_are_no_fields() {
        assert_eq!(
            pairs(b":method: GET\n:path: /\naccept: */*\n", true),
            [("accept".into(), "*/*".into())]
        );
        assert_eq!(
            pairs(b"grpc-status: 0\r\n", false),
            [("grpc-status".into(), "0".into())]
        );
    }

    #[test]
    fn heads_are_shown_without_their_controls() {
        assert_eq!(
            display(b"GET /\x1b[1m HTTP/1.1\r\nA: b\rc\r\n\r\n"),
            ["GET /\\x1b[1m HTTP/1.1", "A: b\\rc"]
        );
    }
}
