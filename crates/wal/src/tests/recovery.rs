//! What recovery does besides keeping the log: bytes kept aside, damage passed over.

use std::sync::Arc;

use tidelog_types::Offset;

use super::support::*;
use crate::{
    Fatal, Snapshot, WalError,
    env::{
        FileSystem,
        fault::{Call, Fault, FaultFileSystem},
        mem::MemFileSystem,
    },
    shard::lock,
    threads::Step,
};

const WAL_FILE: &str = "/data/wal/00000000000000000000.wal";
/// Recovery's idle frame is the first group, and each append another one.
const SECOND_APPEND: usize = 3 * 4096;
const CUT: &str = "/data/wal/cut-00000000000000000003.bytes";

/// Two groups, the last of which has a flipped bit and nobody who vouches for it.
fn torn() -> MemFileSystem {
    let mem = MemFileSystem::new();
    let fs: Arc<dyn FileSystem> = Arc::new(mem.clone());
    let mut node = Node::open(&fs, small_config()).unwrap();
    let (log, _) = node.log(0);
    for tag in 1..3 {
        node.append(&log, 1, 300, tag);
        node.write().unwrap();
    }
    drop((node, log));
    mem.crash(1);
    mem.flip(WAL_FILE, SECOND_APPEND as u64 + 200, 0).unwrap();
    mem
}

#[test]
fn what_is_cut_is_kept_aside_byte_for_byte() {
    let mem = torn();
    let before = mem.contents(WAL_FILE).unwrap();
    let fs: Arc<dyn FileSystem> = Arc::new(mem.clone());
    let node = Node::open(&fs, small_config()).unwrap();
    assert_eq!(node.recovered.cut.as_ref().map(|cut| cut.sequences.clone()), Some(3..=3));
    let kept = mem.contents(CUT).unwrap();
    let cut = &before[SECOND_APPEND..];
    assert_eq!(cut[..kept.len()], kept);
    assert!(cut[kept.len()..].iter().all(|byte| *byte == 0));
    assert!(kept.len() > 300);
    mem.crash(2);
    assert_eq!(mem.contents(CUT).unwrap(), kept, "a power loss takes nothing of it");
}

#[test]
fn of_many_cuts_the_newest_are_kept() {
    let mem = MemFileSystem::new();
    let fs: Arc<dyn FileSystem> = Arc::new(mem.clone());
    for life in 0..7 {
        let mut node = Node::open(&fs, small_config()).unwrap();
        let (log, _) = node.log(0);
        node.append(&log, 1, 300, life);
        node.write().unwrap();
        let files = node.wal.shard().pool.live_files();
        let path = files.last().unwrap().path.clone();
        drop((node, log));
        mem.kill();
        mem.flip(path, 2 * 4096 + 200, 0).unwrap();
    }
    Node::open(&fs, small_config()).unwrap();
    let is_cut = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "bytes");
    let kept = mem.files().into_iter().filter(is_cut).collect::<Vec<_>>();
    assert_eq!(kept.len(), 4, "{kept:?}");
    assert!(!kept.contains(&CUT.trim_start_matches('/').into()), "the oldest went: {kept:?}");
}

#[test]
fn only_a_full_disk_excuses_bytes_that_are_not_kept() {
    let opened = |fault: Fault| {
        let faults = FaultFileSystem::new(Arc::new(torn()));
        faults.inject(fault.on_path("cut-"));
        let fs: Arc<dyn FileSystem> = Arc::new(faults);
        Node::open(&fs, small_config()).map(|_| ())
    };
    for excused in [Fault::enospc(Call::Write), Fault::emfile(Call::Create)] {
        opened(excused).unwrap();
    }
    for fatal in [Fault::eio(Call::Sync), Fault::enospc(Call::Sync), Fault::eio(Call::Write)] {
        let refused = opened(fatal);
        assert!(matches!(refused, Err(WalError::Fatal(Fatal { .. }))), "{refused:?}");
    }
}

#[test]
fn headers_behind_a_damaged_batch_are_read() {
    let mem = MemFileSystem::new();
    let fs: Arc<dyn FileSystem> = Arc::new(mem.clone());
    let mut node = Node::open(&fs, small_config()).unwrap();
    let (log, _) = node.log(0);
    for tag in 0..6 {
        node.append(&log, 1, 400, tag);
    }
    node.write().unwrap();
    node.spill().unwrap();
    drop((node, log));
    mem.crash(1);
    let segment = format!("/data/topics/{}/0/{:020}.log", id(0).topic_id, 0);
    mem.flip(segment, 461 + 200, 0).unwrap();
    let node = Node::open(&fs, small_config()).unwrap();
    let (log, _) = node.log(0);
    let found = log.headers_from(Offset(0)).expect("damage leaves a gap").headers;
    let offsets: Vec<i64> = found.iter().map(|header| header.base_offset.0).collect();
    assert_eq!(offsets, [0, 2, 3, 4, 5]);
}

/// With many partitions a stop may not wait for the disk once for each.
#[test]
fn a_stop_with_many_partitions_syncs_few_times_and_keeps_their_snapshots() {
    const PARTITIONS: i32 = 40;
    let mem = MemFileSystem::new();
    let faults = FaultFileSystem::new(Arc::new(mem.clone()));
    let fs: Arc<dyn FileSystem> = Arc::new(faults.clone());
    let mut node = Node::open(&fs, small_config()).unwrap();
    while node.steppers.filler.step().unwrap() == Step::Worked {}
    let opened: Vec<_> = (0..PARTITIONS).map(|partition| node.log(partition)).collect();
    opened.iter().for_each(|(log, _)| drop(node.append(log, 1, 100, 1)));
    node.write().unwrap();
    node.spill().unwrap();
    for (log, observer) in &opened {
        // There is something to checkpoint, and nothing to write to segments.
        node.append(log, 1, 100, 2);
        log.truncate(EPOCH, Offset(1)).unwrap();
        let snapshot = Snapshot { tag: Offset(1), bytes: "state".into() };
        *lock(&observer.snapshot) = Some(snapshot);
    }
    let syncs = || faults.calls(Call::Sync) + faults.calls(Call::SyncDir);
    let before = syncs();
    let shard = Arc::clone(node.wal.shard());
    shard.close();
    while node.steppers.writer.step().unwrap() != Step::Done {}
    shard.set_writer_done();
    while node.steppers.spill.step().unwrap() != Step::Done {}
    assert!(syncs() - before < 20, "{} syncs", syncs() - before);
    drop((node, shard, opened));
    mem.crash(3);
    let node = Node::open(&fs, small_config()).unwrap();
    let found = node.recovered.partitions.iter().filter(|found| found.snapshot.is_some());
    assert_eq!(found.count(), PARTITIONS as usize);
}
