//! Frame headers of RFC 6455 §5.2, read from any split of the byte stream.

/// What is wrong with a stream that claims to be WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("opcode {0} is reserved (RFC 6455 section 5.2)")]
    ReservedOpcode(u8),
    #[error("reserved bits {0:03b} are set without an extension that defines them")]
    ReservedBits(u8),
    #[error("a control frame is fragmented")]
    FragmentedControl,
    #[error("a control frame has {0} bytes, more than 125")]
    LongControl(u64),
    #[error("a frame claims 2^63 bytes or more")]
    LengthOverflow,
    #[error("a continuation frame continues nothing")]
    UnexpectedContinuation,
    #[error("a new message begins inside a fragmented one")]
    UnfinishedMessage,
    #[error("compressed data is damaged (RFC 7692)")]
    Damaged,
}

/// Opcodes of RFC 6455 §5.2.
pub(super) mod opcode {
    pub(crate) const CONTINUATION: u8 = 0;
    #[cfg(test)]
    pub(crate) const TEXT: u8 = 1;
    #[cfg(test)]
    pub(crate) const BINARY: u8 = 2;
    pub(crate) const CLOSE: u8 = 8;
    #[cfg(test)]
    pub(crate) const PING: u8 = 9;
    #[cfg(test)]
    pub(crate) const PONG: u8 = 10;
}

/// The first reserved bit: the message is compressed.
pub(super) const RSV1: u8 = 0b100;
/// Most payload of a control frame.
const CONTROL_MAX: u64 = 125;
/// Two bytes, eight of length, four of mask.
const HEADER_MAX: usize = 14;

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) fin: bool,
    /// RSV1 is the highest of its three bits.
    pub(super) reserved: u8,
    pub(super) opcode: u8,
    pub(super) mask: Option<[u8; 4]>,
    pub(super) length: u64,
}

impl Header {
    pub(super) fn is_control(&self) -> bool {
        self.opcode & 0b1000 != 0
    }

    /// Whether the mask fits the direction is not asked, nor whether the length has its shortest form: neither is in
    /// the way of reading on, and a recorder that stops there would hide what a tester sent on purpose.
    fn check(self) -> Result<Self, Violation> {
        if !matches!(self.opcode, 0..=2 | 8..=10) {
            return Err(Violation::ReservedOpcode(self.opcode));
        }
        if self.length > i64::MAX as u64 {
            return Err(Violation::LengthOverflow);
        }
        if self.is_control() && !self.fin {
            return Err(Violation::FragmentedControl);
        }
        if self.is_control() && self.length > CONTROL_MAX {
            return Err(Violation::LongControl(self.length));
        }
        Ok(self)
    }
}

/// Collects a header that may come byte by byte.
#[derive(Debug, Default)]
pub(super) struct HeaderReader {
    bytes: [u8; HEADER_MAX],
    have: usize,
}

impl HeaderReader {
    /// Takes what belongs to the header from the front of `input`; returns how much, and the header once it is whole.
    pub(super) fn read(&mut self, input: &[u8]) -> Result<(usize, Option<Header>), Violation> {
        let mut taken = 0;
        loop {
            let wanted = self.wanted();
            let missing = wanted - self.have;
            if missing == 0 {
                self.have = 0;
                return self.parse(wanted).check().map(|header| (taken, Some(header)));
            }
            let rest = input.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                return Ok((taken, None));
            }
            let count = missing.min(rest.len());
            self.bytes[self.have..self.have + count].copy_from_slice(&rest[..count]);
            self.have += count;
            taken += count;
        }
    }

    /// Is nothing of the next header there yet?
    pub(super) fn is_empty(&self) -> bool {
        self.have == 0
    }

    /// The header's length, as far as what is there tells.
    fn wanted(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let mask = if self.bytes[1] & 0x80 == 0 { 0 } else { 4 };
        2 + mask + self.length_bytes()
    }

    fn length_bytes(&self) -> usize {
        match self.bytes[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn parse(&self, size: usize) -> Header {
        let [first, second, ..] = self.bytes;
        let extended = self.length_bytes();
        let length = match extended {
            0 => u64::from(second & 0x7f),
            _ => self.bytes[2..2 + extended]
                .iter()
                .fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        let mask = (second & 0x80 != 0).then(|| {
            let mut mask = [0; 4];
            mask.copy_from_slice(&self.bytes[size - 4..size]);
            mask
        });
        Header {
            fin: first & 0x80 != 0,
            reserved: first >> 4 & 0b111,
            opcode: first & 0x0f,
            mask,
            length,
        }
    }
}

/// Undoes (or applies) the mask of RFC 6455 §5.3 in place; `offset` is the position in the frame's payload.
pub(super) fn unmask(mask: [u8; 4], offset: u64, bytes: &mut [u8]) {
    let mut key = mask;
    key.rotate_left((offset & 3) as usize);
    let word = u32::from_ne_bytes(key);
    let mut words = bytes.chunks_exact_mut(4);
    for chunk in &mut words {
        let masked = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]) ^ word;
        chunk.copy_from_slice(&masked.to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(key) {
        *byte ^= key;
    }
}

/// A Close frame that we send ourselves; masked towards a server.
pub(super) fn close(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let reason = &reason.as_bytes()[..reason.len().min(CONTROL_MAX as usize - 2)];
    let length = 2 + reason.len() as u8;
    let mut frame = vec![0x80 | opcode::CLOSE, length | if mask.is_some() { 0x80 } else { 0 }];
    frame.extend(mask.into_iter().flatten());
    let payload = frame.len();
    frame.extend(code.to_be_bytes());
    frame.extend(reason);
    if let Some(mask) = mask {
        unmask(mask, 0, &mut frame[payload..]);
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_whole(bytes: &[u8]) -> Result<Option<Header>, Violation> {
        HeaderReader::default().read(bytes).map(|(taken, header)| {
            assert!(header.is_none() || taken == bytes.len());
            header
        })
    }

    #[test]
    fn the_three_length_forms_are_read() {
        let small = read_whole(&[0x81, 0x05]).unwrap().unwrap();
        assert_eq!(
            small,
            Header {
                fin: true,
                reserved: 0,
                opcode: opcode::TEXT,
                mask: None,
                length: 5
            }
        );
        assert_eq!(read_whole(&[0x82, 126, 1, 0]).unwrap().unwrap().length, 256);
        let long = read_whole(&[0xc2, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 9, 8, 7, 6])
            .unwrap()
            .unwrap();
        assert_eq!(
            (long.length, long.mask, long.reserved),
            (1 << 32, Some([9, 8, 7, 6]), RSV1)
        );
    }

    #[test]
    fn a_header_may_come_byte_by_byte() {
        let bytes = [0x01, 0xfe, 0x12, 0x34, 1, 2, 3, 4];
        let mut reader = HeaderReader::default();
        for byte in &bytes[..7] {
            assert_eq!(reader.read(&[*byte]).unwrap(), (1, None));
        }
        let (taken, header) = reader.read(&[4, 99]).unwrap();
        assert_eq!((taken, header.unwrap().length), (1, 0x1234));
        assert!(reader.is_empty());
    }

    #[test]
    fn broken_headers_are_refused() {
        assert_eq!(read_whole(&[0x83, 0]), Err(Violation::ReservedOpcode(3)));
        assert_eq!(read_whole(&[0x09, 0]), Err(Violation::FragmentedControl));
        assert_eq!(read_whole(&[0x88, 126, 0, 200]), Err(Violation::LongControl(200)));
        assert_eq!(
            read_whole(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]),
            Err(Violation::LengthOverflow)
        );
    }

    #[test]
    fn unmasking_in_pieces_is_unmasking_at_once() {
        let plain: Vec<u8> = (0..=255).collect();
        let mut whole = plain.clone();
        unmask([1, 2, 3, 4], 0, &mut whole);
        assert_ne!(whole, plain);
        for split in 0..plain.len() {
            let mut pieces = whole.clone();
            let (left, right) = pieces.split_at_mut(split);
            unmask([1, 2, 3, 4], 0, left);
            unmask([1, 2, 3, 4], split as u64, right);
            assert_eq!(pieces, plain);
        }
    }

    #[test]
    fn our_close_frame_is_well_formed() {
        assert_eq!(close(1001, "away", None), [0x88, 6, 3, 0xe9, b'a', b'w', b'a', b'y']);
        let masked = close(1001, "", Some([0xff, 0, 0, 0]));
        assert_eq!(masked, [0x88, 0x82, 0xff, 0, 0, 0, 3 ^ 0xff, 0xe9]);
    }
}
