//! Each rule is there for a reason: switched off, some history breaks what the log promises.

use super::history::{Flips, run};
use crate::rules::{Rule, without};

/// Histories tried before a rule counts as not needed.
const SEEDS: u64 = 4000;

/// Rules that some history needs, and the kind of history.
const NEEDED: [(Rule, Flips); 28] = [
    (Rule::SuccessorSeals, Flips::None),
    (Rule::ResetFrame, Flips::None),
    (Rule::CheckpointSynced, Flips::None),
    (Rule::DurableEndBelowCuts, Flips::None),
    (Rule::TruncateLowersHighWatermark, Flips::None),
    (Rule::TruncateDropsSnapshots, Flips::None),
    (Rule::SpillDurableOnly, Flips::None),
    (Rule::SpillExcludesCuts, Flips::None),
    (Rule::EntryCarriedOver, Flips::None),
    (Rule::CheckpointBeforeCut, Flips::None),
    (Rule::LogStartFirst, Flips::None),
    (Rule::Tombstone, Flips::None),
    (Rule::RecycleAfterCheckpoint, Flips::None),
    (Rule::RecycleBelowOldestNeeded, Flips::None),
    (Rule::AckAfterSync, Flips::None),
    (Rule::FailedSyncEnds, Flips::None),
    (Rule::CheckpointVouches, Flips::Wal),
    (Rule::CutDiscards, Flips::None),
    (Rule::DamageIsNotTorn, Flips::Wal),
    (Rule::FreshFile, Flips::None),
    (Rule::ReplayAboveSpilled, Flips::None),
    (Rule::DamageCheckpointed, Flips::Wal),
    (Rule::LostHeaderSuspect, Flips::Wal),
    (Rule::LinkClears, Flips::Wal),
    (Rule::RecoveryReadsTheDisk, Flips::None),
    (Rule::RecoveryCheckpoints, Flips::None),
    (Rule::SegmentsSynced, Flips::None),
    (Rule::EndBelowStartIsDamage, Flips::Wal),
];

#[test]
fn every_rule_switched_off_breaks_a_history() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let only = std::env::var("TIDELOG_RULE").ok();
    let mut unneeded = Vec::new();
    for (rule, flips) in NEEDED {
        if only.as_ref().is_some_and(|only| *only != format!("{rule:?}")) {
            continue;
        }
        match (0..SEEDS).find_map(|seed| broken_by(rule, seed, flips)) {
            Some(how) => println!("{rule:?}: {how}"),
            None => unneeded.push(rule),
        }
    }
    std::panic::set_hook(quiet);
    assert_eq!(unneeded, [], "no history needs these rules");
}

/// What a history without the rule breaks; a failed assertion of ours counts as well.
fn broken_by(rule: Rule, seed: u64, flips: Flips) -> Option<String> {
    without(Some(rule), || run(seed, flips)).err()
}
