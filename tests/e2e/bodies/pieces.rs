//! Messages cut into pieces at every place.

use std::io;

use proxyplane_tests::{Dice, Peer, RawOrigin, Side, World, pattern};

use super::{text, write_length};

#[test]
fn it_does_not_matter_into_which_pieces_a_message_is_cut() {
    let workspace = World::shared().workspace();
    let proxy = workspace.proxy("pieces").start();
    let origin = RawOrigin::serving(|peer| {
        let mut dice = Dice::new(0x5eed);
        while let Some((chunked, body)) = read_message(peer)? {
            let answer = message("HTTP/1.1 200 OK\r\n", !chunked, &body, &mut dice);
            for piece in pieces(&mut dice, &answer) {
                peer.send(piece)?;
            }
        }
        Ok(())
    });
    let mut dice = Dice::new(0xd1ce);
    let mut client = proxy.connect();
    let mut sent = Vec::new();
    for number in 0..60 {
        let body = pattern(dice.index([10, 1_000, 20_000, 300_000][number % 4]));
        let chunked = dice.index(2) == 0;
        let start = format!("POST {} HTTP/1.1\r\nHost: {}\r\n", origin.http("/"), origin.address());
        let whole = message(&start, chunked, &body, &mut Dice::new(number as u64 + 1));
        for piece in pieces(&mut dice, &whole) {
            client.send(piece);
        }
        let head = client.read_head();
        let got = if chunked {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            client.read_exactly(length.unwrap().parse().unwrap())
        } else {
            read_chunks(|mark| Ok(client.read_until(mark))).unwrap()
        };
        assert!(
            got == body,
            "request {number} of {} bytes came back as {}",
            body.len(),
            got.len()
        );
        sent.push(body);
    }
    let rows = proxy.exchanges(sent.len());
    for (row, body) in rows.iter().zip(&sent) {
        assert_eq!(
            (&row["request_size"], &row["response_size"]),
            (&body.len().into(), &body.len().into())
        );
    }
    for at in [2, 3, 30, 31] {
        assert!(proxy.raw_body(&rows[at], Side::Request) == sent[at]);
        assert!(proxy.raw_body(&rows[at], Side::Response) == sent[at]);
    }
}

/// A message with this body, in chunks of any size if it is `chunked`.
fn message(start: &str, chunked: bool, body: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut message = start.as_bytes().to_vec();
    if !chunked {
        write_length(&mut message, body.len());
        message.extend_from_slice(body);
        return message;
    }
    message.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    for chunk in pieces(dice, body) {
        message.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        message.extend_from_slice(chunk);
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b"0\r\n\r\n");
    message
}

/// The next message that an origin gets: was its body in chunks, and the body.
fn read_message(peer: &mut Peer) -> io::Result<Option<(bool, Vec<u8>)>> {
    let head = text(peer.read_head()?);
    if head.is_empty() {
        return Ok(None);
    }
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    match length.and_then(|length| length.parse().ok()) {
        Some(length) => Ok(Some((false, peer.read_exactly(length)?))),
        None => Ok(Some((true, read_chunks(|mark| peer.read_until(mark))?))),
    }
}

/// A chunked body, of which every chunk is read up to the CRLF behind it.
fn read_chunks(mut read_until: impl FnMut(&[u8]) -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = text(read_until(b"\r\n")?);
        let size = usize::from_str_radix(size.trim_end(), 16).map_err(io::Error::other)?;
        let mut chunk = Vec::new();
        while chunk.len() < size + 2 {
            chunk.extend(read_until(b"\r\n")?);
        }
        chunk.truncate(size);
        body.extend(chunk);
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Cuts `bytes` into at most some dozens of pieces, small ones among them.
fn pieces<'b>(dice: &mut Dice, bytes: &'b [u8]) -> Vec<&'b [u8]> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let most = *dice.of(&[3, 200, 9_000, bytes.len()]);
        let (piece, after) = rest.split_at((1 + dice.index(most)).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}
