//! The spill thread's part of retention and removal: it alone opens, drops and removes segments.
//!
//! A log's start rises in memory, then in the checkpoint, and only then do segments go: whoever
//! recovers from any checkpoint finds everything from that checkpoint's log start on.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, atomic::Ordering},
};

use tidelog_types::Offset;

use super::{Made, Spill, observe_high_watermark};
use crate::{
    error::{Fatal, WalError},
    partition::LogState,
    retention::{Limits, Piece, removable_below},
    rules::{Rule, holds},
    segment::{SegmentError, Segments},
    shard::{LogInner, lock},
};

/// Logs that are looked at between two looks for other work.
const LOGS_A_STEP: usize = 64;

/// A search through all logs for what need not be kept.
#[derive(Debug)]
pub(super) struct Retaining {
    now_ms: i64,
    left: VecDeque<Arc<LogInner>>,
}

/// A log's end at one moment.
struct Tip {
    /// The partition's count of cuts then.
    cuts: u64,
    log_start: Offset,
    log_end: Offset,
    spilled_end: Offset,
    /// Nothing above is removed.
    bound: Offset,
    /// What is in memory only.
    unspilled: Unspilled,
}

#[derive(Debug, Clone, Copy)]
struct Unspilled {
    bytes: u64,
    /// As [`Piece::newest_ms`]; `Some(i64::MIN)` where there is nothing.
    newest_ms: Option<i64>,
}

impl Spill {
    /// Looks at some logs if a search is due; whether it goes on.
    pub(super) fn retain_some(&mut self) -> bool {
        if let Some(now_ms) = self.shard.take_retention() {
            // A search that still runs sees the rest with its own time; the next one starts over.
            let left = self.shard.all_logs().into();
            self.retaining.get_or_insert(Retaining { now_ms, left });
        }
        let Some(mut retaining) = self.retaining.take() else { return false };
        for _ in 0..LOGS_A_STEP {
            let Some(log) = retaining.left.pop_front() else {
                let seconds = retaining.now_ms / 1000;
                self.shard.metrics.retention_last_run.set(seconds);
                return false;
            };
            self.retain(&log, retaining.now_ms);
        }
        self.retaining = Some(retaining);
        true
    }

    /// Raises one log's start above what need not be kept.
    fn retain(&self, log: &Arc<LogInner>, now_ms: i64) {
        let settings = log.settings();
        let limits = Limits {
            retention_ms: settings.retention_ms,
            retention_bytes: settings.retention_bytes,
        };
        if !limits.are_any() || log.is_removed() {
            return;
        }
        let Some(tip) = look_at(log) else { return };
        let found = match self.segments.get(&log.id) {
            Some(segments) if segments.end_offset() > tip.spilled_end => return, // of a failed pass
            Some(segments) => removable(segments, &tip, limits, now_ms),
            None => removable_in_memory(&tip, limits, now_ms),
        };
        match found {
            Ok(Some(to)) => self.raise_log_start(log, &tip, to),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(partition = %log.id, %error, "cannot tell how old segments are");
            }
        }
    }

    fn raise_log_start(&self, log: &Arc<LogInner>, tip: &Tip, to: Offset) {
        {
            let mut state = log.state();
            let is_as_it_was = state.cuts == tip.cuts && !log.is_removed();
            if !is_as_it_was || to <= state.log_start {
                return;
            }
            assert!(to <= state.durable_end, "retention stays below what is durable");
            state.log_start = to;
        }
        tracing::debug!(partition = %log.id, log_start = to.0, "old records are removed");
        self.shard.wait_for_log_start(log, to, Box::new(|| {}));
    }

    /// Whether a checkpoint alone would let something go.
    pub(super) fn has_relief(&self) -> bool {
        let is_removed = |log: &Arc<LogInner>| log.is_removed() && !log.is_leaving();
        !self.shard.is_writer_done()
            && (self.shard.has_log_start_waits() || self.shard.all_logs().iter().any(is_removed))
    }

    /// Removes what a pass wrote before the disk was full: it counts for nothing and is written
    /// again, and meanwhile takes the room that a checkpoint needs for others to go.
    pub(super) fn take_back(&mut self) -> Result<(), Fatal> {
        for log in self.shard.all_logs() {
            let Some(segments) = self.segments.get_mut(&log.id) else { continue };
            let (spilled_end, is_cut) = {
                let state = log.state();
                (state.spilled_end, state.file_cut.is_some())
            };
            // What a cut leaves over goes once the checkpoint does not count on it any more.
            if is_cut || segments.end_offset() <= spilled_end {
                continue;
            }
            match segments.cut(spilled_end) {
                Err(SegmentError::Fatal(fatal)) => return Err(fatal),
                Err(error) => tracing::warn!(partition = %log.id, %error, "cannot make room now"),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Rule 10: drops the segments that lie below the durable log start.
    pub(super) fn drop_below(
        &mut self,
        made: &[Made],
        log_start: impl Fn(&LogState) -> Offset,
    ) -> Result<(), WalError> {
        for made in made {
            let Some(segments) = self.segments.get_mut(&made.log.id) else { continue };
            let log_start = {
                let state = made.log.state();
                if state.file_cut.is_some() {
                    continue;
                }
                log_start(&state).min(state.spilled_end).min(segments.end_offset())
            };
            if log_start <= segments.start_offset() {
                continue;
            }
            let before = segments.bytes();
            let dropped = segments.drop_below(log_start, made.log.settings().file_delete_delay)?;
            if !dropped.is_empty() {
                let bytes = segments.bytes();
                made.log.segment_bytes.store(bytes, Ordering::Release);
                let metrics = &self.shard.metrics;
                metrics.dropped_segments.inc_by(dropped.len() as u64);
                metrics.dropped_bytes.inc_by(before.saturating_sub(bytes));
            }
        }
        Ok(())
    }

    /// Rule 11: the tombstone is durable, so the files go, and then the id may come back.
    pub(super) fn finish_removals(&mut self, made: &[Made], sequence: u64) {
        for made in made.iter().filter(|made| made.is_removed) {
            let id = made.log.id;
            if made.log.is_cleaning.load(Ordering::SeqCst) {
                continue; // whoever cleans it asks for another checkpoint when he has gone
            }
            if !made.log.begin_leaving() {
                if made.log.is_gone() {
                    if holds(Rule::Tombstone) {
                        lock(&self.shard.tombstones).insert(id, sequence);
                    }
                    self.shard.logs().remove(&id);
                }
                continue;
            }
            let bytes = made.log.state().tail.clear();
            self.shard.budget.release(0, bytes);
            self.evictable.retain(|evictable| {
                let stays = evictable.log.id != id;
                self.evictable_bytes -= if stays { 0 } else { evictable.bytes };
                stays
            });
            if let Some(segments) = self.segments.remove(&id) {
                segments.abandon();
            }
            self.files.removals().add_partition(Arc::clone(&made.log));
        }
    }
}

/// `None` for a log of which nothing may be removed now.
fn look_at(log: &LogInner) -> Option<Tip> {
    let (cuts, high_watermark) = observe_high_watermark(log)?;
    let state = log.state();
    let is_moving = state.cuts != cuts || state.file_cut.is_some() || state.has_pending_cut();
    if is_moving || state.is_suspect {
        return None;
    }
    let mut unspilled = Unspilled { bytes: 0, newest_ms: Some(i64::MIN) };
    for entry in state.tail.unspilled() {
        let facts = entry.entry.facts();
        unspilled.bytes += facts.batch_bytes() as u64;
        // Nobody knows when a batch without a time came.
        let newest = Some(facts.max_timestamp).filter(|newest| *newest >= 0);
        unspilled.newest_ms = newest.and_then(|newest| Some(unspilled.newest_ms?.max(newest)));
    }
    Some(Tip {
        cuts,
        log_start: state.log_start,
        log_end: state.log_end,
        spilled_end: state.spilled_end,
        bound: high_watermark.min(state.durable_end),
        unspilled,
    })
}

fn removable_in_memory(tip: &Tip, limits: Limits, now_ms: i64) -> io::Result<Option<Offset>> {
    let Unspilled { bytes, newest_ms } = tip.unspilled;
    let piece =
        (tip.log_start < tip.log_end).then_some(Piece { end: tip.log_end, bytes, newest_ms });
    removable_below(piece.map(Ok), bytes, tip.bound, limits, now_ms)
}

fn removable(
    segments: &Segments,
    tip: &Tip,
    limits: Limits,
    now_ms: i64,
) -> io::Result<Option<Offset>> {
    // Asked for only where it counts: it may take a look at every file.
    let is_limited = limits.retention_bytes >= 0;
    let total_bytes = if is_limited { segments.bytes() + tip.unspilled.bytes } else { 0 };
    let ages = segments.ages(limits.retention_ms >= 0);
    let count = ages.len();
    let pieces = (1..).zip(ages).map(|(number, age)| {
        let age = age?;
        if number < count {
            return Ok(Piece { end: age.end, bytes: age.bytes, newest_ms: age.newest_ms });
        }
        let Unspilled { bytes, newest_ms } = tip.unspilled;
        let newest_ms = newest_ms.and_then(|newest| Some(age.newest_ms?.max(newest)));
        Ok(Piece { end: tip.log_end, bytes: age.bytes + bytes, newest_ms })
    });
    if count == 0 {
        return removable_in_memory(tip, limits, now_ms);
    }
    removable_below(pieces, total_bytes, tip.bound, limits, now_ms)
}
