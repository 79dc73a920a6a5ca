//! Where a partition's segments begin and end: opened, cut, reset, dropped, removed.

use std::{collections::BTreeSet, io, ops::Range, path::Path, sync::Arc, time::Duration};

use tidelog_types::Offset;

use super::{
    SegmentReader, Segments, SegmentsConfig, SegmentsReport,
    batches::{Stop, walk},
    disk::{SegmentError, remove_if_there, write_error},
    file::{Extent, Segment, base_of, index_base_of},
    swap::settle_swaps,
};
use crate::{
    env::Open,
    error::Fatal,
    file_cache::FileCache,
    index::{Interval, entry_position},
    removals::is_doomed,
};

/// What one segment holds, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Age {
    /// The offset behind it.
    pub(crate) end: Offset,
    pub(crate) bytes: u64,
    /// The greatest timestamp of its records, or when it was last written to where they have none;
    /// `None` if nobody knows, or asked.
    pub(crate) newest_ms: Option<i64>,
}

impl Segments {
    /// Opens what lies in `dir`, cut to `recovery_point` and without what lies wholly below
    /// `log_start`; that is durable before the next [`Segments::sync`] returns, so before the
    /// recovery point can rise. Reads the names and the last segment's end, no more. Afterwards
    /// the end is `recovery_point`, whatever is missing below it.
    ///
    /// # Errors
    /// As [`SegmentError`] says.
    pub fn open(
        files: &Arc<FileCache>,
        dir: &Path,
        recovery_point: Offset,
        log_start: Offset,
        config: SegmentsConfig,
    ) -> Result<(Segments, SegmentsReport), SegmentError> {
        Segments::open_compacted(files, dir, recovery_point, log_start, Offset::ZERO, config)
    }

    /// The same where segments that begin below `holes_below` may have been compacted. A swap that
    /// an earlier process began is completed first, and what it only prepared is removed.
    ///
    /// # Errors
    /// As [`SegmentError`] says.
    pub fn open_compacted(
        files: &Arc<FileCache>,
        dir: &Path,
        recovery_point: Offset,
        log_start: Offset,
        holes_below: Offset,
        config: SegmentsConfig,
    ) -> Result<(Segments, SegmentsReport), SegmentError> {
        assert!(log_start <= recovery_point, "a log starts behind its recovery point");
        let reader = SegmentReader::new(Arc::clone(files), log_start, recovery_point);
        let mut segments = Segments {
            files: Arc::clone(files),
            dir: dir.to_owned(),
            config,
            reader: Arc::new(reader),
            holes_below,
            swapping: None,
            first_timestamp: None,
            must_roll: false,
            touched: Vec::new(),
            touched_dirs: BTreeSet::new(),
            begun: None,
            owes_sync_all: false,
            write_mark: 0,
        };
        let mut report = SegmentsReport::default();
        let bases = segments.remove_outside(log_start, recovery_point)?;
        let first = bases.first().copied().unwrap_or(recovery_point);
        if first > log_start {
            report.damaged.push(log_start..first);
        }
        let Some((&last, closed)) = bases.split_last() else { return Ok((segments, report)) };
        for base in closed {
            let segment = segments.segment(*base, None);
            segments.reader.view_mut().segments.push(Arc::new(segment));
        }
        let end = segments.open_last(last, recovery_point)?;
        if end < recovery_point {
            report.damaged.push(end.max(log_start)..recovery_point);
        }
        Ok((segments, report))
    }

    /// Removes everything from `to` on, durably; returns the new end: `to`, or the base offset of
    /// the batch that it lies in. Waits for the reads that run.
    ///
    /// # Errors
    /// As [`SegmentError`] says.
    pub fn cut(&mut self, to: Offset) -> Result<Offset, SegmentError> {
        assert!(to >= self.start_offset(), "a log is cut in front of its start");
        self.finish_swap()?;
        if to >= self.end_offset() {
            return Ok(self.end_offset());
        }
        self.sync()?;
        let reader = Arc::clone(&self.reader);
        let mut view = reader.view_mut();
        while let Some(last) = view.segments.pop_if(|segment| segment.base >= to) {
            self.reader.set_end(last.base);
            self.unlink(&last)?;
        }
        self.sync_own_dir()?;
        let mut end = to;
        self.must_roll = false;
        if let Some(last) = view.segments.last() {
            last.forget(&self.files);
            let (found, stop) = self.cut_segment(last, to)?;
            self.must_roll = stop == Stop::NoBatch;
            end = if stop == Stop::Inside { found } else { to };
        }
        view.start = view.start.min(end);
        self.holes_below = self.holes_below.min(end);
        self.reader.set_end(end);
        Ok(end)
    }

    /// Removes everything and goes on at `start`, durably.
    ///
    /// # Errors
    /// As [`SegmentError`] says.
    pub fn reset(&mut self, start: Offset) -> Result<(), SegmentError> {
        self.sync()?;
        self.holes_below = Offset::ZERO;
        let reader = Arc::clone(&self.reader);
        let mut view = reader.view_mut();
        while let Some(last) = view.segments.pop() {
            self.unlink(&last)?;
        }
        self.sync_own_dir()?;
        view.start = start;
        self.must_roll = false;
        self.reader.set_end(start);
        Ok(())
    }

    /// Takes the segments that lie wholly below `log_start` out of the log, durably, the oldest
    /// first, and has their files deleted after `delay`; returns their offsets. The log start must
    /// be durable elsewhere before.
    ///
    /// # Errors
    /// As [`SegmentError`] says.
    pub fn drop_below(
        &mut self,
        log_start: Offset,
        delay: Duration,
    ) -> Result<Vec<Range<Offset>>, SegmentError> {
        assert!(log_start <= self.end_offset(), "a log starts behind its end");
        self.finish_swap()?;
        let reader = Arc::clone(&self.reader);
        let mut view = reader.view_mut();
        let mut dropped = Vec::new();
        while let Some(first) = view.segments.first() {
            let end = view.segments.get(1).map_or(self.end_offset(), |next| next.base);
            if end > log_start {
                break;
            }
            dropped.push(first.base..end);
            self.touched.retain(|(path, _)| *path != first.log && *path != first.index);
            first.forget(&self.files);
            for path in [&first.log, &first.index] {
                self.files.removals().doom(&**self.files.fs(), path, delay)?;
            }
            view.segments.remove(0);
        }
        view.start = view.start.max(log_start);
        if !dropped.is_empty() {
            self.sync_own_dir()?;
        }
        Ok(dropped)
    }

    /// Ends all reading and writing: the partition's directory is about to go.
    pub fn abandon(self) {
        let mut view = self.reader.view_mut();
        view.is_removed = true;
        for segment in std::mem::take(&mut view.segments) {
            segment.forget(&self.files);
        }
    }

    /// What each segment holds and since when, the oldest first. Asks the disk only for what is
    /// taken, and for the time of records only if `with_times`.
    pub(crate) fn ages(
        &self,
        with_times: bool,
    ) -> impl ExactSizeIterator<Item = io::Result<Age>> + '_ {
        let segments = self.reader.view().segments.clone();
        let ends: Vec<Offset> = segments.iter().skip(1).map(|segment| segment.base).collect();
        (0..segments.len()).map(move |at| {
            let end = ends.get(at).copied().unwrap_or(self.end_offset());
            let bytes = segments[at].bytes(&self.files)?;
            let newest_ms = match with_times {
                true => segments[at].newest_ms(&self.files, end)?,
                false => None,
            };
            Ok(Age { end, bytes, newest_ms })
        })
    }

    /// Unlinks what an earlier process left outside of the log; returns the base offsets of what
    /// stays. The directory is synced before the recovery point can rise, even if nothing is
    /// unlinked here: an earlier process may have unlinked and died.
    fn remove_outside(
        &mut self,
        log_start: Offset,
        recovery_point: Offset,
    ) -> Result<Vec<Offset>, SegmentError> {
        let fs = Arc::clone(self.files.fs());
        let list = || fs.list(&self.dir).map_err(|e| write_error("cannot list", &self.dir, e));
        let mut names = match fs.list(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.map_err(|error| write_error("cannot list", &self.dir, error))?,
        };
        if settle_swaps(&self.files, &self.dir, &names)? {
            names = list()?;
        }
        let bases: Vec<Offset> = names.iter().filter_map(|path| base_of(path)).collect();
        let stays = |base: Offset| {
            let next = bases.get(bases.partition_point(|other| *other <= base));
            let end = next.copied().unwrap_or(recovery_point).min(recovery_point);
            base < recovery_point && end > log_start && bases.binary_search(&base).is_ok()
        };
        for path in names.iter().rev() {
            let base = base_of(path).or_else(|| index_base_of(path));
            match base {
                Some(base) if stays(base) => {}
                // Below the log start; there may be many, and nobody waits for the space.
                Some(base) if base < recovery_point && bases.binary_search(&base).is_ok() => {
                    self.files.removals().doom(&*fs, path, Duration::ZERO)?;
                }
                Some(_) => remove_if_there(&*fs, path)?,
                None if is_doomed(path) => {
                    self.files.removals().add(path.clone(), Duration::ZERO);
                }
                None => {}
            }
        }
        self.touched_dirs.insert(self.dir.clone());
        self.write_mark = self.files.write_mark();
        Ok(bases.iter().copied().filter(|base| stays(*base)).collect())
    }

    fn open_last(&mut self, base: Offset, recovery_point: Offset) -> Result<Offset, SegmentError> {
        let segment = Arc::new(self.segment(base, None));
        let (end, stop) = self.cut_segment(&segment, recovery_point)?;
        self.must_roll = stop != Stop::Upper;
        self.reader.view_mut().segments.push(segment);
        Ok(end)
    }

    /// Finds `to` in a segment and cuts it there, durably; returns where its batches end. A file
    /// whose batches end before, because one of them is damaged, keeps its bytes.
    fn cut_segment(&self, segment: &Segment, to: Offset) -> Result<(Offset, Stop), SegmentError> {
        let failed = |error| write_error("cannot cut", &segment.log, error);
        let log = self.files.write(&segment.log, Open::Write).map_err(failed)?;
        let bytes = log.file.len().map_err(failed)?;
        let below = segment.last_entry_below(&self.files, to, bytes).map_err(failed)?;
        let (entries, start) = match below {
            (0, first) => (0, first),
            (entries, last) => (entries, last.following()),
        };
        let interval_bytes = self.config.index_interval_bytes;
        let mut found =
            walk(&*log.file, start, to, bytes, interval_bytes, segment.holes).map_err(failed)?;
        found.close();
        if found.stop != Stop::NoBatch && found.open.end_position() < bytes {
            log.file.set_len(found.open.end_position()).map_err(failed)?;
            log.file.sync().map_err(|error| Fatal::new("cannot sync", &segment.log, error))?;
        }
        self.cut_index(segment, entries, &found.complete, found.open)?;
        Ok((found.open.next, found.stop))
    }

    /// Leaves the index so many entries and adds those found behind them, durably: an entry of
    /// batches that are gone would make a later read call good bytes damaged.
    fn cut_index(
        &self,
        segment: &Segment,
        entries: u64,
        complete: &[Interval],
        open: Interval,
    ) -> Result<(), SegmentError> {
        let failed = |error| write_error("cannot cut", &segment.index, error);
        segment.set_extent(Extent { entries, open });
        let handle = match self.files.write(&segment.index, Open::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && complete.is_empty() => {
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.files.write(&segment.index, Open::CreateNew).map_err(failed)?
            }
            opened => opened.map_err(failed)?,
        };
        let index = &*handle.file;
        if index.len().map_err(failed)? == entry_position(entries) && complete.is_empty() {
            return Ok(());
        }
        let kept = if entries == 0 { 0 } else { entry_position(entries) };
        index.set_len(kept).map_err(failed)?;
        segment.publish(Some(index), complete, open).map_err(failed)?;
        index.sync().map_err(|error| Fatal::new("cannot sync", &segment.index, error))?;
        self.sync_own_dir()
    }

    pub(super) fn unlink(&self, segment: &Segment) -> Result<(), SegmentError> {
        let fs = &**self.files.fs();
        segment.forget(&self.files);
        remove_if_there(fs, &segment.log)?;
        remove_if_there(fs, &segment.index)
    }
}
