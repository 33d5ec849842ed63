//! How long a body is: RFC 9112 §6, without its choices.

use crate::{Head, Known, Refusal, Version};

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// This many bytes.
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// Everything until the connection ends; responses only.
    UntilClose,
}

impl Framing {
    /// Is there nothing to read?
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

/// What the framing fields of a head say; `None` when it has none of them.
pub(crate) fn declared(head: &Head, version: Version) -> Result<Option<Framing>, Refusal> {
    let (mut length, mut chunked) = (None, false);
    for field in head.fields() {
        match field.known {
            Known::ContentLength if length.is_some() => return Err(Refusal::SeveralLengths),
            Known::ContentLength => length = Some(parse_length(field.value)?),
            Known::TransferEncoding if chunked => return Err(Refusal::InvalidTransferEncoding),
            Known::TransferEncoding if field.value.eq_ignore_ascii_case(b"chunked") => chunked = true,
            Known::TransferEncoding => return Err(Refusal::InvalidTransferEncoding),
            _ => {}
        }
    }
    match (length, chunked, version) {
        (Some(_), true, _) => Err(Refusal::LengthWithTransferEncoding),
        (None, true, Version::Http10) => Err(Refusal::TransferEncodingInHttp10),
        (None, true, Version::Http11) => Ok(Some(Framing::Chunked)),
        (Some(length), false, _) => Ok(Some(Framing::Length(length))),
        (None, false, _) => Ok(None),
    }
}

fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() {
        return Err(Refusal::InvalidLength);
    }
    value.iter().try_fold(0_u64, |length, &digit| {
        if !digit.is_ascii_digit() {
            return Err(Refusal::InvalidLength);
        }
        let length = length
            .checked_mul(10)
            .and_then(|l| l.checked_add(u64::from(digit - b'0')));
        length
            .filter(|&l| i64::try_from(l).is_ok())
            .ok_or(Refusal::InvalidLength)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_plain_digits() {
        assert_eq!(parse_length(b"0"), Ok(0));
        assert_eq!(parse_length(b"007"), Ok(7));
        assert_eq!(parse_length(b"9223372036854775807"), Ok(i64::MAX as u64));
        for bad in [
            "",
            "+1",
            "-1",
            "1 ",
            "1,1",
            "0x1",
            "9223372036854775808",
            "99999999999999999999",
            "1_0",
        ] {
            assert_eq!(parse_length(bad.as_bytes()), Err(Refusal::InvalidLength), "{bad:?}");
        }
    }
}
