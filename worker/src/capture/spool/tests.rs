use std::{sync::atomic::AtomicU32, thread, time::Duration};

use futures_util::FutureExt as _;
use proptest::prelude::*;
use proxyplane_record::{BodyChunk, Exchange, Gap, Kind, Record, frame};

use super::*;
use crate::capture::queue::{Pressure, Queue};

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "proxyplane-spool-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Relaxed)
        );
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "seg"));
        files.sort();
        files
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A queue with its spool and the threads of that, until it is dropped.
struct Running {
    queue: Arc<Queue>,
    spool: Arc<Spool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Running {
    fn new(scratch: &Scratch, limit: u64) -> Self {
        let spool = Arc::new(Spool::open(&scratch.0).unwrap());
        spool.configure(limit, SpoolFull::DropOldest);
        let queue = Arc::new(Queue::spooling(spool.clone(), Pressure::default()));
        queue.set_eager(true);
        let thread = |run: fn(&Arc<Queue>, &Arc<Spool>)| {
            let (queue, spool) = (queue.clone(), spool.clone());
            thread::spawn(move || run(&queue, &spool))
        };
        let threads = vec![thread(write), thread(keep)];
        Self { queue, spool, threads }
    }

    /// Puts records and waits until they are written, so that a spool that may hold little is not run over.
    fn put(&self, count: usize, size: usize) {
        for _ in 0..count {
            self.queue.put(&head(size));
            while self.queue.is_behind() {
                thread::yield_now();
            }
        }
    }

    /// As if it were killed when everything was written: nothing is cleared.
    fn die(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

fn head(size: usize) -> Record {
    Record {
        kind: Some(Kind::Head(Exchange {
            request_head: vec![b'h'; size].into(),
            started_at_us: 5,
            ..Exchange::default()
        })),
    }
}

/// Takes everything from `from` on, acknowledging as it goes: how many records came, and the gaps.
async fn drain(queue: &Queue, from: u64, until: u64) -> (u64, Vec<Gap>) {
    let sender = queue.resume(from).unwrap();
    let (mut expected, mut records, mut gaps) = (from, 0, Vec::new());
    while expected < until {
        let mut batch = queue.next(sender).await.unwrap();
        assert_eq!(batch.first, expected);
        while let Some(frame) = frame::take(&mut batch.frames).unwrap() {
            assert_eq!(frame.seq, expected);
            expected = frame.next_seq();
            match frame.gap() {
                Some(gap) => gaps.push(gap),
                None => records += 1,
            }
        }
        assert_eq!(batch.next, expected);
        queue.ack(expected).unwrap();
    }
    (records, gaps)
}

const MIB: u64 = 1024 * 1024;
/// For a batch that may have to wait for an acknowledgement.
const PATIENCE: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_record_is_on_disk_before_it_is_sent() {
    let scratch = Scratch::new();
    let running = Running::new(&scratch, 64 * MIB);
    let sender = running.queue.resume(0).unwrap();
    for _ in 0..100 {
        running.queue.put(&head(1000));
        let batch = running.queue.next(sender).await.unwrap();
        assert!(running.spool.bytes() >= batch.next * 1000);
        running.queue.ack(batch.next).unwrap();
    }
}

#[tokio::test]
async fn what_comes_in_a_stream_is_written_in_groups() {
    let scratch = Scratch::new();
    let running = Running::new(&scratch, 64 * MIB);
    running.queue.set_eager(false);
    for _ in 0..5 {
        for _ in 0..100 {
            running.queue.put(&head(100));
        }
        running.queue.settled().await;
    }
    assert_eq!(drain(&running.queue, 0, 500).await, (500, vec![]));
}

#[tokio::test]
async fn what_a_dead_instance_wrote_is_sent_by_the_next() {
    let scratch = Scratch::new();
    let running = Running::new(&scratch, 64 * MIB);
    running.put(100, 1000);
    running.die();
    let (queue, first, next) = recovered(&scratch);
    assert_eq!((first, next), (0, 100));
    // The database has some of it already.
    assert_eq!(drain(&queue, 37, 100).await, (63, vec![]));
    assert!(queue.empty().now_or_never().is_some());
}

#[tokio::test]
async fn a_backlog_is_read_back_from_disk_and_not_kept_in_memory() {
    let scratch = Scratch::new();
    let running = Running::new(&scratch, 1024 * MIB);
    let queue = &running.queue;
    running.put(1000, 100_000);
    assert!(
        queue.resident() <= 9 * 1024 * 1024,
        "{} bytes in memory",
        queue.resident()
    );
    assert!(scratch.segments().len() >= 5);
    assert_eq!(drain(queue, 0, 1000).await, (1000, vec![]));
    running.put(50, 1000);
    assert_eq!(drain(queue, 1000, 1050).await, (50, vec![]));
}

#[tokio::test]
async fn what_is_on_disk_holds_no_body_back() {
    let scratch = Scratch::new();
    let running = Running::new(&scratch, 1024 * MIB);
    let data = vec![b'c'; 60_000].into();
    let chunk = Record {
        kind: Some(Kind::BodyChunk(BodyChunk {
            data,
            ..BodyChunk::default()
        })),
    };
    for _ in 0..1000 {
        running.queue.put(&chunk);
        running.queue.settled().await;
    }
    running.queue.room_for_bulk().now_or_never().expect("there is room");
    assert_eq!(drain(&running.queue, 0, 1000).await, (1000, vec![]));
}

#[tokio::test]
async fn a_new_connection_resumes_within_what_is_on_disk_only() {
    let scratch = Scratch::new();
    let running = Running::new(&scratch, 1024 * MIB);
    let queue = &running.queue;
    running.put(600, 100_000);
    let sender = queue.resume(0).unwrap();
    let mut next = 0;
    for _ in 0..20 {
        next = queue.next(sender).await.unwrap().next;
    }
    let sender = queue.resume(next / 2).unwrap();
    queue.next(sender).await.unwrap();
    running.put(10, 1000);
    assert_eq!(drain(queue, next / 2 + 1, 610).await, (610 - next / 2 - 1, vec![]));
}

#[tokio::test]
async fn committed_segments_are_deleted_and_a_full_spool_drops_its_oldest_for_an_exact_gap() {
    let scratch = Scratch::new();
    let running = Running::new(&scratch, 2 * MIB);
    running.put(600, 10_000);
    assert!(running.spool.bytes() <= 3 * MIB, "{} bytes", running.spool.bytes());
    let (records, gaps) = drain(&running.queue, 0, 600).await;
    let lost: u64 = gaps.iter().map(|gap| gap.records).sum();
    assert!(lost > 0, "nothing was dropped");
    assert_eq!(records + lost, 600);
    assert!(gaps.iter().all(|gap| gap.exchanges == gap.records && gap.from_us == 5));
    running.queue.empty().await;
    while scratch.segments().len() > 1 {
        thread::yield_now();
    }
}

#[tokio::test]
async fn gaps_of_a_dead_instance_are_what_they_were() {
    let scratch = Scratch::new();
    let running = Running::new(&scratch, 2 * MIB);
    running.put(600, 10_000);
    running.die();
    let (queue, _, _) = recovered(&scratch);
    let (records, gaps) = drain(&queue, 0, 600).await;
    let lost: u64 = gaps.iter().map(|gap| gap.records).sum();
    assert!(lost > 0 && gaps.iter().all(|gap| gap.exchanges == gap.records));
    assert_eq!(records + lost, 600);
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_a_bad_segment_is_put_aside() {
    let scratch = Scratch::new();
    let segments = segments_left_behind(&scratch);
    let last = segments.last().unwrap();
    let length = fs::metadata(last).unwrap().len();
    File::options()
        .write(true)
        .open(last)
        .unwrap()
        .set_len(length - 1)
        .unwrap();
    let bad = vec![0xee; fs::metadata(&segments[1]).unwrap().len() as usize];
    fs::write(&segments[1], bad).unwrap();

    let (queue, first, next) = recovered(&scratch);
    assert_eq!((first, next), (0, 99));
    let (records, gaps) = drain(&queue, 0, 99).await;
    assert_eq!((records + gaps[0].records, gaps.len()), (99, 1));
    assert!(segments[1].with_extension("bad").exists());
}

#[tokio::test]
async fn while_the_disk_takes_nothing_records_are_sent_from_memory() {
    let scratch = Scratch::new();
    let running = Running::new(&scratch, 64 * MIB);
    fs::remove_dir_all(&scratch.0).unwrap();
    let queue = &running.queue;
    for _ in 0..100 {
        queue.put(&head(1000));
    }
    assert_eq!(drain(queue, 0, 100).await, (100, vec![]));
    assert!(queue.is_scarce() || running.spool.bytes() > 0);
    fs::create_dir_all(&scratch.0).unwrap();
    queue.put(&head(1000));
    assert_eq!(drain(queue, 100, 101).await, (1, vec![]));
    while queue.is_scarce() {
        queue.put(&head(1000));
        thread::yield_now();
    }
}

#[test]
fn a_directory_has_one_owner() {
    let scratch = Scratch::new();
    let first = Spool::open(&scratch.0).unwrap();
    assert!(Spool::open(&scratch.0).is_err());
    drop(first);
    Spool::open(&scratch.0).unwrap();
}

#[tokio::test]
async fn what_was_committed_before_its_segment_was_deleted_is_not_sent_again() {
    let scratch = Scratch::new();
    segments_left_behind(&scratch);
    fs::write(scratch.0.join(ACKED), note(60)).unwrap();
    let (_, first, next) = Spool::recover(&scratch.0).unwrap();
    assert!((1..=60).contains(&first) && next == 100, "{first}");
}

/// A directory with 100 records in three segments or more whose owner is gone: the segments.
fn segments_left_behind(scratch: &Scratch) -> Vec<PathBuf> {
    let running = Running::new(scratch, 2 * MIB);
    running.put(100, 10_000);
    running.die();
    let segments = scratch.segments();
    assert!(segments.len() >= 3);
    segments
}

/// As [`ACKED`] is written.
fn note(acked: u64) -> Vec<u8> {
    [acked.to_be_bytes(), (!acked).to_be_bytes()].concat()
}

/// What the next owner finds: all of it that is to be sent, from which record on, and how far it goes.
fn recovered(scratch: &Scratch) -> (Queue, u64, u64) {
    let (spool, first, next) = Spool::recover(&scratch.0).unwrap();
    (Queue::recovered(Arc::new(spool), first, next), first, next)
}

/// A directory with one segment of `count` records whose owner is gone; its bytes, and where each record begins.
fn left_behind(scratch: &Scratch, count: usize) -> (PathBuf, Vec<u8>, Vec<usize>) {
    let running = Running::new(scratch, 64 * MIB);
    running.put(count, 20);
    running.die();
    let file = scratch.segments().pop().unwrap();
    let whole = fs::read(&file).unwrap();
    let (mut rest, mut starts) = (Bytes::from(whole.clone()), Vec::new());
    while !rest.is_empty() {
        starts.push(whole.len() - rest.len());
        frame::take(&mut rest).unwrap().unwrap();
    }
    (file, whole, starts)
}

#[tokio::test]
async fn a_last_record_that_is_cut_anywhere_costs_only_itself() {
    let scratch = Scratch::new();
    let (file, whole, starts) = left_behind(&scratch, 5);
    let last = *starts.last().unwrap();
    for cut in last..whole.len() {
        fs::write(&file, &whole[..cut]).unwrap();
        let (queue, first, next) = recovered(&scratch);
        assert_eq!((first, next), (0, 4), "cut at {cut}");
        assert_eq!(fs::metadata(&file).unwrap().len(), last as u64, "cut at {cut}");
        assert_eq!(drain(&queue, 0, 4).await, (4, vec![]), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_bit_that_flipped_costs_the_record_it_is_in_and_that_is_counted() {
    let scratch = Scratch::new();
    let (file, whole, starts) = left_behind(&scratch, 5);
    for at in starts[2]..starts[3] {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            fs::write(&file, damaged).unwrap();
            let (queue, first, next) = recovered(&scratch);
            assert_eq!((first, next), (0, 5), "bit {bit} of byte {at}");
            let (records, gaps) = drain(&queue, 0, 5).await;
            let gaps: Vec<_> = gaps.iter().map(|gap| (gap.first_seq, gap.records)).collect();
            assert_eq!((records, gaps), (4, vec![(2, 1)]), "bit {bit} of byte {at}");
        }
    }
}

/// Whatever of the two the disk kept: segments are deleted after `acked` was written, but a disk may forget.
#[tokio::test]
async fn a_crash_between_the_deletion_of_segments_and_their_acknowledgement_is_recovered_from() {
    let scratch = Scratch::new();
    let segments = segments_left_behind(&scratch);
    let acked = scratch.0.join(ACKED);
    for segment in &segments[..2] {
        fs::remove_file(segment).unwrap();
        let begins = segment::parse_name(segments[1].file_name().unwrap().to_str().unwrap()).unwrap();
        // Not there, empty, cut, older than what was deleted, damaged.
        for left in [
            None,
            Some(vec![]),
            Some(note(begins)[..11].to_vec()),
            Some(note(1)),
            Some(vec![7; 16]),
        ] {
            let _ = fs::remove_file(&acked);
            if let Some(left) = left {
                fs::write(&acked, left).unwrap();
            }
            let (queue, first, next) = recovered(&scratch);
            assert!(first > 0 && next == 100, "{first} to {next}");
            // The database has what was deleted.
            assert_eq!(drain(&queue, first, 100).await, (100 - first, vec![]));
        }
    }
    for segment in &segments[2..] {
        fs::remove_file(segment).unwrap();
    }
    let _ = fs::remove_file(&acked);
    let (queue, _, _) = recovered(&scratch);
    assert!(queue.empty().now_or_never().is_some(), "nothing is left to be sent");
}

#[test]
fn runs_are_cut_to_what_was_asked_for() {
    let mut out = bytes::BytesMut::new();
    for seq in 3..9 {
        frame::put(
            &mut out,
            seq,
            &Record {
                kind: Some(Kind::BodyChunk(BodyChunk::default())),
            },
        );
    }
    let whole = Run {
        first: 3,
        next: 9,
        frames: out.freeze(),
    };
    for (from, to) in [(0, 20), (3, 9), (4, 8), (5, 20), (0, 4)] {
        let mut run = whole.clone();
        assert!(clip(&mut run, from, to));
        let mut numbers = Vec::new();
        while let Some(frame) = frame::take(&mut run.frames).unwrap() {
            numbers.push(frame.seq);
        }
        assert_eq!(numbers, (from.max(3)..to.min(9)).collect::<Vec<_>>());
        assert_eq!((run.first, run.next), (from.max(3), to.min(9)));
    }
    assert!(!clip(&mut whole.clone(), 9, 12) && !clip(&mut whole.clone(), 0, 3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever is put, sent, acknowledged and resumed in whatever order, in a spool that may hold little or much, and
    /// across a death: every record arrives in order, or a gap stands for it.
    #[test]
    fn every_record_arrives_or_is_counted(
        little in any::<bool>(), steps in proptest::collection::vec((0..4u8, 0..60_000usize), 1..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let scratch = Scratch::new();
        let running = Running::new(&scratch, if little { MIB } else { 1024 * MIB });
        let (mut made, mut sent, mut committed) = (0u64, 0u64, 0u64);
        let mut sender = running.queue.resume(0).unwrap();
        for (step, size) in steps {
            match step {
                0 | 1 => {
                    running.put(1 + size % 7, size);
                    made += 1 + size as u64 % 7;
                }
                2 if sent < made => {
                    let next = async { tokio::time::timeout(PATIENCE, running.queue.next(sender)).await };
                    if let Ok(Some(batch)) = runtime.block_on(next) {
                        prop_assert_eq!(batch.first, sent);
                        sent = batch.next;
                    }
                }
                2 => {}
                _ => {
                    if size % 3 > 0 {
                        committed = sent;
                        running.queue.ack(committed).unwrap();
                    } else {
                        sender = running.queue.resume(committed).unwrap();
                        sent = committed;
                    }
                }
            }
        }
        let (records, gaps) = runtime.block_on(drain(&running.queue, committed, made - (made - committed) / 2));
        let lost: u64 = gaps.iter().map(|gap| gap.records).sum();
        let seen = committed + records + lost;
        running.die();
        let (queue, first, next) = recovered(&scratch);
        prop_assert!(first <= seen && next == made || seen == made);
        let (records, gaps) = runtime.block_on(drain(&queue, seen, next));
        let lost: u64 = gaps.iter().map(|gap| gap.records).sum();
        prop_assert_eq!(seen + records + lost, made.max(next));
    }
}
