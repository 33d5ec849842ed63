//! The list of a spool's segments.

use std::{collections::VecDeque, fs::File, sync::Arc};

use proxyplane_record::{Gap, segment::Counts};

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Number of its first record.
    pub(super) first: u64,
    /// Number after its last record.
    pub(super) next: u64,
    /// Bytes of it that are written.
    pub(super) len: u64,
    /// What its records come to.
    pub(super) counts: Counts,
    /// Its records were dropped; the file says so.
    pub(super) dropped: bool,
}

/// In the order of their records.
#[derive(Debug, Default)]
pub(super) struct Segments {
    pub(super) list: VecDeque<Segment>,
    /// The last one, while it is written to.
    pub(super) current: Option<Arc<File>>,
    /// How far a segment was read: its first record, and where in it which record comes next.
    pub(super) read_to: Option<(u64, u64, u64)>,
}

/// Where records are.
pub(super) enum Place {
    /// In a segment; record `seq` begins at `offset`, and the one that was asked for is at or behind it.
    In { segment: Segment, offset: u64, seq: u64 },
    /// Nowhere.
    Gap(Gap),
}

impl Segments {
    pub(super) fn begin(&mut self, first: u64, file: Arc<File>) {
        self.list.push_back(Segment {
            first,
            next: first,
            len: 0,
            counts: Counts::default(),
            dropped: false,
        });
        self.current = Some(file);
    }

    /// No more is written to the last one, which got a footer of that many bytes.
    pub(super) fn sealed(&mut self, footer: u64) {
        self.current = None;
        if let Some(last) = self.list.back_mut() {
            last.len += footer;
        }
    }

    /// Where record `from` is, of those up to `to`.
    pub(super) fn locate(&self, from: u64, to: u64) -> Place {
        let behind = self.list.partition_point(|segment| segment.next <= from);
        let Some(segment) = self.list.get(behind).filter(|segment| segment.first < to) else {
            return Place::Gap(Counts::default().gap(from, to));
        };
        if segment.first > from {
            return Place::Gap(Counts::default().gap(from, segment.first));
        }
        if segment.dropped {
            return Place::Gap(segment.counts.gap(from, segment.next));
        }
        let (offset, seq) = match self.read_to {
            Some((first, offset, seq)) if first == segment.first && seq <= from => (offset, seq),
            _ => (0, segment.first),
        };
        Place::In {
            segment: segment.clone(),
            offset,
            seq,
        }
    }

    /// Drops the oldest segment that lies between `after` and `to` whole. What is left to be done with files: see
    /// [`Dropped`].
    pub(super) fn drop_oldest(&mut self, after: u64, to: u64) -> Option<Dropped> {
        let finished = self.list.len() - usize::from(self.current.is_some());
        let at = (0..finished).find(|at| {
            let segment = &self.list[*at];
            !segment.dropped && segment.first > after && segment.next <= to
        })?;
        let before = at.checked_sub(1).filter(|before| {
            let before = &self.list[*before];
            before.dropped && before.first > after && before.next == self.list[at].first
        });
        let dropped = self.list[at].clone();
        let Some(before) = before else {
            self.list[at].dropped = true;
            return Some(Dropped {
                into: dropped.first,
                segment: dropped,
            });
        };
        self.list.remove(at);
        let before = &mut self.list[before];
        before.next = dropped.next;
        before.counts.merge(&dropped.counts);
        Some(Dropped {
            into: before.first,
            segment: dropped,
        })
    }

    /// Takes out what is finished and committed up to `acked`.
    pub(super) fn trim(&mut self, acked: u64) -> Vec<Segment> {
        let finished = self.list.len() - usize::from(self.current.is_some());
        let committed = self
            .list
            .iter()
            .take(finished)
            .take_while(|segment| segment.next <= acked)
            .count();
        self.list.drain(..committed).collect()
    }

    /// Is there something for [`Segments::trim`]?
    pub(super) fn can_trim(&self, acked: u64) -> bool {
        let finished = self.list.len() > usize::from(self.current.is_some());
        finished && self.list.front().is_some_and(|segment| segment.next <= acked)
    }

    pub(super) fn get(&self, first: u64) -> Option<Segment> {
        self.list.iter().find(|segment| segment.first == first).cloned()
    }

    pub(super) fn set_len(&mut self, first: u64, len: u64) {
        if let Some(segment) = self.list.iter_mut().find(|segment| segment.first == first) {
            segment.len = len;
        }
    }
}

/// A segment whose records are given up.
pub(super) struct Dropped {
    pub(super) segment: Segment,
    /// First record of the segment that now stands for it: itself, or the dropped one before it.
    pub(super) into: u64,
}
