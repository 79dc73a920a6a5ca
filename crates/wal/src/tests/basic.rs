//! One thing at a time, no crash in the middle.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tidelog_types::Offset;

use super::support::*;
use crate::{
    Log, LogSettings, ReadOutcome, WalConfig,
    env::{Caching, FileSystem, Open, mem::MemFileSystem},
    shard::lock,
    threads::Step,
};

fn bytes(entries: &[tidelog_types::Entry]) -> Vec<u8> {
    entries.iter().flat_map(|e| e.header.iter().copied().chain(e.records.iter().copied())).collect()
}

#[test]
fn nobody_is_told_before_the_sync_and_everything_is_there_after_a_power_loss() {
    let mem = MemFileSystem::new();
    let fs: Arc<dyn FileSystem> = Arc::new(mem.clone());
    let mut node = Node::open(&fs, small_config()).unwrap();
    let (log, observer) = node.log(0);
    let written = [node.append(&log, 3, 100, 1), node.append(&log, 2, 3000, 2)];
    assert_eq!(*lock(&observer.told), Offset(0));
    assert_eq!(log.log_end_offset(), Offset(5));
    assert_eq!(log.durable_end_offset(), Offset(0));
    node.write().unwrap();
    assert_eq!(*lock(&observer.told), Offset(5));
    assert_eq!(log.durable_end_offset(), Offset(5));
    assert_eq!(read_all(&mut node, &log, Offset(0)), bytes(&written));
    drop((node, log));
    mem.crash(1);
    let mut node = Node::open(&fs, small_config()).unwrap();
    assert_eq!(node.recovered.partitions.len(), 1);
    assert_eq!(node.recovered.partitions[0].log_end_offset, Offset(5));
    assert_eq!(node.recovered.cut, None);
    let (log, _) = node.log(0);
    assert_eq!(read_all(&mut node, &log, Offset(0)), bytes(&written));
}

#[test]
fn what_is_spilled_is_read_from_segments_and_survives_the_recycling_of_its_wal_file() {
    let mem = MemFileSystem::new();
    let fs: Arc<dyn FileSystem> = Arc::new(mem.clone());
    let mut node = Node::open(&fs, small_config()).unwrap();
    let (log, _) = node.log(0);
    let mut written = Vec::new();
    for tag in 0..100 {
        written.push(node.append(&log, 2, 900, tag));
        node.write().unwrap();
        if tag % 7 == 0 {
            node.spill().unwrap();
        }
        while node.steppers.filler.step().unwrap() == Step::Worked {}
    }
    assert_eq!(read_all(&mut node, &log, Offset(0)), bytes(&written));
    drop((node, log));
    mem.crash(2);
    let mut node = Node::open(&fs, small_config()).unwrap();
    let (log, _) = node.log(0);
    assert_eq!(log.log_end_offset(), Offset(200));
    assert_eq!(read_all(&mut node, &log, Offset(0)), bytes(&written));
}

#[test]
fn a_group_is_counted_with_its_bytes_and_how_long_it_waited() {
    let mem = MemFileSystem::new();
    let fs: Arc<dyn FileSystem> = Arc::new(mem.clone());
    let mut node = Node::open(&fs, small_config()).unwrap();
    let (log, _) = node.log(0);
    let metrics = node.wal.shard().metrics.clone();
    let limits =
        [&metrics.wal_queue_depth_limit, &metrics.wal_tail_limit, &metrics.wal_bytes_limit];
    assert_eq!(limits.map(|limit| limit.get()), [32 << 10, 64 << 10, 6 * (24 << 10)]);
    let queued = Instant::now();
    node.append(&log, 1, 100, 1);
    node.append(&log, 1, 200, 2);
    let waited = Instant::now();
    while waited.elapsed() < Duration::from_millis(20) {
        std::hint::spin_loop();
    }
    node.write().unwrap();
    // Payloads of 161 and 261 bytes behind a header of 96, in steps of 64.
    let (groups, bytes) = (&metrics.wal_group_frames, &metrics.wal_group_bytes);
    assert_eq!((groups.get_sample_count(), groups.get_sample_sum()), (1, 2.0));
    assert_eq!((bytes.get_sample_count(), bytes.get_sample_sum()), (1, 320.0 + 384.0));
    let wait = &metrics.wal_queue_wait;
    assert_eq!(wait.get_sample_count(), 1);
    let bounds = 0.020..=queued.elapsed().as_secs_f64();
    assert!(bounds.contains(&wait.get_sample_sum()), "{} {bounds:?}", wait.get_sample_sum());
    log.read(Offset(0), Offset(2), 1000, true).unwrap();
    assert_eq!((metrics.tail_hits.get(), metrics.tail_misses.get()), (1, 0));
}

#[test]
fn who_reads_on_finds_the_next_batches_read_ahead_and_memory_is_given_back() {
    let mem = MemFileSystem::new();
    let fs: Arc<dyn FileSystem> = Arc::new(mem.clone());
    let config = WalConfig {
        file_bytes: 1 << 20,
        first_file_bytes: 1 << 20,
        wal_bytes_max: 4 << 20,
        tail_bytes_max: 1 << 20,
        queue_bytes_max: 1 << 20,
        index_interval_bytes: 4096,
        ..small_config()
    };
    let mut node = Node::open(&fs, config).unwrap();
    let (log, _) = node.log(0);
    node.wal
        .update_settings(id(0), LogSettings { segment_bytes: 64 << 20, ..LogSettings::default() });
    let mut written = Vec::new();
    for tag in 0..40 {
        written.push(node.append(&log, 2, 100_000, tag));
        node.write().unwrap();
        node.spill().unwrap();
        while node.steppers.filler.step().unwrap() == Step::Worked {}
    }
    let (idle, ahead) = (Step::Idle, Step::Worked);
    for (from, then, reads_ahead) in
        [(0, idle, 0), (6, ahead, 0), (12, ahead, 1), (18, ahead, 2), (6, idle, 2), (12, ahead, 2)]
    {
        let found = read_cold(&mut node, &log, Offset(from), 400_000);
        let first = from as usize / 2;
        assert!(found == bytes(&written[first..first + 3]), "from {from}");
        assert_eq!(node.steppers.reader.step().unwrap(), then, "from {from}");
        assert_eq!(node.wal.shard().metrics.cold_reads_ahead.get(), reads_ahead, "from {from}");
    }
    let metrics = node.wal.shard().metrics.clone();
    let three = bytes(&written[..3]).len() as u64;
    assert_eq!((metrics.tail_hits.get(), metrics.tail_misses.get()), (0, 6));
    assert_eq!((metrics.cold_reads.get(), metrics.cold_read_bytes.get()), (6, 6 * three));
    assert_eq!(metrics.cold_read_duration.get_sample_count(), 6);
    assert!(metrics.read_ahead_bytes.get() >= 4 * three, "four reads that went on");
    for _ in 0..10 {
        assert_eq!(node.steppers.reader.step().unwrap(), idle);
    }
    read_cold(&mut node, &log, Offset(18), 400_000);
    assert_eq!(node.steppers.reader.step().unwrap(), idle, "streams are forgotten after a while");
    assert_eq!(node.wal.shard().metrics.cold_reads_ahead.get(), 2);
}

/// What the reader thread gives from `from` on.
fn read_cold(node: &mut Node, log: &Log, from: Offset, max_bytes: usize) -> Vec<u8> {
    let wanted = log.read(from, log.log_end_offset(), max_bytes, true).unwrap();
    let ReadOutcome::Cold(wanted) = wanted else { panic!("{from:?} is in memory") };
    let answer = Arc::new(Mutex::new(None));
    let done = Arc::clone(&answer);
    log.read_cold(wanted, Box::new(move |read| *lock(&done) = Some(read))).unwrap();
    assert_eq!(node.steppers.reader.step().unwrap(), Step::Worked);
    lock(&answer).take().unwrap().unwrap().concat()
}

#[test]
fn a_spare_file_that_was_cut_short_is_not_written_to() {
    let mem = MemFileSystem::new();
    let fs: Arc<dyn FileSystem> = Arc::new(mem.clone());
    let mut node = Node::open(&fs, small_config()).unwrap();
    while node.steppers.filler.step().unwrap() == Step::Worked {}
    drop(node);
    mem.kill();
    let spare = mem.files().into_iter().find(|path| path.ends_with("00000000000000000001.wal"));
    for kept in [4096, 4097, 8191] {
        let mem = mem.fork();
        let fs: Arc<dyn FileSystem> = Arc::new(mem.clone());
        let path = spare.clone().expect("the filler made a spare file");
        let file = mem.open(&path, Open::Write, Caching::Buffered).unwrap();
        file.set_len(kept).unwrap();
        file.sync().unwrap();
        let mut node = Node::open(&fs, small_config()).unwrap();
        let (log, observer) = node.log(0);
        node.append(&log, 1, 5000, 1);
        node.write().unwrap();
        assert_eq!(*lock(&observer.told), Offset(1), "{kept} bytes kept");
    }
}
