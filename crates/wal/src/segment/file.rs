//! One segment: a `.log` file, its index, and how far both may be believed.

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tidelog_types::Offset;

use super::batches::{Holes, Stop, walk};
use crate::{
    env::{Caching, File, Open, read_exact_at, write_all_at},
    file_cache::{FileCache, FileId},
    index::{ENTRY_BYTES, Interval, entries_in, entry_position, file_header, is_foreign},
};

/// Kafka's extension: its tools read the file.
const LOG: &str = "log";
/// Ours alone, so that no tool takes the file for an index of Kafka's.
const INDEX: &str = "seek";

/// Entries of an index read with one call.
const ENTRIES_AT_ONCE: u64 = 256;

/// One segment. The writer and the readers share it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base: Offset,
    pub(crate) log: PathBuf,
    pub(crate) index: PathBuf,
    pub(crate) log_id: FileId,
    index_id: FileId,
    interval_bytes: u32,
    pub(crate) holes: Holes,
    /// `None` until somebody asks, in a segment that was closed before this process started.
    extent: Mutex<Option<Extent>>,
    /// The file's length, where that is all that anybody asked.
    closed_bytes: OnceLock<u64>,
    /// Where the furthest of the large reads ended.
    scanned_to: AtomicU64,
}

/// How far a segment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Entries of the index.
    pub(crate) entries: u64,
    /// What is behind the last entry: fewer bytes than an entry covers, or none.
    pub(crate) open: Interval,
}

impl Extent {
    /// Nothing in it.
    pub(crate) fn empty(base: Offset) -> Extent {
        Extent { entries: 0, open: Interval::first(base) }
    }

    /// Bytes of all batches.
    pub(crate) fn bytes(&self) -> u64 {
        self.open.end_position()
    }

    /// The offset behind the last batch.
    pub(crate) fn end(&self) -> Offset {
        self.open.next
    }
}

/// The offset that a segment file's name says; `None` for a name that is no segment's.
pub(crate) fn base_of(path: &Path) -> Option<Offset> {
    if path.extension()? != LOG {
        return None;
    }
    stem_offset(path)
}

/// The same for an index file.
pub(crate) fn index_base_of(path: &Path) -> Option<Offset> {
    if path.extension()? != INDEX {
        return None;
    }
    stem_offset(path)
}

/// Where the log and the index of a segment lie.
pub(crate) fn paths_of(dir: &Path, base: Offset) -> [PathBuf; 2] {
    [LOG, INDEX].map(|extension| dir.join(format!("{base:020}.{extension}")))
}

fn stem_offset(path: &Path) -> Option<Offset> {
    let stem = path.file_stem()?.to_str()?;
    let digits = stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit());
    if digits { stem.parse().ok().map(Offset) } else { None }
}

impl Segment {
    pub(crate) fn new(
        files: &FileCache,
        dir: &Path,
        base: Offset,
        interval_bytes: u32,
        holes: Holes,
        extent: Option<Extent>,
    ) -> Segment {
        let [log, index] = paths_of(dir, base);
        Segment::at(files, base, [log, index], interval_bytes, holes, extent)
    }

    /// A segment whose log and index lie at these paths.
    pub(crate) fn at(
        files: &FileCache,
        base: Offset,
        [log, index]: [PathBuf; 2],
        interval_bytes: u32,
        holes: Holes,
        extent: Option<Extent>,
    ) -> Segment {
        assert!(base >= Offset::ZERO, "a segment is named by an offset");
        Segment {
            base,
            log,
            index,
            log_id: files.new_id(),
            index_id: files.new_id(),
            interval_bytes,
            holes,
            extent: Mutex::new(extent),
            closed_bytes: OnceLock::new(),
            scanned_to: AtomicU64::new(0),
        }
    }

    /// How far it goes. `end` is where the next segment's name begins, or the log's end.
    pub(crate) fn extent(&self, files: &FileCache, end: Offset) -> io::Result<Extent> {
        let mut extent = self.lock();
        if let Some(extent) = *extent {
            return Ok(extent);
        }
        let entries = self.entries_on_disk(files)?;
        let last = match entries.checked_sub(1) {
            Some(last) => self.entry(files, last)?,
            None => None,
        };
        let found = match last {
            Some(last) if last.next == end => Extent { entries, open: last.following() },
            _ => self.rebuild(files, end, None)?,
        };
        *extent = Some(found);
        Ok(found)
    }

    /// Bytes of its batches. Looks at no more than the file's length.
    pub(crate) fn bytes(&self, files: &FileCache) -> io::Result<u64> {
        if let Some(extent) = *self.lock() {
            return Ok(extent.bytes());
        }
        if let Some(bytes) = self.closed_bytes.get() {
            return Ok(*bytes);
        }
        let bytes = files.fs().open(&self.log, Open::Read, Caching::Buffered)?.len()?;
        Ok(*self.closed_bytes.get_or_init(|| bytes))
    }

    /// The greatest timestamp of its batches; where they have none, when the file was last written
    /// to; `None` if the file system does not say.
    pub(crate) fn newest_ms(&self, files: &FileCache, end: Offset) -> io::Result<Option<i64>> {
        let newest_ms = self.extent(files, end)?.open.max_timestamp;
        if newest_ms >= 0 {
            return Ok(Some(newest_ms));
        }
        match files.fs().modified_ms(&self.log) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(None),
            modified => modified.map(Some),
        }
    }

    /// Bytes of batches between two entries of its index.
    pub(crate) fn interval_bytes(&self) -> u32 {
        self.interval_bytes
    }

    /// What the writer knows it to be; only for the segment that is written to.
    pub(crate) fn known_extent(&self) -> Extent {
        self.lock().expect("the writer's segment was opened with its extent")
    }

    /// Intervals in order from the one that holds `from`, with `max_bytes` behind that one or up to
    /// the end; none if nothing holds it.
    pub(crate) fn intervals(
        &self,
        files: &FileCache,
        end: Offset,
        from: Offset,
        max_bytes: u64,
    ) -> io::Result<Vec<Interval>> {
        let extent = self.extent(files, end)?;
        if let Some(intervals) = self.try_intervals(files, extent, from, max_bytes)? {
            return Ok(intervals);
        }
        let extent = self.repair(files, end)?;
        Ok(self.try_intervals(files, extent, from, max_bytes)?.unwrap_or_default())
    }

    /// The first interval of which `reaches` holds; it holds of all behind that one.
    pub(crate) fn first_interval(
        &self,
        files: &FileCache,
        end: Offset,
        reaches: impl Fn(&Interval) -> bool,
    ) -> io::Result<Option<Interval>> {
        let extent = self.extent(files, end)?;
        if let Some((_, found)) = self.search(files, extent, &reaches)? {
            return Ok(found);
        }
        let extent = self.repair(files, end)?;
        Ok(self.search(files, extent, &reaches)?.and_then(|(_, found)| found))
    }

    /// Notes a large read; whether it is the first of most of these bytes.
    pub(crate) fn note_scan(&self, start: u64, end: u64) -> bool {
        let before = self.scanned_to.fetch_max(end, Ordering::Relaxed);
        before <= start + (end - start) / 2
    }

    /// Writes entries behind the last one and publishes how far the segment goes now.
    pub(crate) fn publish(
        &self,
        index: Option<&dyn File>,
        complete: &[Interval],
        open: Interval,
    ) -> io::Result<()> {
        let mut extent = self.lock();
        let entries = extent.map_or(0, |extent| extent.entries);
        if let Some(index) = index
            && let Err(error) = self.write_entries(index, entries, complete)
        {
            // Entries of batches that are not here must not be found after a restart.
            index.set_len(if entries == 0 { 0 } else { entry_position(entries) })?;
            return Err(error);
        }
        assert!(index.is_some() || complete.is_empty(), "index entries without a file");
        *extent = Some(Extent { entries: entries + complete.len() as u64, open });
        Ok(())
    }

    /// Forgets what lies behind this extent.
    pub(crate) fn set_extent(&self, extent: Extent) {
        *self.lock() = Some(extent);
    }

    /// Closes the files that readers hold open.
    pub(crate) fn forget(&self, files: &FileCache) {
        files.forget(self.log_id);
        files.forget(self.index_id);
    }

    /// The last entry that ends at or below `upper` and `limit`, with how many there are up to it.
    pub(crate) fn last_entry_below(
        &self,
        files: &FileCache,
        upper: Offset,
        limit: u64,
    ) -> io::Result<(u64, Interval)> {
        for ordinal in (0..self.entries_on_disk(files)?).rev() {
            if let Some(entry) = self.entry(files, ordinal)?
                && entry.next <= upper
                && entry.end_position() <= limit
            {
                return Ok((ordinal + 1, entry));
            }
        }
        Ok((0, Interval::first(self.base)))
    }

    fn try_intervals(
        &self,
        files: &FileCache,
        extent: Extent,
        from: Offset,
        max_bytes: u64,
    ) -> io::Result<Option<Vec<Interval>>> {
        let Some((ordinal, first)) = self.search(files, extent, &|i| i.next > from)? else {
            return Ok(None);
        };
        let Some(first) = first else { return Ok(Some(Vec::new())) };
        let mut intervals = vec![first];
        let mut enough = max_bytes;
        let mut ordinal = ordinal + 1;
        while enough > 0 && ordinal <= extent.entries {
            // No more entries than it takes if each is as small as they are.
            let wanted = enough.div_ceil(u64::from(self.interval_bytes.max(1)));
            let Some(some) = self.entries(files, extent, ordinal, wanted)? else { return Ok(None) };
            ordinal += some.len() as u64;
            for next in some.into_iter().filter(|next| next.bytes > 0) {
                let last = intervals[intervals.len() - 1];
                if next.base != last.next || next.position != last.end_position() {
                    return Ok(None);
                }
                enough = enough.saturating_sub(next.bytes);
                intervals.push(next);
                if enough == 0 {
                    break;
                }
            }
        }
        Ok((first.base <= from).then_some(intervals))
    }

    /// The first interval of which `reaches` holds, with its ordinal; the outer `None` for a
    /// damaged index.
    #[allow(clippy::type_complexity, reason = "a name would say less")]
    fn search(
        &self,
        files: &FileCache,
        extent: Extent,
        reaches: &dyn Fn(&Interval) -> bool,
    ) -> io::Result<Option<(u64, Option<Interval>)>> {
        let (mut low, mut high) = (0, extent.entries);
        let mut found = (extent.open.bytes > 0 && reaches(&extent.open)).then_some(extent.open);
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(entry) = self.entry(files, middle)? else { return Ok(None) };
            if reaches(&entry) {
                high = middle;
                found = Some(entry);
            } else {
                low = middle + 1;
            }
        }
        Ok(Some((high, found)))
    }

    /// At least one and at most `wanted` entries, what is behind the last one included; `None` if
    /// one of them is damaged.
    fn entries(
        &self,
        files: &FileCache,
        extent: Extent,
        ordinal: u64,
        wanted: u64,
    ) -> io::Result<Option<Vec<Interval>>> {
        let count = wanted.min(ENTRIES_AT_ONCE).min(extent.entries - ordinal);
        if count == 0 {
            return Ok(Some(vec![extent.open]));
        }
        let mut bytes = vec![0; count as usize * ENTRY_BYTES];
        let file = files.read(self.index_id, &self.index)?;
        match read_exact_at(&*file, &mut bytes, entry_position(ordinal)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let (entries, _) = bytes.as_chunks();
        let decoded = (ordinal..).zip(entries);
        Ok(decoded.map(|(ordinal, entry)| Interval::decode(entry, self.base, ordinal)).collect())
    }

    /// One entry; `None` for a damaged one.
    fn entry(&self, files: &FileCache, ordinal: u64) -> io::Result<Option<Interval>> {
        let mut bytes = [0; ENTRY_BYTES];
        let file = files.read(self.index_id, &self.index)?;
        match read_exact_at(&*file, &mut bytes, entry_position(ordinal)) {
            Ok(()) => Ok(Interval::decode(&bytes, self.base, ordinal)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn entries_on_disk(&self, files: &FileCache) -> io::Result<u64> {
        let file = match files.read(self.index_id, &self.index) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            file => file?,
        };
        let entries = entries_in(file.len()?);
        if entries > 0 {
            let mut header = [0; ENTRY_BYTES];
            read_exact_at(&*file, &mut header, 0)?;
            if is_foreign(&header) {
                return Ok(0);
            }
        }
        Ok(entries)
    }

    fn repair(&self, files: &FileCache, end: Offset) -> io::Result<Extent> {
        let mut extent = self.lock();
        let end = extent.map_or(end, |extent| extent.open.base);
        let limit = extent.map(|extent| extent.open.position);
        let rebuilt = self.rebuild(files, end, limit)?;
        let open = extent.map_or(rebuilt.open, |extent| extent.open);
        *extent = Some(Extent { entries: rebuilt.entries, open });
        Ok(Extent { entries: rebuilt.entries, open })
    }

    /// Makes the index anew for the batches below `end`. Entries that are whole stay: they vouch
    /// for headers that may be damaged by now. What no entry vouches for and no batch fills gets
    /// an entry that fails every read.
    fn rebuild(&self, files: &FileCache, end: Offset, limit: Option<u64>) -> io::Result<Extent> {
        let path = self.index.display();
        tracing::warn!(%path, "segment index damaged or missing; rebuilding");
        let log = files.read(self.log_id, &self.log)?;
        // The file may have lost its end, however far it went once.
        let limit = log.len()?.min(limit.unwrap_or(u64::MAX));
        let mut entries: Vec<Interval> = Vec::new();
        let mut at = Interval::first(self.base);
        for old in self.whole_entries(files)?.into_iter().filter(|e| e.next <= end) {
            if old.position < at.position || old.base < at.base || old.end_position() > limit {
                continue;
            }
            self.fill(&*log, &mut entries, &mut at, old.base, old.position)?;
            if (at.position, at.next) == (old.position, old.base) {
                entries.push(old);
                at = old.following();
            }
        }
        self.fill(&*log, &mut entries, &mut at, end, limit)?;
        self.replace_index(files, &entries)?;
        Ok(Extent { entries: entries.len() as u64, open: at })
    }

    /// Makes entries for what lies between `at` and the given place.
    fn fill(
        &self,
        log: &dyn File,
        entries: &mut Vec<Interval>,
        at: &mut Interval,
        upper: Offset,
        limit: u64,
    ) -> io::Result<()> {
        let mut found = walk(log, *at, upper, limit, self.interval_bytes, self.holes)?;
        found.close();
        entries.extend(found.complete);
        *at = found.open;
        if found.stop != Stop::Upper && limit > at.position {
            let headers_checksum = !0;
            let bytes = limit - at.position;
            entries.push(Interval { next: upper, bytes, headers_checksum, ..*at });
            *at = entries[entries.len() - 1].following();
        }
        Ok(())
    }

    fn whole_entries(&self, files: &FileCache) -> io::Result<Vec<Interval>> {
        let mut whole = Vec::new();
        for ordinal in 0..self.entries_on_disk(files)? {
            whole.extend(self.entry(files, ordinal)?);
        }
        Ok(whole)
    }

    fn replace_index(&self, files: &FileCache, entries: &[Interval]) -> io::Result<()> {
        let handle = files.write(&self.index, Open::CreateOrOpen)?;
        handle.file.set_len(0)?;
        self.write_entries(&*handle.file, 0, entries)
    }

    fn write_entries(
        &self,
        index: &dyn File,
        ordinal: u64,
        entries: &[Interval],
    ) -> io::Result<()> {
        let mut bytes = Vec::with_capacity((entries.len() + 1) * ENTRY_BYTES);
        if ordinal == 0 {
            bytes.extend(file_header(self.base));
        }
        for (entry, ordinal) in entries.iter().zip(ordinal..) {
            bytes.extend(entry.encode(self.base, ordinal));
        }
        let position = if ordinal == 0 { 0 } else { entry_position(ordinal) };
        write_all_at(index, &mut [IoSlice::new(&bytes)], position)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Extent>> {
        self.extent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
