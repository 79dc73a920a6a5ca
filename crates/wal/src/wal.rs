//! The log of one data directory: opens it, hands out its partitions, closes it.

use std::{
    collections::btree_map::Entry,
    io,
    ops::RangeInclusive,
    sync::{Arc, Mutex, atomic::Ordering},
    task::{Poll, Waker},
    thread::JoinHandle,
};

use tidelog_types::TopicIdPartition;

use crate::{
    checkpoint::PartitionEntry,
    compaction::{BatchRewriter, CleanerConfig, cleaner::Cleaner},
    config::{Durability, LogSettings, WalConfig},
    env::FileSystem,
    error::{StorageError, WalError},
    file_cache::FileCache,
    filler::Filler,
    log::{Log, LogObserver, RecoveredPartition},
    metrics::WalMetrics,
    partition::LogState,
    reader::ColdReader,
    recovery::{Recovery, recover},
    removals::Remover,
    reservations::{Reservation, ReserveTicket},
    shard::{LogInner, Shard, lock, wal_dir},
    spill::Spill,
    threads::{spawn, spawn_in_background},
    writer::Writer,
};

/// Files of the chain that a start may leave as they are: the one that the life before wrote last,
/// and its own.
const FILES_AFTER_START_MAX: usize = 2;

/// What recovery found in a data directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Every partition on disk, those of unknown topics included.
    pub partitions: Vec<RecoveredPartition>,
    /// What was cut off behind the last sync, if anything was.
    pub cut: Option<CutReport>,
    /// Frames were lost whose partition nobody can name: a partition that metadata lists and
    /// recovery does not is suspect until [`Wal::all_known_opened`].
    pub unknown_suspect: bool,
}

/// A cut that may have taken what was acknowledged, or may not: nothing later vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutReport {
    /// Sequences of the frames that were cut.
    pub sequences: RangeInclusive<u64>,
    /// Partitions whose frames could still be told apart.
    pub partitions: Vec<TopicIdPartition>,
}

/// The log of one data directory. Clones share it.
#[derive(Debug, Clone)]
pub struct Wal {
    shard: Arc<Shard>,
    files: Arc<FileCache>,
    running: Arc<Running>,
}

/// What ends with the log: the directory's lock and the threads.
struct Running {
    threads: Mutex<Vec<JoinHandle<()>>>,
    directory: Mutex<Option<Box<dyn Send + Sync>>>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Running")
    }
}

/// The bodies of the threads, for a test or a simulation to step.
#[derive(Debug)]
pub(crate) struct Steppers {
    pub(crate) writer: Writer,
    pub(crate) spill: Spill,
    pub(crate) filler: Filler,
    pub(crate) reader: ColdReader,
    pub(crate) remover: Remover,
}

impl Wal {
    /// Locks the directory, recovers, writes recovery's checkpoint and starts the threads.
    ///
    /// # Errors
    /// As [`WalError`] says; nothing is running then.
    pub fn open(
        config: WalConfig,
        fs: Arc<dyn FileSystem>,
        metrics: WalMetrics,
    ) -> Result<(Wal, Recovered), WalError> {
        if config.durability == Durability::PageCache {
            tracing::warn!("wal.durability=page-cache: a power loss takes acknowledged records");
        }
        let dir = config.dir.clone();
        let (wal, recovered, steppers) = Wal::open_stepped(config, fs, metrics)?;
        steppers.filler.check_room();
        wal.start(steppers)
            .map_err(|error| WalError::of("cannot start threads for", &dir, error))?;
        Ok((wal, recovered))
    }

    /// Opens without threads: whoever holds the steppers runs them.
    pub(crate) fn open_stepped(
        config: WalConfig,
        fs: Arc<dyn FileSystem>,
        metrics: WalMetrics,
    ) -> Result<(Wal, Recovered, Steppers), WalError> {
        let config = config.in_blocks();
        let dir = wal_dir(&config);
        fs.create_dir_all(&dir).map_err(|error| WalError::of("cannot create", &dir, error))?;
        let directory = fs.lock(&dir).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => WalError::Locked { path: dir.clone() },
            _ => WalError::of("cannot lock", &dir, error),
        })?;
        let Recovery { shard, chain, segments, files, recovered } = recover(config, fs, metrics)?;
        shard.unknown_suspect.store(recovered.unknown_suspect, Ordering::Release);
        let shard = Arc::new(shard);
        let steppers = Steppers {
            writer: Writer::new(Arc::clone(&shard), chain),
            remover: Remover::new(Arc::clone(&shard), Arc::clone(&files)),
            spill: Spill::new(Arc::clone(&shard), Arc::clone(&files), segments),
            filler: Filler::new(Arc::clone(&shard)),
            reader: ColdReader::new(Arc::clone(&shard), Arc::clone(&files)),
        };
        let directory = Mutex::new(Some(directory));
        let running = Arc::new(Running { threads: Mutex::default(), directory });
        Ok((Wal { shard, files, running }, recovered, steppers))
    }

    /// Opens a partition's log, creating it if it is new.
    ///
    /// # Errors
    /// [`WalError::Removing`] while an earlier removal of this id is not durable;
    /// [`WalError::Closed`].
    pub fn open_log(
        &self,
        id: TopicIdPartition,
        settings: LogSettings,
        observer: Arc<dyn LogObserver>,
    ) -> Result<Log, WalError> {
        if self.shard.queue().is_closing {
            return Err(WalError::Closed);
        }
        let mut logs = self.shard.logs();
        let inner = match logs.entry(id) {
            Entry::Occupied(found) if found.get().is_removed() => {
                return Err(WalError::Removing { id });
            }
            Entry::Occupied(found) => Arc::clone(found.get()),
            Entry::Vacant(place) => {
                let inner = Arc::new(LogInner::new(id, self.new_state(id)));
                Arc::clone(place.insert(inner))
            }
        };
        drop(logs);
        *lock(&inner.settings) = settings;
        inner.set_observer(Some(observer));
        Ok(Log::new(inner, Arc::clone(&self.shard)))
    }

    /// Every partition that metadata knew at start-up is open: new ones are new indeed.
    pub fn all_known_opened(&self) {
        if self.shard.unknown_suspect.swap(false, Ordering::AcqRel) {
            self.shard.want_checkpoint();
        }
        // Every start begins a file. One batch that nobody spills would keep the almost empty
        // files of all the starts since.
        if self.shard.pool.live_files().len() > FILES_AFTER_START_MAX {
            self.shard.want_checkpoint();
        }
    }

    /// Begins a search of every log for records that need not be kept any more, as of `now_ms`, in
    /// milliseconds since 1970. Returns at once.
    pub fn run_retention(&self, now_ms: i64) {
        self.shard.want_retention(now_ms);
    }

    /// Starts the thread that compacts logs, as those ask for it that `run_compaction` finds due.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start_cleaner(
        &self,
        rewriter: Arc<dyn BatchRewriter>,
        config: CleanerConfig,
    ) -> io::Result<()> {
        let mut cleaner = self.cleaner(rewriter, config);
        let step = move || cleaner.step();
        let thread = spawn_in_background("wal-cleaner", &self.shard, |b| &b.cleaner, step)?;
        lock(&self.running.threads).push(thread);
        Ok(())
    }

    /// Begins a search for logs that are due to be compacted, as of `now_ms`, in milliseconds since
    /// 1970. Returns at once.
    pub fn run_compaction(&self, now_ms: i64) {
        self.shard.want_compaction(now_ms);
    }

    /// Changes a partition's settings: for its next batch and its next search for old records.
    pub fn update_settings(&self, id: TopicIdPartition, settings: LogSettings) {
        if let Some(log) = self.shard.logs().get(&id) {
            *lock(&log.settings) = settings;
        }
    }

    /// Removes a partition's log. Its files go in the background; its id cannot come back
    /// before the removal is durable.
    ///
    /// # Errors
    /// [`WalError::Closed`] when there is no such log.
    pub fn remove_log(&self, id: TopicIdPartition) -> Result<(), WalError> {
        let log = self.shard.logs().get(&id).cloned().ok_or(WalError::Closed)?;
        {
            // Under both locks, so that no append is between its check and the queue.
            let _state = log.state();
            let _queue = self.shard.queue();
            log.is_removed.store(true, Ordering::Release);
        }
        log.set_observer(None);
        self.shard.want_checkpoint();
        Ok(())
    }

    /// Reserves bytes, first come first served. Pending: the waker is called when it is worth
    /// polling again with the same ticket. More bytes than the bound take it alone.
    pub fn poll_reserve(
        &self,
        ticket: &mut ReserveTicket,
        bytes: u64,
        waker: &Waker,
    ) -> Poll<Result<Reservation, StorageError>> {
        let polled = self.shard.budget.poll_reserve(ticket, bytes, waker);
        if polled.is_pending() {
            self.shard.bells.spill.ring();
        }
        polled
    }

    /// Reserves bytes if nobody waits and there is room.
    ///
    /// # Errors
    /// [`StorageError::DiskFull`], [`StorageError::Closed`].
    pub fn try_reserve(&self, bytes: u64) -> Result<Option<Reservation>, StorageError> {
        self.shard.budget.try_reserve(bytes)
    }

    /// Bytes of the directory's file system, and how many of them may still be written; `None`
    /// for what the system does not tell.
    #[must_use]
    pub fn disk_bytes(&self) -> (Option<u64>, Option<u64>) {
        let (fs, dir) = (&self.shard.fs, &self.shard.config.dir);
        (fs.total_bytes(dir).ok(), fs.free_bytes(dir).ok())
    }

    /// Why appends are refused, if they are: the disk is full, or the log is closed.
    #[must_use]
    pub fn refusal(&self) -> Option<StorageError> {
        self.shard.budget.refusal()
    }

    /// Writes what waits, moves everything to segments, checkpoints and ends the threads.
    ///
    /// # Errors
    /// [`WalError::DiskFull`] when segments cannot take it; the WAL keeps it.
    pub fn flush_and_close(&self) -> Result<(), WalError> {
        self.shard.close();
        let mut threads = std::mem::take(&mut *lock(&self.running.threads)).into_iter();
        self.shard.bells.writer.ring();
        self.shard.bells.reader.ring();
        // The writer is first: what it still writes, the others carry on.
        if let Some(writer) = threads.next() {
            join(writer);
        }
        self.shard.set_writer_done();
        threads.for_each(join);
        self.end_close()
    }

    /// The threads are gone: lets other processes in, and says whether everything was moved.
    pub(crate) fn end_close(&self) -> Result<(), WalError> {
        lock(&self.running.directory).take();
        match lock(&self.shard.close_error).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    #[cfg(any(test, feature = "test-fs"))]
    pub(crate) fn shard(&self) -> &Arc<Shard> {
        &self.shard
    }

    /// The cleaner's body: for its thread, or for a test to step.
    pub(crate) fn cleaner(
        &self,
        rewriter: Arc<dyn BatchRewriter>,
        config: CleanerConfig,
    ) -> Cleaner {
        Cleaner::new(Arc::clone(&self.shard), Arc::clone(&self.files), rewriter, config)
    }

    fn start(&self, steppers: Steppers) -> io::Result<()> {
        let Steppers { mut writer, mut spill, mut filler, mut reader, mut remover } = steppers;
        let shard = &self.shard;
        let mut threads = lock(&self.running.threads);
        threads.push(spawn("wal-writer", shard, |b| &b.writer, move || writer.step())?);
        threads.push(spawn("wal-spill", shard, |b| &b.spill, move || spill.step())?);
        threads.push(spawn("wal-filler", shard, |b| &b.filler, move || filler.step())?);
        threads.push(spawn("wal-reader", shard, |b| &b.reader, move || reader.step())?);
        threads.push(spawn("wal-remover", shard, |b| &b.remover, move || remover.step())?);
        Ok(())
    }

    /// A partition that nobody knew: new, or lost without a trace.
    fn new_state(&self, id: TopicIdPartition) -> LogState {
        let spilled_through = lock(&self.shard.tombstones).remove(&id).unwrap_or_default();
        let mut state = LogState::from_entry(PartitionEntry::fresh(spilled_through));
        state.is_suspect = self.shard.unknown_suspect.load(Ordering::Acquire);
        state
    }
}

fn join(thread: JoinHandle<()>) {
    // A thread that panicked has said so already.
    let _ = thread.join();
}
