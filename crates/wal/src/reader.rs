//! Cold reads and searches: what needs the disk waits for a thread of its own.

use std::{
    ops::Range,
    sync::{Arc, MutexGuard},
    time::Instant,
};

use tidelog_types::{Entry, Offset};

use crate::{
    cache::TailEntry,
    error::{Fatal, ReadError},
    file_cache::FileCache,
    log::{ColdRead, Found, FoundBatch, ReadDone},
    partition::LogState,
    read_ahead::Streams,
    segment::{Region, SegmentRead, SegmentReader, Take, hold_records},
    shard::{LogInner, Shard},
    threads::Step,
};

/// Bytes that are read ahead for one stream, at most.
const AHEAD_BYTES_MAX: u64 = 4 << 20;
/// Reads of batches without records that one answer may take.
const EMPTY_READS_MAX: u32 = 1000;
/// Steps without a job, of about a second each, after which memory is given back.
const IDLE_STEPS_MAX: u32 = 3;

/// What the reader thread is asked.
pub(crate) enum ColdJob {
    Read {
        log: Arc<LogInner>,
        read: ColdRead,
        done: ReadDone,
    },
    FindByTimestamp {
        log: Arc<LogInner>,
        timestamp_ms: i64,
        from: Offset,
        upper: Offset,
        done: Found,
    },
    FindMaxTimestamp {
        log: Arc<LogInner>,
        from: Offset,
        upper: Offset,
        done: Found,
    },
}

impl std::fmt::Debug for ColdJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ColdJob")
    }
}

impl ColdJob {
    fn is_abandoned(&self) -> bool {
        match self {
            ColdJob::Read { done, .. } => done.is_abandoned(),
            ColdJob::FindByTimestamp { done, .. } | ColdJob::FindMaxTimestamp { done, .. } => {
                done.is_abandoned()
            }
        }
    }

    /// Answers that it will not be done.
    pub(crate) fn refuse(self, error: ReadError) {
        match self {
            ColdJob::Read { done, .. } => done.done(Err(error)),
            ColdJob::FindByTimestamp { done, .. } | ColdJob::FindMaxTimestamp { done, .. } => {
                done.done(Err(error));
            }
        }
    }
}

/// The reader thread's body.
#[derive(Debug)]
pub(crate) struct ColdReader {
    shard: Arc<Shard>,
    files: Arc<FileCache>,
    streams: Streams<Region>,
    idle_steps: u32,
}

impl ColdReader {
    pub(crate) fn new(shard: Arc<Shard>, files: Arc<FileCache>) -> ColdReader {
        ColdReader { shard, files, streams: Streams::default(), idle_steps: 0 }
    }

    /// Does one job or, where none waits, what the next may ask for.
    pub(crate) fn step(&mut self) -> Result<Step, Fatal> {
        let is_closing = self.shard.queue().is_closing;
        let Some(job) = self.shard.next_cold(is_closing) else {
            return Ok(if is_closing { Step::Done } else { self.work_ahead() });
        };
        self.idle_steps = 0;
        match job {
            job if job.is_abandoned() => {}
            ColdJob::Read { log, read, done } => {
                let found = self.read(&log, &read);
                if let Err(ReadError::Damaged { range }) = &found {
                    self.report_damage(&log, range);
                }
                done.done(found.map(|found| found.pieces));
            }
            ColdJob::FindByTimestamp { log, timestamp_ms, from, upper, done } => {
                done.done(find_by_timestamp(&log, timestamp_ms, from, upper));
            }
            ColdJob::FindMaxTimestamp { log, from, upper, done } => {
                done.done(find_max_timestamp(&log, from, upper));
            }
        }
        Ok(Step::Worked)
    }

    fn read(&mut self, log: &LogInner, read: &ColdRead) -> Result<SegmentRead, ReadError> {
        let started = Instant::now();
        self.shard.metrics.cold_reads.inc();
        if log.is_removed() {
            return Err(ReadError::Closed);
        }
        // The entries may have left memory between the read and now, never the other way round.
        let reader = log.reader().ok_or_else(|| out_of_range(log, read.from))?;
        let ColdRead { from, upper, max_bytes, at_least_one } = *read;
        let (goes_on, ahead) = self.streams.begin(log.id, from);
        let take = Take { from, upper, max_bytes, at_least_one };
        let mut found = reader.read_stream(&take, ahead.as_ref())?;
        read_past_empty(&reader, &take, &mut found);
        self.streams.end(log.id, found.next, goes_on, max_bytes as u64);
        let metrics = &self.shard.metrics;
        metrics.cold_reads_ahead.inc_by(u64::from(found.is_ahead));
        metrics.cold_read_bytes.inc_by(found.pieces.iter().map(|piece| piece.len() as u64).sum());
        metrics.cold_read_duration.observe(started.elapsed().as_secs_f64());
        Ok(found)
    }

    /// While one answer is sent, the disk may get the next.
    fn work_ahead(&mut self) -> Step {
        let Some(due) = self.streams.due() else {
            self.idle_steps += 1;
            if self.idle_steps > IDLE_STEPS_MAX && self.streams.clear() {
                self.files.buffers().clear();
            }
            return Step::Idle;
        };
        let log = self.shard.logs().get(&due.id).cloned();
        let reader = log.filter(|log| !log.is_removed()).and_then(|log| log.reader());
        let max_bytes = due.max_bytes.min(AHEAD_BYTES_MAX);
        if let Some(region) = reader.and_then(|reader| reader.read_ahead(due.from, max_bytes)) {
            self.shard.metrics.read_ahead_bytes.inc_by(region.bytes.len() as u64);
            self.streams.hold(&due, region);
        }
        Step::Worked
    }
}

impl ColdReader {
    /// Says it once for each range, not for each read that meets it.
    fn report_damage(&self, log: &LogInner, range: &Range<Offset>) {
        if log.note_reported(range.clone()) {
            self.shard.metrics.damaged_ranges.inc();
            tracing::error!(
                partition = %log.id,
                from_offset = range.start.0,
                to_offset = range.end.0,
                "a segment is damaged: reads of these offsets are refused"
            );
        }
    }
}

/// Where everything was superseded, compaction leaves one batch without records a segment. An
/// answer of nothing else tells a client nothing, and librdkafka takes it for one that was cut
/// short and gives up after ten of them: so what follows goes with it. What fails here fails in
/// the next read.
fn read_past_empty(reader: &SegmentReader, take: &Take, found: &mut SegmentRead) {
    for _ in 0..EMPTY_READS_MAX {
        let is_empty = found.pieces.last().is_some_and(|piece| !hold_records(piece));
        if !is_empty || found.next >= take.upper {
            return;
        }
        let bytes: usize = found.pieces.iter().map(|piece| piece.len()).sum();
        let max_bytes = take.max_bytes.saturating_sub(bytes);
        let more = reader.read_stream(&Take { from: found.next, max_bytes, ..*take }, None);
        let Ok(more) = more.map(|more| (more.pieces, more.next)) else { return };
        if more.0.is_empty() {
            return;
        }
        assert!(more.1 > found.next, "a read goes on");
        found.pieces.extend(more.0);
        found.next = more.1;
    }
}

/// Segments hold the older batches, so they are searched first.
fn find_by_timestamp(
    log: &LogInner,
    timestamp_ms: i64,
    from: Offset,
    upper: Offset,
) -> Result<Option<FoundBatch>, ReadError> {
    // Memory and where segments end at one moment: what is spilled later is found in neither.
    let (in_tail, from, spilled_end) = {
        let state = readable(log)?;
        let from = from.max(state.log_start);
        let late = |entry: &&Entry| entry.facts().max_timestamp >= timestamp_ms;
        (in_memory(&state, from, upper).find(late).cloned(), from, state.spilled_end)
    };
    let in_segments = match log.reader() {
        Some(reader) => reader.find_by_timestamp(timestamp_ms, from, upper.min(spilled_end))?,
        None => None,
    };
    Ok(in_segments.or(in_tail).map(|entry| FoundBatch { entry }))
}

fn find_max_timestamp(
    log: &LogInner,
    from: Offset,
    upper: Offset,
) -> Result<Option<FoundBatch>, ReadError> {
    let (in_tail, from, spilled_end) = {
        let state = readable(log)?;
        let from = from.max(state.log_start);
        let greatest = first_of_greatest(in_memory(&state, from, upper)).cloned();
        (greatest, from, state.spilled_end)
    };
    let in_segments = match log.reader() {
        Some(reader) => reader.find_max_timestamp(from, upper.min(spilled_end))?,
        None => None,
    };
    let found = first_of_greatest(in_segments.iter().chain(&in_tail));
    Ok(found.map(|entry| FoundBatch { entry: entry.clone() }))
}

fn first_of_greatest<'a>(entries: impl Iterator<Item = &'a Entry>) -> Option<&'a Entry> {
    entries.reduce(|best, next| {
        let is_later = next.facts().max_timestamp > best.facts().max_timestamp;
        if is_later { next } else { best }
    })
}

/// Batches in memory that may be found: what was deleted stays there for a while.
fn in_memory(state: &LogState, from: Offset, upper: Offset) -> impl Iterator<Item = &Entry> {
    let found = move |entry: &&TailEntry| from <= entry.last && entry.last < upper;
    state.tail.iter().filter(found).map(|entry| &entry.entry)
}

fn readable(log: &LogInner) -> Result<MutexGuard<'_, LogState>, ReadError> {
    if log.is_removed() {
        return Err(ReadError::Closed);
    }
    let state = log.state();
    if state.is_suspect { Err(ReadError::Suspect) } else { Ok(state) }
}

fn out_of_range(log: &LogInner, offset: Offset) -> ReadError {
    let state = log.state();
    ReadError::OffsetOutOfRange {
        offset,
        log_start_offset: state.log_start,
        log_end_offset: state.log_end,
    }
}
