//! Plays what recovery kept into the partitions' state.
//!
//! Architecture invariant: pure.

use std::collections::BTreeMap;

use tidelog_types::{Entry, Offset, TopicIdPartition};

use super::scan::Item;
use crate::{
    checkpoint::{Checkpoint, PartitionEntry},
    frame::{FrameHeader, FrameKind},
    partition::LogState,
    rules::{Rule, holds},
};

/// The partitions while frames are played into them.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    pub(crate) partitions: BTreeMap<TopicIdPartition, LogState>,
    /// Removed partitions, with the last sequence of the removed log.
    pub(crate) tombstones: BTreeMap<TopicIdPartition, u64>,
    /// Sequences below are in every partition's checkpoint entry.
    oldest_needed: u64,
    /// Lost sequences that a partition's next frame has not been seen to reach across.
    unsure: BTreeMap<TopicIdPartition, (u64, u64)>,
    /// All lost sequences, for partitions that are not known yet.
    lost: Option<(u64, u64)>,
    /// Frames were lost in an earlier life, and nobody has said since who was there.
    had_lost: bool,
}

impl Replay {
    pub(crate) fn new(checkpoint: &Checkpoint) -> Replay {
        let mut replay = Replay {
            oldest_needed: checkpoint.oldest_needed,
            had_lost: checkpoint.has_lost,
            ..Replay::default()
        };
        for (id, entry) in &checkpoint.partitions {
            if entry.is_removed {
                replay.tombstones.insert(*id, entry.spilled_through);
            } else {
                replay.partitions.insert(*id, LogState::from_entry(entry.clone()));
            }
        }
        replay
    }

    /// Plays everything that was kept, then judges what no frame could clear.
    pub(crate) fn play(&mut self, kept: Vec<Item>) {
        for item in kept {
            match item {
                Item::Lost { from, to } => self.lose(from, to),
                Item::Whole(header, entry) => self.frame(&header, entry),
                Item::Damaged(header) => self.frame(&header, None),
            }
        }
        for id in std::mem::take(&mut self.unsure).into_keys() {
            if let Some(state) = self.partitions.get_mut(&id) {
                state.is_suspect = true;
            }
        }
        for state in self.partitions.values_mut() {
            finish(state);
        }
    }

    /// Whether frames were lost that may have been of partitions nobody knows of.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost.is_some() || self.had_lost
    }

    /// Any partition that may have had frames there is unsure until its next frame's link.
    fn lose(&mut self, from: u64, to: u64) {
        if to < self.oldest_needed || !holds(Rule::LostHeaderSuspect) {
            return;
        }
        self.lost = Some(self.lost.map_or((from, to), |(first, _)| (first, to)));
        for (id, state) in &self.partitions {
            if state.spilled_through < to {
                let first = self.unsure.get(id).map_or(from, |(first, _)| *first);
                self.unsure.insert(*id, (first, to));
            }
        }
    }

    fn frame(&mut self, header: &FrameHeader, entry: Option<Entry>) {
        if header.kind == FrameKind::Idle || header.sequence < self.oldest_needed {
            return;
        }
        if self.tombstones.get(&header.id).is_some_and(|through| header.sequence <= *through) {
            return;
        }
        if !self.partitions.contains_key(&header.id) {
            self.appear(header.id);
        }
        let Some(state) = self.partitions.get_mut(&header.id) else { return };
        if header.sequence <= state.spilled_through && holds(Rule::ReplayAboveSpilled) {
            state.last_sequence = header.sequence;
            return;
        }
        if let Some((from, to)) = self.unsure.remove(&header.id) {
            let was_lost = (from..=to).contains(&header.previous_sequence);
            state.is_suspect |= was_lost || !holds(Rule::LinkClears);
        }
        state.note_frame(header.sequence);
        match header.kind {
            FrameKind::Append => replay_append(state, header, entry),
            FrameKind::Truncate => {
                state.apply_truncate(header.base_offset, header.sequence);
            }
            FrameKind::Reset => {
                state.apply_reset(header.base_offset, header.sequence);
            }
            FrameKind::Idle => unreachable!("returned above"),
        }
    }

    /// A partition that no checkpoint knows: created since, or come back after its removal.
    fn appear(&mut self, id: TopicIdPartition) {
        let spilled_through = self.tombstones.remove(&id).unwrap_or_default();
        let state = LogState::from_entry(PartitionEntry::fresh(spilled_through));
        if let Some((from, to)) = self.lost.filter(|(_, to)| spilled_through < *to) {
            self.unsure.insert(id, (from, to));
        }
        self.partitions.insert(id, state);
    }
}

fn replay_append(state: &mut LogState, header: &FrameHeader, entry: Option<Entry>) {
    let (base, end) = (header.base_offset, header.last_offset.plus(1));
    if base < state.log_end {
        // Only after a loss: a truncation between the two frames is gone. Which of the two is
        // right, nobody here can say.
        state.is_suspect = true;
        return;
    }
    if base > state.log_end {
        let gap = state.log_end..base;
        state.append_damaged(gap);
    }
    match entry {
        Some(entry) => state.append(entry, header.sequence),
        None => state.append_damaged(base..end),
    }
}

fn finish(state: &mut LogState) {
    // What the checkpoint says was there, was there.
    let proven = state.log_start.max(state.high_watermark);
    if state.log_end < proven && holds(Rule::EndBelowStartIsDamage) {
        let gap = state.log_end..proven;
        state.append_damaged(gap);
    }
    // It is as new as the checkpoint, and older truncations were played over it; the log start was
    // never above it.
    state.high_watermark = state.high_watermark.max(state.log_start).min(state.log_end);
    state.durable_end = state.log_end;
    assert!(!state.has_pending_cut(), "whatever is replayed is durable");
    assert!(
        state.log_start <= state.log_end || !holds(Rule::EndBelowStartIsDamage),
        "a log starts at its end at the latest"
    );
    if !holds(Rule::TruncateDropsSnapshots) {
        return;
    }
    let end: Offset = state.log_end;
    state.snapshots.retain(|snapshot| snapshot.tag <= end);
}
