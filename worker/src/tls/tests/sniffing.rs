//! ClientHellos in every shape, and what only looks like one.

use std::{
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use proptest::prelude::*;
use rustls::ClientConnection;
use tokio::io::{AsyncWriteExt as _, ReadBuf};

use super::{super::testing::trusting_client, *};
use crate::tls::Sniffer;

/// What rustls sends to `host`.
fn hello(host: &str, alpn: &[&str]) -> Vec<u8> {
    let mut config = trusting_client();
    config.alpn_protocols = crate::tls::testing::protocols(alpn);
    let mut connection = ClientConnection::new(Arc::new(config), name(host)).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

/// The handshake message cut into records of `size` bytes.
fn fragmented(message: &[u8], size: usize) -> Vec<u8> {
    let record = |piece: &[u8]| [&[22, 3, 1][..], &(piece.len() as u16).to_be_bytes(), piece].concat();
    message.chunks(size).flat_map(record).collect()
}

/// A hello with `extensions`, and an unknown one as padding so that the whole message has `length` bytes.
fn padded(extensions: &[u8], length: usize) -> Vec<u8> {
    let fixed = 4 + 2 + 32 + 1 + 4 + 2 + 2 + extensions.len() + 4;
    let padding = length - fixed;
    let mut all = extensions.to_vec();
    all.extend([0xfa, 0xfa]);
    all.extend((padding as u16).to_be_bytes());
    all.extend(vec![0; padding]);
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend((all.len() as u16).to_be_bytes());
    body.extend(all);
    let mut message = vec![1];
    message.extend(&(body.len() as u32).to_be_bytes()[1..]);
    message.extend(body);
    message
}

fn sni_extension(host: &str) -> Vec<u8> {
    let length = host.len() as u16;
    let mut extension = vec![0, 0];
    extension.extend((length + 5).to_be_bytes());
    extension.extend((length + 3).to_be_bytes());
    extension.push(0);
    extension.extend(length.to_be_bytes());
    extension.extend(host.as_bytes());
    extension
}

fn look(bytes: &[u8]) -> Sniffed {
    Sniffer::default().look(bytes)
}

fn sni_of(bytes: &[u8]) -> Option<String> {
    match look(bytes) {
        Sniffed::Hello(hello) => hello.sni,
        other => panic!("{other:?}"),
    }
}

#[test]
fn name_and_protocols_are_found() {
    let found = look(&hello("a.example", &["h2", "http/1.1", "x"]));
    let alpn = crate::tls::testing::protocols(&["h2", "http/1.1", "x"]);
    assert_eq!(
        found,
        Sniffed::Hello(ClientHello {
            sni: Some("a.example".to_owned()),
            alpn
        })
    );
}

#[test]
fn a_hello_without_name_or_with_an_address_is_one() {
    assert_eq!(sni_of(&hello("127.0.0.1", &[])), None);
    assert_eq!(
        sni_of(&fragmented(&padded(&sni_extension("127.0.0.1"), 300), 16_384)),
        Some("127.0.0.1".to_owned())
    );
    let without_extensions = [&[1, 0, 0, 41, 3, 3][..], &[7; 32], &[0, 0, 2, 0, 47, 1, 0]].concat();
    assert_eq!(sni_of(&fragmented(&without_extensions, 16_384)), None);
}

#[test]
fn one_byte_at_a_time_it_is_incomplete_until_the_last() {
    let bytes = hello("a.example", &["h2"]);
    let mut sniffer = Sniffer::default();
    for end in 0..bytes.len() {
        assert_eq!(sniffer.look(&bytes[..end]), Sniffed::Incomplete, "{end}");
    }
    assert!(matches!(sniffer.look(&bytes), Sniffed::Hello(_)));
}

#[test]
fn it_may_be_cut_into_records_of_any_size() {
    let message = padded(&sni_extension("a.example"), 2_000);
    for size in [1, 2, 3, 4, 5, 100, 1_999, 2_000] {
        let mut bytes = fragmented(&message, size);
        bytes.extend(b"\x14\x03\x03\x00\x01\x01 and more");
        assert_eq!(sni_of(&bytes), Some("a.example".to_owned()), "records of {size}");
    }
}

#[test]
fn sixty_four_kib_are_read_and_no_more() {
    let message = padded(&sni_extension("a.example"), 4 + sniff::HELLO_MAX);
    assert_eq!(sni_of(&fragmented(&message, 1 << 14)), Some("a.example".to_owned()));
    let mut longer = message;
    longer[1] = 1;
    assert_eq!(look(&fragmented(&longer, 1 << 14)), Sniffed::NotTls);
}

#[test]
fn other_protocols_are_known_by_their_first_bytes() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"PRI * HTTP/2.0\r\n",
        b"SSH-2.0-x\r\n",
        b"\0",
        b"\x16\x02",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x03\x00\x10\x02",
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x80\x2e\x01\x03\x01",
    ] {
        assert_eq!(look(bytes), Sniffed::NotTls, "{bytes:?}");
    }
    assert_eq!(look(b""), Sniffed::Incomplete);
    assert_eq!(look(b"\x16\x03\x01\x00\x10\x01"), Sniffed::Incomplete);
}

proptest! {
    #[test]
    fn any_bytes_are_looked_at_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = look(&bytes);
    }

    #[test]
    fn any_bytes_in_a_hello_are_looked_at_without_panic(
        body in proptest::collection::vec(any::<u8>(), 0..600),
        size in 1..700_usize,
    ) {
        let message = [&[1, 0][..], &(body.len() as u16).to_be_bytes(), &body].concat();
        prop_assert_ne!(look(&fragmented(&message, size)), Sniffed::Incomplete);
    }

    #[test]
    fn a_damaged_hello_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = hello("a.example", &["h2", "http/1.1"]);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = look(&bytes);
        let _ = look(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn pieces_and_the_whole_give_the_same(cuts in proptest::collection::vec(1..4_000_usize, 1..20), size in 1..3_000_usize) {
        let bytes = fragmented(&padded(&sni_extension("a.example"), 9_000), size);
        let (mut sniffer, mut end) = (Sniffer::default(), 0);
        let mut seen = Sniffed::Incomplete;
        for cut in cuts.into_iter().chain([usize::MAX / 2]) {
            end = (end + cut).min(bytes.len());
            seen = sniffer.look(&bytes[..end]);
            if seen != Sniffed::Incomplete { break }
        }
        prop_assert_eq!(seen, look(&bytes));
    }
}

#[tokio::test]
async fn reading_keeps_every_byte_that_came() {
    let (mut near, mut far) = duplex(16);
    let bytes = hello("a.example", &[]);
    let sent = bytes.clone();
    tokio::spawn(async move {
        for byte in sent {
            near.write_all(&[byte]).await.unwrap();
        }
        near
    });
    let mut buffer = BytesMut::new();
    assert!(matches!(
        sniff::read(&mut far, &mut buffer).await.unwrap(),
        Sniffed::Hello(_)
    ));
    assert_eq!(buffer, bytes);
}

#[tokio::test(start_paused = true)]
async fn a_hello_that_never_ends_is_given_up() {
    let (mut near, mut far) = duplex(4_096);
    near.write_all(&hello("a.example", &[])[..40]).await.unwrap();
    let mut buffer = BytesMut::new();
    let error = sniff::read(&mut far, &mut buffer).await.unwrap_err();
    assert_eq!((error.kind(), buffer.len()), (io::ErrorKind::TimedOut, 40));
    drop(near);
    let error = sniff::read(&mut far, &mut buffer).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

/// Counts what is read through it.
struct Counted(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.0).poll_read(cx, buf);
        self.1.fetch_add(buf.filled().len() - before, Ordering::Relaxed);
        read
    }
}

/// More senders of long unfinished ClientHellos than there are places for their bytes.
#[tokio::test(start_paused = true)]
async fn unfinished_long_hellos_hold_up_nobody_with_a_short_one() {
    let long = fragmented(&padded(&[], 60_000), 1 << 14);
    let buffered = Arc::new(AtomicUsize::new(0));
    let (mut held, mut floods) = (Vec::new(), Vec::new());
    for _ in 0..1_000 {
        let (mut near, far) = duplex(100_000);
        near.write_all(&long[..50_000]).await.unwrap();
        held.push(near);
        let mut far = Counted(far, Arc::clone(&buffered));
        floods.push(tokio::spawn(async move {
            sniff::read(&mut far, &mut BytesMut::new()).await
        }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let bytes = buffered.load(Ordering::Relaxed);
    assert!(bytes < 24 * 1024 * 1024, "{bytes} bytes are buffered at once");

    let (mut near, mut far) = duplex(4_096);
    near.write_all(&hello("a.example", &[])).await.unwrap();
    let start = tokio::time::Instant::now();
    assert!(matches!(
        sniff::read(&mut far, &mut BytesMut::new()).await.unwrap(),
        Sniffed::Hello(_)
    ));
    assert_eq!(start.elapsed(), Duration::ZERO);
    for flood in floods {
        assert_eq!(flood.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
