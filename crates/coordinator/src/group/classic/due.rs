//! What happens to a group because time has passed.

use std::sync::Arc;

use crate::group::change::Change;
use crate::group::draft::Draft;
use crate::group::{Initial, State, Timer};
use crate::shard::RebalanceCause;

impl Draft<'_> {
    /// Plays the end of loading: all members have a session's time, and those of a group that has
    /// become too large a rebalance's, to commit their offsets before some have to go.
    pub(crate) fn start_sessions(&mut self) {
        self.change(Change::SessionsBegan { at: self.now.elapsed });
        if self.group.members.len() > self.settings.group_size_max {
            self.begin_rebalance(RebalanceCause::OverCapacity);
        }
    }

    /// Plays what is due, the oldest first, but at most so many things.
    pub(crate) fn catch_up(&mut self, things_max: usize) {
        for _ in 0..things_max {
            match self.group.next_due() {
                Some((deadline, timer)) if *deadline <= self.now.elapsed => {
                    self.ring(timer.clone());
                }
                _ => return,
            }
        }
    }

    fn ring(&mut self, timer: Timer) {
        match timer {
            Timer::Rebalance => self.end_wait_for_joins(),
            Timer::Sync => self.end_wait_for_syncs(),
            Timer::Reserved(member_id) => {
                self.change(Change::IdTakenBack { member_id });
                self.complete_join_if_all_are_there();
            }
            Timer::Session(member_id) => {
                self.remove_member(member_id);
                self.rebalance_or_complete(RebalanceCause::SessionExpired);
            }
        }
    }

    fn end_wait_for_joins(&mut self) {
        match self.group.state {
            State::PreparingRebalance { initial: Some(initial) }
                if initial.someone_joined && !initial.remaining.is_zero() =>
            {
                let delay = self.settings.initial_rebalance_delay.min(initial.remaining);
                let remaining = initial.remaining.saturating_sub(initial.delay);
                let next = Initial { delay, remaining, someone_joined: false };
                let deadline = self.after(delay);
                self.change(Change::RebalanceExtended { deadline, initial: Some(next) });
            }
            State::PreparingRebalance { .. } => self.complete_join(),
            State::Empty | State::CompletingRebalance | State::Stable => {
                unreachable!("only a rebalance waits for joins");
            }
        }
    }

    fn end_wait_for_syncs(&mut self) {
        let silent = self.group.members.values().filter(|member| !member.has_synced);
        let silent: Vec<Arc<str>> = silent.map(|member| member.member_id.clone()).collect();
        assert!(!silent.is_empty(), "the wait ends with the last sync");
        silent.into_iter().for_each(|member_id| self.remove_member(member_id));
        self.begin_rebalance(RebalanceCause::SyncExpired);
    }
}
