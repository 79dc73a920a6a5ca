//! The spill thread's part of compaction: it alone puts a segment in the place of others.

use super::Spill;
use crate::{
    error::{Fatal, WalError},
    rules::{Rule, holds},
    shard::{SwapJob, SwapOutcome},
};

impl Spill {
    /// Puts a compacted segment in its place, if one waits; whether one did.
    pub(super) fn place_compacted(&mut self) -> Result<bool, Fatal> {
        let Some(job) = self.shard.take_swap() else { return Ok(false) };
        let outcome = match self.place(job) {
            Ok(true) => SwapOutcome::Placed,
            Ok(false) => SwapOutcome::Stale,
            Err(WalError::Fatal(fatal)) => return Err(fatal),
            Err(error) => SwapOutcome::Refused(error),
        };
        self.shard.tell_swap_outcome(outcome);
        Ok(true)
    }

    /// False where the log is not any more what was compacted.
    fn place(&mut self, job: SwapJob) -> Result<bool, WalError> {
        let SwapJob { log, cuts, compacted } = job;
        let is_as_it_was = {
            let state = log.state();
            let is_told = state.entry.holes_below >= compacted.end();
            let is_cut = state.cuts != cuts || state.file_cut.is_some();
            assert!(is_cut || is_told || !holds(Rule::HolesTold), "a hole that nobody was told of");
            !is_cut && !log.is_removed()
        };
        let Some(segments) = self.segments.get_mut(&log.id).filter(|_| is_as_it_was) else {
            compacted.discard(&*self.shard.fs)?;
            return Ok(false);
        };
        let is_placed = segments.replace(compacted, log.settings().file_delete_delay)?;
        log.segment_bytes.store(segments.bytes(), std::sync::atomic::Ordering::Release);
        self.shard.bells.remover.ring();
        Ok(is_placed)
    }
}
