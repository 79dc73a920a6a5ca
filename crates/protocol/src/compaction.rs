//! Opens batches for compaction and writes them anew with fewer records, as Kafka's cleaner does.
//!
//! A batch keeps its offsets, its producer's fields and its codec, whatever records it loses. The
//! time until which its tombstones are to be kept stands where its base timestamp stood, and a bit
//! of its attributes says so (KIP-534): records' timestamps count from there then.

use std::ops::Range;

use bytes::Bytes;
use tidelog_types::{
    BATCH_HEADER_LEN, BatchHeader, Entry,
    batch_header::{BATCH_OVERHEAD_LEN, field},
};

use crate::{
    compression::{compress, decompress},
    error::Malformed,
    record_batch::crc,
    records::{RecordsError, skip_bytes, skip_headers},
    wire::{Reader, Writer},
};

/// The bits of a batch's attributes that name its codec.
const CODEC_BITS: i16 = 0b111;

/// One record of an opened batch, by where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPlace {
    /// Its offset less the batch's base offset.
    pub offset_delta: i32,
    /// In milliseconds since 1970.
    pub timestamp_ms: i64,
    /// All of its bytes, its length in front included.
    pub bytes: Range<usize>,
    /// Its key, if it has one.
    pub key: Option<Range<usize>>,
    /// Whether its value is not null; a record without is a tombstone.
    pub has_value: bool,
}

/// Opens a batch: calls `visit` for each record in order, and returns the bytes that the places
/// are of.
///
/// # Errors
/// When the records take more than `bytes_max` once open, or are not what the header says.
pub fn open(
    entry: &Entry,
    bytes_max: usize,
    mut visit: impl FnMut(RecordPlace),
) -> Result<Bytes, RecordsError> {
    let header = entry.facts();
    let codec = header.compression().ok_or(RecordsError::UnknownCompression)?;
    let opened = decompress(codec, &entry.records, bytes_max)?;
    let mut reader = Reader::new(&opened);
    let mut least = 0;
    for _ in 0..header.records_count {
        let place = read_place(&header, &mut reader)?;
        // Sorted, and within the batch: what is kept of it must be too.
        if !(least..=header.last_offset_delta).contains(&place.offset_delta) {
            return Err(reader.malformed("an offset is not in its place").into());
        }
        least = place.offset_delta.saturating_add(1);
        visit(place);
    }
    match reader.remaining() {
        0 => Ok(opened),
        _ => Err(reader.malformed("bytes follow the last record").into()),
    }
}

/// The batch with only these records of what [`open`] returned. With `delete_horizon_ms`, the time
/// until which its tombstones are kept is set; one that is set already stays.
#[must_use]
pub fn rewrite(
    entry: &Entry,
    opened: &[u8],
    kept: impl IntoIterator<Item = RecordPlace>,
    delete_horizon_ms: Option<i64>,
) -> Entry {
    let before = entry.facts();
    let mut header = before;
    if let Some(horizon_ms) = delete_horizon_ms {
        assert!(before.delete_horizon_ms().is_none(), "a delete horizon is set once");
        header.set_delete_horizon(horizon_ms);
    }
    let mut records = Vec::with_capacity(opened.len());
    let mut max_timestamp = i64::MIN;
    header.records_count = 0;
    for place in kept {
        match header.base_timestamp == before.base_timestamp {
            true => records.raw(&opened[place.bytes.clone()]),
            false => put_shifted(&mut records, opened, &place, header.base_timestamp),
        }
        max_timestamp = max_timestamp.max(place.timestamp_ms);
        header.records_count += 1;
    }
    if header.records_count == 0 {
        return emptied(&before);
    }
    if !before.is_log_append_time() {
        header.max_timestamp = max_timestamp;
    }
    let codec = before.compression().expect("an opened batch has a codec");
    finish(header, Bytes::from(compress(codec, &records)))
}

/// The batch without any record: what is left says which offsets and sequences it had.
#[must_use]
pub fn emptied(before: &BatchHeader) -> Entry {
    let mut header = BatchHeader {
        records_count: 0,
        attributes: before.attributes & !CODEC_BITS,
        base_timestamp: before.max_timestamp,
        ..*before
    };
    header.clear_delete_horizon();
    finish(header, Bytes::new())
}

fn finish(mut header: BatchHeader, records: Bytes) -> Entry {
    let length = BATCH_HEADER_LEN - BATCH_OVERHEAD_LEN + records.len();
    header.length = i32::try_from(length).expect("what was a batch grows by little");
    let mut bytes = header.encode();
    let crc = crc(&bytes, &records);
    bytes[field::CRC..][..4].copy_from_slice(&crc.to_be_bytes());
    Entry { header: bytes, records }
}

/// Attributes, timestamp delta, offset delta, key, value, headers.
fn read_place(header: &BatchHeader, reader: &mut Reader<'_>) -> Result<RecordPlace, Malformed> {
    let start = reader.position();
    let length = reader.varint()?;
    let length = usize::try_from(length).map_err(|_| reader.malformed("a length is negative"))?;
    let end = reader.position().saturating_add(length);
    reader.int8()?;
    let timestamp_delta = reader.varlong()?;
    let offset_delta = reader.varint()?;
    let key = skip_bytes(reader)?;
    let has_value = skip_bytes(reader)?.is_some();
    skip_headers(reader)?;
    if reader.position() != end {
        return Err(reader.malformed("a record is not as long as its fields"));
    }
    let timestamp_ms = match header.is_log_append_time() {
        true => header.max_timestamp,
        false => header.base_timestamp.saturating_add(timestamp_delta),
    };
    Ok(RecordPlace { offset_delta, timestamp_ms, bytes: start..end, key, has_value })
}

/// The same record, its timestamp counted from elsewhere.
fn put_shifted(out: &mut Vec<u8>, opened: &[u8], place: &RecordPlace, base_timestamp: i64) {
    let mut reader = Reader::new(&opened[place.bytes.clone()]);
    let intact = "it was read before";
    reader.varint().expect(intact);
    let attributes = reader.int8().expect(intact);
    reader.varlong().expect(intact);
    let rest = reader.remaining();
    let rest = reader.take(rest).expect(intact);
    let mut moved = Vec::with_capacity(rest.len() + 11);
    moved.push(attributes as u8);
    moved.put_varlong(place.timestamp_ms.wrapping_sub(base_timestamp));
    moved.raw(rest);
    out.put_varlong(moved.len() as i64);
    out.raw(&moved);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidelog_types::{Compression, LeaderEpoch, Offset, ProducerEpoch, ProducerId};

    use super::*;
    use crate::{batch_builder::BatchBuilder, records::Records};

    const BYTES_MAX: usize = 1 << 20;
    const HORIZON_MS: i64 = 1_700_086_400_000;

    fn entry(codec: Compression) -> Entry {
        let batch = BatchBuilder::new(1_700_000_000_000)
            .producer(ProducerId(9), ProducerEpoch(3), 40)
            .record(1_700_000_000_007, Some(b"a"), Some(b"1"))
            .record(1_700_000_000_000, Some(b""), None)
            .record(1_700_000_000_003, None, Some(b"3"))
            .record(1_700_000_000_005, Some(b"a"), Some(b"4"))
            .compressed(codec)
            .build();
        let header = *batch.first_chunk().unwrap();
        let mut entry = Entry { header, records: batch.slice(BATCH_HEADER_LEN..) };
        entry.place(Offset(100), LeaderEpoch(7));
        entry
    }

    fn places(entry: &Entry) -> (Bytes, Vec<RecordPlace>) {
        let mut places = Vec::new();
        let opened = open(entry, BYTES_MAX, |place| places.push(place)).unwrap();
        (opened, places)
    }

    fn with(entry: &Entry, keep: &[usize], horizon: Option<i64>) -> Entry {
        let (opened, places) = places(entry);
        rewrite(entry, &opened, keep.iter().map(|at| places[*at].clone()), horizon)
    }

    /// Offset, timestamp and key of each record, as any reader of the format finds them.
    fn read(entry: &Entry) -> Vec<(i64, i64, Option<Vec<u8>>)> {
        let facts = Records::open(entry, BYTES_MAX).unwrap();
        let facts: Vec<_> = facts.map(|record| record.unwrap()).collect();
        let (opened, places) = places(entry);
        let key = |place: &RecordPlace| place.key.clone().map(|key| opened[key].to_vec());
        let records = facts.iter().zip(&places);
        records.map(|(facts, p)| (facts.offset.0, facts.timestamp_ms, key(p))).collect()
    }

    const CODECS: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    #[test]
    fn what_is_kept_reads_as_before_in_every_codec() {
        for codec in CODECS {
            let whole = entry(codec);
            let all = read(&whole);
            for keep in [&[0, 1, 2, 3][..], &[1], &[0, 3], &[3]] {
                for horizon in [None, Some(HORIZON_MS), Some(0)] {
                    let left = with(&whole, keep, horizon);
                    let expected: Vec<_> = keep.iter().map(|at| all[*at].clone()).collect();
                    assert_eq!(read(&left), expected, "{codec:?} {keep:?} {horizon:?}");
                    let facts = left.facts();
                    let max_timestamp = expected.iter().map(|record| record.1).max().unwrap();
                    assert_eq!(facts.max_timestamp, max_timestamp);
                    assert_eq!(facts.delete_horizon_ms(), horizon);
                    assert_eq!(facts.crc, crc(&left.header, &left.records));
                    assert_eq!(facts.compression(), Some(codec));
                    assert_eq!(facts.batch_bytes() as usize, left.len());
                    let before = whole.facts();
                    let same = |h: &BatchHeader| {
                        (h.base_offset, h.last_offset_delta, h.leader_epoch, h.last_sequence())
                    };
                    assert_eq!(same(&facts), same(&before));
                }
            }
        }
    }

    #[test]
    fn a_horizon_that_is_set_stays_through_later_rewrites() {
        let once = with(&entry(Compression::Lz4), &[0, 1, 3], Some(HORIZON_MS));
        let twice = with(&once, &[1, 2], None);
        assert_eq!(twice.facts().delete_horizon_ms(), Some(HORIZON_MS));
        assert_eq!(read(&twice), read(&once)[1..]);
    }

    #[test]
    fn an_emptied_batch_keeps_its_place_and_its_producer() {
        for codec in CODECS {
            let whole = entry(codec);
            let left = with(&whole, &[], Some(HORIZON_MS));
            let (before, facts) = (whole.facts(), left.facts());
            assert_eq!((left.len(), facts.records_count), (BATCH_HEADER_LEN, 0));
            assert_eq!((facts.next_offset(), facts.last_sequence()), (Offset(104), 43));
            assert_eq!(facts.producer_id, before.producer_id);
            assert_eq!(facts.max_timestamp, before.max_timestamp);
            assert_eq!(
                (facts.compression(), facts.delete_horizon_ms()),
                (Some(Compression::None), None)
            );
            assert_eq!(facts.crc, crc(&left.header, &left.records));
            assert_eq!(read(&left), []);
        }
    }

    #[test]
    fn on_a_log_append_time_topic_the_brokers_stamp_stays() {
        let mut stamped = entry(Compression::None);
        let mut facts = stamped.facts();
        facts.attributes |= 0b1000;
        facts.max_timestamp = 1_700_000_009_000;
        stamped = finish(facts, stamped.records);
        let left = with(&stamped, &[1], Some(HORIZON_MS));
        assert_eq!(read(&left), [(101, 1_700_000_009_000, Some(Vec::new()))]);
    }

    #[test]
    fn records_out_of_their_place_are_refused() {
        let good = entry(Compression::None);
        let mut records = good.records.to_vec();
        let second = 1 + records[0] as usize / 2;
        assert_eq!(records[second + 3], 2, "the second record's offset delta, 1");
        for wrong in [0, 8, 1] {
            records[second + 3] = wrong;
            let entry = finish(good.facts(), Bytes::from(records.clone()));
            assert!(open(&entry, BYTES_MAX, |_| ()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_batch_that_opens_too_large_is_refused() {
        let opened = places(&entry(Compression::Zstd)).0.len();
        assert!(open(&entry(Compression::Zstd), opened, |_| ()).is_ok());
        assert!(open(&entry(Compression::Zstd), opened - 1, |_| ()).is_err());
    }

    proptest! {
        #[test]
        fn no_records_panic(noise: Vec<u8>, count: i32) {
            let mut facts = entry(Compression::None).facts();
            facts.records_count = count;
            let _ = open(&finish(facts, noise.into()), BYTES_MAX, |_| ());
        }
    }
}
