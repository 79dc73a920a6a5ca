//! Record batches built byte by byte, so that a test can lie in any field.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut as _, Bytes, BytesMut};

/// Bytes before the first record.
pub const HEADER_BYTES: usize = 61;

/// A batch of Kafka's format 2, with the fields that tests choose.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `-1` for a producer that is not idempotent.
    pub producer_id: i64,
    /// `-1` for a producer that is not idempotent.
    pub producer_epoch: i16,
    /// `-1` for a producer that is not idempotent.
    pub base_sequence: i32,
    /// Milliseconds since 1970, of every record.
    pub timestamp_ms: i64,
    /// One record each, without headers.
    pub values: Vec<Vec<u8>>,
    /// Their keys, in the same order; what has none here has none there.
    pub keys: Vec<Vec<u8>>,
}

/// A record of a batch that is not compressed: offset, key and value.
pub type Record = (i64, Option<Vec<u8>>, Option<Vec<u8>>);

impl Batch {
    /// Records of a producer that is not idempotent.
    pub fn new(values: Vec<Vec<u8>>) -> Batch {
        // Of now: what is older than a week is deleted.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that was set");
        let timestamp_ms = i64::try_from(now.as_millis()).expect("this age");
        let keys = Vec::new();
        Batch { producer_id: -1, producer_epoch: -1, base_sequence: -1, timestamp_ms, values, keys }
    }

    /// An honest batch.
    pub fn encode(&self) -> BytesMut {
        self.encode_with(&vec![self.timestamp_ms; self.values.len()])
    }

    /// An honest batch whose records have timestamps of their own.
    pub fn encode_with(&self, timestamps_ms: &[i64]) -> BytesMut {
        let first_timestamp_ms = timestamps_ms.first().copied().unwrap_or(self.timestamp_ms);
        let max_timestamp_ms = timestamps_ms.iter().copied().max().unwrap_or(self.timestamp_ms);
        let mut records = BytesMut::new();
        for (delta, (value, timestamp_ms)) in (0..).zip(self.values.iter().zip(timestamps_ms)) {
            let key = self.keys.get(delta as usize).map(Vec::as_slice);
            put_record(&mut records, delta, timestamp_ms - first_timestamp_ms, key, value);
        }
        let count = i32::try_from(self.values.len()).expect("few records");
        let mut batch = BytesMut::with_capacity(HEADER_BYTES + records.len());
        batch.put_i64(0); // base offset
        let length = HEADER_BYTES - 12 + records.len();
        batch.put_i32(i32::try_from(length).expect("a small batch"));
        batch.put_i32(-1); // leader epoch
        batch.put_i8(2); // magic
        batch.put_u32(0); // CRC, below
        batch.put_i16(0); // attributes
        batch.put_i32(count - 1);
        batch.put_i64(first_timestamp_ms);
        batch.put_i64(max_timestamp_ms);
        batch.put_i64(self.producer_id);
        batch.put_i16(self.producer_epoch);
        batch.put_i32(self.base_sequence);
        batch.put_i32(count);
        batch.extend_from_slice(&records);
        seal(&mut batch);
        batch
    }
}

/// Makes the CRC true of whatever the batch says now.
pub fn seal(batch: &mut [u8]) {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &batch[21..]);
    let crc = u32::try_from(crc).expect("32 bits");
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// Splits what a Fetch returned into whole batches: base offset and bytes.
pub fn split(mut records: Bytes) -> Vec<(i64, Bytes)> {
    let mut batches = Vec::new();
    while records.len() >= HEADER_BYTES {
        let base_offset = i64::from_be_bytes(records[..8].try_into().expect("8 bytes"));
        let length = i32::from_be_bytes(records[8..12].try_into().expect("4 bytes"));
        let length = 12 + usize::try_from(length).expect("a positive length");
        if records.len() < length {
            break;
        }
        batches.push((base_offset, records.split_to(length)));
    }
    batches
}

/// The offset after a batch's last record.
pub fn next_offset(batch: &[u8]) -> i64 {
    let base_offset = i64::from_be_bytes(batch[..8].try_into().expect("8 bytes"));
    let last_delta = i32::from_be_bytes(batch[23..27].try_into().expect("4 bytes"));
    base_offset + i64::from(last_delta) + 1
}

/// The records of a batch that is not compressed.
pub fn records(batch: &[u8]) -> Vec<Record> {
    let base_offset = i64::from_be_bytes(batch[..8].try_into().expect("8 bytes"));
    let count = i32::from_be_bytes(batch[57..61].try_into().expect("4 bytes"));
    let mut rest = &batch[HEADER_BYTES..];
    (0..count)
        .map(|_| {
            take_varint(&mut rest); // length
            rest = &rest[1..]; // attributes
            take_varint(&mut rest); // timestamp
            let offset = base_offset + take_varint(&mut rest);
            let (key, value) = (take_bytes(&mut rest), take_bytes(&mut rest));
            assert_eq!(take_varint(&mut rest), 0, "no headers");
            (offset, key, value)
        })
        .collect()
}

fn take_bytes(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(take_varint(rest)).ok()?;
    let (bytes, behind) = rest.split_at(length);
    *rest = behind;
    Some(bytes.to_vec())
}

fn take_varint(rest: &mut &[u8]) -> i64 {
    let (mut zigzag, mut shift) = (0_u64, 0);
    loop {
        let byte = rest[0];
        *rest = &rest[1..];
        zigzag |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return (zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed());
        }
    }
}

fn put_record(
    records: &mut BytesMut,
    offset_delta: i64,
    timestamp_delta: i64,
    key: Option<&[u8]>,
    value: &[u8],
) {
    let mut body = BytesMut::new();
    body.put_i8(0); // attributes
    put_varint(&mut body, timestamp_delta);
    put_varint(&mut body, offset_delta);
    put_varint(&mut body, key.map_or(-1, |key| key.len() as i64));
    body.extend_from_slice(key.unwrap_or_default());
    put_varint(&mut body, value.len() as i64);
    body.extend_from_slice(value);
    put_varint(&mut body, 0); // no headers
    put_varint(records, body.len() as i64);
    records.extend_from_slice(&body);
}

fn put_varint(buffer: &mut BytesMut, value: i64) {
    let mut zigzag = value.cast_unsigned().wrapping_shl(1) ^ (value >> 63).cast_unsigned();
    while zigzag >= 0x80 {
        buffer.put_u8((zigzag & 0x7f) as u8 | 0x80);
        zigzag >>= 7;
    }
    buffer.put_u8(zigzag as u8);
}
