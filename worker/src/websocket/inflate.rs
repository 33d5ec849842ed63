//! Inflating one direction of permessage-deflate (RFC 7692 §7.2.2).
//!
//! A thousand idle connections must not hold two thousand inflaters of 48 KiB each. Between messages a raw deflate
//! stream stands at a byte boundary between blocks, and all that the next message needs is the window: the last bytes
//! that came out. So only those are kept, as many as there are, and an inflater is borrowed from the thread's pool for
//! as long as a message is being read.

use std::cell::RefCell;
use std::collections::VecDeque;

use flate2::{Decompress, FlushDecompress, Status};

use super::extension::DeflateParams;

/// What a sender cuts off the end of a message's last block.
pub(super) const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// Inflaters kept by each thread; more are made when more messages are under way at once.
const POOL_MAX: usize = 8;

thread_local! {
    static POOL: RefCell<Vec<Decompress>> = const { RefCell::new(Vec::new()) };
}

/// The compressed bytes are no deflate stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damaged;

/// The inflating state of one direction.
#[derive(Debug)]
pub(super) struct Inflater {
    params: DeflateParams,
    /// The last bytes that came out, at most the window's size.
    window: VecDeque<u8>,
    /// Only inside of a message.
    active: Option<Decompress>,
}

/// What one step took and made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) taken: usize,
    pub(super) made: usize,
}

impl Inflater {
    pub(super) fn new(params: DeflateParams) -> Self {
        Self {
            params,
            window: VecDeque::new(),
            active: None,
        }
    }

    /// Inflates from the front of `input` into `output`. Output that is filled to its end means that there may be
    /// more, even with no input left.
    pub(super) fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, Damaged> {
        let mut progress = Progress { taken: 0, made: 0 };
        loop {
            let inflater = match &mut self.active {
                Some(inflater) => inflater,
                none => none.insert(borrow(&self.window)?),
            };
            let (before_in, before_out) = (inflater.total_in(), inflater.total_out());
            let status = inflater
                .decompress(
                    &input[progress.taken..],
                    &mut output[progress.made..],
                    FlushDecompress::None,
                )
                .map_err(|_| Damaged)?;
            let taken = (inflater.total_in() - before_in) as usize;
            let made = (inflater.total_out() - before_out) as usize;
            remember(
                &mut self.window,
                1 << self.params.window_bits,
                &output[progress.made..progress.made + made],
            );
            progress.taken += taken;
            progress.made += made;
            // A sender may end a block with BFINAL and go on with another one (RFC 7692 §7.2.3.4).
            if status == Status::StreamEnd {
                self.give_back();
            }
            let stuck = taken == 0 && made == 0;
            if stuck || progress.taken == input.len() || progress.made == output.len() {
                return Ok(progress);
            }
        }
    }

    /// The message is over; its [`TAIL`] has been inflated.
    pub(super) fn end_message(&mut self) {
        self.give_back();
        if self.params.no_context_takeover {
            self.window = VecDeque::new();
        }
    }

    fn give_back(&mut self) {
        if let Some(inflater) = self.active.take() {
            POOL.with_borrow_mut(|pool| {
                if pool.len() < POOL_MAX {
                    pool.push(inflater);
                }
            });
        }
    }
}

fn borrow(window: &VecDeque<u8>) -> Result<Decompress, Damaged> {
    let pooled = POOL.with_borrow_mut(Vec::pop);
    let mut inflater = if let Some(mut inflater) = pooled {
        inflater.reset(false);
        inflater
    } else {
        // The full window reads what was made with any smaller one.
        Decompress::new(false)
    };
    let (front, back) = window.as_slices();
    for part in [front, back] {
        if !part.is_empty() {
            inflater.set_dictionary(part).map_err(|_| Damaged)?;
        }
    }
    Ok(inflater)
}

fn remember(window: &mut VecDeque<u8>, size: usize, made: &[u8]) {
    let kept = &made[made.len().saturating_sub(size)..];
    let surplus = (window.len() + kept.len()).saturating_sub(size);
    window.drain(..surplus);
    // Grown by hand: never beyond the window's size, which a thousand connections would pay for.
    let wanted = (window.len() + kept.len()).next_power_of_two();
    if wanted > window.capacity() {
        window.reserve_exact(wanted - window.len());
    }
    window.extend(kept);
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    fn deflate(compressor: &mut Compress, message: &[u8]) -> Vec<u8> {
        if message.is_empty() {
            return vec![0]; // RFC 7692 §7.2.3.6
        }
        let mut out = Vec::with_capacity(message.len() + 1024);
        compressor.compress_vec(message, &mut out, FlushCompress::Sync).unwrap();
        assert!(out.ends_with(&TAIL));
        out.truncate(out.len() - TAIL.len());
        out
    }

    fn inflate(inflater: &mut Inflater, compressed: &[u8], room: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut buffer = vec![0; room];
        for mut input in [compressed, &TAIL[..]] {
            loop {
                let progress = inflater.inflate(input, &mut buffer).unwrap();
                out.extend(&buffer[..progress.made]);
                input = &input[progress.taken..];
                if input.is_empty() && progress.made < room {
                    break;
                }
            }
        }
        inflater.end_message();
        out
    }

    fn message(index: usize) -> Vec<u8> {
        (0..2_000 * (index % 30))
            .map(|n| b"the same words again "[(n * (index % 3 + 1)) % 21])
            .collect()
    }

    #[test]
    fn context_is_taken_over_from_message_to_message() {
        for window_bits in [9, 12, 15] {
            let mut compressor = Compress::new_with_window_bits(Compression::default(), false, window_bits);
            let mut inflater = Inflater::new(DeflateParams {
                no_context_takeover: false,
                window_bits,
            });
            for index in 0..60 {
                let compressed = deflate(&mut compressor, &message(index));
                assert_eq!(
                    inflate(&mut inflater, &compressed, 700),
                    message(index),
                    "message {index}"
                );
                assert!(inflater.window.capacity() <= 1 << window_bits);
                assert!(inflater.active.is_none());
            }
        }
    }

    #[test]
    fn without_takeover_nothing_is_kept() {
        let mut inflater = Inflater::new(DeflateParams {
            no_context_takeover: true,
            window_bits: 15,
        });
        for index in 0..10 {
            let compressed = deflate(&mut Compress::new(Compression::fast(), false), &message(index));
            assert_eq!(inflate(&mut inflater, &compressed, 4096), message(index));
            assert_eq!(inflater.window.capacity(), 0);
        }
    }

    #[test]
    fn a_final_block_inside_a_message_does_not_end_it() {
        let mut stream = Vec::with_capacity(1024);
        Compress::new(Compression::default(), false)
            .compress_vec(b"first half, ", &mut stream, FlushCompress::Finish)
            .unwrap();
        stream.extend(deflate(
            &mut Compress::new(Compression::default(), false),
            b"second half",
        ));
        let mut inflater = Inflater::new(DeflateParams::default());
        assert_eq!(inflate(&mut inflater, &stream, 64), b"first half, second half");
    }

    #[test]
    fn garbage_is_damaged() {
        let mut inflater = Inflater::new(DeflateParams::default());
        assert_eq!(inflater.inflate(&[0xff; 64], &mut [0; 64]), Err(Damaged));
    }
}
