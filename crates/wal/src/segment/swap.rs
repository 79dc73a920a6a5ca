//! Puts a compacted segment in the place of those that it was made of, so that nobody, at no time
//! and after no crash, sees a part of it, or it beside one of them.
//!
//! Its files are written under names of no segment and synced. A rename makes them an intent that
//! names what it replaces, and the intent is made durable; then the old segments go, durably; then
//! it takes its own name. Whoever finds an intent goes on from there.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tidelog_types::{Entry, Offset};

use super::{
    Holes, SegmentError, Segments,
    disk::{remove_if_there, sync_dir, write_error},
    file::{Extent, Segment, paths_of},
    write::write_entries,
};
use crate::{
    env::{FileSystem, Open},
    error::Fatal,
    file_cache::{FileCache, WriteHandle},
    index::Interval,
    rules::{Rule, holds},
};

/// Bytes that are gathered for one write.
const PENDING_BYTES: usize = 1 << 20;
/// What names end in of files that are being written: rubbish after a crash.
const PREPARED: &str = "cleaned";
/// What names end in of files that take the place of others: to be completed after a crash.
const INTENDED: &str = "swap";
const LOG: &str = "log";
const INDEX: &str = "seek";

/// A compacted segment on its way to the disk.
#[derive(Debug)]
pub(crate) struct CompactedWriter {
    files: Arc<FileCache>,
    dir: PathBuf,
    range: Range,
    log: WriteHandle,
    interval_bytes: u32,
    complete: Vec<Interval>,
    open: Interval,
    pending: Vec<Entry>,
    pending_bytes: usize,
    written: u64,
}

/// A compacted segment that lies on the disk, synced, and is part of no log yet.
#[derive(Debug)]
pub(crate) struct Compacted {
    dir: PathBuf,
    range: Range,
    interval_bytes: u32,
    extent: Extent,
}

/// The offsets whose segments a compacted one replaces: from the first one's base to where the next
/// one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    base: Offset,
    end: Offset,
}

/// A swap that has begun. Each stage may be done again.
#[derive(Debug)]
pub(super) struct Swap {
    range: Range,
    segment: Arc<Segment>,
    replaced: Vec<Arc<Segment>>,
    stage: Stage,
    delay: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The intent is there, durable or not.
    Intended,
    /// It is durable, and the old segments are gone, durably or not.
    Cleared,
    /// That is durable, and the new one has its name, durably or not.
    Named,
}

impl CompactedWriter {
    /// Begins a segment that is to replace those from `base` to `end`.
    ///
    /// # Errors
    /// As [`SegmentError`] says.
    pub(crate) fn create(
        files: &Arc<FileCache>,
        dir: &Path,
        base: Offset,
        end: Offset,
        interval_bytes: u32,
    ) -> Result<CompactedWriter, SegmentError> {
        assert!(base < end, "a compacted segment replaces something");
        let range = Range { base, end };
        let path = range.path(dir, LOG, PREPARED);
        remove_if_there(&**files.fs(), &path)?;
        let opened = files.write(&path, Open::CreateNew);
        Ok(CompactedWriter {
            files: Arc::clone(files),
            dir: dir.to_owned(),
            range,
            log: opened.map_err(|error| write_error("cannot create", &path, error))?,
            interval_bytes,
            complete: Vec::new(),
            open: Interval::first(base),
            pending: Vec::new(),
            pending_bytes: 0,
            written: 0,
        })
    }

    /// Adds a batch behind those before.
    ///
    /// # Errors
    /// As [`SegmentError`] says.
    pub(crate) fn add(&mut self, entry: Entry) -> Result<(), SegmentError> {
        self.open.add(&entry.header, &entry.facts());
        assert!(self.open.next <= self.range.end, "a batch of another segment");
        if self.open.bytes >= u64::from(self.interval_bytes) {
            self.complete.push(self.open);
            self.open = self.open.following();
        }
        self.pending_bytes += entry.len();
        self.pending.push(entry);
        if self.pending_bytes >= PENDING_BYTES { self.write() } else { Ok(()) }
    }

    /// Bytes of the batches so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.written + self.pending_bytes as u64
    }

    /// Writes what is left and the index, and syncs both.
    ///
    /// # Errors
    /// As [`SegmentError`] says.
    pub(crate) fn finish(mut self) -> Result<Compacted, SegmentError> {
        assert!(self.open.next == self.range.end, "a segment ends where the next one begins");
        self.write()?;
        if self.open.bytes > 0 {
            self.complete.push(self.open);
            self.open = self.open.following();
        }
        let CompactedWriter { files, dir, range, interval_bytes, complete, open, .. } = self;
        let paths = range.paths(&dir, PREPARED);
        let [log, index] = paths.clone();
        let segment = Segment::at(&files, range.base, paths, interval_bytes, Holes::Allowed, None);
        remove_if_there(&**files.fs(), &index)?;
        let failed = |error| write_error("cannot write", &index, error);
        let handle = files.write(&index, Open::CreateNew).map_err(failed)?;
        segment.publish(Some(&*handle.file), &complete, open).map_err(failed)?;
        if holds(Rule::CompactedSynced) {
            handle.file.sync().map_err(|error| Fatal::new("cannot sync", &index, error))?;
            self.log.file.sync().map_err(|error| Fatal::new("cannot sync", &log, error))?;
        }
        Ok(Compacted { dir, range, interval_bytes, extent: segment.known_extent() })
    }

    /// Gives it up.
    ///
    /// # Errors
    /// As [`SegmentError`] says.
    pub(crate) fn discard(self) -> Result<(), SegmentError> {
        discard(&**self.files.fs(), &self.dir, self.range)
    }

    fn write(&mut self) -> Result<(), SegmentError> {
        let path = self.range.path(&self.dir, LOG, PREPARED);
        let written =
            write_entries(&self.files, &path, &*self.log.file, self.written, &self.pending);
        written.map_err(|error| write_error("cannot write", &path, error))?;
        self.written += std::mem::take(&mut self.pending_bytes) as u64;
        self.pending.clear();
        Ok(())
    }
}

impl Compacted {
    /// The offset behind the last segment that it replaces.
    pub(crate) fn end(&self) -> Offset {
        self.range.end
    }

    /// Gives it up.
    ///
    /// # Errors
    /// As [`SegmentError`] says.
    pub(crate) fn discard(self, fs: &dyn FileSystem) -> Result<(), SegmentError> {
        discard(fs, &self.dir, self.range)
    }
}

impl Range {
    fn path(&self, dir: &Path, kind: &str, state: &str) -> PathBuf {
        dir.join(format!("{:020}-{:020}.{kind}.{state}", self.base, self.end))
    }

    fn paths(&self, dir: &Path, state: &str) -> [PathBuf; 2] {
        [self.path(dir, LOG, state), self.path(dir, INDEX, state)]
    }

    /// What an intent's name says; `None` for any other name.
    fn of_intent(path: &Path) -> Option<Range> {
        let stem = path.file_name()?.to_str()?.strip_suffix(".log.swap")?;
        let (base, end) = stem.split_once('-')?;
        let offset = |digits: &str| {
            let lawful = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
            if lawful { digits.parse().ok().map(Offset) } else { None }
        };
        let range = Range { base: offset(base)?, end: offset(end)? };
        (range.base < range.end).then_some(range)
    }
}

impl Segments {
    /// Puts a compacted segment in the place of those that it was made of, durably; their files go
    /// after `delay`. False, and nothing has changed, where they are not all there any more.
    /// Readers go on with what they have. The checkpoint must have told before of the holes.
    ///
    /// # Errors
    /// As [`SegmentError`] says. Where the swap had begun, any later call goes on with it.
    pub(crate) fn replace(
        &mut self,
        compacted: Compacted,
        delay: Duration,
    ) -> Result<bool, SegmentError> {
        self.finish_swap()?;
        let Compacted { range, interval_bytes, extent, .. } = compacted;
        let replaced = self.segments_of(range);
        if replaced.is_empty() {
            compacted.discard(&**self.files.fs())?;
            return Ok(false);
        }
        for kind in [INDEX, LOG] {
            let (from, to) = (range.path(&self.dir, kind, PREPARED), self.intent(range, kind));
            if let Err(error) = self.files.fs().rename(&from, &to) {
                discard(&**self.files.fs(), &self.dir, range)?;
                return Err(write_error("cannot rename", &from, error));
            }
        }
        let paths = range.paths(&self.dir, INTENDED);
        let (files, holes) = (&self.files, Holes::Allowed);
        let segment = Segment::at(files, range.base, paths, interval_bytes, holes, Some(extent));
        let (segment, stage) = (Arc::new(segment), Stage::Intended);
        self.holes_below = self.holes_below.max(range.end);
        self.swapping = Some(Swap { range, segment, replaced, stage, delay });
        self.finish_swap()?;
        Ok(true)
    }

    /// Goes on with a swap that has begun, if any.
    pub(super) fn finish_swap(&mut self) -> Result<(), SegmentError> {
        let Some(mut swap) = self.swapping.take() else { return Ok(()) };
        let finished = self.go_on(&mut swap);
        if finished.is_err() {
            self.swapping = Some(swap);
        }
        finished
    }

    fn go_on(&mut self, swap: &mut Swap) -> Result<(), SegmentError> {
        if swap.stage == Stage::Intended {
            if holds(Rule::SwapIntended) {
                self.sync_own_dir()?;
            }
            // Read from where it lies now: the old ones are about to lose their names.
            self.show(swap);
            for old in &swap.replaced {
                for path in [&old.log, &old.index] {
                    self.files.removals().doom(&**self.files.fs(), path, swap.delay)?;
                }
            }
            swap.stage = Stage::Cleared;
        }
        if swap.stage == Stage::Cleared {
            if holds(Rule::SwapCleared) {
                self.sync_own_dir()?;
            }
            self.name(swap)?;
            swap.stage = Stage::Named;
        }
        self.sync_own_dir()
    }

    /// Gives the new segment its own name. The index comes second: without one a segment makes it
    /// anew, but one of other batches would call these damaged.
    fn name(&self, swap: &mut Swap) -> Result<(), SegmentError> {
        let reader = Arc::clone(&self.reader);
        let mut view = reader.view_mut();
        let own = paths_of(&self.dir, swap.range.base);
        for (from, to) in swap.range.paths(&self.dir, INTENDED).iter().zip(&own) {
            match self.files.fs().rename(from, to) {
                // It was renamed before the other one could not be.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed.map_err(|e| write_error("cannot rename", from, e))?,
            }
        }
        let Segment { base, holes, .. } = *swap.segment;
        let (interval_bytes, extent) = (swap.segment.interval_bytes(), swap.segment.known_extent());
        let named = Segment::at(&self.files, base, own, interval_bytes, holes, Some(extent));
        let at = view.segments.partition_point(|segment| segment.base < base);
        assert!(Arc::ptr_eq(&view.segments[at], &swap.segment), "it is in its place already");
        swap.segment.forget(&self.files);
        view.segments[at] = Arc::new(named);
        Ok(())
    }

    /// Shows the new segment to readers instead of the old ones.
    fn show(&self, swap: &Swap) {
        let mut view = self.reader.view_mut();
        let start = view.segments.partition_point(|segment| segment.base < swap.range.base);
        let end = view.segments.partition_point(|segment| segment.base < swap.range.end);
        if view.segments.get(start).is_some_and(|first| Arc::ptr_eq(first, &swap.segment)) {
            return;
        }
        assert!(end - start == swap.replaced.len(), "what is replaced was counted");
        view.segments.splice(start..end, [Arc::clone(&swap.segment)]);
        swap.replaced.iter().for_each(|old| old.forget(&self.files));
    }

    /// The segments of exactly this range; none unless another one follows them.
    fn segments_of(&self, range: Range) -> Vec<Arc<Segment>> {
        let view = self.reader.view();
        let inside = |segment: &&Arc<Segment>| (range.base..range.end).contains(&segment.base);
        let found: Vec<_> = view.segments.iter().filter(inside).cloned().collect();
        let is_followed = view.segments.iter().any(|segment| segment.base == range.end);
        let is_whole = found.first().is_some_and(|first| first.base == range.base);
        if is_whole && is_followed { found } else { Vec::new() }
    }

    fn intent(&self, range: Range, kind: &str) -> PathBuf {
        range.path(&self.dir, kind, INTENDED)
    }
}

/// Completes what an earlier process intended, and removes what it only prepared; whether names
/// have changed.
pub(super) fn settle_swaps(
    files: &FileCache,
    dir: &Path,
    names: &[PathBuf],
) -> Result<bool, SegmentError> {
    let mut has_changed = false;
    for range in names.iter().filter_map(|name| Range::of_intent(name)) {
        complete(files, dir, range, names)?;
        has_changed = true;
    }
    let fs = &**files.fs();
    let end_in = |ending: &'static str| {
        names.iter().filter(move |name| name.extension().is_some_and(|found| found == ending))
    };
    // What was prepared goes last: that it is there says what an index belongs to.
    for index in end_in(INTENDED).filter(|name| Range::of_intent(name).is_none()) {
        has_changed |= settle_index(fs, dir, index, names)?;
    }
    for name in end_in(PREPARED) {
        remove_if_there(fs, name)?;
        has_changed = true;
    }
    Ok(has_changed)
}

fn complete(
    files: &FileCache,
    dir: &Path,
    range: Range,
    names: &[PathBuf],
) -> Result<(), SegmentError> {
    let fs = &**files.fs();
    if holds(Rule::SwapIntended) {
        sync_dir(fs, dir)?;
    }
    for path in names {
        let base = super::file::base_of(path).or_else(|| super::file::index_base_of(path));
        if base.is_some_and(|base| (range.base..range.end).contains(&base)) {
            files.removals().doom(fs, path, Duration::ZERO)?;
        }
    }
    if holds(Rule::SwapCleared) {
        sync_dir(fs, dir)?;
    }
    let [log, _] = paths_of(dir, range.base);
    let intent = range.path(dir, LOG, INTENDED);
    fs.rename(&intent, &log).map_err(|error| write_error("cannot rename", &intent, error))?;
    tracing::debug!(path = %log.display(), "a compacted segment has its place now");
    Ok(())
}

/// The index of a segment that has its name already gets its own. One whose segment has an index,
/// or is not more than prepared yet, is left over.
fn settle_index(
    fs: &dyn FileSystem,
    dir: &Path,
    path: &Path,
    names: &[PathBuf],
) -> Result<bool, SegmentError> {
    let is_prepared = |name: &PathBuf| {
        let log = name.file_name().and_then(|name| name.to_str());
        let log = log.and_then(|name| name.strip_suffix(".log.cleaned"));
        log.is_some()
            && log == path.file_name().and_then(|i| i.to_str()?.strip_suffix(".seek.swap"))
    };
    let stem = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(base) = stem.get(..20).and_then(|digits| digits.parse().ok()).map(Offset) else {
        return Ok(false);
    };
    if base < Offset::ZERO {
        return Ok(false);
    }
    let [log, index] = paths_of(dir, base);
    let exists =
        |path: &Path| fs.exists(path).map_err(|error| write_error("cannot look at", path, error));
    if exists(&log)? && !exists(&index)? && !names.iter().any(is_prepared) {
        fs.rename(path, &index).map_err(|error| write_error("cannot rename", path, error))?;
    } else {
        remove_if_there(fs, path)?;
    }
    Ok(true)
}

fn discard(fs: &dyn FileSystem, dir: &Path, range: Range) -> Result<(), SegmentError> {
    for state in [INTENDED, PREPARED] {
        for path in range.paths(dir, state) {
            remove_if_there(fs, &path)?;
        }
    }
    Ok(())
}
