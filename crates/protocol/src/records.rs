//! Walks the records inside a batch, for the few questions that its header cannot answer.

use std::ops::Range;

use bytes::Bytes;
use tidelog_types::{BatchHeader, Entry, Offset};

use crate::{
    compression::{DecompressError, decompress},
    error::Malformed,
    wire::Reader,
};

/// Records that are not what their batch's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// The header names a codec that does not exist.
    #[error("the records' compression is unknown")]
    UnknownCompression,
    /// They could not be opened.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    /// A record breaks the format.
    #[error("a record is malformed: {0}")]
    Malformed(#[from] Malformed),
}

/// A record's place and time, and whether it has a key and a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordFacts {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp, in milliseconds since 1970: the batch's on a LogAppendTime topic.
    pub timestamp_ms: i64,
    /// Whether its key is not null.
    pub has_key: bool,
    /// Whether its value is not null; a record without is a tombstone.
    pub has_value: bool,
}

/// A record with what it says. Key and value are slices of its opened batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedRecord {
    /// Its place and time.
    pub facts: RecordFacts,
    /// Its key; `None` for null.
    pub key: Option<Bytes>,
    /// Its value; `None` for null.
    pub value: Option<Bytes>,
}

/// Where a record's key and value lie in its own bytes; `None` for null.
struct Places {
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
}

/// The records of one batch, in order. After an error the walk is over.
#[derive(Debug, Clone)]
pub struct Records {
    header: BatchHeader,
    opened: Bytes,
    position: usize,
    left: i32,
}

impl Records {
    /// Opens a batch, whose records may take at most `bytes_max` once decompressed.
    ///
    /// # Errors
    /// When the records cannot be opened.
    pub fn open(entry: &Entry, bytes_max: usize) -> Result<Records, RecordsError> {
        let header = entry.facts();
        let codec = header.compression().ok_or(RecordsError::UnknownCompression)?;
        let opened = decompress(codec, &entry.records, bytes_max)?;
        Ok(Records { header, opened, position: 0, left: header.records_count })
    }

    /// All records' bytes, as they are without compression.
    #[must_use]
    pub fn into_opened(self) -> Bytes {
        self.opened
    }

    /// The records with their keys and values, ended by an error as the walk itself.
    pub fn keyed(mut self) -> impl Iterator<Item = Result<KeyedRecord, RecordsError>> {
        std::iter::from_fn(move || {
            let read = self.advance()?;
            Some(read.map(|(start, facts, places)| {
                let slice =
                    |range: Range<usize>| self.opened.slice(start + range.start..start + range.end);
                KeyedRecord { facts, key: places.key.map(slice), value: places.value.map(slice) }
            }))
        })
    }

    /// The next record: where it starts, and what it is.
    fn advance(&mut self) -> Option<Result<(usize, RecordFacts, Places), RecordsError>> {
        if self.left > 0 {
            let read = self.read();
            self.left = if read.is_ok() { self.left - 1 } else { 0 };
            self.position = if read.is_ok() { self.position } else { self.opened.len() };
            return Some(read.map_err(RecordsError::from));
        }
        let position = std::mem::replace(&mut self.position, self.opened.len());
        let reason = "bytes follow the last record";
        (position < self.opened.len()).then_some(Err(Malformed { reason, position }.into()))
    }

    fn read(&mut self) -> Result<(usize, RecordFacts, Places), Malformed> {
        assert!(self.position <= self.opened.len(), "a walk stays within its records");
        let mut reader = Reader::new(&self.opened[self.position..]);
        let length = reader.varint()?;
        let length =
            usize::try_from(length).map_err(|_| reader.malformed("a length is negative"))?;
        let record = reader.take(length)?;
        self.position += reader.position();
        let (facts, places) = read_record(&self.header, record)?;
        Ok((self.position - length, facts, places))
    }
}

impl Iterator for Records {
    type Item = Result<RecordFacts, RecordsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.advance()?;
        Some(read.map(|(_, facts, _)| facts))
    }
}

/// The first record from an offset on that is at or after a time (ListOffsets), if the batch has
/// one.
///
/// # Errors
/// When the records cannot be opened or break the format before the answer is found.
pub fn first_at_or_after(
    entry: &Entry,
    from: Offset,
    timestamp_ms: i64,
    bytes_max: usize,
) -> Result<Option<RecordFacts>, RecordsError> {
    for record in Records::open(entry, bytes_max)? {
        let record = record?;
        if record.offset >= from && record.timestamp_ms >= timestamp_ms {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// The record from an offset on that has the greatest timestamp, the first of several (KIP-734).
///
/// # Errors
/// When the records cannot be opened or break the format.
pub fn with_max_timestamp(
    entry: &Entry,
    from: Offset,
    bytes_max: usize,
) -> Result<Option<RecordFacts>, RecordsError> {
    let mut greatest: Option<RecordFacts> = None;
    for record in Records::open(entry, bytes_max)? {
        let record = record?;
        let is_later = |than: RecordFacts| record.timestamp_ms > than.timestamp_ms;
        if record.offset >= from && greatest.is_none_or(is_later) {
            greatest = Some(record);
        }
    }
    Ok(greatest)
}

/// Attributes, timestamp delta, offset delta, key, value, headers.
fn read_record(header: &BatchHeader, record: &[u8]) -> Result<(RecordFacts, Places), Malformed> {
    let mut reader = Reader::new(record);
    reader.int8()?;
    let timestamp_delta = reader.varlong()?;
    let offset_delta = reader.varint()?;
    let key = bytes(&mut reader)?;
    let value = bytes(&mut reader)?;
    skip_headers(&mut reader)?;
    if reader.remaining() > 0 {
        return Err(reader.malformed("a record is longer than its fields"));
    }
    let timestamp_ms = match header.is_log_append_time() {
        true => header.max_timestamp,
        false => header.base_timestamp.saturating_add(timestamp_delta),
    };
    let offset = Offset(header.base_offset.0.saturating_add(i64::from(offset_delta)));
    let (has_key, has_value) = (key.is_some(), value.is_some());
    Ok((RecordFacts { offset, timestamp_ms, has_key, has_value }, Places { key, value }))
}

/// Where bytes with a signed length lie. `None` for null.
fn bytes(reader: &mut Reader<'_>) -> Result<Option<Range<usize>>, Malformed> {
    match reader.varint()? {
        -1 => Ok(None),
        length @ 0.. => reader.range(length as usize).map(Some),
        _ => Err(reader.malformed("a length is negative")),
    }
}

fn skip_headers(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    let count = reader.varint()?;
    // Each takes a byte for its key's length and one for its value's.
    let possible = 0..=reader.remaining() / 2;
    if !usize::try_from(count).is_ok_and(|count| possible.contains(&count)) {
        return Err(reader.malformed("a record claims more headers than there are bytes"));
    }
    for _ in 0..count {
        if bytes(reader)?.is_none() {
            return Err(reader.malformed("a header has no key"));
        }
        bytes(reader)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidelog_types::{BATCH_HEADER_LEN, Compression};

    use super::*;
    use crate::batch_builder::BatchBuilder;

    const BYTES_MAX: usize = 1 << 20;

    fn entry(batch: &Bytes) -> Entry {
        let header = *batch.first_chunk::<BATCH_HEADER_LEN>().unwrap();
        let mut entry = Entry { header, records: batch.slice(BATCH_HEADER_LEN..) };
        entry.place(Offset(100), tidelog_types::LeaderEpoch(1));
        entry
    }

    fn batch(compression: Compression, timestamps: &[i64]) -> Entry {
        let mut builder = BatchBuilder::new(1000).compressed(compression);
        for timestamp in timestamps {
            builder.push(*timestamp, None, Some(b"value"));
        }
        entry(&builder.build())
    }

    fn raw(records: &[u8], count: i32) -> Entry {
        let mut entry = batch(Compression::None, &[1000]);
        let mut facts = entry.facts();
        facts.records_count = count;
        entry.header = facts.encode();
        entry.records = Bytes::copy_from_slice(records);
        entry
    }

    #[test]
    fn every_record_is_found_in_its_place() {
        let builder = BatchBuilder::new(1000)
            .record(1000, Some(b"k"), Some(b"v"))
            .record(990, None, Some(b""))
            .record(2000, Some(b""), None);
        let facts = |offset, timestamp_ms, has_key, has_value| RecordFacts {
            offset: Offset(offset),
            timestamp_ms,
            has_key,
            has_value,
        };
        let expected = vec![
            facts(100, 1000, true, true),
            facts(101, 990, false, true),
            facts(102, 2000, true, false),
        ];
        let codecs = [Compression::None, Compression::Gzip, Compression::Snappy];
        for codec in codecs.into_iter().chain([Compression::Lz4, Compression::Zstd]) {
            let entry = entry(&builder.clone().compressed(codec).build());
            let walked = Records::open(&entry, BYTES_MAX).unwrap().collect::<Result<Vec<_>, _>>();
            assert_eq!(walked, Ok(expected.clone()), "{codec:?}");
            let keyed = Records::open(&entry, BYTES_MAX).unwrap().keyed();
            let said = keyed.map(|record| record.map(|r| (r.facts.offset.0, r.key, r.value)));
            let own = Bytes::from_static;
            let expected = vec![
                (100, Some(own(b"k")), Some(own(b"v"))),
                (101, None, Some(own(b""))),
                (102, Some(own(b"")), None),
            ];
            assert_eq!(said.collect::<Result<Vec<_>, _>>(), Ok(expected), "{codec:?}");
        }
    }

    #[test]
    fn a_time_is_found_by_its_first_record_and_the_greatest_by_its_first() {
        let entry = batch(Compression::Lz4, &[1000, 1005, 1002, 1009, 1009, 1001]);
        for (from, timestamp_ms, offset) in [
            (0, 0, Some(100)),
            (0, 1000, Some(100)),
            (0, 1001, Some(101)),
            (0, 1006, Some(103)),
            (0, 1010, None),
            (101, 0, Some(101)),
            (103, 1001, Some(103)),
            (104, 1009, Some(104)),
            (105, 1009, None),
        ] {
            let found = first_at_or_after(&entry, Offset(from), timestamp_ms, BYTES_MAX).unwrap();
            assert_eq!(found.map(|record| record.offset.0), offset, "{from} {timestamp_ms}");
        }
        for (from, expected) in [
            (0, Some((103, 1009))),
            (104, Some((104, 1009))),
            (105, Some((105, 1001))),
            (106, None),
        ] {
            let greatest = with_max_timestamp(&entry, Offset(from), BYTES_MAX).unwrap();
            let greatest = greatest.map(|record| (record.offset.0, record.timestamp_ms));
            assert_eq!(greatest, expected, "{from}");
        }
    }

    #[test]
    fn on_a_log_append_time_topic_every_record_has_the_batchs_time() {
        let mut entry = batch(Compression::None, &[1000, 1005]);
        let mut facts = entry.facts();
        facts.attributes |= 0b1000;
        facts.max_timestamp = 7777;
        entry.header = facts.encode();
        let walked = Records::open(&entry, BYTES_MAX).unwrap();
        assert!(walked.map(|record| record.unwrap().timestamp_ms).eq([7777, 7777]));
    }

    #[test]
    fn malformed_records_end_the_walk_with_one_error() {
        // One record: length 6, attributes, deltas 0 and 0, no key, no value, no headers.
        let lawful = [12, 0, 0, 0, 1, 1, 0];
        let cases: [(&[u8], i32, usize); 10] = [
            (&lawful, 1, 0),
            (&lawful, 2, 1),                                     // too few
            (&[lawful, lawful].concat(), 1, 1),                  // too many
            (&lawful[..6], 1, 1),                                // cut short
            (&[14, 0, 0, 0, 1, 1, 0, 0], 1, 1),                  // longer than its fields
            (&[11, 0, 0, 0, 1, 1, 0], 1, 1),                     // negative length
            (&[12, 0, 0, 0, 5, 1, 0], 1, 1),                     // key of length -3
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], 1, 1),             // huge length
            (&[12, 0, 0, 0, 1, 1, 2], 1, 1),                     // headers that are not there
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f], 1, 1), // a varint without end
        ];
        for (records, count, errors) in cases {
            let walked: Vec<_> = Records::open(&raw(records, count), BYTES_MAX).unwrap().collect();
            let found = walked.iter().filter(|record| record.is_err()).count();
            assert_eq!(found, errors, "{records:?}: {walked:?}");
        }
    }

    proptest! {
        #[test]
        fn no_records_panic_or_loop(noise: Vec<u8>, count: i32) {
            let entry = raw(&noise, count);
            let walked = Records::open(&entry, BYTES_MAX).unwrap().count();
            prop_assert!(walked <= noise.len() + 1);
        }
    }
}
