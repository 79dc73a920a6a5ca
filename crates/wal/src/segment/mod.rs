//! One partition on disk: Kafka's `.log` files with 20-digit names, each with an index of ours.
//!
//! One writer, many readers. A segment ends where the next one's name begins. A partition has no
//! directory before its first append. Nothing is durable before [`Segments::sync`], what
//! [`Segments::open`] unlinked included; only [`Segments::cut`], [`Segments::reset`] and the
//! removals are durable when they return.

mod batches;
mod disk;
mod file;
mod plan;
mod reader;
mod region;
mod write;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use tidelog_types::{Entry, Offset};

use self::{
    batches::{Stop, walk},
    disk::{remove_if_there, sync_dir, write_error},
    file::{Extent, Segment, index_base_of},
    plan::{Active, Run},
};
pub(crate) use self::{
    batches::{header_at, is_whole},
    file::base_of,
};
pub use self::{
    disk::{SegmentError, remove_dir},
    reader::{Headers, SegmentReader},
};
pub(crate) use self::{
    reader::{SegmentRead, Take},
    region::Region,
};
use crate::{
    env::Open,
    error::Fatal,
    file_cache::{FileCache, WriteHandle},
    index::{Interval, entry_position},
};

/// What a partition's segments are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentsConfig {
    /// Bytes at which a segment is closed and the next one begun. `segment.bytes`
    pub segment_bytes: u64,
    /// Bytes of batches between two entries of the index. `log.index.interval.bytes`
    pub index_interval_bytes: u32,
}

/// What [`Segments::open`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SegmentsReport {
    /// Offsets below the recovery point that are known to be unreadable. Damage inside of a closed
    /// segment shows when it is read.
    pub damaged: Vec<Range<Offset>>,
}

/// One partition's segments, for the one that writes them.
#[derive(Debug)]
pub struct Segments {
    files: Arc<FileCache>,
    dir: PathBuf,
    config: SegmentsConfig,
    reader: Arc<SegmentReader>,
    /// The last segment's end cannot be written to: it is damaged, or others must follow it.
    must_roll: bool,
    touched: Vec<(PathBuf, WriteHandle)>,
    touched_dirs: BTreeSet<PathBuf>,
    /// A segment that was begun and, because the disk was full, is not one yet. Its file must go
    /// before the recovery point rises: its name would end the segment in front of it.
    begun: Option<Arc<Segment>>,
    /// Files were closed that only a sync of everything covers.
    owes_sync_all: bool,
    /// When the last write was, for [`FileCache::is_synced_since`].
    write_mark: u64,
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
        assert!(log_start <= recovery_point, "a log starts behind its recovery point");
        let reader = SegmentReader::new(Arc::clone(files), log_start, recovery_point);
        let mut segments = Segments {
            files: Arc::clone(files),
            dir: dir.to_owned(),
            config,
            reader: Arc::new(reader),
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

    /// Appends placed batches. Those that are here already are passed over, so that the same call
    /// may be made again after an error that allows it: what was written until then stays.
    ///
    /// # Errors
    /// As [`SegmentError`] says.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), SegmentError> {
        let end = self.end_offset();
        let new = entries.partition_point(|entry| entry.facts().next_offset() <= end);
        let entries = &entries[new..];
        let Some(first) = entries.first() else { return Ok(()) };
        assert!(first.facts().base_offset >= end, "a batch overlaps the segments' end");
        self.remove_begun()?;
        let segment_bytes = self.config.segment_bytes.min(i32::MAX as u64);
        for run in plan::runs(self.active(), entries, segment_bytes) {
            self.write_run(&run)?;
        }
        Ok(())
    }

    /// Makes everything durable that was touched since the last call: files, then names.
    ///
    /// # Errors
    /// [`SegmentError::Fatal`] for any error of a sync.
    pub fn sync(&mut self) -> Result<(), SegmentError> {
        self.remove_begun()?;
        let is_clean = self.touched_dirs.is_empty() && self.touched.is_empty();
        if is_clean && !self.owes_sync_all {
            return Ok(());
        }
        if !self.files.is_synced_since(self.write_mark)
            && (self.owes_sync_all || self.files.prefers_sync_all())
        {
            let synced = self.files.sync_all(&self.dir);
            synced.map_err(|error| Fatal::new("cannot sync the disk of", &self.dir, error))?;
        }
        if self.files.is_synced_since(self.write_mark) {
            self.touched.clear();
            self.touched_dirs.clear();
            self.owes_sync_all = false;
            return Ok(());
        }
        self.sync_files()?;
        // The names of the deepest directories first: a name is only as durable as those above.
        while let Some(dir) = self.touched_dirs.last() {
            sync_dir(&**self.files.fs(), dir)?;
            self.touched_dirs.pop_last();
        }
        Ok(())
    }

    /// Bytes at which segments are closed from now on.
    pub fn set_segment_bytes(&mut self, bytes: u64) {
        self.config.segment_bytes = bytes;
    }

    /// The offset behind the last batch.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.reader.end_offset()
    }

    /// First offset that is still here.
    #[must_use]
    pub fn start_offset(&self) -> Offset {
        self.reader.start_offset()
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.reader.bytes()
    }

    /// For those who read.
    #[must_use]
    pub fn reader(&self) -> Arc<SegmentReader> {
        Arc::clone(&self.reader)
    }

    /// Removes everything from `to` on, durably; returns the new end: `to`, or the base offset of
    /// the batch that it lies in. Waits for the reads that run.
    ///
    /// # Errors
    /// As [`SegmentError`] says.
    pub fn cut(&mut self, to: Offset) -> Result<Offset, SegmentError> {
        assert!(to >= self.start_offset(), "a log is cut in front of its start");
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
        self.reader.set_end(end);
        Ok(end)
    }

    /// Removes everything and goes on at `start`, durably.
    ///
    /// # Errors
    /// As [`SegmentError`] says.
    pub fn reset(&mut self, start: Offset) -> Result<(), SegmentError> {
        self.sync()?;
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

    /// Unlinks the segments that lie wholly below `log_start`, the oldest first; returns their
    /// offsets. The log start must be durable elsewhere before.
    ///
    /// # Errors
    /// As [`SegmentError`] says.
    pub fn drop_below(&mut self, log_start: Offset) -> Result<Vec<Range<Offset>>, SegmentError> {
        assert!(log_start <= self.end_offset(), "a log starts behind its end");
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
            self.unlink(first)?;
            view.segments.remove(0);
        }
        view.start = view.start.max(log_start);
        if !dropped.is_empty() {
            self.sync_own_dir()?;
        }
        Ok(dropped)
    }

    /// Removes the partition from the disk.
    ///
    /// # Errors
    /// As [`SegmentError`] says.
    pub fn remove_all(self) -> Result<(), SegmentError> {
        let mut view = self.reader.view_mut();
        view.is_removed = true;
        for segment in std::mem::take(&mut view.segments) {
            segment.forget(&self.files);
        }
        remove_dir(&**self.files.fs(), &self.dir)
    }

    fn active(&self) -> Option<Active> {
        if self.must_roll {
            return None;
        }
        let last = self.last()?;
        let extent = last.known_extent();
        Some(Active { base: last.base, end: extent.end(), bytes: extent.bytes() })
    }

    fn last(&self) -> Option<Arc<Segment>> {
        self.reader.view().segments.last().cloned()
    }

    fn segment(&self, base: Offset, extent: Option<Extent>) -> Segment {
        Segment::new(&self.files, &self.dir, base, self.config.index_interval_bytes, extent)
    }

    fn write_run(&mut self, run: &Run<'_>) -> Result<(), SegmentError> {
        let segment = match (run.begins, self.last()) {
            (Some(base), _) => self.begin_segment(base)?,
            (None, last) => last.expect("a run goes on with a segment that is there"),
        };
        let extent = segment.known_extent();
        self.handle(&segment.log)?;
        let log = &*self.touched[self.touched.len() - 1].1.file;
        let write = || {
            // A disk that was full may have left part of a batch.
            if log.len()? != extent.bytes() {
                log.set_len(extent.bytes())?;
            }
            write::write_entries(&self.files, &segment.log, log, extent.bytes(), run.entries)
        };
        write().map_err(|error| write_error("cannot write", &segment.log, error))?;
        let mut complete = Vec::new();
        let mut open = add_entries(extent.open, run.entries, &self.config, &mut complete);
        if open.bytes > 0 {
            // However few they are: what no entry covers could lose its leader epoch unnoticed.
            complete.push(open);
            open = open.following();
        }
        self.publish(&segment, &complete, open)?;
        if run.begins.is_some() {
            self.reader.view_mut().segments.push(segment);
            self.begun = None;
            self.must_roll = false;
        }
        self.reader.set_end(open.next);
        self.write_mark = self.files.write_mark();
        if self.files.is_short_of_writers() {
            self.close_files()?;
        }
        Ok(())
    }

    /// Closes the files of the last segment and begins one behind it.
    fn begin_segment(&mut self, base: Offset) -> Result<Arc<Segment>, SegmentError> {
        self.sync_files()?;
        let fs = Arc::clone(self.files.fs());
        fs.create_dir_all(&self.dir)
            .map_err(|error| write_error("cannot create", &self.dir, error))?;
        // Its name, its topic's, and that of the directory of all topics.
        self.touched_dirs.extend(self.dir.ancestors().take(4).map(Path::to_owned));
        let segment = Arc::new(self.segment(base, Some(Extent::empty(base))));
        self.begun = Some(Arc::clone(&segment));
        Ok(segment)
    }

    fn remove_begun(&mut self) -> Result<(), SegmentError> {
        if let Some(begun) = self.begun.take() {
            self.touched.retain(|(path, _)| *path != begun.log && *path != begun.index);
            self.touched_dirs.insert(self.dir.clone());
            self.write_mark = self.files.write_mark();
            let removed = self.unlink(&begun);
            if removed.is_err() {
                self.begun = Some(begun);
            }
            return removed;
        }
        Ok(())
    }

    fn publish(
        &mut self,
        segment: &Segment,
        complete: &[Interval],
        open: Interval,
    ) -> Result<(), SegmentError> {
        let mut index = None;
        if !complete.is_empty() {
            self.handle(&segment.index)?;
            if segment.known_extent().entries == 0 {
                self.touched_dirs.insert(self.dir.clone());
            }
            index = self.touched.last().map(|(_, handle)| &*handle.file);
        }
        let published = segment.publish(index, complete, open);
        published.map_err(|error| write_error("cannot write", &segment.index, error))
    }

    /// Makes the file the last of those touched, opened if it was not among them.
    fn handle(&mut self, path: &Path) -> Result<(), SegmentError> {
        let found = match self.touched.iter().position(|(touched, _)| touched == path) {
            Some(at) => self.touched.remove(at),
            None => {
                let opened = self.files.write(path, Open::CreateOrOpen);
                let handle = opened.map_err(|error| write_error("cannot open", path, error))?;
                (path.to_owned(), handle)
            }
        };
        self.touched.push(found);
        self.write_mark = self.files.write_mark();
        Ok(())
    }

    /// Closes what is open for writing: a sync of everything covers it later, or it is synced now.
    fn close_files(&mut self) -> Result<(), SegmentError> {
        if !self.files.fs().can_sync_all() {
            return self.sync_files();
        }
        self.owes_sync_all |= !self.touched.is_empty();
        self.touched.clear();
        Ok(())
    }

    fn sync_files(&mut self) -> Result<(), SegmentError> {
        for (path, handle) in self.touched.drain(..) {
            handle.file.sync().map_err(|error| Fatal::new("cannot sync", &path, error))?;
        }
        Ok(())
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
        let names = match fs.list(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.map_err(|error| write_error("cannot list", &self.dir, error))?,
        };
        let bases: Vec<Offset> = names.iter().filter_map(|path| base_of(path)).collect();
        let stays = |base: Offset| {
            let next = bases.get(bases.partition_point(|other| *other <= base));
            let end = next.copied().unwrap_or(recovery_point).min(recovery_point);
            base < recovery_point && end > log_start && bases.binary_search(&base).is_ok()
        };
        for path in names.iter().rev() {
            let base = base_of(path).or_else(|| index_base_of(path));
            if base.is_some_and(|base| !stays(base)) {
                remove_if_there(&*fs, path)?;
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
        let mut found = walk(&*log.file, start, to, bytes, interval_bytes).map_err(failed)?;
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

    fn unlink(&self, segment: &Segment) -> Result<(), SegmentError> {
        let fs = &**self.files.fs();
        segment.forget(&self.files);
        remove_if_there(fs, &segment.log)?;
        remove_if_there(fs, &segment.index)
    }

    fn sync_own_dir(&self) -> Result<(), SegmentError> {
        match self.files.fs().exists(&self.dir) {
            Ok(false) => Ok(()),
            _ => sync_dir(&**self.files.fs(), &self.dir),
        }
    }
}

fn add_entries(
    mut open: Interval,
    entries: &[Entry],
    config: &SegmentsConfig,
    complete: &mut Vec<Interval>,
) -> Interval {
    for entry in entries {
        open.add(&entry.header, &entry.facts());
        if open.bytes >= u64::from(config.index_interval_bytes) {
            complete.push(open);
            open = open.following();
        }
    }
    open
}
