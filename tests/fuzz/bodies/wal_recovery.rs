//! A data directory with spoiled files: it opens or says why not, serves only batches that are
//! whole and in order, and a second recovery finds what the first one kept.

mod disk;
mod input;

use std::{
    ops::Range,
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
};

use bytes::Bytes;
use input::Input;
use tidelog_types::{
    BATCH_HEADER_LEN, BatchHeader, Entry, LeaderEpoch, Offset, ProducerEpoch, ProducerId,
    TopicIdPartition, Uuid, batch_header::BATCH_CRC_START,
};
use tidelog_wal::{
    Log, LogObserver, LogSettings, ReadError, ReadOutcome, Recovered, Snapshot, SteppedWal,
    WalConfig, WalMetrics, checksum::crc32c, env::mem::MemFileSystem,
};

const EPOCH: LeaderEpoch = LeaderEpoch(1);

/// The first byte says which directory is spoiled; the others how: see `disk`.
pub fn run(data: &[u8]) {
    static IMAGES: OnceLock<[MemFileSystem; ENDS]> = OnceLock::new();
    let images = IMAGES.get_or_init(|| std::array::from_fn(image));
    let mut input = Input(data);
    let fs = images[usize::from(input.byte()) % ENDS].fork();
    disk::spoil(&fs, &mut input);
    let Some(first) = survey(&fs) else { return };
    let second = survey(&fs).expect("what a recovery left, the next one opens");
    assert_eq!(first, second, "recovering twice equals recovering once");
}

/// What one partition serves: where it starts and ends, its batches, and what it refuses.
#[derive(Debug, PartialEq)]
struct Served {
    id: TopicIdPartition,
    bounds: Range<i64>,
    high_watermark: i64,
    is_suspect: bool,
    batches: Vec<Bytes>,
    refused: Vec<Range<i64>>,
}

/// Opens, reads everything, closes. `None` where the directory is refused.
fn survey(fs: &MemFileSystem) -> Option<Vec<Served>> {
    let (mut stepped, recovered) = match open(fs) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return None;
        }
    };
    let mut served = Vec::new();
    for found in recovered.partitions {
        let watermark = Watermark::new(found.high_watermark);
        let log = stepped.wal().open_log(found.id, settings(), watermark);
        let log = log.expect("a log that recovery kept");
        assert_eq!(log.log_start_offset(), found.log_start_offset);
        assert_eq!(log.log_end_offset(), found.log_end_offset);
        let (batches, refused) = match found.suspect {
            true => Default::default(),
            false => read_all(&mut stepped, &log),
        };
        served.push(Served {
            id: found.id,
            bounds: found.log_start_offset.0..found.log_end_offset.0,
            high_watermark: found.high_watermark.0,
            is_suspect: found.suspect,
            batches,
            refused,
        });
    }
    stepped.close().expect("a disk that works");
    Some(served)
}

fn open(fs: &MemFileSystem) -> Result<(SteppedWal, Recovered), tidelog_wal::WalError> {
    let metrics = WalMetrics::register(&prometheus::Registry::new()).expect("a fresh registry");
    SteppedWal::open(config(), Arc::new(fs.clone()), metrics)
}

/// Small files, so that a short history has all kinds of them.
fn config() -> WalConfig {
    WalConfig {
        tail_bytes_max: 64 << 10,
        queue_bytes_max: 32 << 10,
        wal_bytes_max: 4 * (24 << 10),
        file_bytes: 24 << 10,
        first_file_bytes: 24 << 10,
        commit_bytes_max: 8 << 10,
        index_interval_bytes: 256,
        snapshot_interval_bytes: 1,
        ..WalConfig::new("/data")
    }
}

#[allow(clippy::needless_update, reason = "settings come and go")]
fn settings() -> LogSettings {
    LogSettings { segment_bytes: 2048, ..LogSettings::default() }
}

/// Every whole batch, each by itself, and the ranges that are refused.
fn read_all(stepped: &mut SteppedWal, log: &Log) -> (Vec<Bytes>, Vec<Range<i64>>) {
    let (mut batches, mut refused) = (Vec::new(), Vec::new());
    let (mut next, end) = (log.log_start_offset(), log.log_end_offset());
    while next < end {
        match read(stepped, log, next) {
            Ok(bytes) => {
                let found = split(&bytes, next);
                next = BatchHeader::decode(found[found.len() - 1].first_chunk().expect("a header"))
                    .next_offset();
                batches.extend(found);
            }
            Err(ReadError::Damaged { range }) => {
                assert!(range.contains(&next), "{range:?} does not hold {next:?}");
                refused.push(next.0..range.end.0);
                next = range.end;
            }
            Err(error) => panic!("{next:?} of {:?}: {error}", log.id()),
        }
    }
    (batches, refused)
}

/// At least one batch from `from` on, from memory or from segments.
fn read(stepped: &mut SteppedWal, log: &Log, from: Offset) -> Result<Vec<u8>, ReadError> {
    let bytes = match log.read(from, log.log_end_offset(), 4096, true)? {
        ReadOutcome::Entries(entries) => {
            entries.iter().flat_map(|e| [&e.header[..], &e.records].concat()).collect()
        }
        ReadOutcome::Cold(wanted) => {
            let (done, answer) = mpsc::sync_channel(1);
            log.read_cold(wanted, Box::new(move |read| done.send(read).expect("a reader")))?;
            stepped.rest().expect("a disk that works");
            answer.try_recv().expect("an answer")?.concat()
        }
    };
    assert!(!bytes.is_empty(), "a read below the end gives something at {from:?}");
    Ok(bytes)
}

/// The batches in some bytes: whole, in order, the first one with `from` in it.
fn split(bytes: &[u8], from: Offset) -> Vec<Bytes> {
    let mut batches = Vec::new();
    let (mut rest, mut expected) = (bytes, None);
    while !rest.is_empty() {
        let facts = BatchHeader::decode(rest.first_chunk().expect("a whole header"));
        let (batch, behind) = rest.split_at(facts.batch_bytes() as usize);
        assert!(facts.crc == crc32c(&[&batch[BATCH_CRC_START..]]), "a damaged batch was served");
        let begins = expected.unwrap_or(facts.base_offset.min(from));
        assert_eq!(facts.base_offset, begins, "offsets follow each other");
        assert!(expected.is_some() || facts.next_offset() > from, "the wrong batch was served");
        expected = Some(facts.next_offset());
        batches.push(Bytes::copy_from_slice(batch));
        rest = behind;
    }
    batches
}

/// Knows the high watermark: what became durable.
struct Watermark(Mutex<Offset>);

impl Watermark {
    fn new(high_watermark: Offset) -> Arc<Watermark> {
        Arc::new(Watermark(Mutex::new(high_watermark)))
    }
}

impl LogObserver for Watermark {
    fn on_durable(&self, durable_end: Offset) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = durable_end;
    }

    fn high_watermark(&self) -> Offset {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> Option<Snapshot> {
        None
    }
}

/// Ways in which the process ends that leaves a directory.
pub const ENDS: usize = 4;

/// Two partitions with segments, one with frames of every kind behind them, and one that is only
/// in the WAL. The same directory each time: an input must mean the same tomorrow.
pub fn image(end: usize) -> MemFileSystem {
    let fs = MemFileSystem::new();
    let (mut stepped, _) = open(&fs).expect("an empty machine");
    let logs = [0, 1, 2].map(|partition| {
        let id = TopicIdPartition { topic_id: Uuid([7; 16]), partition };
        let log = stepped.wal().open_log(id, settings(), Watermark::new(Offset(0)));
        log.expect("a new log")
    });
    for round in 0..10 {
        append(&mut stepped, &logs[round % 2], 2, 300 + 40 * round);
    }
    logs[0].advance_log_start(Offset(2), Box::new(|| {}));
    stepped.rest().expect("a disk that works");
    for round in 0..6 {
        append(&mut stepped, &logs[round % 3], 3, 200);
    }
    logs[1].truncate(EPOCH, Offset(12)).expect("an open log");
    append(&mut stepped, &logs[1], 1, 5000);
    logs[2].reset(EPOCH, Offset(100)).expect("an open log");
    append(&mut stepped, &logs[2], 1, 50);
    match end {
        0 => stepped.rest().expect("a disk that works"),
        // Nothing says that the last group was synced.
        1 => {}
        2 => {
            stepped.close().expect("a disk that works");
            return fs;
        }
        // Killed twice, and more written in between.
        _ => {
            drop((stepped, logs));
            fs.kill();
            let (mut again, recovered) = open(&fs).expect("a directory of our own");
            let id = recovered.partitions[0].id;
            let log = again.wal().open_log(id, settings(), Watermark::new(Offset(0)));
            append(&mut again, &log.expect("a log that recovery kept"), 2, 700);
            again.rest().expect("a disk that works");
        }
    }
    fs.kill();
    fs
}

fn append(stepped: &mut SteppedWal, log: &Log, records: i32, bytes: usize) {
    let entry = batch(log.log_end_offset(), records, bytes);
    let reserved = stepped.wal().try_reserve(entry.len() as u64).expect("a disk with room");
    let mut reservation = reserved.expect("nothing else waits");
    log.append(EPOCH, vec![entry], &mut reservation).expect("an open log");
    stepped.write().expect("a disk that works");
}

/// A valid batch whose bytes depend on its place.
fn batch(base: Offset, records: i32, bytes: usize) -> Entry {
    let records_bytes: Vec<u8> = (0..bytes).map(|at| (at as i64 * 7 + base.0) as u8).collect();
    let mut facts = BatchHeader {
        base_offset: base,
        length: (BATCH_HEADER_LEN - 12 + bytes) as i32,
        leader_epoch: EPOCH,
        magic: 2,
        crc: 0,
        attributes: 0,
        last_offset_delta: records - 1,
        base_timestamp: base.0,
        max_timestamp: base.0,
        producer_id: ProducerId::NONE,
        producer_epoch: ProducerEpoch::NONE,
        base_sequence: -1,
        records_count: records,
    };
    facts.crc = crc32c(&[&facts.encode()[BATCH_CRC_START..], &records_bytes]);
    Entry { header: facts.encode(), records: records_bytes.into() }
}
