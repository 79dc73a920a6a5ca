//! What a data directory holds after whatever happened to the process before.
//!
//! The order is what makes it safe: read what the disk holds, judge it, write a checkpoint that
//! covers everything kept, and only then change files, go on in a fresh WAL file, and report.

pub(crate) mod replay;
pub(crate) mod scan;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use tidelog_types::{Offset, TopicIdPartition, Uuid};

use self::{
    replay::Replay,
    scan::{Judged, Place, judge, scan},
};
use crate::{
    chain::{self, ChainConfig, ChainFile, ChainWriter, RecoveredChain},
    checkpoint::{Checkpoint, PartitionEntry, write_synced},
    config::{LogSettings, WalConfig},
    env::FileSystem,
    error::{Fatal, WalError, sync_dir},
    file_cache::FileCache,
    frame::FrameHeader,
    log::{RecoveredPartition, Snapshot},
    metrics::WalMetrics,
    partition::LogState,
    rules::{Rule, holds},
    segment::{Segments, SegmentsConfig, remove_dirs},
    shard::{LogInner, Shard, partition_dir, wal_dir},
    snapshot,
    wal::{CutReport, Recovered},
    writer::idle_frame,
};

/// Tells the partition WAL's files from those of other logs.
pub(crate) const OWNER: [u8; 4] = *b"PART";
/// Cuts whose bytes are kept aside.
const CUTS_KEPT: usize = 4;
/// Partitions up to which each directory is synced by itself.
const SYNC_EACH_MAX: usize = 16;
/// WAL files kept zeroed and ready.
const FILES_READY: usize = 2;

/// A directory that is ready to be written to.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) shard: Shard,
    pub(crate) chain: ChainWriter,
    pub(crate) segments: BTreeMap<TopicIdPartition, Segments>,
    pub(crate) files: Arc<FileCache>,
    pub(crate) recovered: Recovered,
}

/// Recovers a directory that this process has locked.
///
/// # Errors
/// [`WalError::Corrupt`] when the checkpoint or a WAL header cannot be believed, or a WAL file
/// that is needed is missing; otherwise as the file system fails.
pub(crate) fn recover(
    config: WalConfig,
    fs: Arc<dyn FileSystem>,
    metrics: WalMetrics,
) -> Result<Recovery, WalError> {
    let started = Instant::now();
    let dir = wal_dir(&config);
    let (checkpoint, mut chain) = read_directory(&config, &fs, &dir)?;
    let mut replay = Replay::new(&checkpoint);
    let scan = scan(&chain.files, |header| replay_needs(&checkpoint, header))?;
    let judged = judge(scan, checkpoint.vouches_through());
    let cut = judged.cut.as_ref().map(|cut| report_cut(cut, &judged, &metrics));
    if let Some((_, place, _)) = &judged.cut {
        keep_aside(&*fs, &dir, &chain.files, *place, &judged, config.commit_bytes_max)?;
    }
    let Judged { kept, next_sequence, end, .. } = judged;
    assert!(
        next_sequence > checkpoint.vouches_through() || !holds(Rule::CheckpointVouches),
        "new sequences lie above everything that was vouched for"
    );
    count_damage(&kept, &metrics);
    replay.play(kept);

    let files = FileCache::new(Arc::clone(&fs), config.open_files_max);
    remove_strays(&config, &*fs, &checkpoint)?;
    let mut segments = open_segments(&config, &files, &checkpoint, &mut replay)?;
    let snapshots = load_snapshots(&config, &*fs, &mut replay)?;
    sync_directories(&config, &*fs, &segments)?;
    let checkpointed = write_checkpoint(&mut replay, next_sequence - 1, &mut chain, &fs, &dir)?;
    cut_files(&mut replay, &mut segments)?;
    remove_unnamed_snapshots(&config, &*fs, &replay)?;

    tracing::debug!(
        partitions = replay.partitions.len(),
        kept_through = next_sequence - 1,
        end_position = end,
        "the WAL was read"
    );
    let (pool, chain, durable_sequence) = go_on(chain, next_sequence, checkpointed, end)?;
    let unknown_suspect = replay.has_lost();
    let partitions = describe(&replay, snapshots);
    let tombstones = std::mem::take(&mut replay.tombstones);
    let logs = hand_over(replay, &segments);
    metrics.wal_segments.set(pool.live_files().len() as i64);
    metrics.wal_recovery_seconds.observe(started.elapsed().as_secs_f64());
    let shard = Shard::new(config, fs, metrics, pool, logs, tombstones, durable_sequence);
    let recovered = Recovered { partitions, cut, unknown_suspect };
    Ok(Recovery { shard, chain, segments, files, recovered })
}

fn read_directory(
    config: &WalConfig,
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
) -> Result<(Checkpoint, RecoveredChain), WalError> {
    let found = Checkpoint::read(fs, dir)?;
    // Its name may be in memory only, and a power loss would bring back the one before: nothing
    // may be cut or unlinked by what this one says until it is there to stay.
    if holds(Rule::CheckpointSyncedAgain) {
        sync_dir(&**fs, dir)?;
    }
    let chain_config = ChainConfig {
        dir: dir.to_owned(),
        owner: OWNER,
        file_bytes: config.file_bytes,
        first_file_bytes: config.first_file_bytes,
        files_max: (config.wal_bytes_max / config.file_bytes).max(4) as usize,
        files_ready: FILES_READY,
        files_recycled_max: usize::MAX,
    };
    let oldest = found.as_ref().map_or(1, |checkpoint| checkpoint.oldest_needed);
    let chain = chain::recover(Arc::clone(fs), chain_config, oldest)?;
    let corrupt = |what| WalError::Corrupt { path: dir.to_owned(), what };
    match &found {
        // Recovery writes its checkpoint before the first WAL file.
        None if !chain.files.is_empty() && holds(Rule::RecoveryCheckpoints) => {
            Err(corrupt("WAL files without a checkpoint: restore the directory from a backup"))
        }
        // What no checkpoint stands for is removed below: all of it, were this let through.
        None if holds(Rule::RecoveryCheckpoints) && !partition_dirs(config, &**fs)?.is_empty() => {
            Err(corrupt("no checkpoint, but topics have segments: is the WAL's disk mounted?"))
        }
        Some(checkpoint) if chain.files.is_empty() && checkpoint.durable_sequence > 0 => {
            Err(corrupt("there is a checkpoint and no WAL file"))
        }
        _ => Ok((found.unwrap_or_default(), chain)),
    }
}

fn replay_needs(checkpoint: &Checkpoint, header: &FrameHeader) -> bool {
    let entries = &checkpoint.partitions;
    match entries.binary_search_by_key(&header.id, |(id, _)| *id) {
        Ok(found) => {
            header.sequence > entries[found].1.spilled_through || !holds(Rule::ReplayAboveSpilled)
        }
        Err(_) => true,
    }
}

/// A cut is reported whatever it took: nothing says that it was not acknowledged.
fn report_cut(
    (headers, _, last): &(Vec<FrameHeader>, Place, u64),
    judged: &Judged,
    metrics: &WalMetrics,
) -> CutReport {
    metrics.wal_recovery_cuts.inc();
    let mut partitions: Vec<TopicIdPartition> = Vec::new();
    for header in headers.iter().filter(|header| header.sequence >= judged.next_sequence) {
        if !partitions.contains(&header.id) {
            partitions.push(header.id);
            tracing::warn!(
                partition = %header.id,
                from_offset = header.base_offset.0,
                sequence = header.sequence,
                "cut off behind the last sync that is known"
            );
        }
    }
    tracing::warn!(
        from_sequence = judged.next_sequence,
        to_sequence = last,
        "the WAL ended in an unfinished or damaged group; it was cut there"
    );
    CutReport { sequences: judged.next_sequence..=*last, partitions }
}

/// Keeps what is cut for whoever wants to look. Where there is no room, recovery does without.
fn keep_aside(
    fs: &dyn FileSystem,
    dir: &Path,
    files: &[Arc<ChainFile>],
    place: Place,
    judged: &Judged,
    bytes_max: u64,
) -> Result<(), WalError> {
    let Some(file) = files.get(place.file) else { return Ok(()) };
    let bytes = bytes_max.min(file.bytes.saturating_sub(place.position));
    let path = dir.join(format!("cut-{:020}.bytes", judged.next_sequence));
    let kept = file.read(place.position, bytes as usize).and_then(|bytes| {
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        write_synced(fs, &path, &bytes[..end], true)?;
        let names = fs.list(dir).map_err(|error| WalError::of("cannot list", dir, error))?;
        let is_cut = |name: &&PathBuf| name.extension().is_some_and(|e| e == "bytes");
        for old in names.iter().filter(is_cut).rev().skip(CUTS_KEPT) {
            fs.remove_file(old).map_err(|error| WalError::of("cannot remove", old, error))?;
        }
        Ok(())
    });
    match kept {
        Err(error @ (WalError::DiskFull { .. } | WalError::TooManyOpenFiles { .. })) => {
            tracing::warn!(%error, "the bytes that were cut could not be kept aside");
            Ok(())
        }
        kept => kept,
    }
}

fn count_damage(kept: &[scan::Item], metrics: &WalMetrics) {
    for item in kept {
        match item {
            scan::Item::Whole(..) => {}
            scan::Item::Damaged(header) => {
                metrics.wal_corrupt_records.inc();
                tracing::error!(
                    partition = %header.id,
                    from_offset = header.base_offset.0,
                    to_offset = header.last_offset.0,
                    "a batch in the WAL is damaged"
                );
            }
            scan::Item::Lost { from, to } => {
                metrics.wal_corrupt_records.inc_by(to - from + 1);
                tracing::error!(
                    from_sequence = from,
                    to_sequence = to,
                    "frames of the WAL are lost"
                );
            }
        }
    }
}

/// Removes directories that no checkpoint entry stands for: of removed partitions, and of those
/// whose first spill was not checkpointed.
fn remove_strays(
    config: &WalConfig,
    fs: &dyn FileSystem,
    checkpoint: &Checkpoint,
) -> Result<(), WalError> {
    let entries = &checkpoint.partitions;
    let is_stray = |id: &TopicIdPartition| {
        let found = entries.binary_search_by_key(id, |(id, _)| *id);
        found.map_or(true, |found| entries[found].1.is_removed)
    };
    let dirs = partition_dirs(config, fs)?.into_iter();
    let strays: Vec<PathBuf> = dirs.filter_map(|(id, dir)| is_stray(&id).then_some(dir)).collect();
    Ok(remove_dirs(fs, &strays, &config.dir)?)
}

/// Every directory of a partition's segments.
fn partition_dirs(
    config: &WalConfig,
    fs: &dyn FileSystem,
) -> Result<Vec<(TopicIdPartition, PathBuf)>, WalError> {
    let mut dirs = Vec::new();
    for topic in list_or_none(fs, &config.dir.join("topics"))? {
        let name = topic.file_name().and_then(|name| name.to_str());
        let Some(topic_id) = name.and_then(Uuid::parse) else { continue };
        for path in list_or_none(fs, &topic)? {
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(partition) = name.and_then(|name| name.parse().ok()) else { continue };
            dirs.push((TopicIdPartition { topic_id, partition }, path));
        }
    }
    Ok(dirs)
}

fn list_or_none(fs: &dyn FileSystem, path: &Path) -> Result<Vec<PathBuf>, WalError> {
    match fs.list(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(|error| WalError::of("cannot list", path, error)),
    }
}

/// Opens, and cuts to their recovery points, the segments of every partition of the checkpoint.
fn open_segments(
    config: &WalConfig,
    files: &Arc<FileCache>,
    checkpoint: &Checkpoint,
    replay: &mut Replay,
) -> Result<BTreeMap<TopicIdPartition, Segments>, WalError> {
    let index_interval_bytes = config.index_interval_bytes;
    let settings = LogSettings { index_interval_bytes, ..LogSettings::default() };
    let segments_config = SegmentsConfig::from(settings);
    let mut opened = BTreeMap::new();
    for (id, entry) in checkpoint.partitions.iter().filter(|(_, entry)| !entry.is_removed) {
        let dir = partition_dir(config, *id);
        let start = entry.log_start.min(entry.recovery_point);
        let (end, holes) = (entry.recovery_point, entry.holes_below);
        let (segments, report) =
            Segments::open_compacted(files, &dir, end, start, holes, segments_config)?;
        if let Some(state) = replay.partitions.get_mut(id) {
            for range in report.damaged {
                note_segment_damage(*id, state, entry, range);
            }
        }
        opened.insert(*id, segments);
    }
    Ok(opened)
}

/// Segments report what is missing as of the checkpoint; a cut at replay may have taken it, and
/// the checkpoint may have recorded it.
fn note_segment_damage(
    id: TopicIdPartition,
    state: &mut LogState,
    entry: &PartitionEntry,
    range: std::ops::Range<Offset>,
) {
    let range = range.start.max(state.log_start)..range.end.min(state.spilled_end);
    let is_reset = state.file_cut.is_some_and(|cut| cut.all);
    if range.start >= range.end || is_reset {
        return;
    }
    let is_known =
        entry.damaged.iter().any(|known| known.start <= range.start && range.end <= known.end);
    if !is_known {
        tracing::error!(
            partition = %id,
            from_offset = range.start.0,
            to_offset = range.end.0,
            "segments are damaged or missing"
        );
    }
    state.damage(range);
}

/// The newest snapshot of each partition that can be used; those that cannot are dropped.
fn load_snapshots(
    config: &WalConfig,
    fs: &dyn FileSystem,
    replay: &mut Replay,
) -> Result<BTreeMap<TopicIdPartition, Snapshot>, WalError> {
    let mut loaded = BTreeMap::new();
    for (id, state) in &mut replay.partitions {
        let dir = partition_dir(config, *id);
        while let Some(name) = state.snapshots.last().copied() {
            if let Some(snapshot) = snapshot::read(fs, &dir, name)? {
                loaded.insert(*id, snapshot);
                break;
            }
            state.snapshots.pop();
        }
    }
    Ok(loaded)
}

/// What an earlier process renamed or unlinked may not be durable yet.
fn sync_directories(
    config: &WalConfig,
    fs: &dyn FileSystem,
    segments: &BTreeMap<TopicIdPartition, Segments>,
) -> Result<(), WalError> {
    let sync = |path: &Path| match sync_dir(fs, path) {
        // A partition has no directory before its first spill.
        Err(WalError::Fatal(fatal)) if fatal.source.kind() == std::io::ErrorKind::NotFound => {
            Ok(())
        }
        synced => synced,
    };
    // Made here, so that whoever adds a partition below need not sync the name of this one.
    let all = config.dir.join("topics");
    fs.create_dir_all(&all).map_err(|error| WalError::of("cannot create", &all, error))?;
    if segments.len() > SYNC_EACH_MAX && fs.can_sync_all() {
        let synced = fs.sync_all(&config.dir);
        return Ok(synced.map_err(|e| Fatal::new("cannot sync the disk of", &config.dir, e))?);
    }
    let mut topics: Vec<_> = Vec::new();
    for id in segments.keys() {
        let dir = partition_dir(config, *id);
        sync(&dir)?;
        topics.extend(dir.parent().map(Path::to_owned));
    }
    topics.dedup();
    for topic in topics {
        sync(&topic)?;
    }
    sync(&all)?;
    sync(&config.dir)?;
    // The directory itself may be new.
    match config.dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync(parent),
        None => Ok(()),
    }
}

/// Recovery's own checkpoint: it covers everything that was kept. On a full disk WAL files that
/// hold nothing make room for it.
fn write_checkpoint(
    replay: &mut Replay,
    durable_sequence: u64,
    chain: &mut RecoveredChain,
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
) -> Result<u64, WalError> {
    let mut oldest_needed = durable_sequence + 1;
    let mut entries: BTreeMap<TopicIdPartition, PartitionEntry> = BTreeMap::new();
    for (id, state) in &mut replay.partitions {
        if let Some(cut) = state.file_cut {
            state.on_cut_ready(cut.sequence);
        }
        let (entry, needed) = state.make_entry();
        oldest_needed = oldest_needed.min(needed.unwrap_or(u64::MAX));
        state.install_entry(entry.clone(), needed);
        entries.insert(*id, entry);
    }
    for (id, spilled_through) in &replay.tombstones {
        entries.insert(*id, PartitionEntry::tombstone(*spilled_through));
    }
    let partitions = entries.into_iter().collect();
    if holds(Rule::RecoveryCheckpoints) {
        let has_lost = replay.has_lost();
        let checkpoint = Checkpoint { durable_sequence, oldest_needed, has_lost, partitions };
        let mut written = checkpoint.write(fs, dir);
        while matches!(written, Err(WalError::DiskFull { .. })) && chain.give_up_blank()? {
            written = checkpoint.write(fs, dir);
        }
        written?;
    }
    Ok(durable_sequence)
}

fn cut_files(
    replay: &mut Replay,
    segments: &mut BTreeMap<TopicIdPartition, Segments>,
) -> Result<(), WalError> {
    for (id, state) in &mut replay.partitions {
        let Some(cut) = state.file_cut.take() else { continue };
        let Some(segments) = segments.get_mut(id) else { continue };
        if cut.all {
            segments.reset(cut.to)?;
        } else {
            segments.cut(cut.to.max(segments.start_offset()))?;
        }
    }
    Ok(())
}

fn remove_unnamed_snapshots(
    config: &WalConfig,
    fs: &dyn FileSystem,
    replay: &Replay,
) -> Result<(), WalError> {
    for (id, state) in &replay.partitions {
        snapshot::remove_unnamed(fs, &partition_dir(config, *id), &state.snapshots)?;
    }
    Ok(())
}

/// Goes on in a fresh file, with an idle frame that vouches for everything kept.
fn go_on(
    chain: RecoveredChain,
    next_sequence: u64,
    durable_through: u64,
    end: u64,
) -> Result<(Arc<chain::FilePool>, ChainWriter, u64), WalError> {
    let (pool, mut writer) = resume(chain, next_sequence, end)?;
    let frame = idle_frame(writer.epoch(), next_sequence, durable_through).encode(&[]);
    writer.append(vec![std::io::IoSlice::new(&frame)], frame.len() as u64)?;
    writer.sync()?;
    Ok((pool, writer, next_sequence))
}

fn resume(
    chain: RecoveredChain,
    next_sequence: u64,
    end: u64,
) -> Result<(Arc<chain::FilePool>, ChainWriter), WalError> {
    if !holds(Rule::FreshFile) {
        return chain.resume_in_place(next_sequence, end);
    }
    chain.resume(next_sequence)
}

fn describe(
    replay: &Replay,
    mut snapshots: BTreeMap<TopicIdPartition, Snapshot>,
) -> Vec<RecoveredPartition> {
    let describe = |(id, state): (&TopicIdPartition, &LogState)| {
        if state.is_suspect || !state.damaged.is_empty() {
            tracing::error!(
                partition = %id,
                suspect = state.is_suspect,
                damaged = ?state.damaged,
                "the partition is not whole"
            );
        }
        RecoveredPartition {
            id: *id,
            log_start_offset: state.log_start,
            log_end_offset: state.log_end,
            high_watermark: state.high_watermark,
            snapshot: snapshots.remove(id),
            damaged: state.damaged.clone(),
            suspect: state.is_suspect,
        }
    };
    replay.partitions.iter().map(describe).collect()
}

fn hand_over(
    replay: Replay,
    segments: &BTreeMap<TopicIdPartition, Segments>,
) -> Vec<Arc<LogInner>> {
    let mut logs = Vec::with_capacity(replay.partitions.len());
    for (id, state) in replay.partitions {
        let log = LogInner::new(id, state);
        if let Some(segments) = segments.get(&id) {
            log.set_reader(Some(segments.reader()));
        }
        logs.push(Arc::new(log));
    }
    logs
}
