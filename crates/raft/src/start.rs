//! Starts a node: reads what is on disk, joins the parts, gives each its thread.

use std::{
    fmt, io,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::{RecvTimeoutError, Sender, bounded};
use raft::{
    GetEntriesContext, RawNode, Storage as _,
    eraftpb::{ConfState, Entry, Snapshot},
};
use tidelog_wal::{
    chain::ChainWriter,
    env::{FileSystem, sched},
    error::{Fatal, die},
};
use tracing::debug;

use crate::{
    Transport,
    cold_reads::{ANSWERS_MAX, ColdWorker, TASKS_MAX, read_ahead_bytes},
    config::RaftConfig,
    error::RaftError,
    handle::{Event, RaftHandle, RaftStatus, Shared, lock},
    log::{
        LogFiles, LogWriter, RecoveredLog, Replay, SnapshotMeta, Step, WriterLinks,
        entry_bytes_max, recover,
    },
    logger,
    metrics::RaftMetrics,
    node::{Links, Node},
    snapshot,
    storage::{Found, RaftStorage},
};

/// Most requests that wait for the log writer.
const REQUESTS_MAX: usize = 1024;
/// How long the log writer waits for more before it vouches for what it wrote.
const QUIET: Duration = Duration::from_millis(5);
/// How long the log writer waits for a full disk.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(100);

/// Starts nodes.
#[derive(Debug)]
pub struct RaftNode;

impl RaftNode {
    /// Recovers what is in `config.dir` and starts the threads. The recovered state comes first:
    /// [`Event::Restore`] where there is a snapshot, then [`Event::Committed`] for what is known to
    /// be committed behind it. A sole voter leads within milliseconds.
    ///
    /// `events` must be bounded, and its owner must keep taking from it.
    ///
    /// # Errors
    /// [`RaftError::Damaged`] where the disk holds something that no crash explains.
    pub fn start(
        config: RaftConfig,
        fs: Arc<dyn FileSystem>,
        transport: Box<dyn Transport>,
        events: Sender<Event>,
        metrics: RaftMetrics,
    ) -> Result<RaftHandle, RaftError> {
        let parts = SteppedNode::open(config, fs, transport, events, metrics, Instant::now())?;
        let SteppedNode { node, writer, worker, handle, lock: directory } = parts;
        let threads = vec![
            spawn("raft", move || node.run())?,
            spawn("raft-log", move || {
                run_writer(writer);
                drop(directory);
            })?,
            spawn("raft-cold", move || run_worker(&worker))?,
        ];
        lock(&handle.shared.threads).extend(threads);
        Ok(handle)
    }
}

/// A node without threads: a simulator steps its three parts itself, in any order it likes.
pub struct SteppedNode {
    pub(crate) node: Node,
    pub(crate) writer: LogWriter,
    pub(crate) worker: ColdWorker,
    pub(crate) handle: RaftHandle,
    /// Keeps other processes out of the directory.
    pub(crate) lock: Box<dyn Send + Sync>,
}

impl SteppedNode {
    /// Recovers as [`RaftNode::start`] does, and starts no thread. `now` is the simulator's time.
    ///
    /// # Errors
    /// As [`RaftNode::start`].
    pub fn open(
        config: RaftConfig,
        fs: Arc<dyn FileSystem>,
        transport: Box<dyn Transport>,
        events: Sender<Event>,
        metrics: RaftMetrics,
        now: Instant,
    ) -> Result<SteppedNode, RaftError> {
        validate(&config)?;
        let OnDisk { lock, files, chain, next_sequence, found, restored } =
            OnDisk::open(&config, fs)?;
        let limits = (config.settings.entries_memory_bytes, entry_bytes_max(&config));
        let status = RaftStatus { raft_id: config.raft_id, ..RaftStatus::default() };
        let (shared, inbox) = Shared::new(limits, status);
        let handle = RaftHandle { shared: Arc::clone(&shared) };
        let (requests, requests_in) = bounded(REQUESTS_MAX);
        let (tasks, tasks_in) = bounded(TASKS_MAX);
        let (answers, answers_in) = bounded(ANSWERS_MAX);
        let links = WriterLinks {
            requests: requests_in,
            tasks: tasks.clone(),
            shared: Arc::clone(&shared),
        };
        let (state, counts) = (found.log_state(), metrics.clone());
        let writer = LogWriter::begin(files.clone(), chain, state, next_sequence, links, counts)?;
        let worker = ColdWorker {
            files: files.clone(),
            tasks: tasks_in,
            answers,
            shared: Arc::clone(&shared),
            metrics: metrics.clone(),
            read_ahead_bytes: read_ahead_bytes(config.settings.cold_cache_bytes),
        };
        let links =
            Links { events, requests, tasks, answers: answers_in, table: Arc::clone(&files.table) };
        let options = config.options(found.snapshot.index);
        let store = RaftStorage::new(found, files, metrics.clone());
        let raw = RawNode::new(&options, store, &logger::bridge())
            .map_err(|error| RaftError::Config(error.to_string()))?;
        let mut node = Node::new(config, raw, transport, (inbox, shared), links, metrics, now);
        restored.into_iter().for_each(|snapshot| node.restore(snapshot));
        Ok(SteppedNode { node, writer, worker, handle, lock })
    }
}

impl SteppedNode {
    /// The way to the node.
    #[must_use]
    pub fn handle(&self) -> &RaftHandle {
        &self.handle
    }

    /// The Raft thread's turn; `true` where it has more to do.
    pub fn step_raft(&mut self, now: Instant) -> bool {
        self.node.step(now)
    }

    /// Entries of [low, high) within `bytes_max`, as Raft asks for them on behalf of a follower.
    ///
    /// # Errors
    /// `LogTemporarilyUnavailable` where they have to be read: step the cold worker and the Raft
    /// thread, then ask again. `Compacted` below the first index.
    pub fn entries(&self, low: u64, high: u64, bytes_max: u64) -> raft::Result<Vec<Entry>> {
        self.node.raw.store().entries(low, high, bytes_max, GetEntriesContext::empty(true))
    }

    /// When the Raft thread wants its next turn at the latest.
    #[must_use]
    pub fn next_tick(&self) -> Instant {
        self.node.next_tick()
    }

    /// The log writer's turn.
    ///
    /// # Errors
    /// The process would have ended: this node must not be stepped again.
    pub fn step_log(&mut self) -> Result<Step, Fatal> {
        self.writer.step()
    }

    /// The cold worker's turn; `false` where it had nothing to do.
    ///
    /// # Errors
    /// As [`SteppedNode::step_log`].
    pub fn step_cold(&mut self) -> Result<bool, Fatal> {
        self.worker.step()
    }
}

impl fmt::Debug for SteppedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SteppedNode").field("status", &self.handle.status()).finish_non_exhaustive()
    }
}

fn validate(config: &RaftConfig) -> Result<(), RaftError> {
    if config.raft_id == 0 {
        return Err(RaftError::Config("raft id 0 means nobody".to_owned()));
    }
    if config.voters.is_empty() || config.voters.contains(&0) {
        return Err(RaftError::Config("a group begins with at least one voter, none 0".to_owned()));
    }
    Ok(())
}

/// What a start finds on the disk.
struct OnDisk {
    /// Keeps other processes out of the directory.
    lock: Box<dyn Send + Sync>,
    files: LogFiles,
    chain: ChainWriter,
    next_sequence: u64,
    found: Found,
    /// The snapshot that the log begins behind, if there is one.
    restored: Option<Snapshot>,
}

impl OnDisk {
    /// Recovers the log and its snapshot.
    fn open(config: &RaftConfig, fs: Arc<dyn FileSystem>) -> Result<OnDisk, RaftError> {
        let (log_dir, snapshots_dir) = (config.dir.join("log"), config.dir.join("snapshots"));
        create_dirs(&*fs, &config.dir, &[&log_dir, &snapshots_dir])?;
        let lock = fs.lock(&config.dir).map_err(|error| {
            RaftError::io("another process has, or nobody can lock,", &config.dir, error)
        })?;
        let recovered = recover(&fs, &log_dir, config)?;
        let RecoveredLog { replay, pool, chain, next_sequence, is_fresh, .. } = recovered;
        let Replay { hard_state, snapshot, terms, cache: memory, table, .. } = replay;
        let table = Arc::new(Mutex::new(table));
        let files = LogFiles { group: config.group, fs, snapshots_dir, pool, table };
        let (snapshot, restored) = newest_snapshot(&files, config, snapshot, is_fresh)?;
        let cold_bytes_max = config.settings.cold_cache_bytes;
        let found = Found { hard_state, snapshot, terms, memory, cold_bytes_max };
        let state = found.log_state();
        debug!(
            group = config.group,
            truncated = state.truncated.0,
            last_index = state.last.0,
            snapshot_index = state.snapshot.index,
            "recovered the Raft log"
        );
        Ok(OnDisk { lock, files, chain, next_sequence, found, restored })
    }
}

/// Creates what is missing, durably, up to the directory above.
fn create_dirs(fs: &dyn FileSystem, dir: &Path, inside: &[&Path]) -> Result<(), RaftError> {
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| RaftError::Io { doing, path, source }
    };
    for inner in inside {
        fs.create_dir_all(inner).map_err(failed("cannot create", inner))?;
    }
    for above in dir.ancestors().take(3).filter(|path| !path.as_os_str().is_empty()) {
        fs.sync_dir(above).map_err(failed("cannot sync", above))?;
    }
    Ok(())
}

/// The snapshot that the log names, with its contents, and no other left on disk. A log that is
/// new names the empty state and the configured voters.
fn newest_snapshot(
    files: &LogFiles,
    config: &RaftConfig,
    named: Option<SnapshotMeta>,
    is_fresh: bool,
) -> Result<(SnapshotMeta, Option<Snapshot>), RaftError> {
    let dir = &files.snapshots_dir;
    let any = snapshot::any(files).map_err(|error| RaftError::io("cannot list", dir, error))?;
    if is_fresh && any {
        return Err(RaftError::damaged(dir, 0, "there are snapshots, and their log is gone"));
    }
    let meta = named.unwrap_or_else(|| {
        let conf_state = ConfState { voters: config.voters.clone(), ..ConfState::default() };
        SnapshotMeta { index: 0, term: 0, conf_state }
    });
    let restored = match meta.index {
        0 => None,
        _ => Some(snapshot::read(files, &meta)?),
    };
    snapshot::remove_strays(files, meta.index)
        .map_err(|error| RaftError::io("cannot remove strays in", dir, error))?;
    Ok((meta, restored))
}

fn spawn(
    name: &'static str,
    body: impl FnOnce() + Send + 'static,
) -> Result<(&'static str, thread::JoinHandle<()>), RaftError> {
    let body = move || {
        sched::shorten_slice();
        body();
    };
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(body);
    Ok((name, spawned.map_err(|error| RaftError::Thread(name, error))?))
}

/// Steps the log writer until the Raft thread is gone; a failed step ends the process.
fn run_writer(mut writer: LogWriter) {
    loop {
        let pause = match writer.step() {
            Ok(Step::Worked) => QUIET,
            Ok(Step::Blocked) => FULL_DISK_PAUSE,
            Ok(Step::Idle) => Duration::MAX,
            Err(fatal) => die(&fatal),
        };
        match writer.wait(pause) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if let Err(fatal) = writer.finish() {
        die(&fatal);
    }
}

fn run_worker(worker: &ColdWorker) {
    while let Ok(task) = worker.tasks.recv() {
        if let Err(fatal) = worker.work(task) {
            die(&fatal);
        }
    }
}
