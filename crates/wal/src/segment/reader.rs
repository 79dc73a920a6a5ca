//! Reads a partition's segments. Wrong bytes are never served.
//!
//! A batch is handed out when its offset follows from the one before, the headers of its
//! neighbourhood are the ones that the index remembers, and its own checksum fits.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicI64, Ordering},
    },
};

use bytes::Bytes;
use tidelog_types::{BATCH_HEADER_LEN, BatchHeader, Entry, Offset};

use super::{
    batches::{Placed, batches_of, is_whole},
    file::Segment,
    region::Region,
};
use crate::{
    error::{FsErrorClass, ReadError, class},
    file_cache::FileCache,
    index::Interval,
};

/// The readers' side of a partition's segments, shared by all of them.
#[derive(Debug)]
pub struct SegmentReader {
    files: Arc<FileCache>,
    /// Held for reading while a read runs: files are not cut or removed under it.
    view: RwLock<View>,
    end: AtomicI64,
}

/// The segments, in order of their base offsets.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) start: Offset,
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) is_removed: bool,
}

impl SegmentReader {
    pub(crate) fn new(files: Arc<FileCache>, start: Offset, end: Offset) -> SegmentReader {
        let view = View { start, segments: Vec::new(), is_removed: false };
        SegmentReader { files, view: RwLock::new(view), end: AtomicI64::new(end.0) }
    }

    /// First offset that is still here.
    #[must_use]
    pub fn start_offset(&self) -> Offset {
        self.view().start
    }

    /// The offset behind the last batch.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        Offset(self.end.load(Ordering::Acquire))
    }

    /// Whole batches from the one that holds `from`, ending at or below `upper`, of at most
    /// `max_bytes` in all, but one however large if `at_least_one`. Each of the pieces holds one
    /// or more batches. None where `from` is the end, or `upper` cuts the first.
    ///
    /// # Errors
    /// As [`ReadError`] says; what lies in front of a damaged batch is read first.
    pub fn read(
        &self,
        from: Offset,
        upper: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Vec<Bytes>, ReadError> {
        let take = Take { from, upper, max_bytes, at_least_one };
        self.read_stream(&take, None).map(|read| read.pieces)
    }

    /// The same, from what was read ahead as far as that is what lies there now.
    pub(crate) fn read_stream(
        &self,
        take: &Take,
        ahead: Option<&Region>,
    ) -> Result<SegmentRead, ReadError> {
        let view = self.open_view()?;
        let mut read = SegmentRead { pieces: Vec::new(), next: take.from, is_ahead: false };
        let Some((segment, end)) = self.locate(&view, take.from)? else { return Ok(read) };
        // What the writer is about to make part of the log is not read, or a reader would be past
        // the end of it.
        let take = &Take { upper: take.upper.min(end), ..*take };
        let intervals = self.intervals(segment, end, take.from, take.max_bytes as u64)?;
        let from_ahead = ahead.and_then(|ahead| self.take_ahead(segment, &intervals, take, ahead));
        read.is_ahead = from_ahead.is_some();
        let (region, picked) = match from_ahead {
            Some(found) => found,
            None => {
                let region = self.region(segment, &intervals)?;
                let picked = self.pick(&region, &intervals, take)?;
                (region.bytes, picked)
            }
        };
        if !picked.range.is_empty() {
            // What is kept must not hold much more memory than it counts for.
            let wanted = region.slice(picked.range);
            let is_small = wanted.len() < region.len() / 4;
            read.pieces.push(if is_small { Bytes::copy_from_slice(&wanted) } else { wanted });
            read.next = picked.next;
        }
        Ok(read)
    }

    /// The bytes that a read from here on would need, if they are worth reading ahead. Whatever
    /// goes wrong, the read itself will say.
    pub(crate) fn read_ahead(&self, from: Offset, max_bytes: u64) -> Option<Region> {
        let view = self.open_view().ok()?;
        let (segment, end) = self.locate(&view, from).ok()??;
        let intervals = self.intervals(segment, end, from, max_bytes).ok()?;
        if !Region::is_large(&intervals) {
            return None;
        }
        Region::read(&self.files, segment, &intervals).ok()
    }

    /// Where a log that ends at `offset` would have to end so as not to cut a batch, nor to end in
    /// a hole: behind the last batch that ends at or below `offset`.
    ///
    /// # Errors
    /// As [`ReadError`] says.
    pub fn batch_boundary(&self, offset: Offset) -> Result<Offset, ReadError> {
        let view = self.open_view()?;
        let Some((segment, end)) = self.locate(&view, offset)? else { return Ok(offset) };
        let intervals = self.intervals(segment, end, offset, 0)?;
        let region = self.region(segment, &intervals)?;
        let batches = self.checked(&region.bytes, &intervals[0])?;
        let below = batches.iter().take_while(|(_, facts)| facts.next_offset() <= offset);
        Ok(below.last().map_or(intervals[0].base, |(_, facts)| facts.next_offset()))
    }

    /// The first batch that ends behind `from`, at or below `upper`, and whose greatest timestamp
    /// is at least `timestamp_ms`. Segments may hold what was deleted for a while yet.
    ///
    /// # Errors
    /// As [`ReadError`] says.
    pub fn find_by_timestamp(
        &self,
        timestamp_ms: i64,
        from: Offset,
        upper: Offset,
    ) -> Result<Option<Entry>, ReadError> {
        let view = self.open_view()?;
        let start = view.start.max(from);
        let mut late_enough =
            |facts: &BatchHeader| facts.records_count > 0 && facts.max_timestamp >= timestamp_ms;
        for (segment, end) in self.segments_below(&view, upper) {
            let reaches = |interval: &Interval| interval.max_timestamp >= timestamp_ms;
            let first = segment.first_interval(&self.files, end, reaches);
            let Some(first) = first.map_err(|e| io_error(segment, e))? else { continue };
            let from = first.base.max(start);
            if let Some(found) = self.find(segment, end, from, upper, &mut late_enough)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The batch with the greatest timestamp of those that end behind `from` and at or below
    /// `upper`; the first of equals.
    ///
    /// # Errors
    /// As [`ReadError`] says.
    pub fn find_max_timestamp(
        &self,
        from: Offset,
        upper: Offset,
    ) -> Result<Option<Entry>, ReadError> {
        let mut greatest: Option<i64> = None;
        {
            let view = self.open_view()?;
            for (segment, end) in self.segments_below(&view, upper) {
                let start = view.start.max(from);
                let found = self.max_timestamp_in(segment, start, end, upper)?;
                greatest = greatest.max(found);
            }
        }
        match greatest {
            Some(timestamp_ms) => self.find_by_timestamp(timestamp_ms, from, upper),
            None => Ok(None),
        }
    }

    /// Headers of all batches from the one that holds `from`. Damage is one item; the headers
    /// behind it follow. Reads the disk as it goes: start-up only.
    #[must_use]
    pub fn headers_from(self: &Arc<Self>, from: Offset) -> Headers {
        Headers { reader: Arc::clone(self), next: from, ready: VecDeque::new(), is_done: false }
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let view = self.view();
        // A file that cannot be looked at counts for nothing; reading it says why.
        let bytes = |segment: &Arc<Segment>| segment.bytes(&self.files).unwrap_or(0);
        view.segments.iter().map(bytes).sum()
    }

    pub(crate) fn set_end(&self, end: Offset) {
        self.end.store(end.0, Ordering::Release);
    }

    pub(crate) fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the reads that run.
    pub(crate) fn view_mut(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_view(&self) -> Result<RwLockReadGuard<'_, View>, ReadError> {
        let view = self.view();
        if view.is_removed { Err(ReadError::Closed) } else { Ok(view) }
    }

    /// The segment that `from` lies in and where it ends; `None` at the log's end.
    fn locate<'a>(
        &self,
        view: &'a View,
        from: Offset,
    ) -> Result<Option<(&'a Segment, Offset)>, ReadError> {
        let end = self.end_offset();
        if from < view.start || from > end {
            let (log_start_offset, log_end_offset) = (view.start, end);
            return Err(ReadError::OffsetOutOfRange {
                offset: from,
                log_start_offset,
                log_end_offset,
            });
        }
        if from == end {
            return Ok(None);
        }
        let next = view.segments.partition_point(|segment| segment.base <= from);
        let next_base = view.segments.get(next).map_or(end, |segment| segment.base);
        match next.checked_sub(1) {
            Some(at) => Ok(Some((&view.segments[at], next_base))),
            None => Err(ReadError::Damaged { range: view.start..next_base }),
        }
    }

    /// Every segment that begins below `upper`, and where it ends.
    fn segments_below<'a>(
        &self,
        view: &'a View,
        upper: Offset,
    ) -> impl Iterator<Item = (&'a Segment, Offset)> {
        let ends = view.segments.iter().skip(1).map(|segment| segment.base);
        let ends = ends.chain([self.end_offset()]);
        let segments = view.segments.iter().map(|segment| &**segment).zip(ends);
        segments.take_while(move |(segment, _)| segment.base < upper)
    }

    fn intervals(
        &self,
        segment: &Segment,
        end: Offset,
        from: Offset,
        max_bytes: u64,
    ) -> Result<Vec<Interval>, ReadError> {
        let found = segment.intervals(&self.files, end, from, max_bytes);
        let intervals = found.map_err(|error| io_error(segment, error))?;
        if intervals.is_empty() {
            let extent = segment.extent(&self.files, end).map_err(|e| io_error(segment, e))?;
            let start = if extent.end() <= from { extent.end() } else { from };
            return Err(ReadError::Damaged { range: start..end });
        }
        Ok(intervals)
    }

    fn region(&self, segment: &Segment, intervals: &[Interval]) -> Result<Region, ReadError> {
        Region::read(&self.files, segment, intervals).map_err(|error| io_error(segment, error))
    }

    /// An interval's batches; the bytes may go on behind it.
    fn checked(&self, bytes: &[u8], interval: &Interval) -> Result<Vec<Placed>, ReadError> {
        let part = &bytes[..bytes.len().min(interval.bytes as usize)];
        let damaged = ReadError::Damaged { range: interval.base..interval.next };
        batches_of(part, interval).ok_or(damaged)
    }

    /// Picks the batches wanted from what was read ahead; `None` where they are not there. It may
    /// have been cut and written anew since: that is not damage, only out of date.
    fn take_ahead(
        &self,
        segment: &Segment,
        intervals: &[Interval],
        take: &Take,
        ahead: &Region,
    ) -> Option<(Bytes, Picked)> {
        let covered = ahead.covered(segment, intervals);
        let picked = self.pick(ahead, covered, take).ok()?;
        (!covered.is_empty()).then(|| (ahead.bytes.clone(), picked))
    }

    /// Picks the batches wanted as a range of the region; what lies in front of a damaged one is
    /// picked first.
    fn pick(
        &self,
        region: &Region,
        intervals: &[Interval],
        take: &Take,
    ) -> Result<Picked, ReadError> {
        let mut picked = Picked { range: 0..0, next: take.from };
        for interval in intervals {
            let (at, rest) = region.from(interval);
            match self.checked(rest, interval) {
                Ok(batches) => match take.pick(rest, &batches, at, &mut picked) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(range) if picked.range.is_empty() => {
                        return Err(ReadError::Damaged { range });
                    }
                    Err(_) => break,
                },
                Err(damaged) if picked.range.is_empty() => return Err(damaged),
                Err(_) => break,
            }
        }
        Ok(picked)
    }

    /// The first batch wanted of those that end at or below `upper`, asked in order.
    fn find(
        &self,
        segment: &Segment,
        end: Offset,
        from: Offset,
        upper: Offset,
        wanted: &mut dyn FnMut(&BatchHeader) -> bool,
    ) -> Result<Option<Entry>, ReadError> {
        let mut next = from;
        while next < end.min(upper) {
            let intervals = self.intervals(segment, end, next, 0)?;
            let Region { bytes, .. } = self.region(segment, &intervals)?;
            for (range, facts) in self.checked(&bytes, &intervals[0])? {
                if facts.next_offset() > upper {
                    return Ok(None);
                }
                if facts.next_offset() > from && wanted(&facts) {
                    return entry_of(&bytes[range], &facts).map(Some);
                }
            }
            next = intervals[0].next;
        }
        Ok(None)
    }

    /// The greatest timestamp of a segment's batches in `start..upper`. The index knows it for
    /// whole intervals; the two that may be cut are read.
    fn max_timestamp_in(
        &self,
        segment: &Segment,
        start: Offset,
        end: Offset,
        upper: Offset,
    ) -> Result<Option<i64>, ReadError> {
        let mut greatest = None;
        let mut next = segment.base;
        if start <= segment.base {
            let cut = |interval: &Interval| interval.next > upper.min(end);
            let cut = segment.first_interval(&self.files, end, cut);
            let extent = segment.extent(&self.files, end).map_err(|e| io_error(segment, e))?;
            match cut.map_err(|error| io_error(segment, error))? {
                None => return Ok(Some(extent.open.max_timestamp)),
                Some(cut) if cut.base > segment.base => {
                    let below = self.intervals(segment, end, cut.base.plus(-1), 0)?;
                    greatest = Some(below[0].max_timestamp);
                    next = cut.base;
                }
                Some(_) => {}
            }
        }
        // None is wanted, so all are visited.
        self.find(segment, end, next.max(start), upper, &mut |facts| {
            let found = (facts.records_count > 0).then_some(facts.max_timestamp);
            greatest = greatest.max(found);
            false
        })?;
        Ok(greatest)
    }
}

/// What a read found.
#[derive(Debug)]
pub(crate) struct SegmentRead {
    /// Whole batches.
    pub(crate) pieces: Vec<Bytes>,
    /// The offset behind the last of them.
    pub(crate) next: Offset,
    /// They had been read ahead.
    pub(crate) is_ahead: bool,
}

/// What a read is to take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Take {
    pub(crate) from: Offset,
    pub(crate) upper: Offset,
    pub(crate) max_bytes: usize,
    pub(crate) at_least_one: bool,
}

/// Batches behind each other.
struct Picked {
    /// Where they lie in a region.
    range: Range<usize>,
    /// The offset behind the last.
    next: Offset,
}

impl Take {
    /// Adds to `picked` what is wanted of batches whose bytes start `at` bytes into the region;
    /// whether more may follow, or the offsets of a damaged batch.
    fn pick(
        &self,
        bytes: &[u8],
        batches: &[Placed],
        at: usize,
        picked: &mut Picked,
    ) -> Result<bool, Range<Offset>> {
        for (range, facts) in batches {
            if facts.next_offset() <= self.from {
                continue;
            }
            let is_first = picked.range.end == 0;
            let fits = picked.range.len() + range.len() <= self.max_bytes;
            if facts.next_offset() > self.upper || !(fits || is_first && self.at_least_one) {
                return Ok(false);
            }
            if !is_whole(&bytes[range.clone()], facts) {
                return Err(facts.base_offset..facts.next_offset());
            }
            let start = if is_first { at + range.start } else { picked.range.start };
            *picked = Picked { range: start..at + range.end, next: facts.next_offset() };
        }
        Ok(true)
    }
}

/// Headers in order of their offsets.
#[derive(Debug)]
pub struct Headers {
    reader: Arc<SegmentReader>,
    next: Offset,
    ready: VecDeque<BatchHeader>,
    is_done: bool,
}

impl Iterator for Headers {
    type Item = Result<BatchHeader, ReadError>;

    fn next(&mut self) -> Option<Result<BatchHeader, ReadError>> {
        if let Some(header) = self.ready.pop_front() {
            return Some(Ok(header));
        }
        if self.is_done {
            return None;
        }
        match self.fill() {
            Ok(()) => self.ready.pop_front().map(Ok),
            Err(ReadError::Damaged { range }) => {
                self.next = range.end;
                Some(Err(ReadError::Damaged { range }))
            }
            Err(error) => {
                self.is_done = true;
                Some(Err(error))
            }
        }
    }
}

/// Bytes that [`Headers`] reads at once.
const HEADERS_BYTES: usize = 1 << 20;

impl Headers {
    fn fill(&mut self) -> Result<(), ReadError> {
        let upper = self.reader.end_offset();
        for run in self.reader.read(self.next, upper, HEADERS_BYTES, true)? {
            let mut rest = &run[..];
            while let Some(header) = rest.first_chunk::<BATCH_HEADER_LEN>() {
                let facts = BatchHeader::decode(header);
                rest = &rest[facts.batch_bytes() as usize..];
                self.next = facts.next_offset();
                self.ready.push_back(facts);
            }
        }
        Ok(())
    }
}

fn entry_of(batch: &[u8], facts: &BatchHeader) -> Result<Entry, ReadError> {
    match batch.first_chunk::<BATCH_HEADER_LEN>() {
        Some(header) if is_whole(batch, facts) => {
            let records = Bytes::copy_from_slice(&batch[BATCH_HEADER_LEN..]);
            Ok(Entry { header: *header, records })
        }
        _ => Err(ReadError::Damaged { range: facts.base_offset..facts.next_offset() }),
    }
}

fn io_error(segment: &Segment, source: io::Error) -> ReadError {
    match class(&source) {
        FsErrorClass::TooManyOpenFiles => ReadError::TooManyOpenFiles,
        FsErrorClass::DiskFull | FsErrorClass::Other => {
            ReadError::Io { path: segment.log.clone(), source }
        }
    }
}
