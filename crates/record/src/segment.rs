//! Segments of a spool: files of consecutive frames, each named after the first.
//!
//! A finished segment ends with a footer, a frame numbered [`FOOTER`] whose payload is the [`Gap`] that the segment
//! leaves when it is dropped. A dropped segment is a file with nothing but that gap, as a frame with the number of the
//! first record that it stands for. Records that cannot be read become gaps while a segment is read, so what comes out
//! of [`scan`] has no holes.

mod end;

use bytes::{Buf as _, Bytes, BytesMut};

use crate::{
    Gap, Kind, Record,
    frame::{self, Frame, HEADER, PAYLOAD_MAX},
};
pub use end::end;

/// Sequence number of a footer; no record gets as far.
pub const FOOTER: u64 = u64::MAX;
/// What files are called after their number.
const EXTENSION: &str = ".seg";
/// Digits of the number, so that names sort as numbers do.
const DIGITS: usize = 20;
/// Frames that are handed on together, in bytes, unless one alone is larger.
const RUN: usize = 256 * 1024;

/// Name of the segment whose first record is `first`.
pub fn file_name(first: u64) -> String {
    format!("{first:0DIGITS$}{EXTENSION}")
}

/// The first record of the segment that is called `name`; `None` if that is no segment's name.
pub fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(EXTENSION)?;
    (digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
}

/// What some records come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Exchanges that begin in them.
    pub exchanges: u64,
    /// Wall time of the first that has one, microseconds since 1970; 0 if none has.
    pub from_us: i64,
    /// Of the last.
    pub to_us: i64,
}

impl Counts {
    /// Counts `record`.
    pub fn add(&mut self, record: &Record) {
        let (exchanges, at) = match &record.kind {
            Some(Kind::Complete(complete)) => (1, complete.exchange.started_at_us),
            Some(Kind::Head(exchange)) => (1, exchange.started_at_us),
            Some(Kind::WsMessage(message)) => (0, message.at_us),
            Some(Kind::Gap(gap)) => return self.merge(&Self::of(gap)),
            Some(Kind::BodyChunk(_) | Kind::End(_)) | None => return,
        };
        self.merge(&Self {
            exchanges,
            from_us: at,
            to_us: at,
        });
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Self) {
        self.exchanges += other.exchanges;
        if other.from_us != 0 {
            self.from_us = if self.from_us == 0 {
                other.from_us
            } else {
                self.from_us.min(other.from_us)
            };
            self.to_us = self.to_us.max(other.to_us);
        }
    }

    /// The gap that is left when records `first` to (not with) `next`, which come to this, are dropped.
    pub fn gap(&self, first: u64, next: u64) -> Gap {
        Gap {
            first_seq: first,
            records: next.saturating_sub(first),
            exchanges: self.exchanges,
            from_us: self.from_us,
            to_us: self.to_us,
        }
    }

    /// What `gap` says of the records that it stands for.
    pub fn of(gap: &Gap) -> Self {
        Self {
            exchanges: gap.exchanges,
            from_us: gap.from_us,
            to_us: gap.to_us,
        }
    }
}

/// A gap as a frame in the place of the records that it stands for.
pub fn gap_frame(gap: Gap) -> Bytes {
    numbered(gap.first_seq, gap)
}

/// The footer of a segment that would leave `gap` behind.
pub fn footer(gap: Gap) -> Bytes {
    numbered(FOOTER, gap)
}

fn numbered(seq: u64, gap: Gap) -> Bytes {
    let mut out = BytesMut::new();
    let record = Record {
        kind: Some(Kind::Gap(gap)),
    };
    frame::put(&mut out, seq, &record);
    out.freeze()
}

/// Consecutive frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Sequence number of the first.
    pub first: u64,
    /// Sequence number after the last.
    pub next: u64,
    /// The frames.
    pub frames: Bytes,
}

/// What a segment, or the rest of one, holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Its records, without holes: what could not be read is a [`Gap`].
    pub runs: Vec<Run>,
    /// Sequence number after the last record.
    pub next: u64,
    /// Where the last whole frame ends; what lies behind it is a torn tail.
    pub end: usize,
    /// How many records could not be read.
    pub damaged: u64,
}

/// Reads `data`, the bytes of a segment from its record `first` on. `next` is the number of the first record of the
/// segment that follows, if there is one: all before it were here once.
pub fn scan(data: &Bytes, first: u64, next: Option<u64>) -> Scan {
    let mut scanner = Scanner {
        data,
        start: 0,
        run_first: first,
        scan: Scan {
            next: first,
            ..Scan::default()
        },
        gaps: Vec::new(),
        exchanges: None,
    };
    let mut at = 0;
    while at < data.len() {
        match frame_at(data, at).filter(|(frame, _)| frame.seq == FOOTER || frame.seq <= scanner.last()) {
            Some((frame, end)) => {
                scanner.frame(&frame, at, end);
                at = end;
            }
            None => at = scanner.find(at).unwrap_or(data.len()),
        }
    }
    scanner.cut(data.len());
    if let Some(next) = next {
        scanner.missing(next);
    }
    scanner.finish()
}

struct Scanner<'a> {
    data: &'a Bytes,
    /// Where the frames begin that are not in a run yet, and their number.
    start: usize,
    run_first: u64,
    scan: Scan,
    /// Indices of runs that stand for what could not be read.
    gaps: Vec<usize>,
    /// What the footer says.
    exchanges: Option<u64>,
}

impl Scanner<'_> {
    fn frame(&mut self, frame: &Frame, at: usize, end: usize) {
        let wanted = if frame.seq == FOOTER {
            self.exchanges = frame.gap().map(|gap| gap.exchanges);
            false
        } else {
            // Smaller: what a gap before it stands for already.
            frame.seq >= self.scan.next
        };
        if !wanted || frame.seq > self.scan.next || end - self.start > RUN {
            self.cut(at);
        }
        self.scan.end = end;
        if !wanted {
            self.start = end;
            return;
        }
        if frame.seq > self.scan.next {
            self.missing(frame.seq);
        }
        self.scan.next = frame.next_seq();
    }

    /// Makes a run of the frames before `at`.
    fn cut(&mut self, at: usize) {
        let end = at.min(self.scan.end);
        if end > self.start {
            self.scan.runs.push(Run {
                first: self.run_first,
                next: self.scan.next,
                frames: self.data.slice(self.start..end),
            });
        }
        self.start = at;
        self.run_first = self.scan.next;
    }

    /// The records before `seq` could not be read.
    fn missing(&mut self, seq: u64) {
        let (first, count) = (self.scan.next, seq.saturating_sub(self.scan.next));
        if count == 0 {
            return;
        }
        self.gaps.push(self.scan.runs.len());
        self.scan.runs.push(Run {
            first,
            next: seq,
            frames: gap_frame(Counts::default().gap(first, seq)),
        });
        self.scan.damaged += count;
        self.scan.next = seq;
        self.run_first = seq;
    }

    /// The next frame behind damage at `at`. What the damaged frame says of its length is believed if a frame follows
    /// there: bodies are foreign bytes and may hold what looks like frames.
    fn find(&mut self, at: usize) -> Option<usize> {
        self.cut(at);
        let said = self.data.get(at..at + 4).map(|mut len| len.get_u32() as usize);
        let behind = said.filter(|len| *len <= PAYLOAD_MAX).map(|len| at + HEADER + len);
        let found = behind
            .filter(|behind| self.follows(*behind))
            .or_else(|| (at + 1..self.data.len()).find(|at| self.follows(*at)));
        self.start = found.unwrap_or(self.data.len());
        found
    }

    /// Is there a frame at `at` that may come next?
    fn follows(&self, at: usize) -> bool {
        let Some(mut seq) = self.data.get(at + 8..at + HEADER) else {
            return false;
        };
        let seq = seq.get_u64();
        (seq == FOOTER || (self.scan.next..=self.last()).contains(&seq)) && frame_at(self.data, at).is_some()
    }

    /// The highest number that a record can have that comes next: those before it are missing, and each took a header
    /// at least. More would be a gap of records that never were.
    fn last(&self) -> u64 {
        (self.scan.next + (self.data.len() / HEADER) as u64).min(i64::MAX as u64)
    }

    /// Says of the first gap how many exchanges are missing, if the footer and what is left say so.
    fn finish(mut self) -> Scan {
        if let (Some(total), Some(first)) = (self.exchanges, self.gaps.first().copied()) {
            let mut there = Counts::default();
            for (index, run) in self.scan.runs.iter().enumerate() {
                let mut frames = run.frames.clone();
                while !self.gaps.contains(&index)
                    && let Ok(Some(frame)) = frame::take(&mut frames)
                {
                    if let Ok(record) = frame.record() {
                        there.add(&record);
                    }
                }
            }
            let run = &mut self.scan.runs[first];
            let counts = Counts {
                exchanges: total.saturating_sub(there.exchanges),
                ..there
            };
            run.frames = gap_frame(counts.gap(run.first, run.next));
        }
        self.scan
    }
}

/// The frame at `at` and where it ends.
fn frame_at(data: &Bytes, at: usize) -> Option<(Frame, usize)> {
    let mut rest = data.slice(at..);
    let frame = frame::take(&mut rest).ok()??;
    Some((frame, data.len() - rest.len()))
}

#[cfg(test)]
mod tests;
