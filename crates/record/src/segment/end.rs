//! How far a segment gets, found without reading it whole.

use std::io::{self, Read, Seek, SeekFrom};

use bytes::{Buf as _, Bytes};

use super::FOOTER;
use crate::frame::{self, HEADER, PAYLOAD_MAX};

/// Longer than the frame of any gap: what is shorter is read, to know how many records it stands for.
const GAP_MAX: usize = 128;

/// Sequence number after the last record of a segment that begins with record `first`. A tail that is torn does not
/// count; what lies behind damage counts as one record.
///
/// Reads little but the frames' heads: give it a reader with a buffer.
///
/// # Errors
///
/// What `segment` answers when it is read.
pub fn end(segment: &mut (impl Read + Seek), first: u64) -> io::Result<u64> {
    let len = segment.seek(SeekFrom::End(0))?;
    segment.seek(SeekFrom::Start(0))?;
    let (mut at, mut next) = (0, first);
    // More heads than that do not fit: a number beyond is none of a record.
    let heads = len / HEADER as u64;
    while len.saturating_sub(at) >= HEADER as u64 {
        let mut head = [0; HEADER];
        segment.read_exact(&mut head)?;
        let mut fields = &head[..];
        let (payload, _crc, seq) = (fields.get_u32() as usize, fields.get_u32(), fields.get_u64());
        if seq == FOOTER {
            return Ok(next);
        }
        if payload > PAYLOAD_MAX || seq < next || seq > next.saturating_add(heads).min(i64::MAX as u64) {
            return Ok(next.saturating_add(1));
        }
        at += (HEADER + payload) as u64;
        if at > len {
            return Ok(next);
        }
        next = if HEADER + payload <= GAP_MAX {
            let mut whole = head.to_vec();
            whole.resize(HEADER + payload, 0);
            segment.read_exact(&mut whole[HEADER..])?;
            match frame::take(&mut Bytes::from(whole)) {
                Ok(Some(frame)) => frame.next_seq(),
                _ => return Ok(next.saturating_add(1)),
            }
        } else {
            segment.seek_relative(payload as i64)?;
            seq + 1
        };
    }
    Ok(next)
}
