//! What the threads of one data directory share.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Instant,
};

use tidelog_types::{Entry, LeaderEpoch, Offset, TopicIdPartition};

use crate::{
    chain::FilePool,
    config::{LogSettings, WalConfig},
    doorbell::Doorbell,
    env::FileSystem,
    error::{StorageError, WalError},
    frame::{FrameHeader, FrameKind},
    log::LogObserver,
    metrics::WalMetrics,
    partition::LogState,
    reader::ColdJob,
    reservations::Budget,
    segment::{Compacted, SegmentReader},
};

/// Cold reads that may wait for the reader thread.
const COLD_JOBS_MAX: usize = 4096;

/// Damaged ranges of one partition that are reported, each once.
const REPORTED_MAX: usize = 1000;

/// One data directory. Lock order: a log's state, then the queue; never two logs.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) config: WalConfig,
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) metrics: WalMetrics,
    pub(crate) budget: Arc<Budget>,
    pub(crate) pool: Arc<FilePool>,
    queue: Mutex<Queue>,
    logs: Mutex<BTreeMap<TopicIdPartition, Arc<LogInner>>>,
    cold: Mutex<ColdQueue>,
    /// Everything up to here is on disk.
    durable_sequence: AtomicU64,
    /// Whether a page-cache shard should sync before the next spill.
    pub(crate) sync_wanted: AtomicBool,
    pub(crate) spill_wanted: AtomicBool,
    pub(crate) checkpoint_wanted: AtomicBool,
    /// A snapshot was made that includes what is not durable yet: the next checkpoint names it.
    pub(crate) snapshot_ahead: AtomicBool,
    pub(crate) unknown_suspect: AtomicBool,
    /// The time of a search for old records that is wanted, in milliseconds since 1970.
    retention_wanted: Mutex<Option<i64>>,
    /// The time of a search for logs to compact that is wanted, in milliseconds since 1970.
    compaction_wanted: Mutex<Option<i64>>,
    /// Between the cleaner and the spill thread.
    swaps: Mutex<SwapDesk>,
    disk_full: Mutex<DiskFull>,
    log_start_waits: Mutex<Vec<LogStartWait>>,
    /// Removed partitions, with the sequence up to which frames are of the removed log.
    pub(crate) tombstones: Mutex<BTreeMap<TopicIdPartition, u64>>,
    /// Why the last spill before closing could not be finished.
    pub(crate) close_error: Mutex<Option<WalError>>,
    pub(crate) is_writer_done: AtomicBool,
    pub(crate) bells: Bells,
}

/// What waits for the reader thread.
#[derive(Debug, Default)]
struct ColdQueue {
    jobs: VecDeque<ColdJob>,
    /// The reader is gone.
    is_closed: bool,
}

/// Somebody who waits until a log start offset is durable.
pub(crate) struct LogStartWait {
    pub(crate) log: Arc<LogInner>,
    pub(crate) to: Offset,
    pub(crate) done: Box<dyn FnOnce() + Send>,
}

impl std::fmt::Debug for LogStartWait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogStartWait").field("log", &self.log).field("to", &self.to).finish()
    }
}

/// A compacted segment that is to be put in its place.
#[derive(Debug)]
pub(crate) struct SwapJob {
    pub(crate) log: Arc<LogInner>,
    /// The partition's count of cuts when it was read.
    pub(crate) cuts: u64,
    pub(crate) compacted: Compacted,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum SwapOutcome {
    Placed,
    /// The log is not what it was.
    Stale,
    Refused(WalError),
}

/// One job at a time: the cleaner waits for its outcome.
#[derive(Debug, Default)]
struct SwapDesk {
    wanted: Option<SwapJob>,
    outcome: Option<SwapOutcome>,
}

/// The threads' doorbells.
#[derive(Debug, Default)]
pub(crate) struct Bells {
    pub(crate) writer: Doorbell,
    pub(crate) spill: Doorbell,
    pub(crate) filler: Doorbell,
    pub(crate) remover: Doorbell,
    pub(crate) reader: Doorbell,
    pub(crate) cleaner: Doorbell,
}

/// What waits to be written, in the order in which it will be.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) frames: VecDeque<Queued>,
    /// When the first of them came.
    pub(crate) waiting_since: Option<Instant>,
    pub(crate) next_sequence: u64,
    pub(crate) is_closing: bool,
}

/// A frame that waits. Epoch and durable sequence are filled in when it is written.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) log: Arc<LogInner>,
    pub(crate) header: FrameHeader,
    pub(crate) entry: Option<Entry>,
}

/// Who found the disk full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskUser {
    Filler,
    Spill,
}

/// Bytes that each of them needs, if it found the disk full.
#[derive(Debug, Default)]
struct DiskFull {
    filler: Option<u64>,
    spill: Option<u64>,
}

/// One partition's log, shared by its handles and the threads.
pub(crate) struct LogInner {
    pub(crate) id: TopicIdPartition,
    state: Mutex<LogState>,
    observer: Mutex<Option<Arc<dyn LogObserver>>>,
    pub(crate) settings: Mutex<LogSettings>,
    reader: Mutex<Option<Arc<SegmentReader>>>,
    /// Damaged ranges that were reported.
    reported: Mutex<Vec<Range<Offset>>>,
    pub(crate) durable_end: AtomicI64,
    pub(crate) segment_bytes: AtomicU64,
    pub(crate) is_removed: AtomicBool,
    /// It is removed, nothing of it is in memory, and its files are going.
    is_leaving: AtomicBool,
    /// Its files are gone.
    pub(crate) is_gone: AtomicBool,
    /// The cleaner writes files into its directory.
    pub(crate) is_cleaning: AtomicBool,
}

impl std::fmt::Debug for LogInner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogInner").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Shard {
    pub(crate) fn new(
        config: WalConfig,
        fs: Arc<dyn FileSystem>,
        metrics: WalMetrics,
        pool: Arc<FilePool>,
        logs: Vec<Arc<LogInner>>,
        tombstones: BTreeMap<TopicIdPartition, u64>,
        durable_sequence: u64,
    ) -> Shard {
        metrics.set_limits(&config);
        let budget = Budget::new(config.queue_bytes_max, config.tail_bytes_max);
        budget.charge_tail(logs.iter().map(|log| log.state().tail.bytes()).sum());
        let next_sequence = durable_sequence + 1;
        Shard {
            config,
            fs,
            metrics,
            budget,
            pool,
            queue: Mutex::new(Queue::new(next_sequence)),
            logs: Mutex::new(logs.into_iter().map(|log| (log.id, log)).collect()),
            cold: Mutex::default(),
            durable_sequence: AtomicU64::new(durable_sequence),
            sync_wanted: AtomicBool::new(false),
            spill_wanted: AtomicBool::new(false),
            snapshot_ahead: AtomicBool::new(false),
            checkpoint_wanted: AtomicBool::new(false),
            unknown_suspect: AtomicBool::new(false),
            retention_wanted: Mutex::default(),
            compaction_wanted: Mutex::default(),
            swaps: Mutex::default(),
            disk_full: Mutex::default(),
            log_start_waits: Mutex::default(),
            tombstones: Mutex::new(tombstones),
            close_error: Mutex::default(),
            is_writer_done: AtomicBool::new(false),
            bells: Bells::default(),
        }
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    pub(crate) fn logs(&self) -> MutexGuard<'_, BTreeMap<TopicIdPartition, Arc<LogInner>>> {
        lock(&self.logs)
    }

    /// Every log, without holding the lock that finds them.
    pub(crate) fn all_logs(&self) -> Vec<Arc<LogInner>> {
        self.logs().values().cloned().collect()
    }

    pub(crate) fn durable_sequence(&self) -> u64 {
        self.durable_sequence.load(Ordering::Acquire)
    }

    pub(crate) fn set_durable_sequence(&self, sequence: u64) {
        let before = self.durable_sequence.swap(sequence, Ordering::AcqRel);
        assert!(before <= sequence, "what is durable stays durable");
    }

    /// Where the WAL files and the checkpoint are.
    pub(crate) fn wal_dir(&self) -> PathBuf {
        wal_dir(&self.config)
    }

    /// Queues a job for the reader thread; gives it back when too many wait.
    pub(crate) fn queue_cold(&self, job: ColdJob) -> Result<(), ColdJob> {
        let mut cold = lock(&self.cold);
        if cold.is_closed || cold.jobs.len() >= COLD_JOBS_MAX {
            return Err(job);
        }
        cold.jobs.push_back(job);
        drop(cold);
        self.bells.reader.ring();
        Ok(())
    }

    /// The next job. Once the log is closing and none is left, none is taken any more.
    pub(crate) fn next_cold(&self, is_closing: bool) -> Option<ColdJob> {
        let mut cold = lock(&self.cold);
        cold.is_closed = is_closing && cold.jobs.is_empty();
        cold.jobs.pop_front()
    }

    /// Has `done` called when the log start offset is durable.
    pub(crate) fn wait_for_log_start(
        &self,
        log: &Arc<LogInner>,
        to: Offset,
        done: Box<dyn FnOnce() + Send>,
    ) {
        lock(&self.log_start_waits).push(LogStartWait { log: Arc::clone(log), to, done });
        self.want_checkpoint();
    }

    /// Takes those whose wait is over: the checkpoint says so, or the log is gone.
    pub(crate) fn finished_log_start_waits(&self) -> Vec<LogStartWait> {
        let mut waits = lock(&self.log_start_waits);
        waits
            .extract_if(.., |wait| {
                wait.log.is_removed() || wait.log.state().entry.log_start >= wait.to
            })
            .collect()
    }

    pub(crate) fn has_log_start_waits(&self) -> bool {
        !lock(&self.log_start_waits).is_empty()
    }

    pub(crate) fn want_checkpoint(&self) {
        self.checkpoint_wanted.store(true, Ordering::Release);
        self.bells.spill.ring();
    }

    /// Has every log searched for records that need not be kept any more.
    pub(crate) fn want_retention(&self, now_ms: i64) {
        *lock(&self.retention_wanted) = Some(now_ms);
        self.bells.spill.ring();
    }

    pub(crate) fn take_retention(&self) -> Option<i64> {
        lock(&self.retention_wanted).take()
    }

    /// Has every log looked at that may be compacted.
    pub(crate) fn want_compaction(&self, now_ms: i64) {
        *lock(&self.compaction_wanted) = Some(now_ms);
        self.bells.cleaner.ring();
    }

    pub(crate) fn take_compaction(&self) -> Option<i64> {
        lock(&self.compaction_wanted).take()
    }

    /// Has the spill thread put a compacted segment in its place.
    pub(crate) fn want_swap(&self, job: SwapJob) {
        let mut desk = lock(&self.swaps);
        assert!(desk.wanted.is_none() && desk.outcome.is_none(), "one swap at a time");
        desk.wanted = Some(job);
        drop(desk);
        self.bells.spill.ring();
    }

    pub(crate) fn take_swap(&self) -> Option<SwapJob> {
        lock(&self.swaps).wanted.take()
    }

    pub(crate) fn tell_swap_outcome(&self, outcome: SwapOutcome) {
        lock(&self.swaps).outcome = Some(outcome);
        self.bells.cleaner.ring();
    }

    pub(crate) fn take_swap_outcome(&self) -> Option<SwapOutcome> {
        lock(&self.swaps).outcome.take()
    }

    /// Whether somebody found the disk full and nobody found room since.
    pub(crate) fn is_disk_full(&self) -> bool {
        let full = lock(&self.disk_full);
        full.filler.is_some() || full.spill.is_some()
    }

    /// Notes that somebody found the disk full and how many bytes he needs, or found room again.
    /// Appends are refused while anybody needs any.
    pub(crate) fn set_disk_full(&self, user: DiskUser, needed: Option<u64>) {
        let mut full = lock(&self.disk_full);
        let mine = match user {
            DiskUser::Filler => &mut full.filler,
            DiskUser::Spill => &mut full.spill,
        };
        if std::mem::replace(mine, needed).is_some() == needed.is_some() {
            return;
        }
        let path = &self.config.dir;
        let free = self.fs.free_bytes(path).unwrap_or_default();
        let all_needed = match (full.filler, full.spill) {
            (None, None) => None,
            (filler, spill) => Some(filler.unwrap_or(0) + spill.unwrap_or(0)),
        };
        self.metrics.disk_full.set(i64::from(all_needed.is_some()));
        match (needed, all_needed) {
            (Some(_), Some(needed)) => tracing::error!(
                path = %path.display(), free, needed,
                "disk full: appends are refused until there is room"
            ),
            (None, None) => tracing::info!(free, "disk no longer full: appends are accepted"),
            (_, Some(_)) | (Some(_), None) => {}
        }
        if !self.queue().is_closing {
            self.budget.refuse(all_needed.map(|needed| StorageError::DiskFull {
                free,
                needed,
                path: path.clone(),
            }));
        }
    }

    /// Nothing will be written to the WAL any more.
    pub(crate) fn set_writer_done(&self) {
        self.is_writer_done.store(true, Ordering::Release);
        self.bells.spill.ring();
        self.bells.filler.ring();
        self.bells.remover.ring();
        self.bells.cleaner.ring();
    }

    pub(crate) fn is_writer_done(&self) -> bool {
        self.is_writer_done.load(Ordering::Acquire)
    }

    /// From now on nothing is appended.
    pub(crate) fn close(&self) {
        self.queue().is_closing = true;
        self.budget.refuse(Some(StorageError::Closed));
    }
}

impl Queue {
    fn new(next_sequence: u64) -> Queue {
        let frames = VecDeque::new();
        Queue { frames, waiting_since: None, next_sequence, is_closing: false }
    }

    /// Puts a frame behind those that wait.
    pub(crate) fn push(&mut self, frame: Queued) {
        // A clock read for each group, not for each frame.
        self.waiting_since.get_or_insert_with(Instant::now);
        self.frames.push_back(frame);
    }

    /// A frame with the next sequence.
    pub(crate) fn header(
        &mut self,
        kind: FrameKind,
        id: TopicIdPartition,
        leader_epoch: LeaderEpoch,
    ) -> FrameHeader {
        assert!(!self.is_closing, "nothing is enqueued once the writer may be gone");
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        FrameHeader {
            kind,
            is_group_end: false,
            epoch: 0,
            sequence,
            id,
            leader_epoch,
            base_offset: Offset::ZERO,
            last_offset: Offset::ZERO,
            durable_through: 0,
            previous_sequence: 0,
            payload_bytes: 0,
        }
    }
}

impl LogInner {
    pub(crate) fn new(id: TopicIdPartition, state: LogState) -> LogInner {
        LogInner {
            id,
            durable_end: AtomicI64::new(state.durable_end.0),
            state: Mutex::new(state),
            observer: Mutex::new(None),
            settings: Mutex::default(),
            reader: Mutex::new(None),
            reported: Mutex::default(),
            segment_bytes: AtomicU64::new(0),
            is_removed: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            is_cleaning: AtomicBool::new(false),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, LogState> {
        lock(&self.state)
    }

    pub(crate) fn observer(&self) -> Option<Arc<dyn LogObserver>> {
        lock(&self.observer).clone()
    }

    pub(crate) fn set_observer(&self, observer: Option<Arc<dyn LogObserver>>) {
        *lock(&self.observer) = observer;
    }

    pub(crate) fn reader(&self) -> Option<Arc<SegmentReader>> {
        lock(&self.reader).clone()
    }

    pub(crate) fn set_reader(&self, reader: Option<Arc<SegmentReader>>) {
        *lock(&self.reader) = reader;
    }

    /// Whether this is the first report of a damaged range.
    pub(crate) fn note_reported(&self, range: Range<Offset>) -> bool {
        let mut reported = lock(&self.reported);
        let is_new = !reported.contains(&range) && reported.len() < REPORTED_MAX;
        if is_new {
            reported.push(range);
        }
        is_new
    }

    pub(crate) fn settings(&self) -> LogSettings {
        *lock(&self.settings)
    }

    pub(crate) fn publish(&self, durable_end: Offset) {
        self.durable_end.store(durable_end.0, Ordering::Release);
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::Acquire)
    }

    /// Whether its files were not going yet; from now on they are.
    pub(crate) fn begin_leaving(&self) -> bool {
        assert!(self.is_removed(), "only a removed log leaves");
        !self.is_leaving.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Acquire)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }
}

/// Where the WAL files and the checkpoint of a directory are.
pub(crate) fn wal_dir(config: &WalConfig) -> PathBuf {
    config.dir.join("wal")
}

/// Where a partition's segments are.
pub(crate) fn partition_dir(config: &WalConfig, id: TopicIdPartition) -> PathBuf {
    partition_dir_in(&config.dir, id)
}

/// The same for a data directory.
pub(crate) fn partition_dir_in(data_dir: &Path, id: TopicIdPartition) -> PathBuf {
    data_dir.join("topics").join(id.topic_id.to_string()).join(id.partition.to_string())
}

/// A thread that panicked under a lock left nothing half done: assertions come first, and in the
/// release build a panic ends the process.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
