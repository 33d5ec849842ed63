use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

use super::*;

fn frame(fin: bool, reserved: u8, opcode: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::from(fin) << 7 | reserved << 4 | opcode];
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        length @ 0..=125 => bytes.push(masked | length as u8),
        length @ 126..=0xffff => {
            bytes.push(masked | 0x7e);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(masked | 0x7f);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask.into_iter().flatten());
    let begin = bytes.len();
    bytes.extend(payload);
    if let Some(mask) = mask {
        unmask(mask, 0, &mut bytes[begin..]);
    }
    bytes
}

fn text(payload: &[u8]) -> Vec<u8> {
    frame(true, 0, opcode::TEXT, Some([7, 1, 9, 4]), payload)
}

/// Feeds `stream` in pieces of the given lengths, again and again, and the rest at once.
fn parts(assembler: &mut Assembler, stream: &[u8], pieces: &[usize]) -> Result<Vec<Part>, Violation> {
    let mut parts = Vec::new();
    let mut rest = stream;
    let mut lengths = pieces.iter().copied().cycle();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(lengths.next().unwrap_or(rest.len()).clamp(1, rest.len()));
        rest = after;
        let mut piece = piece.to_vec();
        let mut taken = 0;
        loop {
            let (count, step) = assembler.feed(&mut piece[taken..])?;
            taken += count;
            match step {
                Step::Part(part) => parts.push(part),
                Step::Busy => {}
                Step::Starved => break,
            }
        }
        assert_eq!(taken, piece.len());
    }
    Ok(parts)
}

/// Parts joined into messages: opcode, payload, size, truncated.
fn messages(parts: &[Part]) -> Vec<(u8, Vec<u8>, u64, bool)> {
    let mut messages = Vec::new();
    let mut open = Vec::new();
    for part in parts {
        assert!(part.payload.len() <= CHUNK_MAX);
        let payload = if part.opcode >= 8 { &mut Vec::new() } else { &mut open };
        payload.extend(&part.payload);
        if part.last {
            messages.push((part.opcode, std::mem::take(payload), part.size, part.truncated));
        }
    }
    messages
}

fn deflated(compressor: &mut Compress, message: &[u8]) -> Vec<u8> {
    if message.is_empty() {
        return vec![0]; // RFC 7692 §7.2.3.6
    }
    let mut out = Vec::with_capacity(message.len() + 1024);
    compressor.compress_vec(message, &mut out, FlushCompress::Sync).unwrap();
    out.truncate(out.len() - TAIL.len());
    out
}

const MIB: u64 = 1024 * 1024;

#[test]
fn a_ping_between_fragments_is_a_message_of_its_own() {
    let stream = [
        frame(false, 0, opcode::TEXT, None, b"one "),
        frame(true, 0, opcode::PING, None, b"?"),
        frame(false, 0, opcode::CONTINUATION, None, b""),
        frame(true, 0, opcode::CONTINUATION, None, b"two"),
        frame(true, 0, opcode::CLOSE, None, &[3, 0xe8]),
    ]
    .concat();
    let mut assembler = Assembler::new(MIB, None);
    let all = messages(&parts(&mut assembler, &stream, &[]).unwrap());
    let expected = [
        (9, b"?".to_vec(), 1, false),
        (1, b"one two".to_vec(), 7, false),
        (8, vec![3, 0xe8], 2, false),
    ];
    assert_eq!(all, expected);
    assert!(assembler.closed() && assembler.at_boundary());
}

#[test]
fn long_messages_come_in_parts_and_are_cut_at_the_limit() {
    let payload: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
    let all = parts(&mut Assembler::new(MIB, None), &text(&payload), &[16_000]).unwrap();
    assert!(all.len() > 3);
    assert_eq!(
        all.iter().map(|part| part.index).collect::<Vec<_>>(),
        (0..all.len() as u32).collect::<Vec<_>>()
    );
    assert_eq!(messages(&all), [(1, payload.clone(), 200_000, false)]);
    let cut = parts(&mut Assembler::new(70_000, None), &text(&payload), &[16_000]).unwrap();
    assert_eq!(messages(&cut), [(1, payload[..70_000].to_vec(), 200_000, true)]);
    let none = parts(&mut Assembler::new(0, None), &text(&payload), &[]).unwrap();
    assert_eq!(messages(&none), [(1, Vec::new(), 200_000, true)]);
}

#[test]
fn a_bomb_is_counted_in_full_and_captured_to_the_limit() {
    let bomb = vec![b'x'; 30_000_000];
    let compressed = deflated(&mut Compress::new(Compression::best(), false), &bomb);
    let mut assembler = Assembler::new(100_000, Some(DeflateParams::default()));
    let mut stream = frame(true, RSV1, opcode::BINARY, None, &compressed);
    stream.extend(text(b"after"));
    let all = messages(&parts(&mut assembler, &stream, &[16_384]).unwrap());
    assert_eq!((all[0].1.len(), all[0].2, all[0].3), (100_000, 30_000_000, true));
    assert_eq!(all[1].1, b"after");
}

#[test]
fn compressed_fragments_and_plain_messages_mix() {
    let mut compressor = Compress::new(Compression::default(), false);
    let first = deflated(&mut compressor, b"hello hello hello hello");
    let second = deflated(&mut compressor, b"hello hello again");
    assert!(second.len() < 12, "context is in use");
    let (left, right) = first.split_at(3);
    let stream = [
        frame(false, RSV1, opcode::TEXT, Some([1, 2, 3, 4]), left),
        frame(true, 0, opcode::PONG, Some([9, 9, 9, 9]), b""),
        frame(true, 0, opcode::CONTINUATION, Some([4, 3, 2, 1]), right),
        text(b"not compressed"),
        frame(true, RSV1, opcode::TEXT, Some([0, 2, 0, 4]), &second),
        frame(true, RSV1, opcode::TEXT, None, &deflated(&mut compressor, b"")),
    ]
    .concat();
    for pieces in [&[][..], &[1], &[3, 7, 2]] {
        let mut assembler = Assembler::new(MIB, Some(DeflateParams::default()));
        let all = parts(&mut assembler, &stream, pieces).unwrap();
        assert_eq!(
            all.iter().map(|part| part.compressed).collect::<Vec<_>>(),
            [false, true, false, true, true]
        );
        let payloads: Vec<_> = messages(&all).into_iter().map(|message| message.1).collect();
        let expected: [&[u8]; 5] = [
            b"",
            b"hello hello hello hello",
            b"not compressed",
            b"hello hello again",
            b"",
        ];
        assert_eq!(payloads, expected);
    }
}

#[test]
fn broken_sequences_are_violations() {
    let check = |stream: Vec<Vec<u8>>| parts(&mut Assembler::new(MIB, None), &stream.concat(), &[]).unwrap_err();
    let begin = || frame(false, 0, opcode::TEXT, None, b"a");
    assert_eq!(check(vec![begin(), text(b"b")]), Violation::UnfinishedMessage);
    assert_eq!(
        check(vec![frame(true, 0, 0, None, b"b")]),
        Violation::UnexpectedContinuation
    );
    assert_eq!(
        check(vec![frame(true, RSV1, opcode::TEXT, None, b"b")]),
        Violation::ReservedBits(RSV1)
    );
    let damaged = frame(true, RSV1, opcode::TEXT, None, &[0xff; 40]);
    let mut assembler = Assembler::new(MIB, Some(DeflateParams::default()));
    assert_eq!(parts(&mut assembler, &damaged, &[]).unwrap_err(), Violation::Damaged);
}

#[test]
fn what_was_under_way_at_the_end_is_kept_as_truncated() {
    let mut assembler = Assembler::new(MIB, None);
    let whole = text(b"never completed");
    assert_eq!(parts(&mut assembler, &whole[..10], &[]).unwrap(), []);
    assert!(!assembler.at_boundary());
    let part = assembler.cut().unwrap();
    assert_eq!(
        (part.payload.as_slice(), part.size, part.truncated, part.last),
        (&b"neve"[..], 4, true, true)
    );
}

#[derive(Clone, Debug)]
struct Sent {
    payload: Vec<u8>,
    compressed: bool,
    mask: Option<[u8; 4]>,
    fragments: usize,
    ping: bool,
}

fn sent() -> impl Strategy<Value = Sent> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        (any::<u8>(), 0..90_000usize).prop_map(|(byte, length)| (0..length).map(|n| byte ^ (n / 50) as u8).collect()),
    ];
    (
        payload,
        any::<bool>(),
        any::<Option<[u8; 4]>>(),
        1..4usize,
        any::<bool>(),
    )
        .prop_map(|(payload, compressed, mask, fragments, ping)| Sent {
            payload,
            compressed,
            mask,
            fragments,
            ping,
        })
}

fn encode(sent: &[Sent], params: DeflateParams) -> Vec<u8> {
    let fresh = || Compress::new_with_window_bits(Compression::fast(), false, params.window_bits);
    let mut compressor = fresh();
    let mut stream = Vec::new();
    for message in sent {
        if params.no_context_takeover {
            compressor = fresh();
        }
        let wire = if message.compressed {
            deflated(&mut compressor, &message.payload)
        } else {
            message.payload.clone()
        };
        let size = wire.len().div_ceil(message.fragments).max(1);
        let mut pieces: Vec<&[u8]> = wire.chunks(size).collect();
        if pieces.is_empty() {
            pieces.push(&[]);
        }
        for (index, piece) in pieces.iter().enumerate() {
            let first = index == 0;
            let reserved = if first && message.compressed { RSV1 } else { 0 };
            let code = if first { opcode::BINARY } else { opcode::CONTINUATION };
            stream.extend(frame(index + 1 == pieces.len(), reserved, code, message.mask, piece));
            if message.ping {
                stream.extend(frame(true, 0, opcode::PING, message.mask, b"ping"));
            }
        }
    }
    stream
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_split_gives_the_same_messages(
        sent in prop::collection::vec(sent(), 1..6),
        pieces in prop::collection::vec(1..5_000usize, 1..6),
        no_context_takeover: bool,
        window_bits in 9..=15u8,
    ) {
        let params = DeflateParams { no_context_takeover, window_bits };
        let stream = encode(&sent, params);
        let all = parts(&mut Assembler::new(MIB, Some(params)), &stream, &pieces).unwrap();
        let data: Vec<_> = messages(&all).into_iter().filter(|message| message.0 == opcode::BINARY).collect();
        let expected: Vec<_> = sent
            .iter()
            .map(|sent| (opcode::BINARY, sent.payload.clone(), sent.payload.len() as u64, false))
            .collect();
        prop_assert!(data == expected);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000), piece in 1..64usize, deflate: bool) {
        let mut assembler = Assembler::new(500, deflate.then(DeflateParams::default));
        let _ = parts(&mut assembler, &bytes, &[piece]);
        assembler.cut();
    }

    #[test]
    fn no_compressed_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..500), piece in 1..64usize) {
        let mut assembler = Assembler::new(500, Some(DeflateParams::default()));
        let _ = parts(&mut assembler, &frame(true, RSV1, opcode::TEXT, None, &bytes), &[piece]);
    }
}
