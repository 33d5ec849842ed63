//! Messages out of one direction's bytes: frames, fragments, control frames between fragments, compression.

use std::cell::RefCell;

use proxyplane_record::CHUNK_MAX;

use super::extension::DeflateParams;
use super::frame::{Header, HeaderReader, RSV1, Violation, opcode, unmask};
use super::inflate::{Inflater, TAIL};

/// Payload bytes handled in one step, before and after inflating.
const STEP: usize = 16 * 1024;
/// Steps after which other connections of the thread get their turn (about a megabyte: a compressed kilobyte may hold
/// as much).
const STEPS_AT_ONCE: usize = 64;

thread_local! {
    static INFLATED: RefCell<Box<[u8; STEP]>> = RefCell::new(Box::new([0; STEP]));
}

/// A message, or a part of a long one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) opcode: u8,
    /// Captured bytes, at most [`CHUNK_MAX`].
    pub(super) payload: Vec<u8>,
    /// From 0.
    pub(super) index: u32,
    pub(super) last: bool,
    /// Size of the whole message, inflated; 0 unless `last`.
    pub(super) size: u64,
    /// The parts hold less than `size`, or the message was never completed.
    pub(super) truncated: bool,
    pub(super) compressed: bool,
}

/// Why [`Assembler::feed`] returned.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// All input was taken.
    Starved,
    /// This is to be recorded; call again with the rest of the input.
    Part(Part),
    /// Much was inflated; let others run, then call again with the rest of the input.
    Busy,
}

/// Assembles the messages of one direction.
#[derive(Debug)]
pub(super) struct Assembler {
    /// Captured bytes per message.
    limit: u64,
    header: HeaderReader,
    frame: Option<Frame>,
    message: Option<Message>,
    control: Option<Message>,
    inflater: Option<Inflater>,
    closed: bool,
}

#[derive(Debug)]
struct Frame {
    control: bool,
    fin: bool,
    mask: Option<[u8; 4]>,
    length: u64,
    /// Payload bytes handled.
    done: u64,
    /// Payload bytes of which the mask is gone: what an earlier step saw but did not take is not to be masked again.
    unmasked: u64,
}

#[derive(Debug)]
struct Message {
    opcode: u8,
    compressed: bool,
    size: u64,
    captured: u64,
    held: Vec<u8>,
    parts: u32,
    /// Of [`TAIL`], after the last frame.
    tail_taken: usize,
    /// The inflater may hold more than it could give.
    more_inside: bool,
}

impl Assembler {
    /// `deflate` is this direction's side of permessage-deflate, if that was agreed on.
    pub(super) fn new(limit: u64, deflate: Option<DeflateParams>) -> Self {
        let inflater = deflate.map(Inflater::new);
        let header = HeaderReader::default();
        Self {
            limit,
            header,
            frame: None,
            message: None,
            control: None,
            inflater,
            closed: false,
        }
    }

    /// Has a Close frame passed?
    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    /// Would a frame of our own stand between two messages here?
    pub(super) fn at_boundary(&self) -> bool {
        self.frame.is_none() && self.message.is_none() && self.header.is_empty()
    }

    /// Takes bytes from the front of `input`, whose masks it undoes in place; returns how many, and why it stopped.
    /// The rest must be given again, as it is then, before anything else.
    pub(super) fn feed(&mut self, input: &mut [u8]) -> Result<(usize, Step), Violation> {
        let mut taken = 0;
        for _ in 0..STEPS_AT_ONCE {
            let rest = input.get_mut(taken..).unwrap_or_default();
            if self.frame.is_none() {
                let (count, header) = self.header.read(rest)?;
                taken += count;
                match header {
                    Some(header) => self.begin(header)?,
                    None => return Ok((taken, Step::Starved)),
                }
                continue;
            }
            let (count, step) = self.payload(rest)?;
            taken += count;
            if let Some(step) = step {
                return Ok((taken, step));
            }
        }
        Ok((taken, Step::Busy))
    }

    /// The stream ended: what there is of a message that was under way.
    pub(super) fn cut(&mut self) -> Option<Part> {
        let mut part = self.message.take()?.finish();
        part.truncated = true;
        Some(part)
    }

    fn begin(&mut self, header: Header) -> Result<(), Violation> {
        let control = header.is_control();
        let begins = !control && header.opcode != opcode::CONTINUATION;
        let compressed = begins && header.reserved == RSV1 && self.inflater.is_some();
        if header.reserved != 0 && !compressed {
            return Err(Violation::ReservedBits(header.reserved));
        }
        if control {
            self.control = Some(Message::new(header.opcode, false));
        } else if begins && self.message.is_some() {
            return Err(Violation::UnfinishedMessage);
        } else if begins {
            self.message = Some(Message::new(header.opcode, compressed));
        } else if self.message.is_none() {
            return Err(Violation::UnexpectedContinuation);
        }
        let Header { fin, mask, length, .. } = header;
        self.frame = Some(Frame {
            control,
            fin,
            mask,
            length,
            done: 0,
            unmasked: 0,
        });
        Ok(())
    }

    /// Handles payload from the front of `rest`, or the end of the frame.
    fn payload(&mut self, rest: &mut [u8]) -> Result<(usize, Option<Step>), Violation> {
        let Some(frame) = &mut self.frame else {
            return Ok((0, None));
        };
        let Some(message) = (if frame.control {
            &mut self.control
        } else {
            &mut self.message
        }) else {
            return Err(Violation::UnexpectedContinuation);
        };
        let payload = frame.unmask(rest);
        let (taken, part) = if payload.is_empty() && frame.done < frame.length {
            return Ok((0, Some(Step::Starved)));
        } else if let (true, Some(inflater)) = (message.compressed, &mut self.inflater) {
            message.inflate(inflater, payload, frame.done == frame.length && frame.fin, self.limit)?
        } else {
            (payload.len(), message.accept(payload, self.limit))
        };
        frame.done += taken as u64;
        if part.is_some() || frame.done < frame.length {
            return Ok((taken, part.map(Step::Part)));
        }
        Ok((taken, self.end_frame().map(Step::Part)))
    }

    /// All payload of the frame has been handled.
    fn end_frame(&mut self) -> Option<Part> {
        let frame = self.frame.as_ref()?;
        if frame.control {
            self.frame = None;
            let part = self.control.take()?.finish();
            self.closed |= part.opcode == opcode::CLOSE;
            return Some(part);
        }
        let message = self.message.as_ref()?;
        if frame.fin && message.compressed && !message.inflated() {
            return None;
        }
        let fin = frame.fin;
        self.frame = None;
        if !fin {
            return None;
        }
        if message.compressed
            && let Some(inflater) = &mut self.inflater
        {
            inflater.end_message();
        }
        self.message.take().map(Message::finish)
    }
}

impl Frame {
    /// The next payload bytes in `rest`, at most a step of them, in the clear.
    fn unmask<'a>(&mut self, rest: &'a mut [u8]) -> &'a [u8] {
        let count = (self.length - self.done).min(rest.len() as u64).min(STEP as u64) as usize;
        let payload = &mut rest[..count];
        let clear = (self.unmasked - self.done) as usize;
        if let (Some(mask), Some(masked)) = (self.mask, payload.get_mut(clear..)) {
            unmask(mask, self.unmasked, masked);
            self.unmasked += masked.len() as u64;
        }
        if self.mask.is_none() {
            self.unmasked = self.done + count as u64;
        }
        payload
    }
}

impl Message {
    fn new(opcode: u8, compressed: bool) -> Self {
        let (tail_taken, more_inside) = (0, false);
        Self {
            opcode,
            compressed,
            size: 0,
            captured: 0,
            held: Vec::new(),
            parts: 0,
            tail_taken,
            more_inside,
        }
    }

    /// Counts `data` and holds what the limit allows. Returns a part that had to make room.
    fn accept(&mut self, data: &[u8], limit: u64) -> Option<Part> {
        let kept = (limit - self.captured).min(data.len() as u64) as usize;
        let full = self.held.len() + kept > CHUNK_MAX;
        let part = full.then(|| self.part());
        self.size += data.len() as u64;
        self.captured += kept as u64;
        self.held.extend_from_slice(&data[..kept]);
        part
    }

    /// One step of inflating `payload`, or the [`TAIL`] once the message's last frame is `over`.
    fn inflate(
        &mut self,
        inflater: &mut Inflater,
        payload: &[u8],
        over: bool,
        limit: u64,
    ) -> Result<(usize, Option<Part>), Violation> {
        let tail = over && payload.is_empty();
        let input = if tail { &TAIL[self.tail_taken..] } else { payload };
        INFLATED.with_borrow_mut(|output| {
            let progress = inflater
                .inflate(input, &mut output[..])
                .map_err(|_| Violation::Damaged)?;
            self.more_inside = progress.made == output.len();
            if progress.taken == 0 && progress.made == 0 && !input.is_empty() {
                return Err(Violation::Damaged);
            }
            if tail {
                self.tail_taken += progress.taken;
            }
            let part = self.accept(&output[..progress.made], limit);
            Ok((if tail { 0 } else { progress.taken }, part))
        })
    }

    fn inflated(&self) -> bool {
        self.tail_taken == TAIL.len() && !self.more_inside
    }

    fn part(&mut self) -> Part {
        let (opcode, compressed, index) = (self.opcode, self.compressed, self.parts);
        self.parts += 1;
        Part {
            opcode,
            compressed,
            index,
            payload: std::mem::take(&mut self.held),
            ..Part::default()
        }
    }

    fn finish(mut self) -> Part {
        Part {
            last: true,
            size: self.size,
            truncated: self.captured < self.size,
            ..self.part()
        }
    }
}

#[cfg(test)]
mod tests;
