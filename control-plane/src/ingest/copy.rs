//! Rows in Postgres' binary COPY format (PostgreSQL documentation, COPY, "Binary Format").

use bytes::{BufMut, BytesMut};

use crate::store::display::display;

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// Ends the rows of a statement, in place of a row's number of columns.
const TRAILER: i16 = -1;
/// Most rows of one statement.
///
/// Of a binary COPY the server gathers up to 1,000 rows, whatever their size, then writes them and their index entries in
/// one go (`copyfrom.c`, MAX_BUFFERED_TUPLES): milliseconds in which whoever needs that core waits. What it spends on
/// remembering them grows with their square, too. A statement more costs less than 0.1 ms.
const ROWS: usize = 250;
/// Microseconds from 1970 to 2000, from where Postgres counts.
const EPOCH_2000: i64 = 946_684_800_000_000;
/// Times that both Postgres and the `time` crate have: about the years 68 and 9892.
pub(super) const TIMES: std::ops::RangeInclusive<i64> = -60_000_000_000_000_000..=250_000_000_000_000_000;
/// A buffer that grew beyond this is let go after its batch.
const KEPT: usize = 8 * 1024 * 1024;

/// Rows for one table, as the data of one COPY statement after the other; its memory is used again for the next batch.
pub(super) struct CopyBuffer {
    data: BytesMut,
    /// Rows of the last statement.
    rows: usize,
    /// Where the data of each statement before it ends.
    ends: Vec<usize>,
}

impl CopyBuffer {
    pub(super) fn new() -> Self {
        let mut buffer = Self {
            data: BytesMut::new(),
            rows: 0,
            ends: Vec::new(),
        };
        buffer.clear();
        buffer
    }

    pub(super) fn clear(&mut self) {
        if self.data.capacity() > KEPT {
            self.data = BytesMut::new();
        }
        self.data.clear();
        self.ends.clear();
        self.begin();
    }

    fn begin(&mut self) {
        self.data.put_slice(SIGNATURE);
        // No flags, no header extension.
        self.data.put_u64(0);
        self.rows = 0;
    }

    fn end(&mut self) {
        self.data.put_i16(TRAILER);
        self.ends.push(self.data.len());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes so far: where the next value will be.
    pub(super) fn len(&self) -> usize {
        self.data.len()
    }

    /// Begins a row; as many values must follow.
    pub(super) fn row(&mut self, columns: i16) {
        if self.rows == ROWS {
            self.end();
            self.begin();
        }
        self.rows += 1;
        self.data.put_i16(columns);
    }

    pub(super) fn null(&mut self) {
        self.data.put_i32(-1);
    }

    pub(super) fn uuid(&mut self, id: &[u8; 16]) {
        self.data.put_i32(16);
        self.data.put_slice(id);
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.data.put_i32(8);
        self.data.put_i64(value);
    }

    /// A count; what `bigint` cannot hold becomes its largest value.
    pub(super) fn count(&mut self, value: u64) {
        self.i64(i64::try_from(value).unwrap_or(i64::MAX));
    }

    pub(super) fn optional_count(&mut self, value: Option<u64>) {
        match value {
            Some(value) => self.count(value),
            None => self.null(),
        }
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.data.put_i32(4);
        self.data.put_i32(value);
    }

    pub(super) fn i16(&mut self, value: i16) {
        self.data.put_i32(2);
        self.data.put_i16(value);
    }

    /// A small number; 0 is NULL, what `smallint` cannot hold becomes its largest value.
    pub(super) fn small_or_null(&mut self, value: u32) {
        match value {
            0 => self.null(),
            value => self.i16(i16::try_from(value).unwrap_or(i16::MAX)),
        }
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.data.put_i32(1);
        self.data.put_u8(value.into());
    }

    /// A `timestamptz` from microseconds since 1970.
    pub(super) fn time(&mut self, us: i64) {
        self.i64(us.clamp(*TIMES.start(), *TIMES.end()) - EPOCH_2000);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.data
            .put_i32(i32::try_from(bytes.len()).expect("a record has at most 2 MiB"));
        self.data.put_slice(bytes);
    }

    /// `bytea`; empty is NULL.
    pub(super) fn bytes_or_null(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.null();
        } else {
            self.bytes(bytes);
        }
    }

    /// `text` in display form.
    pub(super) fn text(&mut self, text: &[u8]) {
        self.bytes(display(text).as_bytes());
    }

    /// `text` in display form; empty is NULL.
    pub(super) fn text_or_null(&mut self, text: &[u8]) {
        if text.is_empty() {
            self.null();
        } else {
            self.text(text);
        }
    }

    /// Fills in a `bigint` whose length field is at `at`.
    pub(super) fn fill(&mut self, at: usize, value: i64) {
        self.data[at + 4..at + 12].copy_from_slice(&value.to_be_bytes());
    }

    /// Ends the rows, and answers the data of each statement.
    pub(super) fn finish(&mut self) -> impl Iterator<Item = &[u8]> {
        self.end();
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.data[start..*end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_written_as_postgres_reads_it() {
        let mut buffer = CopyBuffer::new();
        assert!(buffer.is_empty());
        buffer.row(4);
        let at = buffer.len();
        buffer.i64(0);
        buffer.text(b"a\0");
        buffer.text_or_null(b"");
        buffer.bool(true);
        buffer.fill(at, 258);
        let mut expected = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        expected
            .extend_from_slice(b"\0\x04\0\0\0\x08\0\0\0\0\0\0\x01\x02\0\0\0\x05a\\x00\xff\xff\xff\xff\0\0\0\x01\x01");
        expected.extend_from_slice(b"\xff\xff");
        assert_eq!(buffer.finish().collect::<Vec<_>>(), [expected]);
        buffer.clear();
        assert!(buffer.is_empty());
        assert_eq!(buffer.len(), 19);
    }

    #[test]
    fn more_rows_than_one_statement_takes_are_several() {
        let mut buffer = CopyBuffer::new();
        for number in 0..=2 * ROWS {
            buffer.row(1);
            let at = buffer.len();
            buffer.i64(0);
            buffer.fill(at, number as i64);
        }
        let statements: Vec<Vec<u8>> = buffer.finish().map(<[u8]>::to_vec).collect();
        let mut rows = Vec::new();
        for statement in statements {
            let data = statement.strip_prefix(&SIGNATURE[..]).unwrap();
            let data = data.strip_prefix(&[0; 8]).unwrap().strip_suffix(b"\xff\xff").unwrap();
            let values = data.chunks_exact(14);
            assert!(values.remainder().is_empty());
            let numbers: Vec<i64> = values
                .map(|row| i64::from_be_bytes(row.strip_prefix(b"\0\x01\0\0\0\x08").unwrap().try_into().unwrap()))
                .collect();
            rows.push(numbers);
        }
        let all: Vec<i64> = (0..=2 * ROWS as i64).collect();
        assert_eq!(rows, all.chunks(ROWS).map(<[i64]>::to_vec).collect::<Vec<_>>());
        buffer.clear();
        assert!(buffer.is_empty());
    }

    #[test]
    fn what_a_column_cannot_hold_is_brought_into_its_range() {
        let mut buffer = CopyBuffer::new();
        let start = buffer.len();
        buffer.count(u64::MAX);
        buffer.small_or_null(70_000);
        buffer.time(EPOCH_2000);
        let mut expected = b"\0\0\0\x08\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\x02\x7f\xff\0\0\0\x08".to_vec();
        expected.extend_from_slice(&[0; 8]);
        assert_eq!(&buffer.data[start..], expected);
    }
}
