use proptest::prelude::*;

use super::*;
use crate::{BodyChunk, Complete, Exchange};

fn complete(size: usize) -> Record {
    Record {
        kind: Some(Kind::Complete(Complete {
            exchange: Exchange {
                started_at_us: 1_000 + size as i64,
                ..Exchange::default()
            },
            response_body: vec![b'r'; size].into(),
            ..Complete::default()
        })),
    }
}

fn chunk(size: usize) -> Record {
    Record {
        kind: Some(Kind::BodyChunk(BodyChunk {
            data: vec![b'c'; size].into(),
            ..BodyChunk::default()
        })),
    }
}

/// A segment of these records from number `first` on, and where each of its frames begins.
fn segment(first: u64, records: &[Record]) -> (BytesMut, Vec<usize>) {
    let (mut out, mut starts) = (BytesMut::new(), Vec::new());
    for (seq, record) in (first..).zip(records) {
        starts.push(out.len());
        frame::put(&mut out, seq, record);
    }
    (out, starts)
}

fn sealed(first: u64, records: &[Record]) -> BytesMut {
    let mut counts = Counts::default();
    for record in records {
        counts.add(record);
    }
    let (mut out, _) = segment(first, records);
    out.extend_from_slice(&footer(counts.gap(first, first + records.len() as u64)));
    out
}

/// Every frame that was read, by number; fails if one is missing.
fn frames(scan: &Scan, first: u64) -> Vec<Frame> {
    let (mut expected, mut frames) = (first, Vec::new());
    for run in &scan.runs {
        assert_eq!(run.first, expected);
        let mut bytes = run.frames.clone();
        while let Some(frame) = frame::take(&mut bytes).unwrap() {
            assert_eq!(frame.seq, expected);
            expected = frame.next_seq();
            frames.push(frame);
        }
        assert_eq!(run.next, expected);
    }
    assert_eq!(scan.next, expected);
    frames
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let record =
        (any::<bool>(), 0..300usize).prop_map(|(whole, size)| if whole { complete(size) } else { chunk(size) });
    proptest::collection::vec(record, 1..12)
}

proptest! {
    #[test]
    fn a_tail_that_is_torn_anywhere_costs_only_the_record_it_is_torn_in(records in records(), first in 0..1000u64) {
        let (bytes, starts) = segment(first, &records);
        let bytes = bytes.freeze();
        for cut in 0..=bytes.len() {
            let whole = starts.iter().skip(1).chain([&bytes.len()]).filter(|end| **end <= cut).count();
            let scan = scan(&bytes.slice(..cut), first, None);
            prop_assert_eq!(frames(&scan, first).len(), whole);
            prop_assert_eq!(scan.end, starts.iter().chain([&bytes.len()]).copied().nth(whole).unwrap_or(0));
            prop_assert_eq!(scan.damaged, 0);
        }
    }

    #[test]
    fn a_flipped_bit_costs_one_record_and_it_is_counted(
        records in records(), at in any::<prop::sample::Index>(), bit in 0..8u8,
    ) {
        let (mut bytes, starts) = segment(7, &records);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let hit = starts.iter().rposition(|start| *start <= at).unwrap() as u64 + 7;
        let next = 7 + records.len() as u64;
        let scan = scan(&bytes.freeze(), 7, Some(next));
        let frames = frames(&scan, 7);
        prop_assert_eq!((scan.next, scan.damaged, frames.len()), (next, 1, records.len()));
        for (frame, record) in frames.iter().zip(&records) {
            if frame.seq == hit {
                prop_assert_eq!(frame.gap().unwrap().records, 1);
            } else {
                prop_assert_eq!(&frame.record().unwrap(), record);
            }
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic_and_leave_no_hole(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), first in 0..1000u64, next in proptest::option::of(0..1000u64),
    ) {
        frames(&scan(&bytes.into(), first, next), first);
    }
}

#[test]
fn what_a_footer_counted_and_nobody_can_read_is_in_the_gap() {
    let records = [complete(10), chunk(20), complete(30), complete(40)];
    let mut bytes = sealed(5, &records);
    let (_, starts) = segment(5, &records);
    bytes[starts[2] + 30] ^= 1;
    let scan = scan(&bytes.freeze(), 5, Some(9));
    let gap = frames(&scan, 5)[2].gap().unwrap();
    assert_eq!((gap.first_seq, gap.records, gap.exchanges), (7, 1, 1));
    assert_eq!((scan.damaged, scan.next), (1, 9));
}

#[test]
fn a_sealed_segment_is_read_without_its_footer() {
    let records = [complete(10), chunk(20)];
    let bytes = sealed(0, &records).freeze();
    let scan = scan(&bytes, 0, Some(2));
    assert_eq!((frames(&scan, 0).len(), scan.next, scan.end), (2, 2, bytes.len()));
}

#[test]
fn what_lies_behind_a_gap_that_stands_for_it_is_left_out() {
    let records = [complete(10), complete(20), complete(30)];
    let (mut bytes, starts) = segment(3, &records);
    // As a crash leaves it between writing the gap over a dropped segment and cutting the file.
    let gap = gap_frame(Counts::default().gap(3, 6));
    assert!(gap.len() < starts[1]);
    bytes[..gap.len()].copy_from_slice(&gap);
    let scan = scan(&bytes.freeze(), 3, Some(6));
    assert_eq!((frames(&scan, 3).len(), scan.next, scan.damaged), (1, 6, 0));
}

#[test]
fn a_segment_without_a_readable_record_is_a_gap_up_to_the_next() {
    let scan = scan(&vec![0xff; 100].into(), 4, Some(9));
    assert_eq!(frames(&scan, 4)[0].gap().unwrap().records, 5);
    assert_eq!((scan.end, scan.damaged), (0, 5));
}

#[test]
fn a_number_that_no_record_here_can_have_is_damage() {
    for number in [1_000, i64::MAX as u64, i64::MAX as u64 + 1, FOOTER - 1] {
        let (mut bytes, _) = segment(3, &[complete(5)]);
        frame::put(&mut bytes, number, &complete(6));
        frame::put(&mut bytes, 5, &complete(7));
        let scan = scan(&bytes.freeze(), 3, None);
        let frames = frames(&scan, 3);
        assert_eq!((frames.len(), scan.damaged, scan.next), (3, 1, 6), "{number}");
        assert_eq!(frames[2].record().unwrap(), complete(7));
    }
}

#[test]
fn a_body_that_looks_like_a_frame_is_not_taken_for_one() {
    let (inner, _) = segment(2, &[complete(5)]);
    let outer = Record {
        kind: Some(Kind::BodyChunk(BodyChunk {
            data: inner.freeze(),
            ..BodyChunk::default()
        })),
    };
    let (mut bytes, starts) = segment(1, &[outer, complete(6)]);
    bytes[starts[0] + 4] ^= 1;
    let scan = scan(&bytes.freeze(), 1, None);
    assert_eq!(frames(&scan, 1)[1].record().unwrap(), complete(6));
}

#[test]
fn long_runs_are_divided_and_names_sort_as_numbers_do() {
    let records: Vec<_> = (0..10).map(|_| chunk(RUN / 3)).collect();
    let (bytes, _) = segment(0, &records);
    let scan = scan(&bytes.freeze(), 0, None);
    assert!(scan.runs.len() > 3 && scan.runs.iter().all(|run| run.frames.len() <= RUN + 200));
    assert_eq!(frames(&scan, 0).len(), 10);

    assert_eq!(parse_name(&file_name(42)), Some(42));
    assert!(file_name(9) < file_name(10));
    for other in ["acked", "42.seg", "0000000000000000004x.seg"] {
        assert_eq!(parse_name(other), None);
    }
}

/// Where a segment ends by its heads alone.
fn end_of(data: &[u8], first: u64) -> u64 {
    end(&mut std::io::Cursor::new(data), first).unwrap()
}

#[test]
fn the_end_of_a_segment_is_known_by_its_heads_wherever_it_is_cut() {
    let records = [complete(0), complete(1_000), chunk(200), chunk(3)];
    assert_eq!(end_of(&sealed(7, &records), 7), 11);
    let (whole, starts) = segment(7, &records);
    for cut in 0..=whole.len() {
        let expected = scan(&Bytes::copy_from_slice(&whole[..cut]), 7, None).next;
        assert_eq!(end_of(&whole[..cut], 7), expected, "cut at {cut}");
    }
    assert_eq!(starts.len(), 4);
}

#[test]
fn a_gap_counts_as_the_records_that_it_stands_for() {
    let mut data = BytesMut::from(&gap_frame(Counts::default().gap(5, 1_000_005))[..]);
    frame::put(&mut data, 1_000_005, &complete(500));
    assert_eq!(end_of(&data, 5), 1_000_006);
}

#[test]
fn what_lies_behind_damage_counts_as_one_record_at_least() {
    let (mut data, starts) = segment(0, &[complete(500), complete(500), complete(500)]);
    data[starts[1] + 8] ^= 0x40;
    assert_eq!(end_of(&data, 0), 2);
}
