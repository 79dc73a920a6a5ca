//! One partition on disk: Kafka's `.log` files with 20-digit names, each with an index of ours.
//!
//! One writer, many readers. A segment ends where the next one's name begins. A partition has no
//! directory before its first append. Nothing is durable before [`Segments::sync`], what
//! [`Segments::open`] unlinked included; only [`Segments::cut`], [`Segments::reset`] and the
//! removals are durable when they return.

mod batches;
mod disk;
mod ends;
mod file;
mod pieces;
mod plan;
mod reader;
mod region;
mod swap;
mod write;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::BTreeSet,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use tidelog_types::{BATCH_HEADER_LEN, Entry, Offset};

pub(crate) use self::{
    batches::{Holes, header_at, hold_records, is_whole},
    disk::{remove_dirs, remove_if_there, write_error},
    file::base_of,
};
use self::{
    disk::sync_dir,
    file::Extent,
    plan::{Active, Limits, Run},
    swap::Swap,
};
pub use self::{
    disk::{SegmentError, remove_dir},
    reader::{Headers, SegmentReader},
};
pub(crate) use self::{
    file::Segment,
    reader::{SegmentRead, Take},
    region::Region,
    swap::{Compacted, CompactedWriter},
};
use crate::{
    checksum::crc32c,
    config::LogSettings,
    env::{Open, read_exact_at},
    error::Fatal,
    file_cache::{FileCache, WriteHandle},
    index::Interval,
};

/// What a partition's segments are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentsConfig {
    /// Bytes at which a segment is closed and the next one begun. `segment.bytes`
    pub segment_bytes: u64,
    /// Milliseconds of records at which it is. `segment.ms`
    pub segment_ms: i64,
    /// Milliseconds by which that is less, at random. `segment.jitter.ms`
    pub segment_jitter_ms: i64,
    /// Bytes of batches between two entries of the index. `index.interval.bytes`
    pub index_interval_bytes: u32,
}

impl From<LogSettings> for SegmentsConfig {
    fn from(settings: LogSettings) -> SegmentsConfig {
        SegmentsConfig {
            segment_bytes: settings.segment_bytes,
            segment_ms: settings.segment_ms,
            segment_jitter_ms: settings.segment_jitter_ms,
            index_interval_bytes: settings.index_interval_bytes,
        }
    }
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
    /// Segments that begin below may have been compacted.
    holes_below: Offset,
    /// A compacted segment that is taking the place of others.
    swapping: Option<Swap>,
    /// The greatest timestamp of the first batch of the segment of this base offset.
    first_timestamp: Option<(Offset, Option<i64>)>,
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
        self.finish_swap()?;
        self.remove_begun()?;
        let limits = self.limits();
        let active = self.active()?;
        for run in plan::runs(active, entries, &limits) {
            self.write_run(&run)?;
        }
        Ok(())
    }

    /// Makes everything durable that was touched since the last call: files, then names.
    ///
    /// # Errors
    /// [`SegmentError::Fatal`] for any error of a sync.
    pub fn sync(&mut self) -> Result<(), SegmentError> {
        self.finish_swap()?;
        self.remove_begun()?;
        let is_clean = self.touched_dirs.is_empty() && self.touched.is_empty();
        if is_clean && !self.owes_sync_all {
            return Ok(());
        }
        if !self.files.is_synced_since(self.write_mark)
            && (self.owes_sync_all || self.files.prefers_sync_all())
        {
            self.files.sync_all(&self.dir)?;
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

    /// What segments are like from the next batch on.
    pub fn set_config(&mut self, config: SegmentsConfig) {
        self.config = config;
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

    fn limits(&self) -> Limits {
        let path = self.dir.as_os_str().as_encoded_bytes();
        Limits {
            segment_bytes: self.config.segment_bytes.min(i32::MAX as u64),
            segment_ms: self.config.segment_ms,
            segment_jitter_ms: self.config.segment_jitter_ms,
            seed: u64::from(crc32c(&[path])),
        }
    }

    fn active(&mut self) -> Result<Option<Active>, SegmentError> {
        let Some(last) = self.last().filter(|_| !self.must_roll) else { return Ok(None) };
        let extent = last.known_extent();
        let first_timestamp_ms = match self.first_timestamp {
            Some((base, known)) if base == last.base => known,
            _ if self.config.segment_ms == i64::MAX => None,
            _ => self.read_first_timestamp(&last)?,
        };
        let (base, end, bytes) = (last.base, extent.end(), extent.bytes());
        Ok(Some(Active { base, end, bytes, first_timestamp_ms }))
    }

    /// Asks the file of a segment that an earlier process began. One whose first batch is not whole
    /// any more has no time: it ends by its bytes.
    fn read_first_timestamp(&mut self, segment: &Segment) -> Result<Option<i64>, SegmentError> {
        self.handle(&segment.log)?;
        let log = &*self.touched[self.touched.len() - 1].1.file;
        let mut header = [0; BATCH_HEADER_LEN];
        let read = match read_exact_at(log, &mut header, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            read => read,
        };
        read.map_err(|error| write_error("cannot read", &segment.log, error))?;
        let facts = header_at(&header, segment.base, segment.holes).map(|(_, facts)| facts);
        let timestamp_ms = facts.and_then(|facts| plan::timestamp_of(&facts));
        self.first_timestamp = Some((segment.base, timestamp_ms));
        Ok(timestamp_ms)
    }

    fn last(&self) -> Option<Arc<Segment>> {
        self.reader.view().segments.last().cloned()
    }

    fn segment(&self, base: Offset, extent: Option<Extent>) -> Segment {
        let interval_bytes = self.config.index_interval_bytes;
        let holes = if base < self.holes_below { Holes::Allowed } else { Holes::None };
        Segment::new(&self.files, &self.dir, base, interval_bytes, holes, extent)
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
        if let Err(error) = write() {
            // Part of a batch only takes room. Where it stays, the next write takes it away.
            let _ = log.set_len(extent.bytes());
            return Err(write_error("cannot write", &segment.log, error));
        }
        let mut complete = Vec::new();
        let mut open = add_entries(extent.open, run.entries, &self.config, &mut complete);
        if open.bytes > 0 {
            // However few they are: what no entry covers could lose its leader epoch unnoticed.
            complete.push(open);
            open = open.following();
        }
        self.publish(&segment, &complete, open)?;
        if let Some(base) = run.begins {
            self.first_timestamp = Some((base, plan::timestamp_of(&run.entries[0].facts())));
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
        assert!(
            entry.facts().base_offset == open.next,
            "an index entry would span missing offsets"
        );
        open.add(&entry.header, &entry.facts());
        if open.bytes >= u64::from(config.index_interval_bytes) {
            complete.push(open);
            open = open.following();
        }
    }
    open
}
