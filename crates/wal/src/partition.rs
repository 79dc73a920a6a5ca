//! What is known of one partition's log, in memory.
//!
//! Architecture invariant: pure. It is told what was enqueued, what became durable and what was
//! spilled, and says what follows; it writes nothing and wakes nobody. The same operations run
//! live and at replay.

use std::{collections::VecDeque, ops::Range};

use tidelog_types::{Entry, Offset};

use crate::{
    cache::{Tail, TailEntry},
    checkpoint::{PartitionEntry, SnapshotName},
    rules::{Rule, holds},
};

/// A truncation or reset that is enqueued and not durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PendingCut {
    sequence: u64,
    offset: Offset,
    is_reset: bool,
}

/// Segments hold what the log does not: they must be shortened before the recovery point rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileCut {
    /// The frame that must be durable and checkpointed before the files change.
    pub(crate) sequence: u64,
    /// Nothing at or above it stays.
    pub(crate) to: Offset,
    /// Nothing stays at all: the log goes on at `to`.
    pub(crate) all: bool,
}

/// One partition's log.
#[derive(Debug, Default)]
pub(crate) struct LogState {
    pub(crate) tail: Tail,
    pub(crate) log_start: Offset,
    pub(crate) log_end: Offset,
    pub(crate) durable_end: Offset,
    pub(crate) high_watermark: Offset,
    /// Segments hold everything below that the log holds.
    pub(crate) spilled_end: Offset,
    /// Every frame up to this sequence is in segments and the checkpoint.
    pub(crate) spilled_through: u64,
    /// First frame above what the durable checkpoint says, or a sequence below it.
    pub(crate) oldest_needed: Option<u64>,
    /// First frame since the last entry was made.
    noted: Option<u64>,
    /// Newest frame.
    pub(crate) last_sequence: u64,
    pending_cuts: VecDeque<PendingCut>,
    pub(crate) file_cut: Option<FileCut>,
    /// Counts truncations and resets, so that whoever looked before one notices.
    pub(crate) cuts: u64,
    /// Snapshots on disk that are valid, oldest first.
    pub(crate) snapshots: Vec<SnapshotName>,
    /// Where the last snapshot was taken, in bytes spilled since.
    pub(crate) bytes_since_snapshot: u64,
    pub(crate) damaged: Vec<Range<Offset>>,
    pub(crate) is_suspect: bool,
    /// As [`PartitionEntry::holes_below`].
    pub(crate) holes_below: Offset,
    /// As [`PartitionEntry::clean_below`].
    pub(crate) clean_below: Offset,
    /// How far the checkpoint may raise the log start: below, nothing is read back, so that a
    /// snapshot has to hold what producers wrote there.
    vouched_start: Offset,
    /// What the durable checkpoint says.
    pub(crate) entry: PartitionEntry,
}

impl LogState {
    /// What a checkpoint entry says, before anything is replayed.
    pub(crate) fn from_entry(entry: PartitionEntry) -> LogState {
        LogState {
            log_start: entry.log_start,
            vouched_start: entry.log_start,
            log_end: entry.recovery_point,
            durable_end: entry.recovery_point,
            high_watermark: entry.high_watermark,
            spilled_end: entry.recovery_point,
            spilled_through: entry.spilled_through,
            snapshots: entry.snapshots.clone(),
            damaged: entry.damaged.clone(),
            is_suspect: entry.is_suspect,
            holes_below: entry.holes_below,
            clean_below: entry.clean_below,
            entry,
            ..LogState::default()
        }
    }

    /// Notes that a frame of this partition gets this sequence; returns the one before.
    pub(crate) fn note_frame(&mut self, sequence: u64) -> u64 {
        assert!(self.last_sequence < sequence, "sequences rise");
        self.oldest_needed.get_or_insert(sequence);
        self.noted.get_or_insert(sequence);
        std::mem::replace(&mut self.last_sequence, sequence)
    }

    /// A batch was enqueued, or found at replay.
    pub(crate) fn append(&mut self, entry: Entry, sequence: u64) {
        let entry = TailEntry::new(entry, sequence);
        assert!(entry.base >= self.log_end, "a batch lies behind the end");
        self.log_end = entry.last.plus(1);
        self.tail.push(entry);
    }

    /// A batch was lost; its place is known.
    pub(crate) fn append_damaged(&mut self, range: Range<Offset>) {
        self.log_end = range.end;
        self.damage(range);
    }

    pub(crate) fn damage(&mut self, range: Range<Offset>) {
        assert!(range.start < range.end, "a damaged range holds something");
        self.damaged.push(range);
        self.damaged.sort_by_key(|range| range.start);
        // Disjoint and apart, so that reads and the checkpoint see each offset once.
        self.damaged.dedup_by(|next, before| {
            let touches = next.start <= before.end;
            if touches {
                before.end = before.end.max(next.end);
            }
            touches
        });
    }

    /// A truncation to `to` was enqueued; returns the bytes that left memory.
    pub(crate) fn truncate(&mut self, to: Offset, sequence: u64) -> u64 {
        assert!(self.log_start <= to && to < self.log_end, "a truncation lies in the log");
        self.cuts += 1;
        self.pending_cuts.push_back(PendingCut { sequence, offset: to, is_reset: false });
        if holds(Rule::DurableEndBelowCuts) {
            self.durable_end = self.durable_end.min(to);
        }
        self.apply_truncate(to, sequence)
    }

    /// What a truncation does, live and at replay.
    pub(crate) fn apply_truncate(&mut self, to: Offset, sequence: u64) -> u64 {
        let (bytes, inside) = self.tail.truncate(to);
        self.log_end = self.log_end.min(to);
        if let Some(base) = inside {
            // Truncations go to batch boundaries: the batch that was here then was lost.
            self.is_suspect = true;
            self.damage(base..to);
        }
        if holds(Rule::TruncateLowersHighWatermark) {
            self.high_watermark = self.high_watermark.min(to);
        }
        if holds(Rule::TruncateDropsSnapshots) {
            self.snapshots.retain(|snapshot| snapshot.tag <= to);
        }
        for range in &mut self.damaged {
            range.end = range.end.min(to);
        }
        self.damaged.retain(|range| range.start < range.end);
        self.holes_below = self.holes_below.min(to);
        self.clean_below = self.clean_below.min(to);
        if to < self.spilled_end {
            self.spilled_end = to;
            let before = self.file_cut.take();
            self.file_cut = Some(FileCut {
                sequence,
                to: before.map_or(to, |cut| cut.to.min(to)),
                all: before.is_some_and(|cut| cut.all),
            });
        }
        bytes
    }

    /// A reset to `start` was enqueued; returns the bytes that left memory.
    pub(crate) fn reset(&mut self, start: Offset, sequence: u64) -> u64 {
        self.cuts += 1;
        self.pending_cuts.push_back(PendingCut { sequence, offset: start, is_reset: true });
        if holds(Rule::DurableEndBelowCuts) {
            self.durable_end = self.durable_end.min(start);
        }
        self.apply_reset(start, sequence)
    }

    /// What a reset does, live and at replay.
    pub(crate) fn apply_reset(&mut self, start: Offset, sequence: u64) -> u64 {
        let bytes = self.tail.clear();
        self.log_start = start;
        self.vouched_start = start;
        self.log_end = start;
        self.spilled_end = start;
        self.high_watermark = start;
        self.snapshots.clear();
        self.damaged.clear();
        self.holes_below = Offset::ZERO;
        self.clean_below = Offset::ZERO;
        self.is_suspect = false;
        self.file_cut = Some(FileCut { sequence, to: start, all: true });
        bytes
    }

    /// A batch's frame is durable. The published end rises, but never above a cut that is
    /// enqueued behind it and not durable: what lies above may be somebody else's by now.
    pub(crate) fn on_append_durable(&mut self, sequence: u64, last: Offset) -> bool {
        let mut end = last.plus(1);
        if holds(Rule::DurableEndBelowCuts) {
            let later = self.pending_cuts.iter().filter(|cut| cut.sequence > sequence);
            end = later.fold(end, |end, cut| end.min(cut.offset));
        }
        let rises = end > self.durable_end;
        if rises {
            self.durable_end = end;
        }
        assert!(
            self.durable_end <= self.log_end || !holds(Rule::DurableEndBelowCuts),
            "nothing is durable that is not in the log"
        );
        rises
    }

    /// A cut's frame is durable.
    pub(crate) fn on_cut_durable(&mut self, sequence: u64) -> bool {
        let Some(cut) = self.pending_cuts.pop_front() else { return false };
        assert!(cut.sequence == sequence, "cuts become durable in the order of the queue");
        if !cut.is_reset {
            return false;
        }
        let later = self.pending_cuts.iter().map(|cut| cut.offset);
        let end = later.fold(cut.offset.min(self.log_end), Offset::min);
        let rises = end > self.durable_end;
        self.durable_end = self.durable_end.max(end);
        rises
    }

    /// Whether a cut is enqueued and not durable.
    pub(crate) fn has_pending_cut(&self) -> bool {
        !self.pending_cuts.is_empty()
    }

    /// The damaged range that holds `offset`.
    pub(crate) fn damage_at(&self, offset: Offset) -> Option<Range<Offset>> {
        self.damaged.iter().find(|range| range.contains(&offset)).cloned()
    }

    /// Where the first damaged range above `offset` starts.
    pub(crate) fn damage_above(&self, offset: Offset) -> Option<Offset> {
        self.damaged.iter().map(|range| range.start).find(|start| *start > offset)
    }

    /// What of the tail is durable and may be spilled, and how far the segments reach afterwards:
    /// past damaged ranges too, which the checkpoint records.
    pub(crate) fn spillable(&self, durable_sequence: u64) -> (Vec<TailEntry>, Offset) {
        let entries: Vec<TailEntry> = self
            .tail
            .unspilled()
            .take_while(|entry| {
                entry.sequence <= durable_sequence || !holds(Rule::SpillDurableOnly)
            })
            .cloned()
            .collect();
        let mut end = entries.last().map_or(self.spilled_end, |entry| entry.last.plus(1));
        let next = self.tail.unspilled().nth(entries.len()).map(|entry| entry.base);
        for range in &self.damaged {
            if range.start <= end && range.end > end && next.is_none_or(|next| next >= range.end) {
                end = range.end;
            }
        }
        (entries, end)
    }

    /// Compaction is about to leave holes below `end`; durable once the next checkpoint is.
    pub(crate) fn expect_holes(&mut self, end: Offset) {
        assert!(end <= self.spilled_end, "only segments are compacted");
        self.holes_below = self.holes_below.max(end);
    }

    /// Compaction has seen everything below `end`.
    pub(crate) fn on_cleaned(&mut self, end: Offset) {
        assert!(end <= self.holes_below, "holes were told of first");
        self.clean_below = self.clean_below.max(end);
    }

    /// Segments hold everything below `end`, and every frame up to `sequence` is in them.
    pub(crate) fn on_spilled(&mut self, end: Offset, sequence: u64) {
        assert!(end >= self.spilled_end, "a spill adds");
        self.tail.mark_spilled(end);
        self.spilled_end = end;
        self.spilled_through = self.spilled_through.max(sequence);
    }

    /// The log start, where the checkpoint may not say so yet.
    pub(crate) fn unvouched_start(&self) -> Option<Offset> {
        (self.log_start > self.vouched_start).then_some(self.log_start)
    }

    /// The checkpoint may raise the log start so far.
    pub(crate) fn vouch(&mut self, log_start: Offset) {
        assert!(log_start <= self.log_start, "what is not below the log start is not vouched for");
        self.vouched_start = self.vouched_start.max(log_start);
    }

    /// The frame that a file cut waited for counts as spilled.
    pub(crate) fn on_cut_ready(&mut self, sequence: u64) {
        self.spilled_through = self.spilled_through.max(sequence);
    }

    /// Whether an entry made now would be this partition's state exactly at its
    /// `spilled_through`. If not, the checkpoint carries the one before.
    pub(crate) fn is_exact(&self) -> bool {
        let is_cut = self.file_cut.is_none_or(|cut| cut.sequence <= self.spilled_through);
        is_cut && self.pending_cuts.is_empty()
    }

    /// This partition's state at its `spilled_through`, and the first frame above that.
    pub(crate) fn make_entry(&mut self) -> (PartitionEntry, Option<u64>) {
        let is_recorded = holds(Rule::DamageCheckpointed);
        let below = self.damaged.iter().filter(|range| range.start < self.spilled_end);
        let entry = PartitionEntry {
            spilled_through: self.spilled_through,
            recovery_point: self.spilled_end,
            log_start: match holds(Rule::ProducersBeforeLogStart) {
                true => self.log_start.min(self.vouched_start),
                false => self.log_start,
            },
            high_watermark: self.high_watermark,
            snapshots: self.snapshots.clone(),
            damaged: if is_recorded { below.cloned().collect() } else { Vec::new() },
            holes_below: if holds(Rule::HolesTold) { self.holes_below } else { Offset::ZERO },
            clean_below: self.clean_below,
            is_suspect: self.is_suspect && is_recorded,
            is_removed: false,
        };
        assert!(
            entry.spilled_through >= self.entry.spilled_through,
            "what was spilled stays spilled"
        );
        self.noted = None;
        (entry, self.first_needed_above(self.spilled_through))
    }

    fn first_needed_above(&self, sequence: u64) -> Option<u64> {
        match self.oldest_needed {
            Some(oldest) if oldest > sequence => Some(oldest),
            // Some sequence at or above the first: the durable checkpoint needs its file as well.
            Some(_) if self.last_sequence > sequence => Some(sequence + 1),
            _ => None,
        }
    }

    /// The checkpoint that says so is durable.
    pub(crate) fn install_entry(&mut self, entry: PartitionEntry, oldest_needed: Option<u64>) {
        self.entry = entry;
        self.oldest_needed = oldest_needed.or(self.noted);
    }
}
