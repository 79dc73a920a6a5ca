//! Moves what is durable from the WAL to segments, writes the checkpoint, recycles WAL files.
//!
//! A pass is four steps: write segments, sync them, decide what the checkpoint says, write it.
//! What happens between the steps (appends, truncations) is noticed by the partition's count of
//! cuts. One thread does all of it, so nobody else writes segments or checkpoints.

mod measure;
mod pick;
mod place;
mod retain;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tidelog_types::{Entry, Offset, TopicIdPartition};

use self::{
    pick::{Begun, Reach},
    retain::Retaining,
};
use crate::{
    checkpoint::{Checkpoint, PartitionEntry, SnapshotName},
    config::Durability,
    error::{Fatal, WalError},
    file_cache::FileCache,
    log::Snapshot,
    partition::{FileCut, LogState},
    rules::{Rule, holds},
    segment::{SegmentError, Segments, SegmentsConfig},
    shard::{DiskUser, LogInner, Shard, lock, partition_dir},
    snapshot,
    threads::Step,
};

/// Snapshots kept of a partition: the newest may be above what a truncation leaves.
const SNAPSHOTS_KEPT: usize = 2;

/// The spill thread's body.
#[derive(Debug)]
pub(crate) struct Spill {
    shard: Arc<Shard>,
    files: Arc<FileCache>,
    segments: BTreeMap<TopicIdPartition, Segments>,
    phase: Phase,
    retaining: Option<Retaining>,
    /// Logs whose segments nobody has looked at since the start.
    unmeasured: Vec<TopicIdPartition>,
    /// Spilled batches still in memory for readers, in the order in which they may go.
    evictable: VecDeque<Evictable>,
    evictable_bytes: u64,
    /// The passes that began last.
    begun: Begun,
    /// Durable sequence of the last pass that was checkpointed.
    last_pass: u64,
    /// The log is closing and everything is checkpointed.
    is_flushed: bool,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Waiting,
    Written(Pass),
    Synced(Pass),
    Decided(Decided),
}

/// A checkpoint that is about to be written, and what it allows.
#[derive(Debug)]
struct Decided {
    checkpoint: Checkpoint,
    made: Vec<Made>,
    started: Instant,
    is_relief: bool,
}

#[derive(Debug)]
struct Pass {
    /// Everything up to here was durable when the pass began.
    sequence: u64,
    parts: BTreeMap<TopicIdPartition, Part>,
    started: Instant,
    /// It moves nothing, for the disk is full: it lets go of what need not be kept.
    is_relief: bool,
}

/// What a pass does for one partition.
#[derive(Debug)]
struct Part {
    log: Arc<LogInner>,
    /// The partition's count of cuts when the pass looked at it.
    cuts: u64,
    end: Offset,
    /// What the tail is charged with.
    bytes: u64,
    /// What goes to the segments.
    batch_bytes: u64,
    snapshot: Option<Snapshot>,
    snapshot_name: Option<SnapshotName>,
    /// The log start that the checkpoint may tell once it names that snapshot.
    log_start: Offset,
    snapshot_tag: Option<Offset>,
}

#[derive(Debug)]
struct Evictable {
    log: Arc<LogInner>,
    through: Offset,
    bytes: u64,
}

/// What one checkpoint says of one partition, until it is durable.
#[derive(Debug)]
struct Made {
    log: Arc<LogInner>,
    /// `None`: the entry before was carried over.
    fresh: Option<(PartitionEntry, Option<u64>)>,
    cut: Option<FileCut>,
    is_removed: bool,
}

impl Spill {
    pub(crate) fn new(
        shard: Arc<Shard>,
        files: Arc<FileCache>,
        segments: BTreeMap<TopicIdPartition, Segments>,
    ) -> Spill {
        Spill {
            begun: Begun::default(),
            unmeasured: segments.keys().copied().collect(),
            last_pass: 0,
            shard,
            files,
            segments,
            phase: Phase::Waiting,
            retaining: None,
            evictable: VecDeque::new(),
            evictable_bytes: 0,
            is_flushed: false,
        }
    }

    /// Does one step of a pass, or begins one when it is time.
    pub(crate) fn step(&mut self) -> Result<Step, Fatal> {
        if matches!(self.phase, Phase::Waiting) && self.place_compacted()? {
            return Ok(Step::Worked);
        }
        let phase = std::mem::take(&mut self.phase);
        let is_relief = phase.is_relief();
        let done = match phase {
            Phase::Waiting => {
                let is_searching =
                    !self.shard.is_writer_done() && (self.retain_some() | self.measure_some());
                match self.wanted() {
                    Ok(reach) => self.write(reach),
                    Err(_) if is_searching => return Ok(Step::Worked),
                    Err(step) => return Ok(step),
                }
            }
            Phase::Written(pass) => self.sync(pass),
            Phase::Synced(pass) => self.decide(pass),
            Phase::Decided(decided) => self.checkpoint(decided),
        };
        match done {
            Ok(()) => Ok(Step::Worked),
            Err(WalError::Fatal(fatal)) => Err(fatal),
            Err(error) => self.on_refused(error, is_relief),
        }
    }

    /// A full disk is waited for; while the log closes it is reported instead.
    fn on_refused(&mut self, error: WalError, was_relief: bool) -> Result<Step, Fatal> {
        if matches!(error, WalError::DiskFull { .. }) {
            self.take_back()?;
            let (_, tail_bytes) = self.shard.budget.used();
            let unspilled = tail_bytes.saturating_sub(self.evictable_bytes);
            self.shard.set_disk_full(DiskUser::Spill, Some(unspilled));
            if !was_relief && self.has_relief() {
                self.phase = Phase::Synced(Pass::relief(self.shard.durable_sequence()));
                return Ok(Step::Worked);
            }
        } else {
            tracing::warn!(%error, "cannot spill now; trying again");
        }
        if self.shard.is_writer_done.load(Ordering::Acquire) {
            *lock(&self.shard.close_error) = Some(error);
            self.is_flushed = true;
        }
        self.shard.spill_wanted.store(true, Ordering::Release);
        Ok(Step::Idle)
    }

    // ---- first step: segments

    fn write(&mut self, reach: Reach) -> Result<(), WalError> {
        let started = Instant::now();
        if self.shard.config.durability == Durability::PageCache {
            // What is not synced cannot be spilled: the next pass finds more.
            self.shard.sync_wanted.store(true, Ordering::Release);
            self.shard.bells.writer.ring();
        }
        let sequence = self.shard.durable_sequence();
        let mut pass = Pass { sequence, parts: BTreeMap::new(), started, is_relief: false };
        let logs = self.pick(self.shard.all_logs(), reach);
        self.begun.note(sequence);
        for log in logs {
            if let Some(part) = self.write_part(&log, sequence)? {
                pass.parts.insert(log.id, part);
            }
        }
        self.phase = Phase::Written(pass);
        Ok(())
    }

    fn write_part(&mut self, log: &Arc<LogInner>, sequence: u64) -> Result<Option<Part>, WalError> {
        let is_closing = self.shard.is_writer_done.load(Ordering::Acquire);
        let (entries, end, cuts, spilled_end, log_start, wants_snapshot) = {
            let state = log.state();
            let is_cut = state.has_pending_cut() && holds(Rule::SpillExcludesCuts);
            let vouches = holds(Rule::ProducersBeforeLogStart);
            let unvouched = state.unvouched_start().filter(|_| vouches);
            if log.is_removed()
                || (state.oldest_needed.is_none() && unvouched.is_none())
                || is_cut
                || state.file_cut.is_some()
            {
                return Ok(None);
            }
            let (entries, end) = state.spillable(sequence);
            let is_due = state.bytes_since_snapshot >= self.shard.config.snapshot_interval_bytes;
            let newest = state.snapshots.last().map(|name| name.tag);
            let forgets = unvouched.is_some_and(|start| newest.is_none_or(|tag| tag < start));
            let wants_snapshot = is_due || is_closing || forgets;
            (entries, end, state.cuts, state.spilled_end, state.log_start, wants_snapshot)
        };
        let bytes = entries.iter().map(crate::cache::TailEntry::bytes).sum();
        let batch_bytes = entries.iter().map(|entry| entry.entry.len() as u64).sum();
        let snapshot = match wants_snapshot {
            true => log.observer().and_then(|observer| observer.snapshot()),
            false => None,
        };
        if !entries.is_empty() {
            let entries: Vec<Entry> = entries.into_iter().map(|entry| entry.entry).collect();
            self.append(log, spilled_end, &entries)?;
        }
        let (log, snapshot_tag) = (Arc::clone(log), snapshot.as_ref().map(|snapshot| snapshot.tag));
        Ok(Some(Part {
            log,
            cuts,
            end,
            bytes,
            batch_bytes,
            snapshot,
            snapshot_name: None,
            log_start,
            snapshot_tag,
        }))
    }

    fn append(
        &mut self,
        log: &LogInner,
        spilled_end: Offset,
        entries: &[Entry],
    ) -> Result<(), WalError> {
        let config = SegmentsConfig::from(log.settings());
        let segments = self.segments_of(log)?;
        segments.set_config(config);
        if segments.end_offset() > spilled_end {
            // A pass that was given up, or overtaken by a cut, wrote what does not count.
            segments.cut(spilled_end)?;
        }
        Ok(segments.append(entries)?)
    }

    fn segments_of(&mut self, log: &LogInner) -> Result<&mut Segments, SegmentError> {
        if !self.segments.contains_key(&log.id) {
            let (start, end, holes) = {
                let state = log.state();
                (state.log_start.min(state.spilled_end), state.spilled_end, state.holes_below)
            };
            let dir = partition_dir(&self.shard.config, log.id);
            let config = log.settings().into();
            let (segments, _) =
                Segments::open_compacted(&self.files, &dir, end, start, holes, config)?;
            log.set_reader(Some(segments.reader()));
            self.segments.insert(log.id, segments);
        }
        Ok(self.segments.get_mut(&log.id).expect("it was put there above"))
    }

    // ---- second step: sync

    fn sync(&mut self, mut pass: Pass) -> Result<(), WalError> {
        let snapshots = pass.parts.values().filter(|part| part.snapshot.is_some()).count();
        let at_once = self.files.prefers_sync_all_of(snapshots);
        for part in pass.parts.values_mut() {
            let Some(snapshot) = part.snapshot.take() else { continue };
            let (shard, log) = (&self.shard, &part.log);
            part.snapshot_name = snapshot::keep(shard, log, &snapshot, pass.sequence, !at_once)?;
        }
        if at_once {
            // The segments too: they were written before.
            self.files.sync_all(&self.shard.config.dir)?;
        }
        for id in pass.parts.keys() {
            let Some(segments) = self.segments.get_mut(id) else { continue };
            if holds(Rule::SegmentsSynced) {
                segments.sync()?;
            }
        }
        self.phase = Phase::Synced(pass);
        Ok(())
    }

    // ---- third step: what the checkpoint says

    fn decide(&mut self, mut pass: Pass) -> Result<(), WalError> {
        let durable_sequence = self.shard.durable_sequence();
        // Both before the logs are listed: a partition that is opened meanwhile is then in the
        // list or covered by these.
        let has_lost = self.shard.unknown_suspect.load(Ordering::Acquire);
        let tombstones = lock(&self.shard.tombstones).clone();
        let logs = self.shard.all_logs();
        let mut made = Vec::with_capacity(logs.len());
        for log in logs {
            let part = pass.parts.remove(&log.id);
            if pass.is_relief {
                // Space first: what producers wrote below the log start may be forgotten for it.
                let mut state = log.state();
                let log_start = state.log_start;
                state.vouch(log_start);
            }
            made.push(self.make(log, part, pass.sequence, durable_sequence));
        }
        let (oldest_needed, partitions) = assemble(&made, tombstones, durable_sequence);
        let checkpoint = Checkpoint { durable_sequence, oldest_needed, has_lost, partitions };
        if !holds(Rule::CheckpointBeforeCut) {
            self.cut_files(&made)?;
        }
        if !holds(Rule::LogStartFirst) {
            self.drop_below(&made, |state| state.log_start)?;
        }
        if !holds(Rule::RecycleAfterCheckpoint) {
            self.shard.pool.recycle_below(oldest_needed)?;
        }
        let Pass { started, is_relief, .. } = pass;
        self.phase = Phase::Decided(Decided { checkpoint, made, started, is_relief });
        Ok(())
    }

    /// One partition's entry: what the pass did for it is noted and the entry made under one
    /// lock, so that no cut comes between.
    fn make(
        &mut self,
        log: Arc<LogInner>,
        part: Option<Part>,
        pass_sequence: u64,
        durable_sequence: u64,
    ) -> Made {
        let observed = observe_high_watermark(&log);
        let mut state = log.state();
        if let Some((cuts, high_watermark)) = observed
            && state.cuts == cuts
        {
            state.high_watermark = high_watermark.min(state.durable_end);
        }
        if let Some(part) = part
            && (part.cuts == state.cuts || !holds(Rule::SpillExcludesCuts))
        {
            state.bytes_since_snapshot += part.batch_bytes;
            self.shard.metrics.spill_bytes.inc_by(part.batch_bytes);
            let end = part.end.max(state.spilled_end);
            state.on_spilled(end, pass_sequence);
            assert!(state.spilled_end <= state.log_end, "segments hold no more than the log");
            if let Some(name) = part.snapshot_name.filter(|name| name.tag <= state.durable_end) {
                state.bytes_since_snapshot = 0;
                state.snapshots.push(name);
                let kept = state.snapshots.len().saturating_sub(SNAPSHOTS_KEPT);
                state.snapshots.drain(..kept);
            }
            self.vouch(&mut state, &part);
            self.note_spilled(&log, part.end, part.bytes);
        }
        let is_removed = log.is_removed() && state.last_sequence <= durable_sequence;
        let cut = state
            .file_cut
            .filter(|cut| cut.sequence <= durable_sequence && !state.has_pending_cut());
        if let Some(cut) = cut {
            state.on_cut_ready(cut.sequence);
        }
        let is_fresh = state.is_exact() || !holds(Rule::EntryCarriedOver);
        let mut fresh = is_fresh.then(|| state.make_entry());
        drop(state);
        if let Some((entry, _)) = &mut fresh
            && self.shard.config.durability == Durability::PageCache
        {
            entry.state_only_what_is_synced();
        }
        Made { log, fresh, cut, is_removed }
    }

    /// Lets the checkpoint tell the log start that the part was made for, unless it has a snapshot
    /// that is not named yet. What moved since is for the next checkpoint.
    fn vouch(&self, state: &mut LogState, part: &Part) {
        let is_named = |tag| state.snapshots.iter().any(|name| name.tag == tag);
        if part.snapshot_tag.is_none_or(is_named) {
            state.vouch(part.log_start.min(state.log_start));
        }
        if part.snapshot_tag.is_some_and(|tag| tag > state.durable_end) {
            self.shard.snapshot_ahead.store(true, Ordering::Release);
        } else if state.unvouched_start().is_some() {
            self.shard.checkpoint_wanted.store(true, Ordering::Release);
        }
    }

    fn note_spilled(&mut self, log: &Arc<LogInner>, end: Offset, bytes: u64) {
        if let Some(segments) = self.segments.get(&log.id) {
            log.segment_bytes.store(segments.bytes(), Ordering::Release);
        }
        if bytes > 0 {
            self.evictable_bytes += bytes;
            let through = end.plus(-1);
            self.evictable.push_back(Evictable { log: Arc::clone(log), through, bytes });
        }
    }

    // ---- fourth step: the checkpoint, and what it allows

    fn checkpoint(&mut self, decided: Decided) -> Result<(), WalError> {
        let Decided { checkpoint, mut made, started, is_relief } = decided;
        assert!(
            checkpoint.durable_sequence >= self.last_pass,
            "one thread writes checkpoints, each newer than the one before"
        );
        checkpoint.write(&self.shard.fs, &self.shard.wal_dir())?;
        self.shard.metrics.checkpoints.inc();
        self.install(&mut made);
        self.cut_files(&made)?;
        self.drop_below(&made, |state| state.entry.log_start)?;
        self.finish_removals(&made, checkpoint.durable_sequence);
        self.shard.bells.remover.ring();
        self.finish(&checkpoint, started, is_relief)
    }

    fn install(&mut self, made: &mut [Made]) {
        for made in made.iter_mut() {
            if let Some((entry, needed)) = made.fresh.take() {
                made.log.state().install_entry(entry, needed);
            }
        }
        for wait in self.shard.finished_log_start_waits() {
            (wait.done)();
            if let Some(observer) = wait.log.observer() {
                observer.on_log_start(wait.to);
            }
        }
    }

    /// Rule 9: the files are shortened once the checkpoint no longer counts on what goes, and
    /// before a partition is spilled again.
    fn cut_files(&mut self, made: &[Made]) -> Result<(), WalError> {
        for made in made {
            let Some(cut) = made.cut else { continue };
            if let Some(segments) = self.segments.get_mut(&made.log.id) {
                if cut.all {
                    segments.reset(cut.to)?;
                } else if cut.to < segments.end_offset() {
                    segments.cut(cut.to.max(segments.start_offset()))?;
                }
                made.log.segment_bytes.store(segments.bytes(), Ordering::Release);
            }
            let mut state = made.log.state();
            // A cut that was enqueued meanwhile has widened it and waits for the next checkpoint.
            if state.file_cut == Some(cut) {
                state.file_cut = None;
            }
        }
        Ok(())
    }

    fn finish(
        &mut self,
        checkpoint: &Checkpoint,
        started: Instant,
        is_relief: bool,
    ) -> Result<(), WalError> {
        let oldest = checkpoint.oldest_needed;
        lock(&self.shard.tombstones).retain(|_, sequence| *sequence >= oldest);
        self.shard.pool.recycle_below(oldest)?;
        self.shard.bells.writer.ring();
        self.shard.bells.filler.ring();
        self.evict();
        if is_relief {
            // Whether there is room now, the next pass finds out.
            self.shard.spill_wanted.store(true, Ordering::Release);
        } else {
            self.shard.set_disk_full(DiskUser::Spill, None);
            self.last_pass = checkpoint.durable_sequence;
        }
        let metrics = &self.shard.metrics;
        metrics.wal_segments.set(self.shard.pool.live_files().len() as i64);
        metrics.spill_duration.observe(started.elapsed().as_secs_f64());
        if self.shard.has_log_start_waits() && self.shard.config.durability == Durability::PageCache
        {
            // Synced by now, or after the next group; the next checkpoint may say so.
            self.shard.checkpoint_wanted.store(true, Ordering::Release);
        }
        if self.shard.is_writer_done.load(Ordering::Acquire) {
            let is_clean =
                |log: &Arc<LogInner>| log.is_leaving() || log.state().oldest_needed.is_none();
            self.is_flushed = self.shard.all_logs().iter().all(is_clean);
        }
        Ok(())
    }

    /// Spilled batches stay in memory for readers that are a little behind, while there is room.
    fn evict(&mut self) {
        loop {
            let pressure = self.shard.budget.pressure();
            let is_tight = pressure.tail_bytes > self.shard.config.tail_bytes_max / 2;
            if !is_tight && !pressure.waits_for_tail {
                return;
            }
            let Some(next) = self.evictable.pop_front() else { return };
            assert!(next.bytes <= self.evictable_bytes, "what was noted is counted");
            self.evictable_bytes -= next.bytes;
            let bytes = next.log.state().tail.evict(next.through);
            self.shard.budget.release(0, bytes);
        }
    }
}

impl Phase {
    fn is_relief(&self) -> bool {
        match self {
            Phase::Waiting => false,
            Phase::Written(pass) | Phase::Synced(pass) => pass.is_relief,
            Phase::Decided(decided) => decided.is_relief,
        }
    }
}

impl Pass {
    fn relief(sequence: u64) -> Pass {
        let parts = BTreeMap::new();
        Pass { sequence, parts, started: Instant::now(), is_relief: true }
    }
}

/// The oldest sequence that any partition needs, and all entries in order of id.
fn assemble(
    made: &[Made],
    mut tombstones: BTreeMap<TopicIdPartition, u64>,
    durable_sequence: u64,
) -> (u64, Vec<(TopicIdPartition, PartitionEntry)>) {
    let mut partitions = Vec::with_capacity(made.len());
    let mut oldest_needed = durable_sequence + 1;
    for made in made {
        let id = made.log.id;
        tombstones.remove(&id);
        if made.is_removed {
            tombstones.insert(id, durable_sequence);
            continue;
        }
        let (entry, needed) = match &made.fresh {
            Some((entry, needed)) => (entry.clone(), *needed),
            None => {
                let state = made.log.state();
                (state.entry.clone(), state.oldest_needed)
            }
        };
        if let Some(needed) = needed.filter(|_| holds(Rule::RecycleBelowOldestNeeded)) {
            oldest_needed = oldest_needed.min(needed);
        }
        partitions.push((id, entry));
    }
    // Frames below `oldest_needed` are never replayed: below it nothing is left to bury.
    tombstones.retain(|_, through| *through >= oldest_needed && holds(Rule::Tombstone));
    let buried = tombstones.into_iter();
    partitions.extend(buried.map(|(id, through)| (id, PartitionEntry::tombstone(through))));
    partitions.sort_by_key(|(id, _)| *id);
    (oldest_needed, partitions)
}

/// The count of cuts first: a high watermark from before a cut must not be used after it.
fn observe_high_watermark(log: &LogInner) -> Option<(u64, Offset)> {
    let cuts = log.state().cuts;
    Some((cuts, log.observer()?.high_watermark()))
}
