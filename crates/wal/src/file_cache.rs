//! Descriptors of all segments of a data directory: a bounded number for reading, kept by use, and
//! a bounded number for writing. And the memory that reads go through.

use std::{
    io,
    num::NonZeroUsize,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use lru::LruCache;

use crate::{
    env::{Caching, File, FileSystem, Open},
    error::{Fatal, FsErrorClass, class},
    read_buffers::ReadBuffers,
    removals::Removals,
};

/// Files open for writing, in all, before whoever writes has to close his.
const WRITERS_MAX: usize = 256;
/// From so many on they are synced together: each sync of its own would wait for the file system's
/// journal.
const SYNC_ALL_MIN: usize = 12;

/// Names a file for as long as the process runs: a path may come to mean another file.
pub(crate) type FileId = u64;

/// Open segment files, shared by all partitions of a data directory.
#[derive(Debug)]
pub struct FileCache {
    fs: Arc<dyn FileSystem>,
    readers: Mutex<LruCache<(FileId, Caching), Arc<dyn File>>>,
    buffers: Arc<ReadBuffers>,
    /// Files that no log has any more.
    removals: Removals,
    writers: Arc<AtomicUsize>,
    next_id: AtomicU64,
    direct_refused: AtomicBool,
    /// Syncs of everything that began, and the number of the last that succeeded.
    syncs_begun: AtomicU64,
    last_sync: AtomicU64,
}

impl FileCache {
    /// Keeps at most `files_max` files open for reading, at least one.
    #[must_use]
    pub fn new(fs: Arc<dyn FileSystem>, files_max: usize) -> Arc<FileCache> {
        let files_max = NonZeroUsize::new(files_max).unwrap_or(NonZeroUsize::MIN);
        Arc::new(FileCache {
            fs,
            readers: Mutex::new(LruCache::new(files_max)),
            buffers: Arc::default(),
            removals: Removals::default(),
            writers: Arc::default(),
            next_id: AtomicU64::new(0),
            direct_refused: AtomicBool::new(false),
            syncs_begun: AtomicU64::new(0),
            last_sync: AtomicU64::new(0),
        })
    }

    /// Files open for reading now.
    #[must_use]
    pub fn open_readers(&self) -> usize {
        self.readers().len()
    }

    pub(crate) fn buffers(&self) -> &Arc<ReadBuffers> {
        &self.buffers
    }

    pub(crate) fn fs(&self) -> &Arc<dyn FileSystem> {
        &self.fs
    }

    /// What waits to be deleted.
    pub(crate) fn removals(&self) -> &Removals {
        &self.removals
    }

    /// An id that no other file has.
    pub(crate) fn new_id(&self) -> FileId {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The file, opened for reading if it is not open. When descriptors are short, half of the
    /// cache is given up before that is an error.
    pub(crate) fn read(&self, id: FileId, path: &Path) -> io::Result<Arc<dyn File>> {
        self.read_as(id, path, Caching::Buffered)
    }

    /// The same past the page cache; `None` where the file system refuses.
    pub(crate) fn read_direct(&self, id: FileId, path: &Path) -> io::Result<Option<Arc<dyn File>>> {
        if self.direct_refused.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match self.read_as(id, path, Caching::Direct) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.refuse_direct();
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    /// Closes a file that is gone.
    pub(crate) fn forget(&self, id: FileId) {
        let mut readers = self.readers();
        readers.pop(&(id, Caching::Buffered));
        readers.pop(&(id, Caching::Direct));
    }

    /// Opens a file for writing.
    pub(crate) fn write(&self, path: &Path, open: Open) -> io::Result<WriteHandle> {
        let file = self.fs.open(path, open, Caching::Buffered)?;
        self.writers.fetch_add(1, Ordering::Relaxed);
        Ok(WriteHandle { file, writers: Arc::clone(&self.writers) })
    }

    /// To be asked after a write: what tells later whether a sync of everything covered it.
    pub(crate) fn write_mark(&self) -> u64 {
        self.syncs_begun.load(Ordering::SeqCst)
    }

    /// Whether a sync of everything began after the mark was taken, and succeeded.
    pub(crate) fn is_synced_since(&self, mark: u64) -> bool {
        self.last_sync.load(Ordering::SeqCst) > mark
    }

    /// Whether syncing everything costs less than syncing what is open for writing one by one.
    pub(crate) fn prefers_sync_all(&self) -> bool {
        self.prefers_sync_all_of(self.writers.load(Ordering::Relaxed))
    }

    /// The same for so many files.
    pub(crate) fn prefers_sync_all_of(&self, files: usize) -> bool {
        files >= SYNC_ALL_MIN && self.fs.can_sync_all()
    }

    /// Syncs everything on the file system that holds `path`.
    pub(crate) fn sync_all(&self, path: &Path) -> Result<(), Fatal> {
        let this = self.syncs_begun.fetch_add(1, Ordering::SeqCst) + 1;
        let synced = self.fs.sync_all(path);
        synced.map_err(|error| Fatal::new("cannot sync the disk of", path, error))?;
        self.last_sync.fetch_max(this, Ordering::SeqCst);
        Ok(())
    }

    /// Whether so many files are open for writing that some must be closed.
    pub(crate) fn is_short_of_writers(&self) -> bool {
        self.writers.load(Ordering::Relaxed) > WRITERS_MAX
    }

    /// Opens a file past the page cache; `None` where the file system refuses.
    pub(crate) fn write_direct(&self, path: &Path) -> io::Result<Option<Arc<dyn File>>> {
        if self.direct_refused.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match self.fs.open(path, Open::Write, Caching::Direct) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.refuse_direct();
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    /// Remembers that this file system does not take direct writes.
    pub(crate) fn refuse_direct(&self) {
        if !self.direct_refused.swap(true, Ordering::Relaxed) {
            tracing::info!(
                "the file system refuses direct I/O: segments go through the page cache"
            );
        }
    }

    fn read_as(&self, id: FileId, path: &Path, caching: Caching) -> io::Result<Arc<dyn File>> {
        if let Some(file) = self.readers().get(&(id, caching)) {
            return Ok(Arc::clone(file));
        }
        let file = match self.fs.open(path, Open::Read, caching) {
            Err(error) if class(&error) == FsErrorClass::TooManyOpenFiles => {
                self.give_up_half();
                self.fs.open(path, Open::Read, caching)?
            }
            opened => opened?,
        };
        self.readers().put((id, caching), Arc::clone(&file));
        Ok(file)
    }

    fn give_up_half(&self) {
        let mut readers = self.readers();
        for _ in 0..readers.len().div_ceil(2) {
            readers.pop_lru();
        }
    }

    fn readers(&self) -> MutexGuard<'_, LruCache<(FileId, Caching), Arc<dyn File>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file open for writing, counted.
#[derive(Debug)]
pub(crate) struct WriteHandle {
    pub(crate) file: Arc<dyn File>,
    writers: Arc<AtomicUsize>,
}

impl Drop for WriteHandle {
    fn drop(&mut self) {
        self.writers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::env::mem::MemFileSystem;

    fn three_files(files_max: usize) -> (MemFileSystem, Arc<FileCache>, [PathBuf; 3]) {
        let machine = MemFileSystem::new();
        let paths = ["a", "b", "c"].map(PathBuf::from);
        for path in &paths {
            machine.open(path, Open::CreateNew, Caching::Buffered).unwrap();
        }
        let cache = FileCache::new(Arc::new(machine.clone()), files_max);
        (machine, cache, paths)
    }

    #[test]
    fn no_more_files_stay_open_than_allowed() {
        let (machine, cache, paths) = three_files(2);
        for _ in 0..3 {
            for (id, path) in paths.iter().enumerate() {
                cache.read(id as u64, path).unwrap();
            }
        }
        assert_eq!((cache.open_readers(), machine.open_files()), (2, 2));
        cache.forget(2);
        assert_eq!(machine.open_files(), 1);
    }

    #[test]
    fn when_descriptors_are_short_the_cache_gives_up_its_own_first() {
        let (machine, cache, paths) = three_files(8);
        machine.set_open_files_max(2);
        for (id, path) in paths.iter().enumerate() {
            cache.read(id as u64, path).unwrap();
        }
        machine.set_open_files_max(0);
        let error = cache.read(9, &paths[0]).unwrap_err();
        assert_eq!(class(&error), FsErrorClass::TooManyOpenFiles);
    }
}
