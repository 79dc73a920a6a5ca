//! The rules that make the log safe, by name, so that a test can switch one off and show what it
//! is for. Outside of tests they all hold, at no cost.

/// One rule; the number in front of each is the one it has in the design.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// 1: a successor's first sequence seals its file; files off the chain are free.
    SuccessorSeals,
    /// 2: a frame with a foreign epoch is not a frame.
    EpochChecked,
    /// 3: a reset is a frame of its own, not a truncation.
    ResetFrame,
    /// 5: the checkpoint is synced before it is renamed.
    CheckpointSynced,
    /// 6: the durable end never exceeds a cut that is not durable.
    DurableEndBelowCuts,
    /// 7: a truncation lowers the high watermark.
    TruncateLowersHighWatermark,
    /// 7, 17: a truncation drops the snapshots above it.
    TruncateDropsSnapshots,
    /// 8: only what is durable is spilled.
    SpillDurableOnly,
    /// 8: a partition with a cut that is not durable is not spilled.
    SpillExcludesCuts,
    /// 8: its checkpoint entry is carried over.
    EntryCarriedOver,
    /// 9: the checkpoint comes before the cut.
    CheckpointBeforeCut,
    /// 10: segments are unlinked after the log start offset is durable.
    LogStartFirst,
    /// 10: producers of what lies below the log start are in a snapshot before it is told.
    ProducersBeforeLogStart,
    /// 11: removing a replica leaves a tombstone.
    Tombstone,
    /// 12: a file is recycled after the checkpoint that no longer needs it.
    RecycleAfterCheckpoint,
    /// 12: what a partition still needs keeps its file.
    RecycleBelowOldestNeeded,
    /// 13: nobody is told before the sync.
    AckAfterSync,
    /// 13: a failed sync ends the process.
    FailedSyncEnds,
    /// 14: the checkpoint vouches for sequences too.
    CheckpointVouches,
    /// 15: everything behind a torn frame is discarded.
    CutDiscards,
    /// 15: below what is vouched for, a bad frame is damage, not a torn tail.
    DamageIsNotTorn,
    /// 16: recovery goes on in a fresh file with a new epoch.
    FreshFile,
    /// 17: only frames above a partition's `spilled_through` are replayed.
    ReplayAboveSpilled,
    /// 18: damage is kept in the checkpoint.
    DamageCheckpointed,
    /// 18: a lost header makes partitions suspect.
    LostHeaderSuspect,
    /// 18: a link that reaches across the loss clears a partition.
    LinkClears,
    /// 18: an end below the log start or high watermark is damage.
    EndBelowStartIsDamage,
    /// 19: what recovery believes it has read from the disk.
    RecoveryReadsTheDisk,
    /// 20: recovery syncs the directory before it acts on the checkpoint.
    CheckpointSyncedAgain,
    /// 20: recovery writes its own checkpoint before it changes or reports anything.
    RecoveryCheckpoints,
    /// Spilled bytes are synced before the checkpoint that counts on them.
    SegmentsSynced,
    /// A compacted segment is synced before it takes the place of others.
    CompactedSynced,
    /// That it will is durable before the others go.
    SwapIntended,
    /// That the others went is durable before it takes its name.
    SwapCleared,
    /// The checkpoint tells of holes before there are any.
    HolesTold,
}

/// Whether a rule holds: always, but in the test that switched it off.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn holds(_rule: Rule) -> bool {
    true
}

#[cfg(test)]
pub(crate) use switches::{holds, without};

#[cfg(test)]
mod switches {
    use std::cell::Cell;

    use super::Rule;

    thread_local! {
        static OFF: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    pub(crate) fn holds(rule: Rule) -> bool {
        OFF.get() != Some(rule)
    }

    /// Runs `body` on this thread with one rule switched off.
    pub(crate) fn without<T>(rule: Option<Rule>, body: impl FnOnce() -> T) -> T {
        struct Restore(Option<Rule>);
        impl Drop for Restore {
            fn drop(&mut self) {
                OFF.set(self.0);
            }
        }
        let _restore = Restore(OFF.replace(rule));
        body()
    }
}
