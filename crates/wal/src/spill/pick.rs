//! Which partitions a pass moves.
//!
//! To visit a partition's files costs as much as to write some hundred kilobytes to them. So a pass
//! that is only to make room in memory goes to those partitions that have most there, and lets the
//! others gather more.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use super::Spill;
use crate::{cache::TailEntry, shard::LogInner, threads::Step};

/// Passes that may leave a partition out: for what it has in the WAL, files there stay.
const PASSES_MAX: usize = 4;

/// What a pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Something needs all partitions: the WAL's files, a checkpoint, the end.
    All,
    /// Memory is short.
    Fullest,
}

/// A partition that has something to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    unspilled_bytes: u64,
    /// Its first frame that the checkpoint does not cover.
    oldest_needed: u64,
}

/// What was durable when each of the last passes began, oldest first.
#[derive(Debug, Default)]
pub(super) struct Begun(VecDeque<u64>);

impl Begun {
    pub(super) fn note(&mut self, sequence: u64) {
        assert!(self.0.back().is_none_or(|last| *last <= sequence), "what is durable stays so");
        self.0.push_back(sequence);
        if self.0.len() > PASSES_MAX {
            self.0.pop_front();
        }
    }

    /// What was durable when so many passes had not begun yet as may leave a partition out.
    fn overdue_through(&self) -> u64 {
        self.0.front().copied().filter(|_| self.0.len() == PASSES_MAX).unwrap_or(0)
    }
}

impl Spill {
    /// What a pass is needed for, or what to return if none is.
    pub(super) fn wanted(&mut self) -> Result<Reach, Step> {
        let shard = &self.shard;
        let is_closing = shard.is_writer_done.load(Ordering::Acquire);
        if is_closing {
            return if self.is_flushed { Err(Step::Done) } else { Ok(Reach::All) };
        }
        let asked = shard.spill_wanted.swap(false, Ordering::AcqRel)
            | shard.checkpoint_wanted.swap(false, Ordering::AcqRel);
        let pressure = shard.budget.pressure();
        let unspilled = pressure.tail_bytes.saturating_sub(self.evictable_bytes);
        let is_wal_long = shard.pool.live_bytes() > shard.config.wal_bytes_max / 2
            && shard.durable_sequence() > self.last_pass;
        let is_tail_long = unspilled >= shard.config.tail_bytes_max / 4;
        match asked || is_wal_long {
            true => Ok(Reach::All),
            false if is_tail_long || pressure.waits_for_tail => Ok(Reach::Fullest),
            false => Err(Step::Idle),
        }
    }

    /// Leaves out partitions that this pass need not visit.
    pub(super) fn pick(&self, logs: Vec<Arc<LogInner>>, reach: Reach) -> Vec<Arc<LogInner>> {
        if reach == Reach::All {
            return logs;
        }
        let candidates: Vec<_> =
            logs.into_iter().filter_map(|log| Some((of(&log)?, log))).collect();
        let facts: Vec<Candidate> = candidates.iter().map(|(candidate, _)| *candidate).collect();
        let picked = fullest(&facts, self.begun.overdue_through());
        let both = candidates.into_iter().zip(picked);
        both.filter_map(|((_, log), is_picked)| is_picked.then_some(log)).collect()
    }
}

/// `None` where there is nothing to move, or where nothing may be moved now.
fn of(log: &LogInner) -> Option<Candidate> {
    let state = log.state();
    if log.is_removed() || state.has_pending_cut() || state.file_cut.is_some() {
        return None;
    }
    let unspilled_bytes = state.tail.unspilled().map(TailEntry::bytes).sum();
    Some(Candidate { unspilled_bytes, oldest_needed: state.oldest_needed? })
}

/// The fewest that have half of all bytes, and whoever was left out long enough.
fn fullest(candidates: &[Candidate], overdue_through: u64) -> Vec<bool> {
    let total: u64 = candidates.iter().map(|candidate| candidate.unspilled_bytes).sum();
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|place| std::cmp::Reverse(candidates[*place].unspilled_bytes));
    let is_overdue = |candidate: &Candidate| candidate.oldest_needed <= overdue_through;
    let mut picked: Vec<bool> = candidates.iter().map(is_overdue).collect();
    let mut bytes = 0;
    for place in order {
        if bytes >= total.div_ceil(2) {
            break;
        }
        picked[place] = true;
        bytes += candidates[place].unspilled_bytes;
    }
    assert!(
        total == 0 || picked.contains(&true),
        "a pass moves something where there is something"
    );
    picked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(candidates: &[(u64, u64)], overdue_through: u64) -> Vec<usize> {
        let of = |&(unspilled_bytes, oldest_needed)| Candidate { unspilled_bytes, oldest_needed };
        let candidates: Vec<Candidate> = candidates.iter().map(of).collect();
        let picked = fullest(&candidates, overdue_through);
        (0..picked.len()).filter(|place| picked[*place]).collect()
    }

    #[test]
    fn half_of_the_bytes_go_from_as_few_partitions_as_can_be() {
        let nothing: [usize; 0] = [];
        for (candidates, expected) in [
            (&[][..], &nothing[..]),
            (&[(7, 1)], &[0]),
            (&[(7, 1), (7, 1)], &[0]),
            (&[(7, 1), (8, 1), (7, 1)], &[0, 1]),
            (&[(1, 1), (1, 1), (9, 1), (1, 1)], &[2]),
            (&[(0, 1), (0, 1)], &nothing),
        ] {
            assert_eq!(picked(candidates, 0), expected, "{candidates:?}");
        }
    }

    #[test]
    fn who_was_left_out_long_enough_is_moved_however_little_it_has() {
        assert_eq!(picked(&[(1, 10), (90, 99), (1, 11)], 10), [0, 1]);
        let mut begun = Begun::default();
        let mut overdue = Vec::new();
        for sequence in [5, 6, 8, 8, 9, 12] {
            begun.note(sequence);
            overdue.push(begun.overdue_through());
        }
        assert_eq!(overdue, [0, 0, 0, 5, 6, 8]);
    }
}
