//! Judges a batch from a producer by its header and checksum, without opening its records.

use bytes::Bytes;
use tidelog_types::{
    BATCH_HEADER_LEN, BatchHeader, Compression, Entry, ErrorCode, Offset,
    batch_header::{BATCH_CRC_START, BATCH_OVERHEAD_LEN, field},
};

use crate::records::{Records, RecordsError};

/// The batch format that is served; older ones ended with KIP-724.
const MAGIC: i8 = 2;
/// First Produce version that may carry zstd (KIP-110).
const ZSTD_VERSION: i16 = 7;
/// A record that carries no time.
const NO_TIMESTAMP: i64 = -1;
/// The bit that says whose timestamps a batch carries.
const LOG_APPEND_TIME_BIT: i16 = 0b1000;

/// What a topic asks of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchRules {
    /// Largest batch, in bytes. `max.message.bytes`
    pub batch_bytes_max: u64,
    /// Largest segment, in bytes. `segment.bytes`
    pub segment_bytes: u64,
    /// Whose timestamps count. `message.timestamp.type`
    pub timestamp_type: TimestampType,
    /// How far a timestamp may lie behind now. `message.timestamp.before.max.ms`
    pub timestamp_before_max_ms: i64,
    /// How far a timestamp may lie ahead of now. `message.timestamp.after.max.ms`
    pub timestamp_after_max_ms: i64,
    /// Now, in milliseconds since 1970.
    pub now_ms: i64,
    /// Version of the Produce request.
    pub produce_version: i16,
}

/// A topic's `message.timestamp.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// The producer's timestamps stay.
    #[default]
    CreateTime,
    /// The broker stamps every batch.
    LogAppendTime,
}

/// Why a batch is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// There is no whole batch.
    #[error("the request holds no whole batch")]
    NoBatch,
    /// There is more than one batch, or something else behind the first.
    #[error("a partition's records must be exactly one batch")]
    MoreThanOneBatch,
    /// The length is smaller than a header.
    #[error("the batch says that it is {length} bytes long")]
    LengthTooSmall {
        /// As the batch says.
        length: i32,
    },
    /// An old format.
    #[error("magic {magic} is not served, only {MAGIC}")]
    Magic {
        /// As the batch says.
        magic: i8,
    },
    /// zstd from a client too old for it, or a codec that does not exist.
    #[error("compression {codec} is not allowed in Produce version {produce_version}")]
    Compression {
        /// The codec's number.
        codec: i16,
        /// The request's version.
        produce_version: i16,
    },
    /// Producers do not choose offsets.
    #[error("the batch starts at offset {base_offset}, expected 0")]
    BaseOffset {
        /// As the batch says.
        base_offset: i64,
    },
    /// Over `max.message.bytes`.
    #[error("the batch is {bytes} bytes, max.message.bytes is {bytes_max}")]
    TooLarge {
        /// Of the whole batch.
        bytes: u64,
        /// The topic's limit.
        bytes_max: u64,
    },
    /// Over `segment.bytes`.
    #[error("the batch is {bytes} bytes, segment.bytes is {bytes_max}")]
    LargerThanSegment {
        /// Of the whole batch.
        bytes: u64,
        /// The topic's limit.
        bytes_max: u64,
    },
    /// The checksum does not fit the bytes.
    #[error("the batch's CRC is {stated:#010x}, its bytes give {computed:#010x}")]
    Crc {
        /// As the batch says.
        stated: u32,
        /// Of its bytes.
        computed: u32,
    },
    /// Number of records and last offset delta contradict each other, or there is no record.
    #[error("{records_count} records cannot end at offset delta {last_offset_delta}")]
    Count {
        /// As the batch says.
        records_count: i32,
        /// As the batch says.
        last_offset_delta: i32,
    },
    /// Control batches are written by coordinators.
    #[error("a producer may not write control batches")]
    Control,
    /// An idempotent producer's batch without a sequence.
    #[error("an idempotent batch has base sequence {base_sequence}")]
    Sequence {
        /// As the batch says.
        base_sequence: i32,
    },
    /// The producer claims that the broker stamped the batch.
    #[error("a producer may not set the LogAppendTime bit")]
    TimestampType,
    /// A timestamp lies outside the topic's bounds.
    #[error("timestamp {timestamp_ms} lies outside {earliest_ms} to {latest_ms}")]
    Timestamp {
        /// The offending one.
        timestamp_ms: i64,
        /// The earliest allowed.
        earliest_ms: i64,
        /// The latest allowed.
        latest_ms: i64,
    },
    /// Opened, its records take more than is allowed: a bomb, or a batch to be split.
    #[error("the batch's records take more than {bytes_max} bytes uncompressed")]
    OpenedTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// A record is not where its place in the batch says.
    #[error("a record has offset delta {delta}, expected {expected}")]
    OffsetDelta {
        /// As the record says.
        delta: i64,
        /// How many records stand in front of it.
        expected: i64,
    },
    /// A rule made us open the records, and they are not what the header says.
    #[error(transparent)]
    Records(#[from] RecordsError),
}

impl BatchError {
    /// What the producer is told.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            BatchError::NoBatch
            | BatchError::MoreThanOneBatch
            | BatchError::Magic { .. }
            | BatchError::BaseOffset { .. }
            | BatchError::Count { .. }
            | BatchError::Control
            | BatchError::Sequence { .. }
            | BatchError::OffsetDelta { .. }
            | BatchError::Records(_) => ErrorCode::InvalidRecord,
            BatchError::LengthTooSmall { .. } | BatchError::Crc { .. } => ErrorCode::CorruptMessage,
            BatchError::Compression { .. } => ErrorCode::UnsupportedCompressionType,
            BatchError::TooLarge { .. } | BatchError::OpenedTooLarge { .. } => {
                ErrorCode::MessageTooLarge
            }
            BatchError::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
            BatchError::TimestampType | BatchError::Timestamp { .. } => ErrorCode::InvalidTimestamp,
        }
    }
}

/// Checks one partition's records from a Produce request and makes them ready for the log: what
/// changes the checksum happens here, so that giving the batch its place does not.
///
/// Compressed records stay closed. Others are walked where the topic bounds how old one may be.
///
/// # Errors
/// The batch is refused; [`BatchError::code`] says so on the wire.
pub fn validate(records: Bytes, rules: &BatchRules) -> Result<Entry, BatchError> {
    let facts = check_framing(&records)?;
    check_compression(&facts, rules)?;
    if facts.base_offset != Offset::ZERO {
        return Err(BatchError::BaseOffset { base_offset: facts.base_offset.0 });
    }
    check_size(records.len() as u64, rules)?;
    check_crc(&records, facts.crc)?;
    check_contents(&facts)?;
    let mut header = [0; BATCH_HEADER_LEN];
    header.copy_from_slice(&records[..BATCH_HEADER_LEN]);
    let mut entry = Entry { header, records: records.slice(BATCH_HEADER_LEN..) };
    assert_eq!(entry.len() as i64, facts.batch_bytes(), "an entry is the whole batch");
    match rules.timestamp_type {
        TimestampType::CreateTime => keep_create_time(&mut entry, &facts, rules)?,
        TimestampType::LogAppendTime => set_log_append_time(&mut entry, &facts, rules.now_ms)?,
    }
    Ok(entry)
}

/// The batches of a piece of a log, which holds whole ones only. Ends before bytes that are none.
pub fn split(mut piece: Bytes) -> impl Iterator<Item = Entry> {
    std::iter::from_fn(move || {
        let header = *piece.first_chunk::<BATCH_HEADER_LEN>()?;
        let bytes = usize::try_from(BatchHeader::decode(&header).batch_bytes()).ok()?;
        if !(BATCH_HEADER_LEN..=piece.len()).contains(&bytes) {
            return None;
        }
        let batch = piece.split_to(bytes);
        Some(Entry { header, records: batch.slice(BATCH_HEADER_LEN..) })
    })
}

/// CRC-32C as Kafka computes it: of everything from the attributes on.
#[must_use]
pub fn crc(header: &[u8; BATCH_HEADER_LEN], records: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&header[BATCH_CRC_START..]);
    digest.update(records);
    digest.finalize() as u32
}

/// One whole batch of the right format, and nothing else.
fn check_framing(records: &Bytes) -> Result<BatchHeader, BatchError> {
    let header = records.first_chunk::<BATCH_HEADER_LEN>().ok_or(BatchError::NoBatch)?;
    let facts = BatchHeader::decode(header);
    if facts.magic != MAGIC {
        return Err(BatchError::Magic { magic: facts.magic });
    }
    if facts.length < (BATCH_HEADER_LEN - BATCH_OVERHEAD_LEN) as i32 {
        return Err(BatchError::LengthTooSmall { length: facts.length });
    }
    match facts.batch_bytes().cmp(&(records.len() as i64)) {
        std::cmp::Ordering::Greater => Err(BatchError::NoBatch),
        std::cmp::Ordering::Less => Err(BatchError::MoreThanOneBatch),
        std::cmp::Ordering::Equal => Ok(facts),
    }
}

fn check_compression(facts: &BatchHeader, rules: &BatchRules) -> Result<(), BatchError> {
    let produce_version = rules.produce_version;
    match facts.compression() {
        Some(Compression::Zstd) if produce_version < ZSTD_VERSION => {}
        None => {}
        Some(_) => return Ok(()),
    }
    Err(BatchError::Compression { codec: facts.attributes & 0b111, produce_version })
}

pub(crate) fn check_size(bytes: u64, rules: &BatchRules) -> Result<(), BatchError> {
    if bytes > rules.batch_bytes_max {
        return Err(BatchError::TooLarge { bytes, bytes_max: rules.batch_bytes_max });
    }
    if bytes > rules.segment_bytes {
        return Err(BatchError::LargerThanSegment { bytes, bytes_max: rules.segment_bytes });
    }
    Ok(())
}

fn check_crc(batch: &[u8], stated: u32) -> Result<(), BatchError> {
    let computed = crc_fast::crc32_iscsi(&batch[BATCH_CRC_START..]);
    if computed == stated { Ok(()) } else { Err(BatchError::Crc { stated, computed }) }
}

/// What a batch says of its records must fit together.
fn check_contents(facts: &BatchHeader) -> Result<(), BatchError> {
    let BatchHeader { records_count, last_offset_delta, base_sequence, .. } = *facts;
    if records_count < 1 || records_count - 1 != last_offset_delta {
        return Err(BatchError::Count { records_count, last_offset_delta });
    }
    if facts.is_control() {
        return Err(BatchError::Control);
    }
    if facts.producer_id.0 >= 0 && base_sequence < 0 {
        return Err(BatchError::Sequence { base_sequence });
    }
    Ok(())
}

/// Keeps the producer's timestamps, if they lie within the topic's bounds.
fn keep_create_time(
    entry: &mut Entry,
    facts: &BatchHeader,
    rules: &BatchRules,
) -> Result<(), BatchError> {
    let allowed = Window::around(rules);
    if facts.is_log_append_time() && facts.max_timestamp == NO_TIMESTAMP {
        return Err(BatchError::TimestampType);
    }
    allowed.check(facts.max_timestamp)?;
    if rules.timestamp_before_max_ms < i64::MAX {
        check_all_timestamps(entry, facts, &allowed)?;
    }
    if facts.is_log_append_time() {
        patch_timestamps(entry, facts.attributes & !LOG_APPEND_TIME_BIT, facts.max_timestamp);
    }
    Ok(())
}

/// Checks every record where that costs no more than reading them. Compressed ones stay closed, for
/// opening a few bytes could keep a thread busy: the header's first and greatest stand for them.
fn check_all_timestamps(
    entry: &Entry,
    facts: &BatchHeader,
    allowed: &Window,
) -> Result<(), BatchError> {
    if facts.compression() != Some(Compression::None) {
        return allowed.check(facts.base_timestamp);
    }
    for record in Records::open(entry, entry.records.len())? {
        allowed.check(record?.timestamp_ms)?;
    }
    Ok(())
}

fn set_log_append_time(
    entry: &mut Entry,
    facts: &BatchHeader,
    now_ms: i64,
) -> Result<(), BatchError> {
    if facts.is_log_append_time() {
        return Err(BatchError::TimestampType);
    }
    patch_timestamps(entry, facts.attributes | LOG_APPEND_TIME_BIT, now_ms);
    Ok(())
}

fn patch_timestamps(entry: &mut Entry, attributes: i16, max_timestamp: i64) {
    let Entry { header, records } = entry;
    header[field::ATTRIBUTES..][..2].copy_from_slice(&attributes.to_be_bytes());
    header[field::MAX_TIMESTAMP..][..8].copy_from_slice(&max_timestamp.to_be_bytes());
    let crc = crc(header, records);
    header[field::CRC..][..4].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(entry.facts().max_timestamp, max_timestamp, "the stamp is where readers look");
}

/// The timestamps that a topic allows now.
pub(crate) struct Window {
    earliest_ms: i64,
    latest_ms: i64,
}

impl Window {
    pub(crate) fn around(rules: &BatchRules) -> Window {
        Window {
            earliest_ms: rules.now_ms.saturating_sub(rules.timestamp_before_max_ms),
            latest_ms: rules.now_ms.saturating_add(rules.timestamp_after_max_ms),
        }
    }

    /// A record without a timestamp is neither early nor late.
    pub(crate) fn check(&self, timestamp_ms: i64) -> Result<(), BatchError> {
        let Window { earliest_ms, latest_ms } = *self;
        if timestamp_ms == NO_TIMESTAMP || (earliest_ms..=latest_ms).contains(&timestamp_ms) {
            return Ok(());
        }
        Err(BatchError::Timestamp { timestamp_ms, earliest_ms, latest_ms })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidelog_types::{ProducerEpoch, ProducerId};

    use super::*;
    use crate::batch_builder::BatchBuilder;

    const NOW_MS: i64 = 1_700_000_000_000;
    const HOUR_MS: i64 = 3_600_000;

    fn rules() -> BatchRules {
        BatchRules {
            batch_bytes_max: 1_048_588,
            segment_bytes: 1 << 30,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: HOUR_MS,
            now_ms: NOW_MS,
            produce_version: 13,
        }
    }

    fn builder() -> BatchBuilder {
        BatchBuilder::new(NOW_MS).record(NOW_MS, Some(b"key"), Some(b"value")).record(
            NOW_MS + 5,
            None,
            Some(b"other"),
        )
    }

    /// The batch with its header changed and its checksum made right again.
    fn altered(change: impl FnOnce(&mut BatchHeader)) -> Bytes {
        let batch = builder().build();
        let mut facts = BatchHeader::decode(batch.first_chunk().unwrap());
        change(&mut facts);
        let mut header = facts.encode();
        let records = &batch[BATCH_HEADER_LEN..];
        let crc = crc(&header, records);
        header[field::CRC..][..4].copy_from_slice(&crc.to_be_bytes());
        [&header[..], records].concat().into()
    }

    #[test]
    fn a_lawful_batch_is_taken_as_it_is() {
        let batch = builder().build();
        let entry = validate(batch.clone(), &rules()).unwrap();
        assert_eq!([&entry.header[..], &entry.records].concat(), batch);
        assert_eq!(entry.records.as_ptr(), batch[BATCH_HEADER_LEN..].as_ptr());
    }

    #[test]
    fn a_batch_that_breaks_a_rule_is_refused_with_its_code() {
        let batch = builder().build();
        let twice = Bytes::from(batch.repeat(2));
        let mut spoiled = batch.to_vec();
        spoiled[70] ^= 1;
        let length = batch.len() as i32 - 12;
        let cases = [
            (Bytes::new(), ErrorCode::InvalidRecord),
            (batch.slice(..60), ErrorCode::InvalidRecord),
            (batch.slice(..batch.len() - 1), ErrorCode::InvalidRecord),
            (twice, ErrorCode::InvalidRecord),
            (spoiled.into(), ErrorCode::CorruptMessage),
            (altered(|h| h.magic = 1), ErrorCode::InvalidRecord),
            (altered(|h| h.magic = 3), ErrorCode::InvalidRecord),
            (altered(|h| h.length = 48), ErrorCode::CorruptMessage),
            (altered(|h| h.length = -1), ErrorCode::CorruptMessage),
            (altered(|h| h.length = i32::MAX), ErrorCode::InvalidRecord),
            (altered(|h| h.length = length + 1), ErrorCode::InvalidRecord),
            (altered(|h| h.length = length - 1), ErrorCode::InvalidRecord),
            (altered(|h| h.base_offset = Offset(1)), ErrorCode::InvalidRecord),
            (altered(|h| h.attributes = 5), ErrorCode::UnsupportedCompressionType),
            (altered(|h| h.attributes = 7), ErrorCode::UnsupportedCompressionType),
            (altered(|h| h.attributes = 0b10_0000), ErrorCode::InvalidRecord),
            (altered(|h| h.records_count = 0), ErrorCode::InvalidRecord),
            (altered(|h| h.records_count = 3), ErrorCode::InvalidRecord),
            (altered(|h| h.records_count = i32::MIN), ErrorCode::InvalidRecord),
            (altered(|h| h.last_offset_delta = -1), ErrorCode::InvalidRecord),
            (altered(|h| h.last_offset_delta = i32::MAX), ErrorCode::InvalidRecord),
            (altered(|h| h.producer_id = ProducerId(0)), ErrorCode::InvalidRecord),
            (altered(|h| h.max_timestamp = NOW_MS + HOUR_MS + 1), ErrorCode::InvalidTimestamp),
            (altered(|h| h.max_timestamp = i64::MAX), ErrorCode::InvalidTimestamp),
        ];
        for (number, (records, code)) in cases.into_iter().enumerate() {
            let refused = validate(records, &rules()).map_err(|error| error.code());
            assert_eq!(refused, Err(code), "case {number}");
        }
    }

    #[test]
    fn a_producer_without_id_may_send_any_sequence() {
        // aiokafka sends 0, others -1.
        for base_sequence in [-1, 0] {
            let batch = altered(|header| header.base_sequence = base_sequence);
            assert!(validate(batch, &rules()).is_ok(), "{base_sequence}");
        }
        let idempotent = builder().producer(ProducerId(7), ProducerEpoch(0), 0).build();
        assert!(validate(idempotent, &rules()).is_ok());
    }

    #[test]
    fn the_topics_and_the_segments_size_are_limits() {
        let batch = builder().build();
        let bytes = batch.len() as u64;
        let refused = |batch_bytes_max, segment_bytes| {
            let rules = BatchRules { batch_bytes_max, segment_bytes, ..rules() };
            validate(batch.clone(), &rules).err().map(|error| error.code())
        };
        assert_eq!(refused(bytes, bytes), None);
        assert_eq!(refused(bytes - 1, bytes - 1), Some(ErrorCode::MessageTooLarge));
        assert_eq!(refused(bytes, bytes - 1), Some(ErrorCode::RecordListTooLarge));
    }

    #[test]
    fn zstd_needs_version_7() {
        let batch = builder().compressed(Compression::Zstd).build();
        for (produce_version, allowed) in [(3, false), (6, false), (7, true), (13, true)] {
            let rules = BatchRules { produce_version, ..rules() };
            assert_eq!(validate(batch.clone(), &rules).is_ok(), allowed, "{produce_version}");
        }
    }

    #[test]
    fn the_broker_stamps_a_log_append_time_topic() {
        let rules = BatchRules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
        let batch = altered(|header| header.max_timestamp = i64::MAX); // its bounds do not count
        let entry = validate(batch.clone(), &rules).unwrap();
        let facts = entry.facts();
        assert!(facts.is_log_append_time());
        assert_eq!(facts.max_timestamp, NOW_MS);
        assert_eq!(facts.crc, crc(&entry.header, &entry.records));
        let again = [&entry.header[..], &entry.records].concat();
        assert_eq!(validate(again.into(), &rules), Err(BatchError::TimestampType));
    }

    #[test]
    fn a_stamp_that_a_producer_forged_is_cleared_on_a_create_time_topic() {
        let forged = altered(|header| header.attributes |= LOG_APPEND_TIME_BIT);
        let entry = validate(forged, &rules()).unwrap();
        assert_eq!([&entry.header[..], &entry.records].concat(), builder().build());
        let timeless = altered(|header| {
            header.attributes |= LOG_APPEND_TIME_BIT;
            header.max_timestamp = NO_TIMESTAMP;
        });
        assert_eq!(validate(timeless, &rules()), Err(BatchError::TimestampType));
    }

    #[test]
    fn a_finite_lower_bound_makes_every_record_count() {
        let rules = BatchRules { timestamp_before_max_ms: HOUR_MS, ..rules() };
        let (too_early, refused) = (NOW_MS - HOUR_MS - 1, Some(ErrorCode::InvalidTimestamp));
        for (first, last, codec, expected) in [
            (NOW_MS, NOW_MS - HOUR_MS, Compression::None, None),
            (NOW_MS, too_early, Compression::None, refused),
            (too_early, NOW_MS, Compression::None, refused),
            (NOW_MS, NOW_MS - HOUR_MS, Compression::Lz4, None),
            (NOW_MS, too_early, Compression::Lz4, None), // the header does not tell
            (too_early, NOW_MS, Compression::Lz4, refused),
        ] {
            let batch = BatchBuilder::new(first).compressed(codec).record(first, None, None);
            let batch = batch.record(last, None, None).build();
            let outcome = validate(batch, &rules).err().map(|error| error.code());
            assert_eq!(outcome, expected, "{first} {last} {codec:?}");
        }
    }

    #[test]
    fn the_checksum_is_crc_32c() {
        assert_eq!(crc_fast::crc32_iscsi(b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_any_flipped_bit_is_seen(
            noise: Vec<u8>,
            place in 0_usize..1000,
            bit in 0..8,
        ) {
            let _ = validate(noise.into(), &rules());
            let mut batch = builder().build().to_vec();
            let place = place % batch.len();
            batch[place] ^= 1_u8 << bit;
            // The leader epoch is the broker's to write and outside the checksum.
            let is_free = (field::PARTITION_LEADER_EPOCH..field::MAGIC).contains(&place);
            prop_assert_eq!(validate(batch.into(), &rules()).is_ok(), is_free);
        }
    }
}
