use std::sync::Arc;

use futures_util::FutureExt as _;
use proptest::prelude::*;
use proxyplane_record::{BodyChunk, Exchange, Side};

use super::state::WORTH_SENDING;
use super::*;
use crate::capture::block::BLOCK;

impl Queue {
    /// Takes every record made so far out of the queue, as if it had been committed.
    pub(crate) fn take_all(&self) -> Vec<Kind> {
        let sender = lock(&self.state).sender;
        let mut kinds = Vec::new();
        while self.bytes.load(Relaxed) > 0 {
            let Some(Some(mut batch)) = self.next(sender).now_or_never() else {
                panic!("the queue keeps records back")
            };
            while let Some(frame) = frame::take(&mut batch.frames).unwrap() {
                kinds.extend(frame.record().unwrap().kind);
            }
            self.ack(batch.next).unwrap();
        }
        kinds
    }
}

impl Queue {
    /// Is there something that is not written?
    pub(in crate::capture) fn is_behind(&self) -> bool {
        self.bytes.load(Relaxed) > 0
    }

    /// Bytes of batches in memory.
    pub(in crate::capture) fn resident(&self) -> usize {
        lock(&self.state).resident()
    }
}

fn head(size: usize) -> Record {
    Record {
        kind: Some(Kind::Head(Exchange {
            request_head: vec![b'h'; size].into(),
            ..Exchange::default()
        })),
    }
}

fn chunk(size: usize) -> Record {
    let data = vec![b'c'; size].into();
    Record {
        kind: Some(Kind::BodyChunk(BodyChunk {
            side: Side::Request.into(),
            data,
            ..BodyChunk::default()
        })),
    }
}

fn sender(queue: &Queue) -> Sender {
    queue.resume(0).unwrap()
}

fn next_now(queue: &Queue, sender: Sender) -> Option<Batch> {
    queue.next(sender).now_or_never().flatten()
}

fn sequence(batch: &Batch) -> Vec<u64> {
    let mut frames = batch.frames.clone();
    std::iter::from_fn(|| frame::take(&mut frames).unwrap())
        .map(|frame| frame.seq)
        .collect()
}

#[tokio::test]
async fn a_record_is_sent_at_once_and_kept_until_it_is_committed() {
    let queue = Queue::default();
    let sender = sender(&queue);
    queue.put(&head(10));
    let batch = queue.next(sender).await.unwrap();
    assert_eq!((batch.first, batch.next, sequence(&batch)), (0, 1, vec![0]));
    assert!(queue.empty().now_or_never().is_none());
    queue.ack(1).unwrap();
    assert!(queue.empty().now_or_never().is_some());
}

#[tokio::test]
async fn a_waiting_sender_is_woken() {
    let queue = Arc::new(Queue::default());
    let sender = sender(&queue);
    let waiting = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { queue.next(sender).await }
    });
    tokio::task::yield_now().await;
    queue.put(&head(10));
    assert_eq!(waiting.await.unwrap().unwrap().next, 1);
}

#[tokio::test(start_paused = true)]
async fn records_gather_while_two_batches_are_on_their_way() {
    let queue = Queue::default();
    let sender = sender(&queue);
    for _ in 0..2 {
        queue.put(&head(10));
        assert!(next_now(&queue, sender).is_some());
    }
    queue.put(&head(10));
    queue.put(&head(10));
    assert!(next_now(&queue, sender).is_none());
    queue.ack(1).unwrap();
    assert_eq!(sequence(&next_now(&queue, sender).unwrap()), [2, 3]);

    queue.put(&head(10));
    let before = tokio::time::Instant::now();
    assert_eq!(sequence(&queue.next(sender).await.unwrap()), [4]);
    assert!(
        before.elapsed() >= PATIENCE,
        "sent without waiting for an acknowledgement"
    );

    queue.put(&head(WORTH_SENDING));
    assert_eq!(sequence(&next_now(&queue, sender).unwrap()), [5]);
}

#[tokio::test]
async fn the_window_stops_the_sender_until_an_acknowledgement() {
    let queue = Queue::default();
    let sender = sender(&queue);
    for _ in 0..80 {
        queue.put(&head(limits::RECORD_BATCH_BYTES / 8));
    }
    let mut sent = 0;
    let mut last = None;
    while let Some(batch) = next_now(&queue, sender) {
        sent += batch.frames.len();
        last = Some(batch.next);
    }
    assert!(
        sent <= limits::RECORD_WINDOW_BYTES && sent > limits::RECORD_WINDOW_BYTES / 2,
        "{sent}"
    );
    queue.ack(last.unwrap()).unwrap();
    assert!(next_now(&queue, sender).is_some());
}

#[tokio::test]
async fn no_batch_is_over_the_limit_unless_one_record_is() {
    let queue = Queue::default();
    let sender = sender(&queue);
    queue.put(&head(BLOCK - 100));
    queue.put(&head(limits::RECORD_BATCH_BYTES + 1));
    queue.put(&head(10));
    let batches: Vec<_> = std::iter::from_fn(|| next_now(&queue, sender))
        .map(|batch| sequence(&batch))
        .collect();
    // The third waits behind two batches in flight.
    assert_eq!(batches, [[0], [1]]);
    queue.ack(2).unwrap();
    assert_eq!(sequence(&next_now(&queue, sender).unwrap()), [2]);
}

#[tokio::test]
async fn what_is_not_committed_is_sent_again_on_a_new_connection() {
    let queue = Queue::default();
    let first = sender(&queue);
    for _ in 0..3 {
        queue.put(&head(100));
    }
    assert_eq!(sequence(&next_now(&queue, first).unwrap()), [0, 1, 2]);
    queue.put(&head(100));

    let second = queue.resume(1).unwrap();
    assert!(
        matches!(queue.next(first).now_or_never(), Some(None)),
        "the old connection sends no more"
    );
    assert_eq!(sequence(&next_now(&queue, second).unwrap()), [1, 2]);
    assert_eq!(sequence(&next_now(&queue, second).unwrap()), [3]);
    queue.ack(4).unwrap();
    assert!(queue.empty().now_or_never().is_some());
}

#[tokio::test]
async fn an_acknowledgement_of_what_is_unknown_is_refused_and_changes_nothing() {
    let queue = Queue::default();
    let sender = sender(&queue);
    queue.put(&head(100));
    assert_eq!(
        queue.ack(2),
        Err(AckError {
            acked: 2,
            oldest: 0,
            newest: 0
        })
    );
    next_now(&queue, sender).unwrap();
    queue.ack(1).unwrap();
    queue.put(&head(100));
    assert!(
        queue.resume(0).is_err(),
        "the control plane has forgotten what it had committed"
    );
    assert_eq!(sequence(&next_now(&queue, sender).unwrap()), [1]);
}

#[tokio::test]
async fn a_full_queue_holds_exchanges_back_until_something_is_committed() {
    let queue = Arc::new(Queue::new(1000, State::default(), None));
    let sender = sender(&queue);
    queue.put(&head(1000));
    assert!(!queue.has_room());
    let waiting = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { queue.room().await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    let batch = next_now(&queue, sender).unwrap();
    assert!(!queue.has_room(), "sent is not committed");
    queue.ack(batch.next).unwrap();
    waiting.await.unwrap();
}

#[tokio::test]
async fn bulk_waits_long_before_new_exchanges_do() {
    let queue = Queue::default();
    let sender = sender(&queue);
    while queue.room_for_bulk().now_or_never().is_some() {
        queue.put(&chunk(64 * 1024));
    }
    assert!(queue.has_room());
    let batch = next_now(&queue, sender).unwrap();
    queue.ack(batch.next).unwrap();
    assert!(queue.room_for_bulk().now_or_never().is_some());
}

proptest! {
    /// Whatever is put, sent, acknowledged and resumed in whatever order: every sequence number arrives, in order
    /// within a connection, and the count of bytes ends at zero.
    #[test]
    fn nothing_is_lost(steps in proptest::collection::vec((0..4u8, 0..40_000usize), 1..200)) {
        // Waiting for more records takes a clock.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _entered = runtime.enter();
        let queue = Queue::new(usize::MAX, State::default(), None);
        let mut sender = sender(&queue);
        let (mut made, mut sent, mut committed) = (0u64, 0u64, 0u64);
        for (step, size) in steps {
            match step {
                0 | 1 => {
                    queue.put(&if step == 0 { head(size) } else { chunk(size) });
                    made += 1;
                }
                2 => if let Some(batch) = next_now(&queue, sender) {
                    prop_assert_eq!(sequence(&batch), (sent..batch.next).collect::<Vec<_>>());
                    sent = batch.next;
                },
                _ => {
                    // Anywhere in what was sent, as a database does that merges batches.
                    committed += (size as u64) % (sent - committed + 1);
                    if size % 2 == 0 {
                        queue.ack(committed).unwrap();
                    } else {
                        sender = queue.resume(committed).unwrap();
                        sent = committed;
                    }
                }
            }
        }
        queue.resume(committed).unwrap();
        prop_assert_eq!(queue.take_all().len() as u64, made - committed);
        prop_assert_eq!((queue.bytes.load(Relaxed), queue.bulk.load(Relaxed), queue.next_seq()), (0, 0, made));
    }
}
