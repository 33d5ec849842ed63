//! Framing: `len u32 | crc32c u32 | seq u64 | payload`, big-endian; `len` counts the payload, the checksum covers
//! `seq` and payload. A batch on the link is a run of frames with consecutive sequence numbers.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;

use crate::{Gap, Kind, Record};

/// Bytes before a frame's payload.
pub const HEADER: usize = 16;
/// Longest payload that is written or accepted.
pub const PAYLOAD_MAX: usize = 2 * 1024 * 1024;

/// First byte of every encoded [`Gap`] record: its tag and wire type.
const GAP: u8 = 6 << 3 | 2;

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than the header or its length says: a torn tail.
    #[error("frame is cut short")]
    Short,
    /// The length field is over [`PAYLOAD_MAX`].
    #[error("frame of {0} bytes is too long")]
    TooLong(u32),
    /// The checksum does not match.
    #[error("frame checksum does not match")]
    Checksum,
    /// The payload is not a [`Record`].
    #[error("frame payload is not a record")]
    Payload,
}

/// A frame that was read: its sequence number and its payload, still encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Sequence number in its epoch, from 0.
    pub seq: u64,
    /// Encoded [`Record`].
    pub payload: Bytes,
}

impl Frame {
    /// Decodes the payload; its byte fields share the frame's memory.
    pub fn record(&self) -> Result<Record, FrameError> {
        Record::decode(self.payload.clone()).map_err(|_| FrameError::Payload)
    }

    /// Sequence number of the frame that follows: one more, except that a [`Gap`] stands for every record it counts.
    pub fn next_seq(&self) -> u64 {
        let skipped = self.gap().map_or(1, |gap| gap.records.max(1));
        self.seq.saturating_add(skipped).min(i64::MAX as u64)
    }

    /// The gap, if it is one.
    pub fn gap(&self) -> Option<Gap> {
        if self.payload.first() != Some(&GAP) {
            return None;
        }
        match self.record().ok()?.kind? {
            Kind::Gap(gap) => Some(gap),
            _ => None,
        }
    }
}

/// Bytes that `record` takes as a frame.
///
/// # Panics
///
/// If the record is longer than [`PAYLOAD_MAX`]: recorders cut bodies and heads long before.
pub fn size(record: &Record) -> usize {
    let len = record.encoded_len();
    assert!(len <= PAYLOAD_MAX, "a record of {len} bytes was made");
    HEADER + len
}

/// Writes `record` as a frame over all of `out`, which is [`size`] of it long.
///
/// # Panics
///
/// If `out` has another length.
pub fn write(out: &mut [u8], seq: u64, record: &Record) {
    let (header, mut payload) = out.split_at_mut(HEADER);
    let len = u32::try_from(payload.len()).expect("no frame is that long");
    header[..4].copy_from_slice(&len.to_be_bytes());
    header[8..].copy_from_slice(&seq.to_be_bytes());
    record.encode(&mut payload).expect("the frame has its record's size");
    assert!(payload.is_empty(), "the frame has its record's size");
    let crc = crc32c::crc32c(&out[8..]);
    out[4..8].copy_from_slice(&crc.to_be_bytes());
}

/// Appends `record` as a frame to `out` and returns how many bytes it took.
///
/// # Panics
///
/// As [`size`].
pub fn put(out: &mut BytesMut, seq: u64, record: &Record) -> usize {
    let (start, size) = (out.len(), size(record));
    out.resize(start + size, 0);
    write(&mut out[start..], seq, record);
    size
}

/// Takes the next frame off `input`; `Ok(None)` at its end.
pub fn take(input: &mut Bytes) -> Result<Option<Frame>, FrameError> {
    if input.is_empty() {
        return Ok(None);
    }
    if input.len() < HEADER {
        return Err(FrameError::Short);
    }
    let mut header = &input[..HEADER];
    let (len, crc, seq) = (header.get_u32(), header.get_u32(), header.get_u64());
    if len as usize > PAYLOAD_MAX {
        return Err(FrameError::TooLong(len));
    }
    let end = HEADER + len as usize;
    if input.len() < end {
        return Err(FrameError::Short);
    }
    if crc32c::crc32c(&input[8..end]) != crc {
        return Err(FrameError::Checksum);
    }
    let mut frame = input.split_to(end);
    frame.advance(HEADER);
    Ok(Some(Frame { seq, payload: frame }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{BodyChunk, Kind};

    fn chunk(data: Vec<u8>) -> Record {
        let data = Bytes::from(data);
        Record {
            kind: Some(Kind::BodyChunk(BodyChunk {
                exchange_id: Bytes::from_static(&[7; 16]),
                side: 1,
                offset: 3,
                data,
            })),
        }
    }

    proptest! {
        #[test]
        fn what_was_put_is_taken(bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8)) {
            let mut out = BytesMut::new();
            for (seq, body) in bodies.iter().enumerate() {
                put(&mut out, seq as u64, &chunk(body.clone()));
            }
            let mut input = out.freeze();
            for (seq, body) in bodies.into_iter().enumerate() {
                let frame = take(&mut input).unwrap().unwrap();
                prop_assert_eq!(frame.seq, seq as u64);
                prop_assert_eq!(frame.record().unwrap(), chunk(body));
            }
            prop_assert_eq!(take(&mut input), Ok(None));
        }

        #[test]
        fn any_bytes_are_refused_or_taken_without_panic(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut input = Bytes::from(input);
            while let Ok(Some(frame)) = take(&mut input) {
                let _ = frame.record();
            }
        }

        #[test]
        fn a_flipped_bit_is_noticed(body in proptest::collection::vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut out = BytesMut::new();
            put(&mut out, 9, &chunk(body));
            let at = at.index(out.len());
            out[at] ^= 1 << bit;
            prop_assert!(take(&mut out.freeze()).is_err());
        }
    }

    #[test]
    fn a_cut_frame_is_short_at_every_offset() {
        let mut out = BytesMut::new();
        put(&mut out, 1, &chunk(vec![5; 40]));
        let whole = out.freeze();
        for end in 1..whole.len() {
            assert_eq!(take(&mut whole.slice(..end)), Err(FrameError::Short));
        }
    }
}
