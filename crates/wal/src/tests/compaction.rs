//! Compaction against a model: random keys, tombstones, batches and times, with the power failing
//! at any call. The newest value of every key survives, nothing moves, and tombstones live exactly
//! as long as they must.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use tidelog_types::{BATCH_HEADER_LEN, BatchHeader, Entry, Offset, ProducerId};

use super::{model::Random, support::*};
use crate::{
    BatchRewriter, CleanerConfig, Compaction, Log, LogObserver, LogSettings, OpenedBatch,
    OpenedRecord, ReadOutcome, Snapshot, WalConfig,
    checksum::crc32c,
    compaction::cleaner::Cleaner,
    env::{FileSystem, mem::MemFileSystem},
    error::Fatal,
    rules::{Rule, without},
    segment::hold_records,
    shard::lock,
    threads::Step,
};

/// Bytes of a record in these tests: offset delta, key and 255 for none, 1 for a value, value.
const RECORD_BYTES: usize = 32;
const NO_KEY: u8 = 255;
/// A batch with this key in front cannot be opened.
const SEALED: u8 = 254;
const DELETE_RETENTION_MS: i64 = 1000;

/// A record, as it was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    key: Option<u8>,
    value: Option<u8>,
}

/// Reads and writes the batches of these tests.
struct Codec;

impl BatchRewriter for Codec {
    fn open(&self, batch: &Entry, opened: &mut OpenedBatch) -> bool {
        opened.bytes = batch.records.clone();
        opened.records.clear();
        for start in (0..batch.records.len()).step_by(RECORD_BYTES) {
            let record = &batch.records[start..start + RECORD_BYTES];
            let key = start as u32 + 4;
            opened.records.push(OpenedRecord {
                offset_delta: i32::from_be_bytes(record[..4].try_into().unwrap()),
                bytes: (start as u32, (start + RECORD_BYTES) as u32),
                key: (record[4] != NO_KEY).then_some((key, key + 1)),
                has_value: record[5] == 1,
                timestamp_ms: batch.facts().max_timestamp,
            });
        }
        batch.records.get(4) != Some(&SEALED)
    }

    fn rewrite(
        &self,
        batch: &Entry,
        opened: &OpenedBatch,
        keeps: &[bool],
        delete_horizon_ms: Option<i64>,
    ) -> Entry {
        let kept = opened.records.iter().zip(keeps).filter(|(_, keeps)| **keeps);
        let bytes = |(record, _): (&OpenedRecord, _)| {
            opened.bytes[record.bytes.0 as usize..record.bytes.1 as usize].to_vec()
        };
        let records: Vec<u8> = kept.flat_map(bytes).collect();
        let mut header = batch.facts();
        if let Some(horizon_ms) = delete_horizon_ms {
            header.set_delete_horizon(horizon_ms);
        }
        sealed(header, records)
    }

    fn empty(&self, batch: &Entry) -> Entry {
        sealed(batch.facts(), Vec::new())
    }
}

fn sealed(mut header: BatchHeader, records: Vec<u8>) -> Entry {
    header.records_count = (records.len() / RECORD_BYTES) as i32;
    header.length = (BATCH_HEADER_LEN - 12 + records.len()) as i32;
    header.crc = crc32c(&[&header.encode()[21..], &records]);
    Entry { header: header.encode(), records: Bytes::from(records) }
}

#[derive(Default)]
struct Partition {
    high_watermark: Mutex<Offset>,
    producers: Mutex<BTreeMap<ProducerId, Offset>>,
}

impl LogObserver for Partition {
    fn on_durable(&self, durable_end: Offset) {
        *lock(&self.high_watermark) = durable_end;
    }

    fn high_watermark(&self) -> Offset {
        *lock(&self.high_watermark)
    }

    fn snapshot(&self) -> Option<Snapshot> {
        None
    }

    fn producers_last_offsets(&self) -> BTreeSet<Offset> {
        lock(&self.producers).values().copied().collect()
    }
}

fn settings(compaction: Compaction) -> LogSettings {
    LogSettings { segment_bytes: 900, compaction: Some(compaction), ..LogSettings::default() }
}

const ALWAYS: Compaction = Compaction {
    min_dirty_ratio: 0.0,
    min_lag_ms: 0,
    max_lag_ms: i64::MAX,
    delete_retention_ms: DELETE_RETENTION_MS,
};

struct World {
    mem: MemFileSystem,
    random: Random,
    node: Option<(Node, Log, Arc<Partition>, Cleaner)>,
    dedupe_bytes: u64,
    now_ms: i64,
    /// Every record that is durable, by offset.
    records: BTreeMap<i64, Record>,
    /// The producers' newest batches: base offset and the offset behind.
    producers: BTreeMap<ProducerId, (i64, i64)>,
    /// When a tombstone's time is over, once it was seen in its batch.
    horizons: BTreeMap<i64, i64>,
    /// Everything below was once clean.
    clean_below: i64,
    log_start: i64,
    has_sealed: bool,
    has_crashed: bool,
    /// A batch that nobody was told is durable.
    torn: Option<Torn>,
}

struct Torn {
    records: Vec<(i64, Record)>,
    producer: ProducerId,
    base: i64,
    end: i64,
}

type Broken = Result<(), String>;

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let dedupe_bytes = if random.percent(50) { 0 } else { 1 << 20 };
        World {
            mem: MemFileSystem::new(),
            random,
            node: None,
            dedupe_bytes,
            now_ms: 1_000_000,
            records: BTreeMap::new(),
            producers: BTreeMap::new(),
            horizons: BTreeMap::new(),
            clean_below: 0,
            log_start: 0,
            has_sealed: false,
            has_crashed: false,
            torn: None,
        }
    }

    fn open(&mut self) -> Broken {
        let fs: Arc<dyn FileSystem> = Arc::new(self.mem.clone());
        let config = WalConfig { snapshot_interval_bytes: u64::MAX, ..small_config() };
        let Ok(node) = Node::open(&fs, config) else { return Ok(()) };
        if let Some(found) = node.recovered.partitions.first()
            && (!found.damaged.is_empty() || found.suspect)
        {
            return Err(format!("damaged after a crash: {:?}", found.damaged));
        }
        let partition = Arc::new(Partition::default());
        let log = node.wal.open_log(id(0), settings(ALWAYS), partition.clone()).unwrap();
        *lock(&partition.high_watermark) = log.durable_end_offset();
        for (producer, (_, end)) in &self.producers {
            lock(&partition.producers).insert(*producer, Offset(end - 1));
        }
        let (dedupe_bytes, io) = (self.dedupe_bytes, f64::MAX);
        let config = CleanerConfig { dedupe_bytes, io_bytes_per_second: io };
        let cleaner = node.wal.cleaner(Arc::new(Codec), config);
        self.node = Some((node, log, partition, cleaner));
        Ok(())
    }

    fn append(&mut self, sealed_batch: bool) -> Result<(), Fatal> {
        let Some((node, log, partition, _)) = self.node.as_mut() else { return Ok(()) };
        let base = log.log_end_offset().0;
        let count = 1 + self.random.below(5) as i64;
        let (mut bytes, mut appended) = (Vec::new(), Vec::new());
        for delta in 0..count {
            let key = self.random.below(12) as u8;
            let key = if key == 11 { None } else { Some(key) };
            let value = self.random.percent(75).then(|| self.random.below(200) as u8);
            let mut record = [7; RECORD_BYTES];
            record[..4].copy_from_slice(&(delta as i32).to_be_bytes());
            record[4] = if sealed_batch { SEALED } else { key.unwrap_or(NO_KEY) };
            record[5] = u8::from(value.is_some());
            record[6] = value.unwrap_or(0);
            bytes.extend(record);
            let key = if sealed_batch { Some(SEALED) } else { key };
            appended.push((base + delta, Record { key, value }));
        }
        let mut entry = with_records(Offset(base), count as i32, bytes);
        let mut header = entry.facts();
        (header.base_timestamp, header.max_timestamp) = (self.now_ms, self.now_ms);
        let producer = ProducerId(self.random.below(4) as i64 - 1);
        header.producer_id = producer;
        entry = sealed(header, entry.records.to_vec());
        let reserved = node.wal.try_reserve(entry.len() as u64).unwrap();
        let Some(mut reservation) = reserved else { return node.spill() };
        self.torn = Some(Torn { records: appended, producer, base, end: base + count });
        log.append(EPOCH, vec![entry], &mut reservation).unwrap();
        drop(reservation);
        while log.durable_end_offset().0 < base + count {
            node.write()?;
            // The WAL may be full.
            node.spill()?;
            node.steppers.filler.step()?;
        }
        if producer.0 >= 0 {
            lock(&partition.producers).insert(producer, Offset(base + count - 1));
        }
        self.keep_torn();
        Ok(())
    }

    fn keep_torn(&mut self) {
        let Some(torn) = self.torn.take() else { return };
        self.records.extend(torn.records);
        if torn.producer.0 >= 0 {
            self.producers.insert(torn.producer, (torn.base, torn.end));
        }
    }

    /// Lets every thread work until there is nothing to do for any.
    fn compact(&mut self) -> Result<(), Fatal> {
        let Some((node, _, _, cleaner)) = self.node.as_mut() else { return Ok(()) };
        node.spill()?;
        node.wal.run_compaction(self.now_ms);
        for _ in 0..100_000 {
            let step = cleaner.step()?;
            while node.steppers.spill.step()? == Step::Worked {}
            while node.steppers.remover.step()? == Step::Worked {}
            if step == Step::Idle {
                return Ok(());
            }
        }
        panic!("compaction does not come to an end");
    }

    fn passes(&self) -> u64 {
        let metrics = self.node.as_ref().map(|(node, ..)| node.wal.shard().metrics.clone());
        metrics.map_or(0, |metrics| metrics.cleaner_passes.get())
    }

    fn delete_records(&mut self) -> Result<(), Fatal> {
        let Some((node, log, ..)) = self.node.as_mut() else { return Ok(()) };
        let to = log.durable_end_offset().0 * self.random.below(10) as i64 / 20;
        log.advance_log_start(Offset(to), Box::new(|| {}));
        node.spill()?;
        self.log_start = self.log_start.max(to);
        Ok(())
    }

    /// All batches from the log start on.
    fn read(&mut self) -> Vec<Entry> {
        let (node, log, ..) = self.node.as_mut().unwrap();
        // What is in memory may go at any time: the disk is what counts.
        for other in node.wal.shard().all_logs() {
            let spilled = other.state().spilled_end;
            let bytes = other.state().tail.evict(spilled.plus(-1));
            node.wal.shard().budget.release(0, bytes);
        }
        let start = log.log_start_offset();
        let bytes = Bytes::from(read_all(node, log, start));
        let mut entries = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let header = *bytes[at..].first_chunk::<BATCH_HEADER_LEN>().unwrap();
            let end = at + BatchHeader::decode(&header).batch_bytes() as usize;
            let records = bytes.slice(at + BATCH_HEADER_LEN..end);
            entries.push(Entry { header, records });
            at = end;
        }
        entries
    }

    /// `is_done`: a run has just ended by itself.
    fn check(&mut self, is_done: bool) -> Broken {
        if self.node.is_none() {
            return Ok(());
        }
        let entries = self.read();
        let log = &self.node.as_ref().unwrap().1;
        if log.durable_end_offset().0 < self.records.last_key_value().map_or(0, |(at, _)| at + 1) {
            return Err("records are lost at the end".to_owned());
        }
        let clean_below =
            self.node.as_ref().unwrap().0.wal.shard().all_logs()[0].state().clean_below;
        self.clean_below = self.clean_below.max(clean_below.0);
        let mut found: BTreeMap<i64, Option<i64>> = BTreeMap::new();
        let mut end = Offset(0);
        for entry in &entries {
            let facts = entry.facts();
            if facts.base_offset < end {
                return Err(format!("a batch at {} behind {end}", facts.base_offset));
            }
            end = facts.next_offset();
            let mut opened = OpenedBatch::default();
            Codec.open(entry, &mut opened);
            for record in &opened.records {
                let offset = facts.base_offset.0 + i64::from(record.offset_delta);
                let bytes = &opened.bytes[record.bytes.0 as usize..];
                let key = record.key.map(|_| bytes[4]);
                let read = Record { key, value: record.has_value.then(|| bytes[6]) };
                if self.records.get(&offset).is_some_and(|known| *known != read) {
                    return Err(format!("{offset} is another record: {read:?}"));
                }
                if found.last_key_value().is_some_and(|(last, _)| *last >= offset) {
                    return Err(format!("{offset} is not behind the one before"));
                }
                found.insert(offset, facts.delete_horizon_ms());
            }
        }
        self.check_records(&found, is_done)?;
        self.check_producers(&entries)
    }

    fn check_records(&mut self, found: &BTreeMap<i64, Option<i64>>, is_done: bool) -> Broken {
        let clean_below = match self.node.as_ref() {
            Some((node, ..)) => node.wal.shard().all_logs()[0].state().clean_below.0,
            None => return Ok(()),
        };
        let mut newest: BTreeMap<u8, i64> = BTreeMap::new();
        let mut newest_clean: BTreeMap<u8, i64> = BTreeMap::new();
        for (offset, record) in &self.records {
            let Some(key) = record.key else { continue };
            newest.insert(key, *offset);
            if *offset < clean_below {
                newest_clean.insert(key, *offset);
            }
        }
        for (offset, record) in self.records.range(self.log_start..) {
            let is_there = found.contains_key(offset);
            let horizon = found.get(offset).copied().flatten();
            let is_newest = record.key.is_some_and(|key| newest.get(&key) == Some(offset));
            let is_tombstone = record.value.is_none();
            if is_newest && !is_tombstone && !is_there {
                return Err(format!("the newest value of its key is gone: {offset} {record:?}"));
            }
            if record.key == Some(SEALED) && !is_there {
                return Err(format!("nobody could read it and it is gone: {offset}"));
            }
            if is_newest && is_tombstone && !is_there {
                match self.horizons.get(offset) {
                    Some(horizon_ms) if *horizon_ms <= self.now_ms => {}
                    horizon => return Err(format!("{offset} went before its time {horizon:?}")),
                }
            }
            if let Some(horizon_ms) = horizon.filter(|_| is_tombstone && *offset < clean_below) {
                let known = *self.horizons.entry(*offset).or_insert(horizon_ms);
                // A batch has one horizon, of its first tombstone that became clean.
                if known != horizon_ms || horizon_ms > self.now_ms + DELETE_RETENTION_MS {
                    return Err(format!("{offset}: the horizon {horizon_ms} was {known}"));
                }
            }
            // A pass that a crash ended has cleaned what no checkpoint calls clean.
            if *offset >= self.clean_below && !is_there && !self.has_crashed {
                return Err(format!("{offset} is gone and was never clean"));
            }
            if !is_done || self.has_sealed || *offset >= clean_below {
                continue;
            }
            let stays = record.key.is_some_and(|key| newest_clean.get(&key) == Some(offset));
            if is_there && !stays {
                return Err(format!("{offset} {record:?} was superseded and is still there"));
            }
            if is_there && is_tombstone && horizon.is_none_or(|ms| ms <= self.now_ms) {
                return Err(format!("the tombstone {offset} outlived its time {horizon:?}"));
            }
        }
        Ok(())
    }

    fn check_producers(&self, entries: &[Entry]) -> Broken {
        for (producer, (base, end)) in &self.producers {
            let is_it = |entry: &&Entry| {
                let facts = entry.facts();
                facts.base_offset.0 == *base
                    && facts.next_offset().0 == *end
                    && facts.producer_id == *producer
            };
            if *end > self.log_start && !entries.iter().any(|entry| is_it(&entry)) {
                return Err(format!("{producer:?} is forgotten: its batch at {base} is gone"));
            }
        }
        Ok(())
    }

    fn crash(&mut self) -> Broken {
        self.node = None;
        self.has_crashed = true;
        for seed in 0..20 {
            let seed = self.random.below(u64::MAX / 2).wrapping_add(seed);
            self.mem.crash(seed);
            if self.random.percent(30) {
                self.mem.crash_at(self.mem.calls() + 1 + self.random.below(60));
            }
            self.open()?;
            if self.node.is_some() && !self.mem.is_off() {
                self.mem.crash_at(u64::MAX);
                return Ok(());
            }
            self.node = None;
        }
        panic!("a start never came to its end");
    }

    /// An error is what was violated; a life that the power ended is followed by another.
    fn live(&mut self, steps: u64, crashes: bool) -> Broken {
        self.open()?;
        for _ in 0..steps {
            let mut is_done = false;
            let choice = self.random.below(100);
            if crashes && self.random.percent(25) {
                self.mem.crash_at(self.mem.calls() + 1 + self.random.below(400));
            }
            let done = match choice {
                0..55 => (0..1 + self.random.below(12)).try_for_each(|_| self.append(false)),
                55..57 => {
                    self.has_sealed = true;
                    self.append(true)
                }
                57..90 => {
                    let before = self.passes();
                    let done = self.compact();
                    is_done = self.passes() > before;
                    done
                }
                90..96 => {
                    self.now_ms += self.random.below(900) as i64;
                    Ok(())
                }
                _ => self.delete_records(),
            };
            self.now_ms += 7;
            match done {
                Ok(()) if !self.mem.is_off() => {
                    self.mem.crash_at(u64::MAX);
                    self.now_ms -= 7;
                    self.check(is_done)?;
                    self.now_ms += 7;
                }
                _ => {
                    self.after_power_loss()?;
                }
            }
        }
        Ok(())
    }

    /// What was appended and not acknowledged may be there or not.
    fn after_power_loss(&mut self) -> Broken {
        let survives = |end: Offset, torn: &Torn| torn.end <= end.0;
        self.crash()?;
        let (_, log, partition, _) = self.node.as_ref().unwrap();
        let end = log.durable_end_offset();
        self.log_start = self.log_start.max(log.log_start_offset().0);
        if let Some(torn) = self.torn.take_if(|torn| survives(end, torn)) {
            if torn.producer.0 >= 0 {
                lock(&partition.producers).insert(torn.producer, Offset(torn.end - 1));
            }
            self.torn = Some(torn);
            self.keep_torn();
        }
        self.torn = None;
        self.check(false)
    }
}

fn histories(seeds: std::ops::Range<u64>, crashes: bool) -> Broken {
    for seed in seeds {
        let steps = [20, 40, 80][seed as usize % 3];
        World::new(seed).live(steps, crashes).map_err(|what| format!("seed {seed}: {what}"))?;
    }
    Ok(())
}

#[test]
fn the_newest_of_each_key_stays_and_tombstones_live_as_long_as_they_must() {
    histories(0..200, false).unwrap();
}

#[test]
fn a_crash_at_any_call_loses_nothing_and_brings_nothing_back() {
    histories(10_000..10_200, true).unwrap();
}

/// A batch of more records than there is room for keys: what its tombstones delete, nobody knows.
#[test]
fn a_tombstone_whose_keys_found_no_room_stays() {
    let mut world = World::new(2); // the smallest map
    world.dedupe_bytes = 0;
    world.open().unwrap();
    for round in 0..8 {
        world.now_ms += 2 * DELETE_RETENTION_MS;
        let Some((node, log, partition, _)) = world.node.as_mut() else { unreachable!() };
        let base = log.log_end_offset();
        // Odd rounds delete what even ones write, with one batch that has too many records.
        let (count, has_value) = if round % 2 == 1 { (500, 0) } else { (1, 1) };
        let record = |delta: i32| {
            let mut record = [7; RECORD_BYTES];
            record[..4].copy_from_slice(&delta.to_be_bytes());
            record[4..6].copy_from_slice(&[round / 2, has_value]);
            record
        };
        let entry = with_records(base, count, (0..count).flat_map(record).collect());
        let mut reservation = node.wal.try_reserve(entry.len() as u64).unwrap().unwrap();
        log.append(EPOCH, vec![entry], &mut reservation).unwrap();
        drop(reservation);
        while log.durable_end_offset() < log.log_end_offset() {
            node.write().unwrap();
            node.spill().unwrap();
            node.steppers.filler.step().unwrap();
        }
        *lock(&partition.high_watermark) = log.durable_end_offset();
        world.compact().unwrap();
    }
    assert!(world.passes() > 0, "something was compacted");
    let kept = world.read();
    let whole = kept.iter().filter(|entry| entry.facts().records_count == 500).count();
    assert_eq!(whole, 4, "each of the large batches is there as it was");
}

/// librdkafka gives up after ten answers in a row that hold no record.
#[test]
fn batches_without_records_are_read_with_what_follows() {
    let mut world = World::new(3);
    world.open().unwrap();
    (0..300).for_each(|_| world.append(false).unwrap());
    world.compact().unwrap();
    let entries = world.read();
    let empty = entries.iter().take_while(|entry| entry.facts().records_count == 0).count();
    assert!(empty > 20, "only {empty} batches at the start hold nothing");
    let Some((node, log, ..)) = world.node.as_mut() else { unreachable!() };
    let read = log.read(log.log_start_offset(), log.log_end_offset(), 1 << 20, true).unwrap();
    let ReadOutcome::Cold(read) = read else { panic!("it is on the disk") };
    let answer = Arc::new(Mutex::new(None));
    let done = Arc::clone(&answer);
    log.read_cold(read, Box::new(move |read| *lock(&done) = Some(read))).unwrap();
    node.steppers.reader.step().unwrap();
    let pieces = lock(&answer).take().unwrap().unwrap();
    assert!(pieces.iter().any(|piece| hold_records(piece)), "the first answer holds a record");
    let bytes: usize = pieces.iter().map(Bytes::len).sum();
    assert!(bytes <= 1 << 20, "no more than was asked for");
}

#[test]
fn a_disk_with_no_room_to_spare_is_not_filled() {
    let mut world = World::new(3);
    world.open().unwrap();
    (0..60).for_each(|_| world.append(false).unwrap());
    let Some((node, ..)) = world.node.as_mut() else { unreachable!() };
    node.spill().unwrap();
    world.mem.set_capacity(u64::MAX - 1);
    let used = u64::MAX - 1 - world.mem.free_bytes(std::path::Path::new("")).unwrap();
    let spare = 2 * small_config().file_bytes;
    world.mem.set_capacity(used + spare);
    world.compact().unwrap();
    assert_eq!(world.passes(), 0, "what is spare is the producers'");
    world.mem.set_capacity(u64::MAX);
    world.compact().unwrap();
    assert!(world.passes() > 0);
    world.check(true).unwrap();
}

/// The index of a compacted segment is lost, and made anew from a log with holes.
fn an_index_is_made_anew() -> Broken {
    let mut world = World::new(3);
    world.open()?;
    for _ in 0..60 {
        world.append(false).map_err(|fatal| fatal.to_string())?;
    }
    world.compact().map_err(|fatal| fatal.to_string())?;
    assert!(world.passes() > 0, "something was compacted");
    world.check(true)?;
    world.node = None;
    let seeks =
        world.mem.files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "seek"));
    for index in seeks.collect::<Vec<_>>() {
        world.mem.remove_file(&index).map_err(|error| error.to_string())?;
    }
    world.mem.kill();
    world.open()?;
    world.check(false)
}

#[test]
fn holes_that_the_checkpoint_tells_of_are_no_damage() {
    an_index_is_made_anew().unwrap();
    let untold = || without(Some(Rule::HolesTold), an_index_is_made_anew);
    let broken = std::panic::catch_unwind(untold);
    assert!(!matches!(broken, Ok(Ok(()))), "the checkpoint need not tell of holes");
}
