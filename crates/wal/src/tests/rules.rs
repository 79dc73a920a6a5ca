//! Each rule is there for a reason: switched off, some history breaks what the log promises.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use tidelog_types::Offset;

use super::{history::run, model::Trouble, support::*};
use crate::{
    checkpoint::{Checkpoint, PartitionEntry},
    env::{FileSystem, mem::MemFileSystem},
    frame::{FrameHeader, FrameKind},
    log::Snapshot,
    recovery::{replay::Replay, scan::Item},
    rules::{Rule, without},
    shard::lock,
    writer::idle_frame,
};

/// Histories tried before a rule counts as not needed.
const SEEDS: u64 = 4000;

/// Rules that some history needs, and the kind of history.
const NEEDED: [(Rule, Trouble); 28] = [
    (Rule::SuccessorSeals, Trouble::None),
    (Rule::ResetFrame, Trouble::None),
    (Rule::CheckpointSynced, Trouble::None),
    (Rule::DurableEndBelowCuts, Trouble::None),
    (Rule::TruncateLowersHighWatermark, Trouble::None),
    (Rule::TruncateDropsSnapshots, Trouble::None),
    (Rule::SpillDurableOnly, Trouble::None),
    (Rule::SpillExcludesCuts, Trouble::None),
    (Rule::EntryCarriedOver, Trouble::None),
    (Rule::CheckpointBeforeCut, Trouble::None),
    (Rule::LogStartFirst, Trouble::None),
    (Rule::Tombstone, Trouble::None),
    (Rule::RecycleAfterCheckpoint, Trouble::None),
    (Rule::RecycleBelowOldestNeeded, Trouble::None),
    (Rule::AckAfterSync, Trouble::None),
    (Rule::FailedSyncEnds, Trouble::None),
    (Rule::CheckpointVouches, Trouble::FlipWal),
    (Rule::CutDiscards, Trouble::None),
    (Rule::DamageIsNotTorn, Trouble::FlipWal),
    (Rule::FreshFile, Trouble::None),
    (Rule::ReplayAboveSpilled, Trouble::None),
    (Rule::DamageCheckpointed, Trouble::FlipWal),
    (Rule::LostHeaderSuspect, Trouble::FlipWal),
    (Rule::LinkClears, Trouble::FlipWal),
    (Rule::RecoveryReadsTheDisk, Trouble::None),
    (Rule::RecoveryCheckpoints, Trouble::None),
    (Rule::SegmentsSynced, Trouble::None),
    (Rule::CheckpointSyncedAgain, Trouble::None),
];

#[test]
fn every_rule_switched_off_breaks_a_history() {
    let only = std::env::var("TIDELOG_RULE").ok();
    let mut unneeded = Vec::new();
    for (rule, trouble) in NEEDED {
        if only.as_ref().is_some_and(|only| *only != format!("{rule:?}")) {
            continue;
        }
        match (0..SEEDS).find_map(|seed| broken_by(rule, seed, trouble)) {
            Some(how) => eprintln!("{rule:?}: {how}"),
            None => unneeded.push(rule),
        }
    }
    assert_eq!(unneeded, [], "no history needs these rules");
}

/// Rules that guard against what no random history meets, each with the smallest case that does.
const DEFENCES: [(Rule, fn() -> bool); 3] = [
    (Rule::ProducersBeforeLogStart, what_producers_wrote_outlives_their_records),
    (Rule::EpochChecked, an_imitated_frame_is_not_believed),
    (Rule::EndBelowStartIsDamage, what_the_checkpoint_proves_is_named_when_it_is_gone),
];

#[test]
fn every_defence_switched_off_lets_its_case_through() {
    for (rule, holds_up) in DEFENCES {
        assert!(holds_up(), "{rule:?} does not do what it is for");
        assert!(!without(Some(rule), holds_up), "{rule:?} is not what holds here");
    }
}

/// A producer sends a batch that contains a frame; then the header of the batch's own frame rots.
fn an_imitated_frame_is_not_believed() -> bool {
    let mem = MemFileSystem::new();
    let fs: Arc<dyn FileSystem> = Arc::new(mem.clone());
    let mut node = Node::open(&fs, small_config()).unwrap();
    let (log, _) = node.log(0);
    let sequence = node.wal.shard().queue().next_sequence;
    // 96 bytes of frame header and 61 of batch header lie before the records: 35 more, and the
    // next byte is where a frame could start.
    let mut records = vec![0; 35];
    let forged = batch(Offset(0), 4, 64, 99);
    let header = FrameHeader {
        base_offset: Offset(0),
        last_offset: Offset(3),
        id: id(0),
        kind: FrameKind::Append,
        payload_bytes: forged.len() as u32,
        ..idle_frame(0x0bad_cafe, sequence + 1, 0)
    };
    records.extend_from_slice(&header.encode(&[&forged.header, &forged.records]));
    records.extend_from_slice(&forged.header);
    records.extend_from_slice(&forged.records);
    let entry = with_records(Offset(0), 1, records);
    let mut reservation = node.wal.try_reserve(entry.len() as u64).unwrap().unwrap();
    log.append(EPOCH, vec![entry], &mut reservation).unwrap();
    node.write().unwrap();
    node.append(&log, 1, 64, 1);
    node.write().unwrap();
    drop((node, log, reservation));
    mem.crash(1);
    // The first group of the first file is recovery's idle frame, the second one is this batch's.
    mem.flip("/data/wal/00000000000000000000.wal", 2 * 4096 + 20, 0).unwrap();
    let node = Node::open(&fs, small_config()).unwrap();
    let found = node.recovered.partitions.first();
    node.recovered.cut.is_none()
        && found.is_some_and(|found| found.suspect && found.log_end_offset == Offset(2))
}

/// All records are deleted; who wrote them is asked for after a crash.
fn what_producers_wrote_outlives_their_records() -> bool {
    let mem = MemFileSystem::new();
    let fs: Arc<dyn FileSystem> = Arc::new(mem.clone());
    let mut node = Node::open(&fs, small_config()).unwrap();
    let (log, observer) = node.log(0);
    node.append(&log, 4, 64, 1);
    node.write().unwrap();
    node.spill().unwrap();
    let producers = Snapshot { tag: Offset(4), bytes: Bytes::from_static(b"producers") };
    *lock(&observer.snapshot) = Some(producers.clone());
    let is_done = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&is_done);
    log.advance_log_start(Offset(4), Box::new(move || done.store(true, Ordering::SeqCst)));
    node.spill().unwrap();
    assert!(is_done.load(Ordering::SeqCst), "the log start is durable");
    drop((node, log));
    mem.crash(1);
    let node = Node::open(&fs, small_config()).unwrap();
    let found = node.recovered.partitions.first().expect("the partition is there");
    assert_eq!((found.log_start_offset, found.log_end_offset), (Offset(4), Offset(4)));
    found.snapshot == Some(producers)
}

/// The newest frames of a partition are gone, and with them the records below its log start.
fn what_the_checkpoint_proves_is_named_when_it_is_gone() -> bool {
    let entry = PartitionEntry {
        recovery_point: Offset(8),
        log_start: Offset(10),
        high_watermark: Offset(12),
        ..PartitionEntry::default()
    };
    let checkpoint = Checkpoint {
        durable_sequence: 5,
        oldest_needed: 3,
        has_lost: false,
        partitions: vec![(id(0), entry)],
    };
    let mut replay = Replay::new(&checkpoint);
    replay.play(vec![Item::Lost { from: 3, to: 5 }]);
    let state = &replay.partitions[&id(0)];
    state.is_suspect && state.log_end == Offset(12) && state.damaged == [Offset(8)..Offset(12)]
}

/// What a history without the rule breaks; a failed assertion of ours counts as well.
fn broken_by(rule: Rule, seed: u64, trouble: Trouble) -> Option<String> {
    without(Some(rule), || run(seed, trouble)).err()
}
