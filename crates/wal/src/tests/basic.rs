//! One thing at a time, no crash in the middle.

use std::sync::Arc;

use tidelog_types::Offset;

use super::support::*;
use crate::{
    env::{FileSystem, mem::MemFileSystem},
    shard::lock,
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
        while node.steppers.filler.step().unwrap() == crate::threads::Step::Worked {}
    }
    assert_eq!(read_all(&mut node, &log, Offset(0)), bytes(&written));
    drop((node, log));
    mem.crash(2);
    let mut node = Node::open(&fs, small_config()).unwrap();
    let (log, _) = node.log(0);
    assert_eq!(log.log_end_offset(), Offset(200));
    assert_eq!(read_all(&mut node, &log, Offset(0)), bytes(&written));
}
