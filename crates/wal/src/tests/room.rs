//! Disks without room: nothing hangs, nothing is lost, and what is needed is said.

use std::sync::Arc;

use tidelog_types::Offset;

use super::support::*;
use crate::{
    StorageError, WalConfig, WalError,
    env::{FileSystem, mem::MemFileSystem},
    threads::Step,
};

fn machine() -> (MemFileSystem, Arc<dyn FileSystem>) {
    let mem = MemFileSystem::new();
    let fs: Arc<dyn FileSystem> = Arc::new(mem.clone());
    (mem, fs)
}

fn used_bytes(mem: &MemFileSystem) -> u64 {
    let lengths = mem.files().into_iter().map(|path| mem.contents(path).unwrap().len() as u64);
    lengths.sum()
}

fn wal_files(mem: &MemFileSystem) -> usize {
    mem.files().iter().filter(|path| path.extension().is_some_and(|e| e == "wal")).count()
}

fn is_written(node: &Node) -> bool {
    let shard = node.wal.shard();
    shard.durable_sequence() + 1 >= shard.queue().next_sequence
}

/// Appends to partition 1 until the writer waits for a file.
fn fill_every_file(node: &mut Node) {
    let (log, _) = node.log(1);
    for tag in 0.. {
        assert!(tag < 1000, "the files are bounded");
        node.append(&log, 1, 3000, tag);
        node.write().unwrap();
        while node.steppers.filler.step().unwrap() == Step::Worked {}
        if !is_written(node) {
            return;
        }
    }
}

#[test]
fn a_truncation_gets_a_file_although_it_keeps_the_oldest_from_being_recycled() {
    for is_full in [false, true] {
        let (mem, fs) = machine();
        let files_max = 6;
        let config =
            WalConfig { tail_bytes_max: 1 << 20, queue_bytes_max: 1 << 20, ..small_config() };
        let mut node = Node::open(&fs, config).unwrap();
        let (log, _) = node.log(0);
        node.append(&log, 1, 100, 1);
        node.write().unwrap();
        fill_every_file(&mut node);
        assert_eq!(wal_files(&mem), files_max);
        log.truncate(EPOCH, Offset(0)).unwrap();
        if is_full {
            mem.set_capacity(used_bytes(&mem));
            step_all(&mut node);
            assert!(!is_written(&node), "there is no room for a file");
            mem.set_capacity(u64::MAX);
        }
        for _ in 0..5 {
            step_all(&mut node);
        }
        assert!(is_written(&node), "the writer waits for ever, disk full: {is_full}");
        assert!(wal_files(&mem) <= files_max, "the bound holds again");
    }
}

fn step_all(node: &mut Node) {
    node.write().unwrap();
    node.spill().unwrap();
    while node.steppers.filler.step().unwrap() == Step::Worked {}
}

fn config_of(file_bytes: u64) -> WalConfig {
    let first_file_bytes = file_bytes / 2;
    WalConfig { file_bytes, first_file_bytes, wal_bytes_max: 6 * file_bytes, ..small_config() }
}

#[test]
fn a_full_disk_is_no_reason_not_to_start_and_serve_reads() {
    let (mem, fs) = machine();
    let mut node = Node::open(&fs, config_of(256 << 10)).unwrap();
    let (log, _) = node.log(0);
    node.append(&log, 2, 100, 1);
    node.write().unwrap();
    while node.steppers.filler.step().unwrap() == Step::Worked {}
    let written = read_all(&mut node, &log, Offset(0));
    drop((node, log));
    mem.kill();
    mem.set_capacity(used_bytes(&mem));
    for start in 0..3 {
        let mut node = Node::open(&fs, config_of(256 << 10)).expect("started");
        node.steppers.filler.check_room();
        let (log, _) = node.log(0);
        assert_eq!(read_all(&mut node, &log, Offset(0)), written, "start {start}");
        let refused = node.wal.try_reserve(1);
        assert!(matches!(refused, Err(StorageError::DiskFull { .. })), "{refused:?}");
        drop((node, log));
        mem.kill();
    }
    // Not even the room that the files which held nothing gave up.
    mem.set_capacity(0);
    let refused = Node::open(&fs, config_of(256 << 10)).map(|_| ());
    assert!(matches!(refused, Err(WalError::DiskFull { .. })), "{refused:?}");
    mem.kill();
    mem.set_capacity(used_bytes(&mem) + (70 << 10));
    Node::open(&fs, config_of(256 << 10)).expect("a little room is enough");
}

#[test]
fn a_disk_too_small_for_the_files_refuses_appends_from_the_start_and_says_what_it_needs() {
    let (mem, fs) = machine();
    mem.set_capacity(200 << 10);
    let mut node = Node::open(&fs, config_of(256 << 10)).unwrap();
    node.steppers.filler.check_room();
    match node.wal.refusal() {
        Some(StorageError::DiskFull { needed, free, .. }) => {
            assert_eq!(needed, 256 << 10);
            assert!(free < 100 << 10, "{free}");
        }
        other => panic!("{other:?}"),
    }
    mem.set_capacity(u64::MAX);
    while node.steppers.filler.step().unwrap() == Step::Worked {}
    assert_eq!(node.wal.refusal(), None);
}
