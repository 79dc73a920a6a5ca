//! Writes record batches, for whoever produces: internal topics, the load tool and tests.

use bytes::Bytes;
use tidelog_types::{
    BATCH_HEADER_LEN, BatchHeader, Compression, Entry, LeaderEpoch, Offset, ProducerEpoch,
    ProducerId,
    batch_header::{BATCH_OVERHEAD_LEN, field},
};

use crate::{compression::compress, record_batch::crc, wire::Writer};

/// A batch under construction.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    header: BatchHeader,
    compression: Compression,
    records: Vec<u8>,
}

impl BatchBuilder {
    /// An empty batch whose timestamps count from `base_timestamp_ms`.
    #[must_use]
    pub fn new(base_timestamp_ms: i64) -> BatchBuilder {
        let header = BatchHeader {
            base_offset: Offset::ZERO,
            length: 0,
            leader_epoch: LeaderEpoch::NONE,
            magic: 2,
            crc: 0,
            attributes: 0,
            last_offset_delta: -1,
            base_timestamp: base_timestamp_ms,
            max_timestamp: base_timestamp_ms,
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch::NONE,
            base_sequence: -1,
            records_count: 0,
        };
        BatchBuilder { header, compression: Compression::None, records: Vec::new() }
    }

    /// Compresses the records.
    #[must_use]
    pub fn compressed(mut self, compression: Compression) -> BatchBuilder {
        self.compression = compression;
        self
    }

    /// Signs the batch as an idempotent producer's.
    #[must_use]
    pub fn producer(
        mut self,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
        base_sequence: i32,
    ) -> BatchBuilder {
        self.header = BatchHeader { producer_id, producer_epoch, base_sequence, ..self.header };
        self
    }

    /// Appends a record.
    pub fn push(&mut self, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        let header = &mut self.header;
        let mut record = Vec::with_capacity(32 + value.map_or(0, <[u8]>::len));
        record.push(0); // attributes: none exist
        record.put_varlong(timestamp_ms - header.base_timestamp);
        record.put_varlong(i64::from(header.records_count));
        put_bytes(&mut record, key);
        put_bytes(&mut record, value);
        record.put_varlong(0); // headers
        self.records.put_varlong(record.len() as i64);
        self.records.raw(&record);
        header.max_timestamp = header.max_timestamp.max(timestamp_ms);
        header.records_count += 1;
        header.last_offset_delta += 1;
    }

    /// Appends a record, as [`BatchBuilder::push`] does.
    #[must_use]
    pub fn record(mut self, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        self.push(timestamp_ms, key, value);
        self
    }

    /// Bytes of the batch as it is now, before compression.
    #[must_use]
    pub fn bytes(&self) -> usize {
        BATCH_HEADER_LEN + self.records.len()
    }

    /// An upper bound of the bytes that a record of this key and value adds.
    #[must_use]
    pub fn record_bytes_max(key: Option<&[u8]>, value: Option<&[u8]>) -> usize {
        // Length, attributes, time, offset, two lengths and the number of headers.
        const FRAME_BYTES_MAX: usize = 5 + 1 + 10 + 5 + 5 + 5 + 1;
        FRAME_BYTES_MAX + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len)
    }

    /// The batch as a producer sends it.
    #[must_use]
    pub fn build(self) -> Bytes {
        let Entry { header, records } = self.entry();
        Bytes::from([&header[..], &records].concat())
    }

    /// The batch as it goes to a log.
    #[must_use]
    pub fn entry(mut self) -> Entry {
        assert!(self.header.records_count > 0, "a batch has a record");
        let records = compress(self.compression, &self.records);
        self.header.attributes |= self.compression as i16;
        let length = BATCH_HEADER_LEN - BATCH_OVERHEAD_LEN + records.len();
        self.header.length = i32::try_from(length).expect("a batch is far smaller than 2 GiB");
        let mut header = self.header.encode();
        let crc = crc(&header, &records);
        header[field::CRC..][..4].copy_from_slice(&crc.to_be_bytes());
        Entry { header, records: records.into() }
    }
}

fn put_bytes(record: &mut Vec<u8>, bytes: Option<&[u8]>) {
    record.put_varlong(bytes.map_or(-1, |bytes| bytes.len() as i64));
    record.raw(bytes.unwrap_or_default());
}
