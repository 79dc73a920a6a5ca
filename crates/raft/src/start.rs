//! Starts a node: reads what is on disk, joins the parts, gives each its thread.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::{RecvTimeoutError, Sender, bounded};
use raft::{
    RawNode,
    eraftpb::{ConfState, Snapshot},
};
use tidelog_wal::{
    env::{FileSystem, sched},
    error::die,
};
use tracing::info;

use crate::{
    Transport,
    cold_reads::{ANSWERS_MAX, ColdWorker, TASKS_MAX},
    config::RaftConfig,
    error::RaftError,
    handle::{Event, RaftHandle, RaftStatus, Shared, lock},
    log::{
        BlockReader, LogState, LogWriter, RecoveredLog, SnapshotMeta, Step, entry_bytes_max,
        recover,
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
        let parts = Parts::open(config, fs, transport, events, metrics, Instant::now())?;
        let Parts { node, writer, worker, handle, lock: directory } = parts;
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

/// A node's parts before they have threads; a simulator steps them itself.
pub(crate) struct Parts {
    pub(crate) node: Node,
    pub(crate) writer: LogWriter,
    pub(crate) worker: ColdWorker,
    pub(crate) handle: RaftHandle,
    /// Keeps other processes out of the directory.
    pub(crate) lock: Box<dyn Send + Sync>,
}

impl Parts {
    pub(crate) fn open(
        config: RaftConfig,
        fs: Arc<dyn FileSystem>,
        transport: Box<dyn Transport>,
        events: Sender<Event>,
        metrics: RaftMetrics,
        now: Instant,
    ) -> Result<Parts, RaftError> {
        validate(&config)?;
        let log_dir = config.dir.join("log");
        let snapshots_dir = config.dir.join("snapshots");
        create_dirs(&*fs, &config.dir, &[&log_dir, &snapshots_dir])?;
        let lock = fs.lock(&config.dir).map_err(|error| {
            RaftError::io("another process has, or nobody can lock,", &config.dir, error)
        })?;
        let recovered = recover(&fs, &log_dir, &config)?;
        let (meta, restored) = newest_snapshot(&*fs, &snapshots_dir, &config, &recovered)?;
        let status = RaftStatus { raft_id: config.raft_id, ..RaftStatus::default() };
        let limits = (config.settings.entries_memory_bytes, entry_bytes_max(&config));
        let (shared, inbox) = Shared::new(limits, status);

        let RecoveredLog { replay, pool, chain, next_sequence, cut, .. } = recovered;
        let state = LogState {
            hard_state: replay.hard_state.clone(),
            snapshot: meta.clone(),
            truncated: replay.terms.truncated(),
            last: (replay.terms.last(), replay.terms.term(replay.terms.last()).unwrap_or_default()),
        };
        info!(
            group = config.group,
            first_index = replay.terms.first(),
            last_index = state.last.0,
            snapshot_index = meta.index,
            is_cut = cut.is_some(),
            "recovered the Raft log"
        );
        let table = Arc::new(Mutex::new(replay.table));
        let (requests, requests_in) = bounded(REQUESTS_MAX);
        let (tasks, tasks_in) = bounded(TASKS_MAX);
        let (answers, answers_in) = bounded(ANSWERS_MAX);
        let reader =
            BlockReader { group: config.group, pool: Arc::clone(&pool), table: Arc::clone(&table) };
        let writer = LogWriter::begin(
            config.group,
            Arc::clone(&fs),
            snapshots_dir.clone(),
            (Arc::clone(&pool), chain, Arc::clone(&table)),
            state,
            next_sequence,
            (requests_in, tasks.clone()),
            Arc::clone(&shared),
            metrics.clone(),
        )?;
        let worker = ColdWorker {
            group: config.group,
            fs,
            snapshots_dir,
            reader: reader.clone(),
            pool,
            tasks: tasks_in,
            answers,
            shared: Arc::clone(&shared),
            metrics: metrics.clone(),
        };
        let applied = meta.index;
        let mut memory = replay.cache;
        memory.evict(applied);
        let found = Found {
            hard_state: replay.hard_state,
            snapshot: meta,
            terms: replay.terms,
            memory,
            cold_bytes_max: config.settings.cold_cache_bytes,
        };
        let store = RaftStorage::new(found, reader, metrics.clone());
        let raw = RawNode::new(&config.options(applied), store, &logger::bridge())
            .map_err(|error| RaftError::Config(error.to_string()))?;
        let links = Links { events, requests, tasks, answers: answers_in, table };
        let handle = RaftHandle { shared: Arc::clone(&shared) };
        let mut node = Node::new(config, raw, transport, (inbox, shared), links, metrics, now);
        restored.into_iter().for_each(|snapshot| node.restore(snapshot));
        Ok(Parts { node, writer, worker, handle, lock })
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
    fs: &dyn FileSystem,
    dir: &Path,
    config: &RaftConfig,
    recovered: &RecoveredLog,
) -> Result<(SnapshotMeta, Option<Snapshot>), RaftError> {
    let list_failed = |error| RaftError::io("cannot list", dir, error);
    if recovered.is_fresh && snapshot::any(fs, dir).map_err(list_failed)? {
        return Err(RaftError::damaged(dir, 0, "there are snapshots, and their log is gone"));
    }
    let meta = recovered.replay.snapshot.clone().unwrap_or_else(|| SnapshotMeta {
        index: 0,
        term: 0,
        conf_state: ConfState { voters: config.voters.clone(), ..ConfState::default() },
    });
    let restored = match meta.index {
        0 => None,
        _ => Some(snapshot::read(fs, dir, config.group, &meta)?),
    };
    snapshot::remove_strays(fs, dir, meta.index)
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
