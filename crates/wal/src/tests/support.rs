//! A log on a file system in memory, its threads stepped by the test.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tidelog_types::{
    BATCH_HEADER_LEN, BatchHeader, Entry, LeaderEpoch, Offset, ProducerEpoch, ProducerId,
    TopicIdPartition, Uuid,
};

use crate::{
    Fatal, Log, LogObserver, LogSettings, ReadOutcome, Recovered, Snapshot, Wal, WalConfig,
    WalError, WalMetrics, checksum::crc32c, env::FileSystem, shard::lock, threads::Step,
    wal::Steppers,
};

pub(super) const EPOCH: LeaderEpoch = LeaderEpoch(1);

/// Small files, so that every history rolls, spills and recycles.
pub(super) fn small_config() -> WalConfig {
    WalConfig {
        tail_bytes_max: 64 << 10,
        queue_bytes_max: 32 << 10,
        wal_bytes_max: 6 * (24 << 10),
        file_bytes: 24 << 10,
        first_file_bytes: 24 << 10,
        commit_bytes_max: 8 << 10,
        index_interval_bytes: 256,
        snapshot_interval_bytes: 1,
        ..WalConfig::new("/data")
    }
}

pub(super) fn metrics() -> WalMetrics {
    WalMetrics::register(&prometheus::Registry::new()).expect("a fresh registry has no names")
}

pub(super) fn id(partition: i32) -> TopicIdPartition {
    TopicIdPartition { topic_id: Uuid([7; 16]), partition }
}

/// A valid batch of `records` records whose bytes depend on `tag`.
pub(super) fn batch(base: Offset, records: i32, bytes: usize, tag: u64) -> Entry {
    let mut payload = vec![0; bytes.max(8)];
    for (place, byte) in payload.iter_mut().enumerate() {
        *byte = (tag.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (8 * (place % 8))) as u8;
    }
    with_records(base, records, payload)
}

/// A valid batch with these bytes for records.
pub(super) fn with_records(base: Offset, records: i32, payload: Vec<u8>) -> Entry {
    let tag = payload.first().map_or(0, |byte| i64::from(*byte));
    let mut header = BatchHeader {
        base_offset: base,
        length: (BATCH_HEADER_LEN - 12 + payload.len()) as i32,
        leader_epoch: EPOCH,
        magic: 2,
        crc: 0,
        attributes: 0,
        last_offset_delta: records - 1,
        base_timestamp: tag,
        max_timestamp: tag,
        producer_id: ProducerId::NONE,
        producer_epoch: ProducerEpoch::NONE,
        base_sequence: -1,
        records_count: records,
    };
    header.crc = crc32c(&[&header.encode()[21..], &payload]);
    Entry { header: header.encode(), records: Bytes::from(payload) }
}

/// Remembers what it was told.
#[derive(Debug, Default)]
pub(super) struct Observer {
    pub(super) told: Mutex<Offset>,
    pub(super) high_watermark: Mutex<Offset>,
    pub(super) snapshot: Mutex<Option<Snapshot>>,
}

impl LogObserver for Observer {
    fn on_durable(&self, durable_end: Offset) {
        *lock(&self.told) = durable_end;
    }

    fn high_watermark(&self) -> Offset {
        *lock(&self.high_watermark)
    }

    fn snapshot(&self) -> Option<Snapshot> {
        lock(&self.snapshot).clone()
    }
}

/// A log and the bodies of its threads.
pub(super) struct Node {
    pub(super) wal: Wal,
    pub(super) steppers: Steppers,
    pub(super) recovered: Recovered,
}

impl Node {
    pub(super) fn open(fs: &Arc<dyn FileSystem>, config: WalConfig) -> Result<Node, WalError> {
        let (wal, recovered, steppers) = Wal::open_stepped(config, Arc::clone(fs), metrics())?;
        Ok(Node { wal, steppers, recovered })
    }

    pub(super) fn log(&self, partition: i32) -> (Log, Arc<Observer>) {
        let observer = Arc::new(Observer::default());
        let settings = LogSettings { segment_bytes: 2048, ..LogSettings::default() };
        let log = self.wal.open_log(id(partition), settings, observer.clone());
        (log.expect("the log is open"), observer)
    }

    pub(super) fn append(&self, log: &Log, records: i32, bytes: usize, tag: u64) -> Entry {
        let entry = batch(log.log_end_offset(), records, bytes, tag);
        let reserved = self.wal.try_reserve(entry.len() as u64).expect("not refused");
        let mut reservation = reserved.expect("there is room");
        log.append(EPOCH, vec![entry.clone()], &mut reservation).expect("appended");
        entry
    }

    /// Steps the writer until it rests.
    pub(super) fn write(&mut self) -> Result<(), Fatal> {
        while self.steppers.writer.step()? == Step::Worked {}
        Ok(())
    }

    /// One whole pass of the spill.
    pub(super) fn spill(&mut self) -> Result<(), Fatal> {
        self.wal.shard().want_checkpoint();
        while self.steppers.spill.step()? == Step::Worked {}
        Ok(())
    }

    /// Searches every log for old records, and removes them.
    pub(super) fn retain(&mut self, now_ms: i64) -> Result<(), Fatal> {
        self.wal.run_retention(now_ms);
        while self.steppers.spill.step()? == Step::Worked {}
        Ok(())
    }

    /// Deletes what waits to be deleted and may be.
    pub(super) fn remove(&mut self) -> Result<(), Fatal> {
        while self.steppers.remover.step()? != Step::Idle {}
        Ok(())
    }
}

/// Everything readable from `from` to the log's end, from memory and segments.
pub(super) fn read_all(node: &mut Node, log: &Log, from: Offset) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut next = from;
    while next < log.log_end_offset() {
        let read = log.read(next, log.log_end_offset(), 1 << 20, true).expect("readable");
        let before = next;
        match read {
            ReadOutcome::Entries(entries) => {
                for entry in entries {
                    next = entry.facts().next_offset();
                    bytes.extend_from_slice(&entry.header);
                    bytes.extend_from_slice(&entry.records);
                }
            }
            ReadOutcome::Cold(read) => {
                let answer = Arc::new(Mutex::new(None));
                let done = Arc::clone(&answer);
                let done = Box::new(move |read| *lock(&done) = Some(read));
                log.read_cold(read, done).expect("queued");
                node.steppers.reader.step().expect("the reader is never fatal");
                let read = lock(&answer).take().expect("answered").expect("readable");
                for chunk in read {
                    next = last_batch_end(&chunk);
                    bytes.extend_from_slice(&chunk);
                }
            }
        }
        assert!(next > before, "a read makes progress at {before}");
    }
    bytes
}

/// The offset behind the last batch of a chunk of whole batches.
pub(super) fn last_batch_end(mut chunk: &[u8]) -> Offset {
    let mut end = Offset::ZERO;
    while !chunk.is_empty() {
        let header = chunk.first_chunk::<BATCH_HEADER_LEN>().expect("a whole header");
        let facts = BatchHeader::decode(header);
        end = facts.next_offset();
        chunk = &chunk[facts.batch_bytes() as usize..];
    }
    end
}
