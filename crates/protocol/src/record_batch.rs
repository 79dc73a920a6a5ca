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
/// The most that compressed records may grow to when a rule makes us open them.
const OPENED_BYTES_MAX: usize = 64 * 1024 * 1024;

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
            | BatchError::Records(_) => ErrorCode::InvalidRecord,
            BatchError::LengthTooSmall { .. } | BatchError::Crc { .. } => ErrorCode::CorruptMessage,
            BatchError::Compression { .. } => ErrorCode::UnsupportedCompressionType,
            BatchError::TooLarge { .. } => ErrorCode::MessageTooLarge,
            BatchError::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
            BatchError::TimestampType | BatchError::Timestamp { .. } => ErrorCode::InvalidTimestamp,
        }
    }
}

/// Checks one partition's records from a Produce request and makes them ready for the log: what
/// changes the checksum happens here, so that giving the batch its place does not.
///
/// Compressed records stay closed unless the topic bounds how old a record may be.
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
    match rules.timestamp_type {
        TimestampType::CreateTime => keep_create_time(&mut entry, &facts, rules)?,
        TimestampType::LogAppendTime => set_log_append_time(&mut entry, &facts, rules.now_ms)?,
    }
    Ok(entry)
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
    if facts.length < (BATCH_HEADER_LEN - BATCH_OVERHEAD_LEN) as i32 {
        return Err(BatchError::LengthTooSmall { length: facts.length });
    }
    if facts.magic != MAGIC {
        return Err(BatchError::Magic { magic: facts.magic });
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

fn check_size(bytes: u64, rules: &BatchRules) -> Result<(), BatchError> {
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
        for record in Records::open(entry, OPENED_BYTES_MAX)? {
            allowed.check(record?.timestamp_ms)?;
        }
    }
    if facts.is_log_append_time() {
        patch_timestamps(entry, facts.attributes & !LOG_APPEND_TIME_BIT, facts.max_timestamp);
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
}

/// The timestamps that a topic allows now.
struct Window {
    earliest_ms: i64,
    latest_ms: i64,
}

impl Window {
    fn around(rules: &BatchRules) -> Window {
        Window {
            earliest_ms: rules.now_ms.saturating_sub(rules.timestamp_before_max_ms),
            latest_ms: rules.now_ms.saturating_add(rules.timestamp_after_max_ms),
        }
    }

    /// A record without a timestamp is neither early nor late.
    fn check(&self, timestamp_ms: i64) -> Result<(), BatchError> {
        let Window { earliest_ms, latest_ms } = *self;
        if timestamp_ms == NO_TIMESTAMP || (earliest_ms..=latest_ms).contains(&timestamp_ms) {
            return Ok(());
        }
        Err(BatchError::Timestamp { timestamp_ms, earliest_ms, latest_ms })
    }
}
