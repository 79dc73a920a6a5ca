//! What a start costs: no more disk with each, and no more time for more segments.

use std::{collections::BTreeSet, sync::Arc};

use tidelog_types::Offset;

use super::support::*;
use crate::{
    WalConfig,
    env::{
        FileSystem,
        fault::{Call, Fault, FaultFileSystem},
        mem::MemFileSystem,
    },
    threads::Step,
};

/// Far more files than a few starts need, so that no bound hides what they leave behind.
fn config() -> WalConfig {
    WalConfig { wal_bytes_max: 64 * (24 << 10), first_file_bytes: 16 << 10, ..small_config() }
}

/// Opens what the disk holds and lets every thread do what it wants to.
fn start(fs: &Arc<dyn FileSystem>) -> Node {
    let mut node = Node::open(fs, config()).unwrap();
    let _ = node.log(0);
    node.wal.all_known_opened();
    settle(&mut node);
    node
}

fn settle(node: &mut Node) {
    let mut is_idle = false;
    while !is_idle {
        let steps = [
            node.steppers.writer.step().unwrap(),
            node.steppers.spill.step().unwrap(),
            node.steppers.filler.step().unwrap(),
        ];
        is_idle = steps.iter().all(|step| *step == Step::Idle);
    }
}

fn wal_files(mem: &MemFileSystem) -> usize {
    mem.files().iter().filter(|path| path.extension().is_some_and(|e| e == "wal")).count()
}

#[test]
fn an_idle_log_stays_as_large_as_it_is_however_often_it_is_killed() {
    let mem = MemFileSystem::new();
    let fs: Arc<dyn FileSystem> = Arc::new(mem.clone());
    let mut node = start(&fs);
    let (log, _) = node.log(0);
    let batch = node.append(&log, 2, 900, 1);
    node.write().unwrap();
    drop(log);
    let mut counts = Vec::new();
    for _ in 0..30 {
        drop(node);
        mem.kill();
        node = start(&fs);
        assert_eq!(node.recovered.cut, None, "an idle log has no torn tail");
        counts.push(wal_files(&mem));
    }
    let settled: BTreeSet<usize> = counts[3..].iter().copied().collect();
    assert!(settled.len() == 1 && counts[3] <= 5, "WAL files after each start: {counts:?}");
    let (log, _) = node.log(0);
    let read = read_all(&mut node, &log, Offset::ZERO);
    assert_eq!(read, [&batch.header[..], &batch.records[..]].concat());
}

#[test]
fn a_log_that_is_killed_after_each_batch_keeps_the_files_of_a_few_starts() {
    let mem = MemFileSystem::new();
    let fs: Arc<dyn FileSystem> = Arc::new(mem.clone());
    let mut expected = Vec::new();
    for life in 0..30 {
        let mut node = start(&fs);
        let (log, _) = node.log(0);
        assert_eq!(read_all(&mut node, &log, Offset::ZERO), expected, "life {life}");
        let batch = node.append(&log, 1, 100, life);
        node.write().unwrap();
        expected.extend_from_slice(&batch.header);
        expected.extend_from_slice(&batch.records);
        assert!(wal_files(&mem) <= 6, "{} WAL files in life {life}", wal_files(&mem));
        drop((node, log));
        mem.kill();
    }
}

#[test]
fn a_start_opens_no_segment_but_the_last_and_measures_the_others_afterwards() {
    let mem = MemFileSystem::new();
    let fs: Arc<dyn FileSystem> = Arc::new(mem.clone());
    let mut node = start(&fs);
    let (log, _) = node.log(0);
    for tag in 0..8 {
        node.append(&log, 1, 900, tag);
        node.write().unwrap();
        node.spill().unwrap();
    }
    let bytes = log.size_bytes();
    assert_eq!(bytes, 8 * (61 + 900));
    drop((node, log));
    mem.kill();

    let faults = FaultFileSystem::new(fs);
    faults.inject(Fault::eio(Call::Open).on_path("00000000000000000000.log"));
    let mut node =
        Node::open(&(Arc::new(faults.clone()) as Arc<dyn FileSystem>), config()).unwrap();
    assert_eq!(faults.faults_met(), 0, "the first segment was opened");
    faults.clear();
    let (log, _) = node.log(0);
    settle(&mut node);
    assert_eq!(log.size_bytes(), bytes);
}
