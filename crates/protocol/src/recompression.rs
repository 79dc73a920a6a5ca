//! Stores a producer's batch in the codec that its topic asks for, and checks what is compressed.
//!
//! The records are opened, so every rule that needs them is applied to each (the sizes, deltas and
//! timestamps that a closed batch's header is believed about). They are not written anew: what was
//! compressed is compressed again, byte for byte.

use bytes::Bytes;
use tidelog_types::{
    BATCH_HEADER_LEN, Compression, Entry,
    batch_header::{BATCH_OVERHEAD_LEN, field},
};

use crate::{
    compression::{DecompressError, compress_at},
    record_batch::{BatchError, BatchRules, Keyless, TimestampType, Window, check_size, crc},
    records::{Records, RecordsError},
};

/// The bits of a batch's attributes that name its codec.
const CODEC_BITS: i16 = 0b111;

/// What a topic's batches are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredCodec {
    /// The codec. `compression.type`
    pub codec: Compression,
    /// How hard it tries, as the codec counts; `None` is its default. `compression.*.level`
    pub level: Option<i32>,
}

/// The validated batch in another codec, and how many bytes its records took while they were open.
/// Sequences, offsets and timestamps are what they were, but for a greatest timestamp that the
/// header has wrong.
///
/// # Errors
/// [`BatchError::OpenedTooLarge`] above `opened_bytes_max`; what the records break; and the limits
/// on a batch's size, which hold for what is stored as for what was sent.
pub fn recompress(
    entry: &Entry,
    stored: StoredCodec,
    rules: &BatchRules,
    opened_bytes_max: usize,
) -> Result<(Entry, usize), BatchError> {
    let facts = entry.facts();
    assert_ne!(facts.compression(), Some(stored.codec), "a batch in its topic's codec stays");
    let mut records = open(entry, opened_bytes_max)?;
    let max_timestamp = check_records(&mut records, rules)?;
    let opened = records.into_opened();
    let packed = Bytes::from(compress_at(stored.codec, stored.level, &opened));
    check_size((BATCH_HEADER_LEN + packed.len()) as u64, rules)?;
    let mut header = facts;
    header.attributes = facts.attributes & !CODEC_BITS | stored.codec as i16;
    header.length = i32::try_from(BATCH_HEADER_LEN - BATCH_OVERHEAD_LEN + packed.len())
        .expect("a batch within max.message.bytes, an int");
    header.max_timestamp = max_timestamp.unwrap_or(facts.max_timestamp);
    let mut header = header.encode();
    let crc = crc(&header, &packed);
    header[field::CRC..][..4].copy_from_slice(&crc.to_be_bytes());
    let recompressed = Entry { header, records: packed };
    assert_eq!(
        recompressed.facts().last_offset_delta,
        facts.last_offset_delta,
        "no record is lost"
    );
    Ok((recompressed, opened.len()))
}

/// Applies to a compressed batch, which stays as it is, the rules that need its records. Returns
/// how many bytes they took while they were open.
///
/// # Errors
/// [`BatchError::OpenedTooLarge`] above `opened_bytes_max`, and what the records break.
pub fn check_opened(
    entry: &Entry,
    rules: &BatchRules,
    opened_bytes_max: usize,
) -> Result<usize, BatchError> {
    let mut records = open(entry, opened_bytes_max)?;
    check_records(&mut records, rules)?;
    Ok(records.into_opened().len())
}

fn open(entry: &Entry, opened_bytes_max: usize) -> Result<Records, BatchError> {
    Records::open(entry, opened_bytes_max).map_err(|error| match error {
        RecordsError::Decompress(DecompressError::TooLarge { bytes_max }) => {
            BatchError::OpenedTooLarge { bytes_max }
        }
        other => BatchError::Records(other),
    })
}

/// Checks every record. Returns the greatest timestamp where producers choose them.
fn check_records(records: &mut Records, rules: &BatchRules) -> Result<Option<i64>, BatchError> {
    let stays = rules.timestamp_type == TimestampType::CreateTime;
    let allowed = Window::around(rules);
    let (mut greatest, mut keyless) = (None, Keyless::default());
    for (delta, record) in (0..).zip(records) {
        let record = record?;
        keyless.note(delta as i32, &record);
        if record.offset.0 != delta {
            return Err(BatchError::OffsetDelta { delta: record.offset.0, expected: delta });
        }
        if stays {
            allowed.check(record.timestamp_ms)?;
            greatest = greatest.max(Some(record.timestamp_ms));
        }
    }
    if rules.needs_keys {
        keyless.into_result()?;
    }
    Ok(greatest)
}

#[cfg(test)]
mod tests {
    use tidelog_types::{ErrorCode, ProducerEpoch, ProducerId};

    use super::*;
    use crate::{batch_builder::BatchBuilder, record_batch::validate};

    const NOW_MS: i64 = 1_700_000_000_000;
    const BYTES_MAX: usize = 1 << 20;
    const CODECS: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    fn rules() -> BatchRules {
        BatchRules {
            batch_bytes_max: 1_048_588,
            segment_bytes: 1 << 30,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: 3_600_000,
            timestamp_after_max_ms: 3_600_000,
            now_ms: NOW_MS,
            produce_version: 13,
            needs_keys: false,
        }
    }

    fn builder() -> BatchBuilder {
        let value = b"a value that is worth compressing".repeat(20);
        BatchBuilder::new(NOW_MS)
            .producer(ProducerId(9), ProducerEpoch(1), 40)
            .record(NOW_MS + 7, Some(b"key"), Some(&value))
            .record(NOW_MS, None, Some(&value))
            .record(NOW_MS + 3, Some(b"key"), None)
    }

    fn sent(codec: Compression, rules: &BatchRules) -> Entry {
        validate(builder().compressed(codec).build(), rules).expect("lawful")
    }

    fn stored(codec: Compression) -> StoredCodec {
        StoredCodec { codec, level: None }
    }

    fn whole(entry: &Entry) -> Bytes {
        Bytes::from([&entry.header[..], &entry.records].concat())
    }

    #[test]
    fn every_codec_becomes_every_other_and_nothing_else_changes() {
        for from in CODECS {
            for to in CODECS.into_iter().filter(|to| *to != from) {
                let (entry, opened) =
                    recompress(&sent(from, &rules()), stored(to), &rules(), BYTES_MAX).unwrap();
                assert_eq!(whole(&entry), builder().compressed(to).build(), "{from:?} to {to:?}");
                assert_eq!(opened, sent(Compression::None, &rules()).records.len());
            }
        }
    }

    #[test]
    fn a_level_is_used() {
        let mut builder = BatchBuilder::new(NOW_MS);
        let mut word = 7_u32;
        for _ in 0..2000 {
            word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            builder.push(NOW_MS, None, Some(format!("{:03}", word >> 22).as_bytes()));
        }
        let plain = validate(builder.build(), &rules()).unwrap();
        for (codec, quick, thorough) in [(Compression::Gzip, 1, 9), (Compression::Zstd, -50, 19)] {
            let bytes = [quick, thorough].map(|level| {
                let stored = StoredCodec { codec, level: Some(level) };
                recompress(&plain, stored, &rules(), BYTES_MAX).unwrap().0.len()
            });
            assert!(bytes[0] > bytes[1], "{codec:?}: {bytes:?}");
        }
    }

    #[test]
    fn the_brokers_stamp_stays() {
        let rules = BatchRules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
        let entry = sent(Compression::Gzip, &rules);
        let (entry, _) = recompress(&entry, stored(Compression::Zstd), &rules, BYTES_MAX).unwrap();
        let facts = entry.facts();
        assert!(facts.is_log_append_time());
        assert_eq!(facts.max_timestamp, NOW_MS);
        assert_eq!(facts.crc, crc(&entry.header, &entry.records));
    }

    /// A batch whose header says something else than its records.
    fn lying(entry: &Entry, lie: impl FnOnce(&mut tidelog_types::BatchHeader)) -> Entry {
        let mut facts = entry.facts();
        lie(&mut facts);
        Entry { header: facts.encode(), records: entry.records.clone() }
    }

    #[test]
    fn records_without_a_key_are_found_in_every_codec() {
        let rules = BatchRules { needs_keys: true, ..rules() };
        let expected = BatchError::NoKeys { places: vec![1], count: 1 };
        for codec in CODECS.into_iter().filter(|codec| *codec != Compression::None) {
            let entry = sent(codec, &rules);
            assert_eq!(check_opened(&entry, &rules, BYTES_MAX), Err(expected.clone()));
            let refused = recompress(&entry, stored(Compression::None), &rules, BYTES_MAX);
            assert_eq!(refused, Err(expected.clone()), "{codec:?}");
            let opened = sent(Compression::None, &self::rules()).records.len();
            assert_eq!(check_opened(&entry, &self::rules(), BYTES_MAX), Ok(opened));
            let too_large = check_opened(&entry, &rules, opened - 1);
            assert_eq!(too_large, Err(BatchError::OpenedTooLarge { bytes_max: opened - 1 }));
        }
    }

    #[test]
    fn a_greatest_timestamp_that_is_wrong_is_set_right() {
        let entry = lying(&sent(Compression::Lz4, &rules()), |facts| facts.max_timestamp += 1000);
        let (entry, _) =
            recompress(&entry, stored(Compression::None), &rules(), BYTES_MAX).unwrap();
        assert_eq!(whole(&entry), builder().build());
    }

    #[test]
    fn what_only_open_records_show_is_refused() {
        let entry = sent(Compression::Gzip, &rules());
        let opened = sent(Compression::None, &rules()).records.len();
        let bytes = BATCH_HEADER_LEN + opened;
        let early = BatchBuilder::new(NOW_MS).compressed(Compression::Gzip);
        let early = early.record(NOW_MS, None, None).record(0, None, None).build();
        let mut deltas = sent(Compression::None, &rules());
        let mut records = deltas.records.to_vec();
        let delta = records.iter().position(|byte| *byte == 14).expect("7 ms") + 1;
        assert_eq!(records[delta], 0, "the first record's offset delta");
        records[delta] = 2;
        deltas.records = records.into();
        let batch_bytes_max = bytes as u64 - 1;
        let cases = [
            (entry.clone(), rules(), opened - 1, ErrorCode::MessageTooLarge),
            (
                entry.clone(),
                BatchRules { batch_bytes_max, ..rules() },
                BYTES_MAX,
                ErrorCode::MessageTooLarge,
            ),
            (
                entry.clone(),
                BatchRules { segment_bytes: batch_bytes_max, ..rules() },
                BYTES_MAX,
                ErrorCode::RecordListTooLarge,
            ),
            (validate(early, &rules()).unwrap(), rules(), BYTES_MAX, ErrorCode::InvalidTimestamp),
            (
                lying(&entry, |facts| facts.records_count = 2),
                rules(),
                BYTES_MAX,
                ErrorCode::InvalidRecord,
            ),
            (
                lying(&entry, |facts| facts.records_count = 4),
                rules(),
                BYTES_MAX,
                ErrorCode::InvalidRecord,
            ),
        ];
        for (number, (entry, rules, opened_max, code)) in cases.into_iter().enumerate() {
            let outcome = recompress(&entry, stored(Compression::None), &rules, opened_max);
            assert_eq!(outcome.map_err(|error| error.code()), Err(code), "case {number}");
        }
        let outcome = recompress(&deltas, stored(Compression::Gzip), &rules(), BYTES_MAX);
        assert_eq!(outcome, Err(BatchError::OffsetDelta { delta: 1, expected: 0 }));
    }
}
