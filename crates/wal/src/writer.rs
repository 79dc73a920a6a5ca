//! The only code that writes the WAL and syncs it: takes what waits, writes it as one group, syncs
//! once, and only then lets anybody know.

use std::{
    collections::VecDeque,
    io::IoSlice,
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tidelog_types::{BATCH_HEADER_LEN, Entry, LeaderEpoch, Offset, TopicIdPartition};

use crate::{
    chain::ChainWriter,
    config::Durability,
    error::Fatal,
    frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind},
    group_commit::{Gathered, gather},
    rules::{Rule, holds},
    shard::{LogInner, Queued, Shard},
    threads::Step,
};

/// Records smaller than this are copied next to their header: cheaper than a slice of their own.
const COPY_BYTES_MAX: usize = 2048;

/// The writer thread's body.
#[derive(Debug)]
pub(crate) struct Writer {
    shard: Arc<Shard>,
    chain: ChainWriter,
    /// Taken from the queue, not yet written.
    pending: VecDeque<Queued>,
    /// When the first of what was taken had come.
    waiting_since: Option<Instant>,
    staging: Staging,
    /// Highest sequence written.
    written: u64,
    /// Something was written since the last idle frame.
    idle_due: bool,
    /// The queue was found empty once since.
    is_quiet: bool,
    /// Logs whose durable end rose in the group being published.
    touched: Vec<(Arc<LogInner>, Offset)>,
}

/// Headers and small records of one group, and where the large ones go between them.
#[derive(Debug, Default)]
struct Staging {
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    Staged(Range<usize>),
    /// The records of the n-th frame of the group.
    Records(usize),
}

impl Writer {
    pub(crate) fn new(shard: Arc<Shard>, chain: ChainWriter) -> Writer {
        Writer {
            written: shard.durable_sequence(),
            shard,
            chain,
            pending: VecDeque::new(),
            waiting_since: None,
            staging: Staging::default(),
            idle_due: false,
            is_quiet: false,
            touched: Vec::new(),
        }
    }

    /// Writes one group, or an idle frame when nothing has waited for a while.
    pub(crate) fn step(&mut self) -> Result<Step, Fatal> {
        let is_closing = self.take_queue();
        let payloads = self.pending.iter().map(Queued::payload_bytes);
        match gather(payloads, self.chain.room(), self.shard.config.commit_bytes_max) {
            Gathered::Group { frames, bytes } => {
                self.is_quiet = false;
                self.write_group(frames, bytes)?;
                Ok(Step::Worked)
            }
            Gathered::NeedsFile { bytes } => self.next_file(bytes),
            Gathered::Nothing => self.on_nothing(is_closing),
        }
    }

    fn take_queue(&mut self) -> bool {
        let mut queue = self.shard.queue();
        if self.pending.is_empty() {
            std::mem::swap(&mut self.pending, &mut queue.frames);
            self.waiting_since = queue.waiting_since.take();
        }
        queue.is_closing
    }

    fn next_file(&mut self, bytes: u64) -> Result<Step, Fatal> {
        let first = self.written + 1;
        if !self.chain.roll(first, bytes)? {
            if self.has_cut_waiting() {
                self.shard.pool.exceed();
            }
            self.shard.bells.filler.ring();
            self.shard.spill_wanted.store(true, Ordering::Release);
            self.shard.bells.spill.ring();
            return Ok(Step::Idle);
        }
        // Rolling synced the file before.
        self.on_synced(self.written);
        self.shard.metrics.wal_segments.set(self.shard.pool.live_files().len() as i64);
        self.shard.bells.filler.ring();
        self.shard.bells.spill.ring();
        Ok(Step::Worked)
    }

    /// A partition with a cut that is not durable is not spilled, and keeps its oldest file.
    fn has_cut_waiting(&self) -> bool {
        let queue = self.shard.queue();
        self.pending.iter().chain(&queue.frames).any(Queued::is_cut)
    }

    /// One idle frame says that the last group is durable; without it, recovery could not tell
    /// damage there from a torn tail. Not at once: the next request is often on its way.
    fn on_nothing(&mut self, is_closing: bool) -> Result<Step, Fatal> {
        if self.shard.sync_wanted.swap(false, Ordering::AcqRel) {
            self.sync()?;
            self.on_synced(self.written);
        }
        if self.idle_due && (self.is_quiet || is_closing) {
            return self.write_idle();
        }
        self.is_quiet = true;
        Ok(match (is_closing, self.idle_due) {
            (true, _) => Step::Done,
            (false, true) => Step::Pause,
            (false, false) => Step::Idle,
        })
    }

    fn write_idle(&mut self) -> Result<Step, Fatal> {
        if self.chain.room() < crate::chain::BLOCK_BYTES {
            return self.next_file(crate::chain::BLOCK_BYTES);
        }
        let sequence = {
            let mut queue = self.shard.queue();
            if !queue.frames.is_empty() {
                return Ok(Step::Worked);
            }
            queue.next_sequence += 1;
            queue.next_sequence - 1
        };
        let frame =
            idle_frame(self.chain.epoch(), sequence, self.shard.durable_sequence()).encode(&[]);
        self.chain.append(vec![IoSlice::new(&frame)], frame.len() as u64)?;
        self.chain.sync()?;
        self.written = sequence;
        self.on_synced(sequence);
        self.idle_due = false;
        Ok(Step::Worked)
    }

    fn write_group(&mut self, frames: usize, bytes: u64) -> Result<(), Fatal> {
        self.stage(frames);
        let last = self.pending[frames - 1].header.sequence;
        let started = Instant::now();
        let slices = self.staging.slices(&self.pending);
        let staged: usize = slices.iter().map(|slice| slice.len()).sum();
        assert!(staged as u64 == bytes, "a group is as long as it was planned");
        self.chain.append(slices, bytes)?;
        let metrics = &self.shard.metrics;
        metrics.wal_write_duration.observe(started.elapsed().as_secs_f64());
        metrics.wal_append_bytes.inc_by(crate::chain::block_align(bytes));
        metrics.wal_groups.inc();
        metrics.wal_group_bytes.observe(bytes as f64);
        if let Some(since) = self.waiting_since {
            metrics.wal_queue_wait.observe((started - since).as_secs_f64());
        }
        metrics.wal_group_frames.observe(frames as f64);
        self.written = last;
        if !holds(Rule::AckAfterSync) {
            self.publish(frames);
            return self.sync();
        }
        let sync_wanted = self.shard.sync_wanted.swap(false, Ordering::AcqRel);
        // A cut that counted as durable before it is could reach a checkpoint and not the WAL.
        let has_cut = self.pending.iter().take(frames).any(Queued::is_cut);
        if sync_wanted || has_cut || self.shard.config.durability == Durability::Synced {
            self.sync()?;
            self.publish_durable(frames, last);
        } else {
            self.publish(frames);
        }
        self.idle_due = true;
        Ok(())
    }

    /// Encodes the first `frames` that wait.
    fn stage(&mut self, frames: usize) {
        self.staging.clear();
        let (epoch, durable_through) = (self.chain.epoch(), self.shard.durable_sequence());
        for (index, queued) in self.pending.iter().take(frames).enumerate() {
            let header = FrameHeader {
                epoch,
                durable_through,
                is_group_end: index + 1 == frames,
                ..queued.header
            };
            let expected = self.written + 1 + index as u64;
            assert!(header.sequence == expected, "sequences have no gaps");
            self.staging.add(index, &header, queued);
        }
        self.staging.finish();
    }

    fn sync(&mut self) -> Result<(), Fatal> {
        let started = Instant::now();
        let synced = self.chain.sync();
        if holds(Rule::FailedSyncEnds) {
            synced?;
        }
        self.shard.metrics.wal_fsync_duration.observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// The durable ends first, then the durable sequence, then those who wait.
    fn publish_durable(&mut self, frames: usize, last: u64) {
        let (bytes, touched) = self.settle(frames);
        self.on_synced(last);
        self.tell(bytes, touched);
    }

    /// Tells everybody without a sync: `wal.durability=page-cache`.
    fn publish(&mut self, frames: usize) {
        let (bytes, touched) = self.settle(frames);
        self.tell(bytes, touched);
    }

    fn on_synced(&self, sequence: u64) {
        assert!(sequence <= self.written, "only what is written can be durable");
        self.shard.set_durable_sequence(sequence.max(self.shard.durable_sequence()));
    }

    /// Stores the durable end of every log that the group touched.
    fn settle(&mut self, frames: usize) -> (u64, Vec<(Arc<LogInner>, Offset)>) {
        let mut touched = std::mem::take(&mut self.touched);
        let mut bytes = 0;
        for queued in self.pending.drain(..frames) {
            bytes += queued.entry.as_ref().map_or(0, Entry::memory_bytes);
            let mut state = queued.log.state();
            let header = &queued.header;
            let rises = match header.kind {
                FrameKind::Append => state.on_append_durable(header.sequence, header.last_offset),
                _ => state.on_cut_durable(header.sequence),
            };
            let durable_end = state.durable_end;
            queued.log.publish(durable_end);
            drop(state);
            match touched.last_mut() {
                _ if !rises => {}
                Some((log, end)) if Arc::ptr_eq(log, &queued.log) => *end = durable_end,
                _ => touched.push((queued.log, durable_end)),
            }
        }
        (bytes, touched)
    }

    fn tell(&mut self, bytes: u64, mut touched: Vec<(Arc<LogInner>, Offset)>) {
        self.shard.budget.release(bytes, 0);
        // Many partitions interleave in one group: each is told once, of its newest end.
        touched.sort_by_key(|(log, end)| (Arc::as_ptr(log), *end));
        for index in 0..touched.len() {
            let (log, end) = &touched[index];
            let is_newest = touched.get(index + 1).is_none_or(|(next, _)| !Arc::ptr_eq(next, log));
            if is_newest && let Some(observer) = log.observer() {
                observer.on_durable(*end);
            }
        }
        touched.clear();
        self.touched = touched;
        if self.shard.snapshot_ahead.swap(false, Ordering::AcqRel) {
            self.shard.want_checkpoint();
        }
        let (queue, tail) = self.shard.budget.used();
        self.shard.metrics.wal_queue_depth_bytes.set(queue as i64);
        self.shard.metrics.wal_tail_bytes.set(tail as i64);
        if tail >= self.shard.config.tail_bytes_max / 4 {
            self.shard.bells.spill.ring();
        }
    }
}

impl Queued {
    fn is_cut(&self) -> bool {
        self.header.kind != FrameKind::Append
    }

    fn payload_bytes(&self) -> usize {
        self.header.payload_bytes as usize
    }
}

impl Staging {
    fn clear(&mut self) {
        self.bytes.clear();
        self.pieces.clear();
    }

    fn add(&mut self, index: usize, header: &FrameHeader, queued: &Queued) {
        let Some(entry) = &queued.entry else {
            self.bytes.extend_from_slice(&header.encode(&[]));
            return self.pad(0);
        };
        self.bytes.extend_from_slice(&header.encode(&[&entry.header, &entry.records]));
        self.bytes.extend_from_slice(&entry.header);
        if entry.records.len() < COPY_BYTES_MAX {
            self.bytes.extend_from_slice(&entry.records);
        } else {
            self.finish();
            self.pieces.push(Piece::Records(index));
        }
        self.pad(BATCH_HEADER_LEN + entry.records.len());
    }

    fn pad(&mut self, payload_bytes: usize) {
        let padding = crate::frame::frame_bytes(payload_bytes) - FRAME_HEADER_BYTES - payload_bytes;
        self.bytes.resize(self.bytes.len() + padding, 0);
    }

    /// Closes the piece being staged.
    fn finish(&mut self) {
        let staged = |piece: &Piece| match piece {
            Piece::Staged(range) => Some(range.end),
            Piece::Records(_) => None,
        };
        let start = self.pieces.iter().rev().find_map(staged).unwrap_or_default();
        if start < self.bytes.len() {
            self.pieces.push(Piece::Staged(start..self.bytes.len()));
        }
    }

    fn slices<'a>(&'a self, frames: &'a VecDeque<Queued>) -> Vec<IoSlice<'a>> {
        let mut slices = Vec::with_capacity(self.pieces.len() + 1);
        for piece in &self.pieces {
            slices.push(match piece {
                Piece::Staged(range) => IoSlice::new(&self.bytes[range.clone()]),
                Piece::Records(index) => match &frames[*index].entry {
                    Some(entry) => IoSlice::new(&entry.records),
                    None => unreachable!("only a batch has records"),
                },
            });
        }
        slices
    }
}

/// A frame that only says what is durable.
pub(crate) fn idle_frame(epoch: u64, sequence: u64, durable_through: u64) -> FrameHeader {
    FrameHeader {
        kind: FrameKind::Idle,
        is_group_end: true,
        epoch,
        sequence,
        id: TopicIdPartition::default(),
        leader_epoch: LeaderEpoch::NONE,
        base_offset: Offset::ZERO,
        last_offset: Offset::ZERO,
        durable_through,
        previous_sequence: 0,
        payload_bytes: 0,
    }
}
