//! One pass over one log: learn its keys, then write it anew, a piece at a step.
//!
//! Segments are written in the order of their offsets, from the log's start: when a tombstone's
//! time begins, nothing that it deletes is left in front of it, whenever the pass ends early.

use std::{
    collections::{BTreeSet, VecDeque},
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use tidelog_types::{BATCH_HEADER_LEN, Entry, Offset};

use super::{
    BatchRewriter, Compaction, OpenedBatch,
    keys::KeyMap,
    plan::{Dirty, Group, Piece, groups},
    retain::{Candidate, Retain, Sight},
};
use crate::{
    error::{ReadError, WalError},
    file_cache::FileCache,
    metrics::WalMetrics,
    segment::{Compacted, CompactedWriter, SegmentReader},
    shard::{LogInner, Shard, SwapJob, SwapOutcome, partition_dir},
};

/// Bytes that are read in one step.
const STEP_BYTES: usize = 1 << 20;

/// What a pass works with.
pub(super) struct Tools<'a> {
    pub(super) shard: &'a Shard,
    pub(super) files: &'a Arc<FileCache>,
    pub(super) rewriter: &'a dyn BatchRewriter,
}

/// One log on its way to be compacted. While it is here, the log's directory stays.
pub(super) struct Pass {
    pub(super) log: Arc<LogInner>,
    reader: Arc<SegmentReader>,
    /// The partition's count of cuts when the pass began.
    cuts: u64,
    limits: Compaction,
    now_ms: i64,
    pieces: Vec<Piece>,
    upper: Offset,
    keys: KeyMap,
    /// The last offsets of batches without which a producer would be forgotten.
    producers: BTreeSet<Offset>,
    /// Keys are known below.
    end: Offset,
    groups: VecDeque<Group>,
    /// Batches were passed that nobody could read.
    has_unread: bool,
    stage: Stage,
    opened: OpenedBatch,
    keeps: Vec<bool>,
}

enum Stage {
    Learning,
    /// The checkpoint is to say that there may be holes.
    Telling,
    Writing(Box<Writing>),
    /// The spill thread puts a segment in its place.
    Placing,
}

struct Writing {
    group: Group,
    writer: CompactedWriter,
    next: Offset,
    /// Something is other than it was.
    has_changed: bool,
}

/// A log that has something to be compacted.
pub(super) struct Found {
    /// Its count of cuts before the rest was looked at.
    pub(super) cuts: u64,
    pub(super) dirty: Dirty,
    pub(super) pieces: Vec<Piece>,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// So many bytes were read and written.
    Worked(u64),
    /// Another thread is to do something first.
    Waits,
    /// The log is clean as far as its keys were known.
    Done,
}

/// Why a pass ends early.
#[derive(Debug, thiserror::Error)]
pub(super) enum PassError {
    /// The log was cut, removed or deleted from meanwhile; it may be tried again.
    #[error("the log has changed")]
    Changed,
    /// The log is damaged, or the disk does not give it back.
    #[error("the log cannot be read: {0}")]
    Unreadable(ReadError),
    /// The disk is full, or the like; it may be tried again.
    #[error(transparent)]
    Refused(WalError),
}

impl From<ReadError> for PassError {
    fn from(error: ReadError) -> PassError {
        match error {
            ReadError::OffsetOutOfRange { .. } | ReadError::Closed | ReadError::Suspect => {
                PassError::Changed
            }
            ReadError::TooManyOpenFiles | ReadError::Busy => {
                PassError::Refused(WalError::TooManyOpenFiles {
                    path: std::path::PathBuf::from("segments"),
                })
            }
            ReadError::Damaged { .. } | ReadError::Io { .. } => PassError::Unreadable(error),
        }
    }
}

impl<E: Into<WalError>> From<E> for PassError {
    fn from(error: E) -> PassError {
        PassError::Refused(error.into())
    }
}

impl Pass {
    /// Begins with what is dirty. `None` for a log that is being removed.
    pub(super) fn begin(
        log: Arc<LogInner>,
        limits: Compaction,
        now_ms: i64,
        Found { cuts, dirty, pieces }: Found,
        keys: KeyMap,
    ) -> Option<Pass> {
        let (reader, observer) = (log.reader()?, log.observer()?);
        log.is_cleaning.store(true, Ordering::SeqCst);
        let pass = Pass {
            cuts,
            producers: observer.producers_last_offsets(),
            log,
            reader,
            limits,
            now_ms,
            pieces,
            upper: dirty.upper,
            keys,
            end: dirty.from,
            groups: VecDeque::new(),
            has_unread: false,
            stage: Stage::Learning,
            opened: OpenedBatch::default(),
            keeps: Vec::new(),
        };
        // Asked after it was told: whoever removes it sees one or the other.
        (!pass.log.is_removed()).then_some(pass)
    }

    /// Does a piece of work.
    pub(super) fn step(&mut self, tools: &Tools<'_>) -> Result<Progress, PassError> {
        let is_placing = matches!(self.stage, Stage::Placing); // whose outcome tells of it too
        if !is_placing && (self.log.is_removed() || self.log.state().cuts != self.cuts) {
            return Err(PassError::Changed);
        }
        match std::mem::replace(&mut self.stage, Stage::Learning) {
            Stage::Learning => self.learn(tools),
            Stage::Telling => self.await_told(tools),
            Stage::Writing(writing) => self.write(writing, tools),
            Stage::Placing => self.await_placed(tools),
        }
    }

    /// Gives up what was prepared.
    pub(super) fn abandon(&mut self) -> Result<(), WalError> {
        match std::mem::replace(&mut self.stage, Stage::Learning) {
            Stage::Writing(writing) => Ok(writing.writer.discard()?),
            Stage::Learning | Stage::Telling | Stage::Placing => Ok(()),
        }
    }

    // ---- first: keys

    fn learn(&mut self, tools: &Tools<'_>) -> Result<Progress, PassError> {
        if self.end >= self.upper {
            return self.tell(tools);
        }
        let (batches, bytes) = read(&self.reader, self.end, self.upper)?;
        metrics(tools).cleaner_read_bytes.inc_by(bytes);
        for batch in batches {
            if !self.learn_batch(&batch, tools) {
                return self.tell(tools);
            }
            self.end = batch.facts().next_offset();
        }
        Ok(Progress::Worked(bytes))
    }

    /// False where the batch's keys have no room any more.
    fn learn_batch(&mut self, batch: &Entry, tools: &Tools<'_>) -> bool {
        let facts = batch.facts();
        if self.retain(self.upper).sight(&facts) != Sight::Opens || !self.open(batch, tools) {
            return true;
        }
        if self.opened.records.len() > self.keys.room() {
            return false;
        }
        for record in &self.opened.records {
            if let Some(key) = self.opened.key(record) {
                self.keys.put(key, facts.base_offset.plus(i64::from(record.offset_delta)));
            }
        }
        true
    }

    // ---- second: the checkpoint says that there will be holes

    fn tell(&mut self, tools: &Tools<'_>) -> Result<Progress, PassError> {
        let segment_bytes = self.log.settings().segment_bytes.min(i32::MAX as u64);
        self.groups = groups(&self.pieces, self.end, segment_bytes).into();
        let Some(last) = self.groups.back() else { return Ok(self.finish(tools)) };
        {
            let mut state = self.log.state();
            if state.cuts != self.cuts {
                return Err(PassError::Changed);
            }
            state.expect_holes(last.end);
        }
        tools.shard.want_checkpoint();
        self.stage = Stage::Telling;
        Ok(Progress::Worked(0))
    }

    fn await_told(&mut self, tools: &Tools<'_>) -> Result<Progress, PassError> {
        let end = self.groups.back().expect("told for its sake").end;
        if !holds_told(&self.log, end) {
            self.stage = Stage::Telling;
            return Ok(Progress::Waits);
        }
        self.next_group(tools)
    }

    // ---- third: segments

    fn next_group(&mut self, tools: &Tools<'_>) -> Result<Progress, PassError> {
        let start = self.reader.start_offset();
        // What lies below the log start is about to be dropped.
        while self.groups.pop_front_if(|group| group.end <= start).is_some() {}
        let Some(group) = self.groups.pop_front() else { return Ok(self.finish(tools)) };
        let dir = partition_dir(&tools.shard.config, self.log.id);
        self.check_space(group, &dir, tools)?;
        let interval_bytes = self.log.settings().index_interval_bytes;
        let (base, end) = (group.base, group.end);
        let writer = CompactedWriter::create(tools.files, &dir, base, end, interval_bytes)?;
        let next = base.max(start);
        let has_changed = self.pieces.iter().all(|piece| piece.base != base || piece.end != end);
        self.stage = Stage::Writing(Box::new(Writing { group, writer, next, has_changed }));
        Ok(Progress::Worked(0))
    }

    /// What is spare is the producers', not ours to fill up.
    fn check_space(&self, group: Group, dir: &Path, tools: &Tools<'_>) -> Result<(), PassError> {
        let inside = |piece: &&Piece| (group.base..group.end).contains(&piece.base);
        let wanted: u64 = self.pieces.iter().filter(inside).map(|piece| piece.bytes).sum();
        let spare = 2 * tools.shard.config.file_bytes;
        // A file system that does not say is one that is asked by writing.
        let free = tools.shard.fs.free_bytes(dir).unwrap_or(u64::MAX);
        match tools.shard.is_disk_full() || free < wanted.saturating_add(spare) {
            true => Err(WalError::DiskFull { path: dir.to_owned() }.into()),
            false => Ok(()),
        }
    }

    fn write(
        &mut self,
        mut writing: Box<Writing>,
        tools: &Tools<'_>,
    ) -> Result<Progress, PassError> {
        let group = writing.group;
        if writing.next >= group.end {
            return self.place(*writing, tools);
        }
        let before = writing.writer.bytes();
        let done = match tools.shard.is_disk_full() {
            true => Err(WalError::DiskFull { path: tools.shard.config.dir.clone() }.into()),
            false => self.write_some(&mut writing, tools),
        };
        let written = writing.writer.bytes() - before;
        // Whoever gives up finds what to remove.
        self.stage = Stage::Writing(writing);
        let read = done?;
        metrics(tools).cleaner_read_bytes.inc_by(read);
        metrics(tools).cleaner_written_bytes.inc_by(written);
        Ok(Progress::Worked(read + written))
    }

    fn write_some(&mut self, writing: &mut Writing, tools: &Tools<'_>) -> Result<u64, PassError> {
        let end = writing.group.end;
        let (batches, bytes) = read(&self.reader, writing.next, end)?;
        for batch in batches {
            let facts = batch.facts();
            let ends_segment = facts.next_offset() == end;
            let left = self.left_of(&batch, ends_segment, tools);
            writing.has_changed |= left.as_ref() != Some(&batch);
            if let Some(left) = left {
                assert!(left.facts().next_offset() == facts.next_offset(), "offsets never change");
                writing.writer.add(left)?;
            }
            writing.next = facts.next_offset();
        }
        Ok(bytes)
    }

    /// What stays of a batch.
    fn left_of(&mut self, batch: &Entry, ends_segment: bool, tools: &Tools<'_>) -> Option<Entry> {
        let facts = batch.facts();
        let is_needed = ends_segment || self.producers.contains(&facts.last_offset());
        let sight = self.retain(self.end).sight(&facts);
        match sight {
            Sight::Stays => return Some(batch.clone()),
            Sight::StaysUnread => {
                self.has_unread = true;
                return Some(batch.clone());
            }
            Sight::IsEmpty => return is_needed.then(|| batch.clone()),
            Sight::Opens => {}
        }
        if !self.open(batch, tools) {
            self.has_unread = true;
            metrics(tools).cleaner_unread_batches.inc();
            return Some(batch.clone());
        }
        let (kept, starts_horizon) = self.choose(facts.base_offset, facts.delete_horizon_ms());
        metrics(tools).cleaner_removed_records.inc_by((self.keeps.len() - kept) as u64);
        let horizon_ms = self.now_ms.saturating_add(self.limits.delete_retention_ms);
        let horizon_ms = starts_horizon.then_some(horizon_ms);
        match kept {
            0 => is_needed.then(|| tools.rewriter.empty(batch)),
            kept if kept == self.keeps.len() && horizon_ms.is_none() => Some(batch.clone()),
            _ => Some(tools.rewriter.rewrite(batch, &self.opened, &self.keeps, horizon_ms)),
        }
    }

    /// Opens a batch. One with more records than there can be keys counts as one that cannot be
    /// opened, now as when keys were learned: nobody knows what its tombstones delete.
    fn open(&mut self, batch: &Entry, tools: &Tools<'_>) -> bool {
        tools.rewriter.open(batch, &mut self.opened)
            && self.opened.records.len() <= self.keys.capacity()
    }

    /// Judges the opened batch's records; returns how many stay, and whether a tombstone's time
    /// begins.
    fn choose(&mut self, base: Offset, delete_horizon_ms: Option<i64>) -> (usize, bool) {
        let mut keeps = std::mem::take(&mut self.keeps);
        keeps.clear();
        let retain = self.retain(self.end);
        let mut starts_horizon = false;
        for record in &self.opened.records {
            let candidate = Candidate {
                offset: base.plus(i64::from(record.offset_delta)),
                key: self.opened.key(record),
                has_value: record.has_value,
            };
            let stays = retain.keeps(&candidate, delete_horizon_ms);
            starts_horizon |= stays && retain.starts_horizon(&candidate, delete_horizon_ms);
            keeps.push(stays);
        }
        self.keeps = keeps;
        (self.keeps.iter().filter(|stays| **stays).count(), starts_horizon)
    }

    fn retain(&self, end: Offset) -> Retain<'_> {
        let keeps_tombstones = self.has_unread;
        Retain { keys: &self.keys, end, now_ms: self.now_ms, keeps_tombstones }
    }

    // ---- fourth: in their place

    fn place(&mut self, writing: Writing, tools: &Tools<'_>) -> Result<Progress, PassError> {
        if !writing.has_changed {
            writing.writer.discard()?;
            return self.next_group(tools);
        }
        let compacted: Compacted = writing.writer.finish()?;
        let (log, cuts) = (Arc::clone(&self.log), self.cuts);
        tools.shard.want_swap(SwapJob { log, cuts, compacted });
        self.stage = Stage::Placing;
        Ok(Progress::Worked(0))
    }

    fn await_placed(&mut self, tools: &Tools<'_>) -> Result<Progress, PassError> {
        match tools.shard.take_swap_outcome() {
            None => {
                self.stage = Stage::Placing;
                Ok(Progress::Waits)
            }
            Some(SwapOutcome::Placed) => self.next_group(tools),
            Some(SwapOutcome::Stale) => Err(PassError::Changed),
            Some(SwapOutcome::Refused(error)) => Err(PassError::Refused(error)),
        }
    }

    fn finish(&mut self, tools: &Tools<'_>) -> Progress {
        let mut state = self.log.state();
        if state.cuts == self.cuts && self.end <= state.holes_below {
            state.on_cleaned(self.end);
            tools.shard.want_checkpoint();
        }
        Progress::Done
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.log.is_cleaning.store(false, Ordering::SeqCst);
    }
}

/// Whether the durable checkpoint tells of holes below `end`.
fn holds_told(log: &LogInner, end: Offset) -> bool {
    use crate::rules::{Rule, holds};
    log.state().entry.holes_below >= end || !holds(Rule::HolesTold)
}

fn metrics<'a>(tools: &Tools<'a>) -> &'a WalMetrics {
    &tools.shard.metrics
}

/// Whole batches from `from` on, and their bytes: at least one, and none that reaches above
/// `upper`.
fn read(
    reader: &SegmentReader,
    from: Offset,
    upper: Offset,
) -> Result<(Vec<Entry>, u64), PassError> {
    let pieces = reader.read(from, upper, STEP_BYTES, true)?;
    let mut batches = Vec::new();
    let mut bytes = 0;
    for piece in &pieces {
        bytes += piece.len() as u64;
        batches.extend(batches_in(piece));
    }
    match batches.is_empty() {
        true => Err(PassError::Unreadable(ReadError::Damaged { range: from..upper })),
        false => Ok((batches, bytes)),
    }
}

fn batches_in(piece: &Bytes) -> Vec<Entry> {
    let mut batches = Vec::new();
    let mut at = 0;
    while let Some(header) = piece[at..].first_chunk::<BATCH_HEADER_LEN>() {
        let facts = tidelog_types::BatchHeader::decode(header);
        let end = at + facts.batch_bytes() as usize;
        assert!(end <= piece.len(), "a read ends with a whole batch");
        batches.push(Entry { header: *header, records: piece.slice(at + BATCH_HEADER_LEN..end) });
        at = end;
    }
    batches
}
