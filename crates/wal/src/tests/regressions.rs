//! What went wrong once, each with the smallest history that shows it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
        mpsc,
    },
    thread,
};

use tidelog_types::{BatchHeader, Entry, Offset};

use super::support::*;
use crate::{
    ColdRead, ColdReply, Log, LogSettings, ReadError, Wal, WalConfig, WalError,
    checksum::crc32c,
    env::{
        FileSystem,
        fault::{Call, Effect, Fault, FaultFileSystem},
        mem::MemFileSystem,
    },
    inspect::verify,
    threads::Step,
};

/// Steps all threads until none has anything to do, or long enough.
fn settle(node: &mut Node) {
    for _ in 0..1000 {
        let stepped = [
            node.steppers.writer.step().unwrap(),
            node.steppers.spill.step().unwrap(),
            node.steppers.filler.step().unwrap(),
        ];
        if stepped.iter().all(|step| *step == Step::Idle) {
            return;
        }
    }
}

/// The disk that `wal/` is on is not mounted: an empty directory is in its place.
#[test]
fn segments_without_a_checkpoint_stay_and_refuse_the_start() {
    let mem = MemFileSystem::new();
    let fs: Arc<dyn FileSystem> = Arc::new(mem.clone());
    let mut node = Node::open(&fs, small_config()).unwrap();
    let (log, _) = node.log(0);
    node.append(&log, 2, 900, 1);
    settle(&mut node);
    node.spill().unwrap();
    drop((node, log));
    for path in fs.list(Path::new("/data/wal")).unwrap() {
        fs.remove_file(&path).unwrap();
    }
    let segments = |mem: &MemFileSystem| {
        mem.files().iter().filter(|path| path.to_string_lossy().contains("topics")).count()
    };
    let before = segments(&mem);
    assert!(before > 0, "the batch was spilled");
    let refused = Node::open(&fs, small_config()).map(|node| node.recovered);
    assert!(matches!(refused, Err(WalError::Corrupt { .. })), "{refused:?}");
    assert_eq!(segments(&mem), before);
}

/// A start with larger WAL files finds smaller ones ready, as many as are kept ready.
#[test]
fn a_batch_that_fits_no_file_that_is_ready_gets_one_made() {
    let mem = MemFileSystem::new();
    let fs: Arc<dyn FileSystem> = Arc::new(mem.clone());
    let mut node = Node::open(&fs, small_config()).unwrap();
    let (log, _) = node.log(0);
    for tag in 0..60 {
        node.append(&log, 2, 3000, tag);
        settle(&mut node);
    }
    node.spill().unwrap();
    drop((node, log));
    let larger = WalConfig {
        file_bytes: 64 << 10,
        wal_bytes_max: 4 * (64 << 10),
        queue_bytes_max: 64 << 10,
        ..small_config()
    };
    let mut node = Node::open(&fs, larger).unwrap();
    let (log, _) = node.log(0);
    node.append(&log, 2, 40 << 10, 1);
    settle(&mut node);
    assert_eq!(log.durable_end_offset(), log.log_end_offset());
}

/// All files are in use, the oldest one by a partition whose truncation waits for the next.
#[test]
fn a_truncation_that_waits_for_a_file_does_not_keep_it_from_being_freed() {
    let fs: Arc<dyn FileSystem> = Arc::new(MemFileSystem::new());
    let config = WalConfig {
        wal_bytes_max: 4 * (24 << 10),
        queue_bytes_max: 1 << 20,
        tail_bytes_max: 1 << 20,
        ..small_config()
    };
    let mut node = Node::open(&fs, config).unwrap();
    let (first, second) = (node.log(0).0, node.log(1).0);
    node.append(&first, 2, 3000, 0);
    for tag in 0..60 {
        node.append(&second, 2, 3000, tag);
        node.write().unwrap();
        while node.steppers.filler.step().unwrap() == Step::Worked {}
    }
    assert!(second.durable_end_offset() < second.log_end_offset(), "the files are in use");
    first.truncate(EPOCH, Offset(0)).unwrap();
    settle(&mut node);
    assert_eq!(second.durable_end_offset(), second.log_end_offset());
    assert_eq!(first.log_end_offset(), Offset(0));
}

#[test]
fn what_is_missing_at_the_front_is_no_whole_log() {
    let mem = MemFileSystem::new();
    let fs: Arc<dyn FileSystem> = Arc::new(mem.clone());
    let mut node = Node::open(&fs, small_config()).unwrap();
    let (log, _) = node.log(0);
    for tag in 0..6 {
        node.append(&log, 2, 900, tag);
    }
    settle(&mut node);
    node.spill().unwrap();
    for tag in 0..12 {
        node.append(&log, 2, 3000, tag);
        node.write().unwrap();
        while node.steppers.filler.step().unwrap() == Step::Worked {}
    }
    drop((node, log));
    let damage = |mem: &MemFileSystem| {
        let fs: Arc<dyn FileSystem> = Arc::new(mem.clone());
        verify(&fs, Path::new("/data")).unwrap().damage.len()
    };
    assert_eq!(damage(&mem), 0);
    let first = |name: &str| {
        let files = mem.files();
        let found = files.iter().filter(|path| path.to_string_lossy().ends_with(name)).min();
        found.unwrap().clone()
    };
    for name in [".log", ".wal"] {
        let mem = mem.fork();
        mem.remove_file(&first(name)).unwrap();
        assert!(damage(&mem) > 0, "{name}");
    }
}

/// A signal may interrupt any call of a file system in user space, or across a network.
#[test]
fn an_interrupted_call_is_made_again() {
    let faults = FaultFileSystem::new(Arc::new(MemFileSystem::new()));
    let fs: Arc<dyn FileSystem> = Arc::new(faults.clone());
    let mut node = Node::open(&fs, small_config()).unwrap();
    let (log, _) = node.log(0);
    let entry = node.append(&log, 2, 900, 1);
    faults.inject(Fault::every(Call::Write, Effect::Error(libc::EINTR)).times(1));
    node.write().unwrap();
    assert_eq!((faults.faults_met(), log.durable_end_offset()), (1, Offset(2)));
    drop((node, log));
    faults.inject(Fault::every(Call::Read, Effect::Error(libc::EINTR)).times(3));
    let mut node = Node::open(&fs, small_config()).unwrap();
    let (log, _) = node.log(0);
    assert_eq!(faults.faults_met(), 4);
    assert_eq!(read_all(&mut node, &log, Offset(0)), [&entry.header[..], &entry.records].concat());
}

/// A setting of decimal megabytes is no whole number of blocks.
#[test]
fn files_of_any_size_are_filled_to_the_last_block() {
    let fs: Arc<dyn FileSystem> = Arc::new(MemFileSystem::new());
    let config = WalConfig { file_bytes: 25_000, first_file_bytes: 25_000, ..small_config() };
    let mut node = Node::open(&fs, config).unwrap();
    let (log, _) = node.log(0);
    for tag in 0..60 {
        node.append(&log, 1, 100 + 64 * tag as usize, tag);
        settle(&mut node);
    }
    assert_eq!(log.durable_end_offset(), Offset(60));
    let entry = batch(log.log_end_offset(), 1, 25_000 - 4096 - 61 - 96, 1);
    let mut reservation = node.wal.try_reserve(entry.len() as u64).unwrap().unwrap();
    let refused = log.append(EPOCH, vec![entry], &mut reservation);
    assert!(matches!(refused, Err(crate::StorageError::TooLarge { .. })), "{refused:?}");
}

/// A batch whose timestamp is its offset.
fn dated(offset: Offset) -> Entry {
    let entry = batch(offset, 1, 200, 1);
    let mut facts = BatchHeader { max_timestamp: offset.0, ..entry.facts() };
    facts.crc = crc32c(&[&facts.encode()[21..], &entry.records]);
    Entry { header: facts.encode(), ..entry }
}

/// Batches move from memory to segments while they are looked for.
#[test]
fn a_search_finds_what_is_spilled_while_it_runs() {
    let config = WalConfig { tail_bytes_max: 4 << 10, ..small_config() };
    let fs: Arc<dyn FileSystem> = Arc::new(MemFileSystem::new());
    let (wal, _) = Wal::open(config, fs, metrics()).unwrap();
    let settings = LogSettings { segment_bytes: 1 << 20, ..LogSettings::default() };
    let log = wal.open_log(id(0), settings, Arc::new(Observer::default())).unwrap();
    let newest = Arc::new(AtomicI64::new(-1));
    let (theirs, told) = (log.clone(), Arc::clone(&newest));
    let appender = thread::spawn({
        let wal = wal.clone();
        move || {
            for offset in 0..3000 {
                let entry = dated(Offset(offset));
                let reservation = loop {
                    match wal.try_reserve(entry.memory_bytes()).unwrap() {
                        Some(reservation) => break reservation,
                        None => wal.shard().want_checkpoint(),
                    }
                };
                theirs.append(EPOCH, vec![entry], &mut { reservation }).unwrap();
                told.store(offset, Ordering::Release);
            }
        }
    });
    while !appender.is_finished() {
        let timestamp = newest.load(Ordering::Acquire);
        let found = search(&log, timestamp.max(0));
        if timestamp >= 0 {
            assert_eq!(found, Some(Offset(timestamp)));
        }
    }
    appender.join().unwrap();
    wal.flush_and_close().unwrap();
}

/// The log start rises at once, and what it passed is in memory still.
#[test]
fn a_search_finds_nothing_below_the_log_start() {
    let fs: Arc<dyn FileSystem> = Arc::new(MemFileSystem::new());
    let (wal, _) = Wal::open(small_config(), fs, metrics()).unwrap();
    let observer = Arc::new(Observer::default());
    let log = wal.open_log(id(0), LogSettings::default(), observer).unwrap();
    let mut reservation = wal.try_reserve(1000).unwrap().unwrap();
    log.append(EPOCH, (0..3).map(|at| dated(Offset(at))).collect(), &mut reservation).unwrap();
    while log.durable_end_offset() < Offset(3) {
        thread::yield_now();
    }
    let (sender, durable) = mpsc::sync_channel(1);
    log.advance_log_start(Offset(2), Box::new(move || sender.send(()).unwrap()));
    assert_eq!(search(&log, 0), Some(Offset(2)));
    durable.recv().unwrap();
    assert_eq!(search(&log, 0), Some(Offset(2)));
    assert_eq!(search_from(&log, 0, Offset(3)), None, "nor below where it is to begin");
    wal.flush_and_close().unwrap();
}

/// Asked for something, and went.
struct Gone;

impl<T> ColdReply<T> for Gone {
    fn is_abandoned(&self) -> bool {
        true
    }

    fn done(self: Box<Self>, _: Result<T, ReadError>) {
        panic!("nobody waits for this");
    }
}

#[test]
fn nothing_is_read_or_searched_for_whoever_has_gone() {
    let fs: Arc<dyn FileSystem> = Arc::new(MemFileSystem::new());
    let mut node = Node::open(&fs, small_config()).unwrap();
    let (log, _) = node.log(0);
    node.append(&log, 1, 100, 1);
    node.write().unwrap();
    let read = ColdRead { from: Offset(0), upper: Offset(1), max_bytes: 100, at_least_one: true };
    log.read_cold(read, Box::new(Gone)).unwrap();
    log.find_by_timestamp(0, Offset(0), Offset(1), Box::new(Gone));
    log.find_max_timestamp(Offset(0), Offset(1), Box::new(Gone));
    for _ in 0..3 {
        assert_eq!(node.steppers.reader.step().unwrap(), Step::Worked);
    }
    assert_eq!(node.steppers.reader.step().unwrap(), Step::Idle);
}

fn search(log: &Log, timestamp_ms: i64) -> Option<Offset> {
    search_from(log, timestamp_ms, Offset::ZERO)
}

fn search_from(log: &Log, timestamp_ms: i64, from: Offset) -> Option<Offset> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let done = Box::new(move |found| sender.send(found).unwrap());
    log.find_by_timestamp(timestamp_ms, from, log.log_end_offset(), done);
    receiver.recv().unwrap().unwrap().map(|found| found.entry.facts().base_offset)
}
