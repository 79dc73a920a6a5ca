//! Deletes what no log has any more, in the background and a little at a time: deleting a large
//! file, or the many of a deleted topic, must not hold up a sync or a spill.
//!
//! A file that waits here has a name that is no segment's, so that no recovery takes it for one and
//! no new segment can be mistaken for it. What a crash leaves waiting, the next start finds again.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::{
    env::FileSystem,
    error::{Fatal, FsErrorClass, WalError, class},
    file_cache::FileCache,
    segment::{SegmentError, remove_dir, remove_if_there, write_error},
    shard::{LogInner, Shard, partition_dir},
    threads::Step,
};

/// Names that one step removes; a pause of the thread follows.
const NAMES_A_STEP: usize = 16;
/// Partitions after whose removal the log hears of it, while others wait.
const PARTITIONS_A_REPORT: u64 = 256;
/// What the names of files end in that wait to be deleted, as in Kafka.
const DOOMED: &str = "deleted";

/// What waits to be deleted. As long as the number of files that were dropped from logs and are
/// still on disk.
#[derive(Debug, Default)]
pub(crate) struct Removals {
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Files by when they may go.
    files: BTreeMap<(Instant, u64), PathBuf>,
    next: u64,
    /// Removed partitions, whose directories go.
    partitions: VecDeque<Arc<LogInner>>,
}

impl Removals {
    /// Takes a file out of its log by its name, durably once the directory is synced, and has it
    /// deleted after `delay`. A file that is not there is no error.
    ///
    /// # Errors
    /// As the file system fails.
    pub(crate) fn doom(
        &self,
        fs: &dyn FileSystem,
        path: &Path,
        delay: Duration,
    ) -> Result<(), SegmentError> {
        let doomed = doomed_name(path);
        match fs.rename(path, &doomed) {
            Ok(()) => self.add(doomed, delay),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            // Even a name needs room, and this is how there will be some.
            Err(error) if class(&error) == FsErrorClass::DiskFull => remove_if_there(fs, path)?,
            Err(error) => return Err(write_error("cannot rename", path, error)),
        }
        Ok(())
    }

    /// Has a file deleted that was taken out of its log before.
    pub(crate) fn add(&self, doomed: PathBuf, delay: Duration) {
        assert!(is_doomed(&doomed), "what is deleted later has no segment's name");
        let now = Instant::now();
        let due = now.checked_add(delay).unwrap_or(now + Duration::from_secs(u32::MAX.into()));
        let mut queue = self.queue();
        let number = queue.next;
        queue.next += 1;
        queue.files.insert((due, number), doomed);
    }

    /// Has the directory of a removed partition deleted.
    pub(crate) fn add_partition(&self, log: Arc<LogInner>) {
        assert!(log.is_removed(), "only a removed partition loses its directory");
        self.queue().partitions.push_back(log);
    }

    /// Files and partitions that wait.
    pub(crate) fn waiting(&self) -> usize {
        let queue = self.queue();
        queue.files.len() + queue.partitions.len()
    }

    /// A file whose time has come; any file where space is short.
    fn next_file(&self, is_urgent: bool) -> Option<PathBuf> {
        let mut queue = self.queue();
        let first = queue.files.first_entry()?;
        let is_due = is_urgent || first.key().0 <= Instant::now();
        is_due.then(|| first.remove())
    }

    fn next_partition(&self) -> Option<Arc<LogInner>> {
        self.queue().partitions.pop_front()
    }

    fn is_last_partition(&self) -> bool {
        self.queue().partitions.is_empty()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name that a file waits under.
pub(crate) fn doomed_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(DOOMED);
    PathBuf::from(name)
}

/// Whether a file waits to be deleted, by its name.
pub(crate) fn is_doomed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == DOOMED)
}

/// The remover thread's body.
#[derive(Debug)]
pub(crate) struct Remover {
    shard: Arc<Shard>,
    files: Arc<FileCache>,
    /// Partitions removed since the log last heard of it.
    unreported: u64,
}

impl Remover {
    pub(crate) fn new(shard: Arc<Shard>, files: Arc<FileCache>) -> Remover {
        Remover { shard, files, unreported: 0 }
    }

    /// Removes some names. What is left when the log closes is found again at the next start.
    pub(crate) fn step(&mut self) -> Result<Step, Fatal> {
        if self.shard.is_writer_done() {
            return Ok(Step::Done);
        }
        match self.remove_some() {
            Ok(step) => {
                let waiting = self.files.removals().waiting();
                self.shard.metrics.removals_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
                Ok(step)
            }
            Err(SegmentError::Fatal(fatal)) => Err(fatal),
            Err(error) => {
                let error = WalError::from(error);
                tracing::warn!(%error, "cannot delete files now; trying again");
                Ok(Step::Idle)
            }
        }
    }

    fn remove_some(&mut self) -> Result<Step, SegmentError> {
        let is_urgent = self.shard.is_disk_full();
        for _ in 0..NAMES_A_STEP {
            let Some(path) = self.files.removals().next_file(is_urgent) else {
                return self.remove_partitions();
            };
            if let Err(error) = remove_if_there(&*self.shard.fs, &path) {
                self.files.removals().add(path, Duration::ZERO);
                return Err(error);
            }
        }
        Ok(Step::Pause)
    }

    /// Removes a partition's directory, or some of the names in it; or passes over some that have
    /// none.
    fn remove_partitions(&mut self) -> Result<Step, SegmentError> {
        for _ in 0..NAMES_A_STEP {
            let Some(log) = self.files.removals().next_partition() else { return Ok(Step::Idle) };
            let dir = partition_dir(&self.shard.config, log.id);
            let fs = &*self.shard.fs;
            let names = match fs.list(&dir) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
                listed => listed.map_err(|error| {
                    self.files.removals().add_partition(Arc::clone(&log));
                    write_error("cannot list", &dir, error)
                })?,
            };
            if names.is_empty() {
                self.on_removed(&log);
                continue;
            }
            let removed = remove_part(fs, &dir, &names);
            match removed {
                Ok(true) => self.on_removed(&log),
                Ok(false) | Err(_) => self.files.removals().add_partition(log),
            }
            return removed.map(|_| Step::Pause);
        }
        Ok(Step::Worked)
    }

    /// The id may come back: the log's own thread forgets it.
    fn on_removed(&mut self, log: &LogInner) {
        log.is_gone.store(true, Ordering::Release);
        self.unreported += 1;
        if self.unreported >= PARTITIONS_A_REPORT || self.files.removals().is_last_partition() {
            self.unreported = 0;
            self.shard.want_checkpoint();
        }
    }
}

/// Removes the names of one step; whether nothing is left, durably.
fn remove_part(fs: &dyn FileSystem, dir: &Path, names: &[PathBuf]) -> Result<bool, SegmentError> {
    if names.len() <= NAMES_A_STEP {
        return remove_dir(fs, dir).map(|()| true);
    }
    for path in names.iter().rev().take(NAMES_A_STEP) {
        remove_if_there(fs, path)?;
    }
    Ok(false)
}
