//! Random histories of one data directory, each crashed again and again, compared with a model.
//!
//! The model is a list of what was asked of each partition, with the sequence of its frame. After
//! a recovery that kept everything up to some sequence, a partition must be exactly what the
//! operations up to there make of it; and everything that anybody was told of must be among them.

use std::{
    collections::BTreeMap,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

use tidelog_types::{Entry, Offset, TopicIdPartition};

use super::{model::*, support::*};
use crate::{
    Durability, Log, LogSettings, ReadError, ReadOutcome, Snapshot, StorageError, WalConfig,
    WalError,
    chain::{ChainConfig, ChainFile, FileHeader},
    checkpoint::Checkpoint,
    env::{FileSystem, mem::MemFileSystem},
    file_cache::FileCache,
    recovery::{OWNER, scan},
    segment::{Segments, SegmentsConfig},
    shard::{lock, partition_dir},
    snapshot,
};

/// A violation of what the log promises, or the expected end of a life.
enum Stop {
    Violation(String),
    Died,
}

impl From<crate::Fatal> for Stop {
    fn from(_: crate::Fatal) -> Stop {
        Stop::Died
    }
}

fn violation<T>(what: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Violation(what.into()))
}

/// A header that was made unreadable.
struct LostHeader {
    id: TopicIdPartition,
    sequence: u64,
}

struct World {
    mem: MemFileSystem,
    fs: Arc<dyn FileSystem>,
    config: WalConfig,
    random: Random,
    node: Option<Node>,
    logs: BTreeMap<usize, (Log, Arc<Observer>)>,
    models: Vec<Model>,
    /// Everything up to here was told to somebody.
    floor: u64,
    next_tag: u64,
    trouble: Trouble,
    flipped: u32,
    lost_headers: Vec<LostHeader>,
    trace: bool,
}

/// Runs one history; an error is what was violated.
pub(super) fn run(seed: u64, trouble: Trouble) -> Result<(), String> {
    let (steps, lives) = [(14, 2), (25, 2), (60, 3), (120, 4), (250, 5)][seed as usize % 5];
    let history = || World::new(seed, trouble).live(steps, lives);
    match catch_unwind(AssertUnwindSafe(history)) {
        Ok(Ok(()) | Err(Stop::Died)) => Ok(()),
        Ok(Err(Stop::Violation(what))) => Err(format!("seed {seed} {trouble:?}: {what}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("seed {seed} {trouble:?}: panicked: {}", text.unwrap_or_default()))
        }
    }
}

macro_rules! trace {
    ($world:expr, $($text:tt)*) => {
        if $world.trace {
            eprintln!($($text)*);
        }
    };
}

impl World {
    fn new(seed: u64, trouble: Trouble) -> World {
        let mem = MemFileSystem::new();
        let models = (0..PARTITIONS).map(|_| Model { exists: true, ..Model::default() }).collect();
        World {
            fs: Arc::new(mem.clone()),
            mem,
            config: WalConfig {
                durability: match trouble {
                    Trouble::PageCache => Durability::PageCache,
                    _ => Durability::Synced,
                },
                ..small_config()
            },
            random: Random::new(seed),
            node: None,
            logs: BTreeMap::new(),
            models,
            floor: 0,
            next_tag: 1,
            trouble,
            flipped: 0,
            lost_headers: Vec::new(),
            trace: std::env::var("TIDELOG_TRACE").is_ok(),
        }
    }

    fn live(&mut self, steps: u64, lives: u64) -> Result<(), Stop> {
        for life in 0..=lives {
            let is_last = life == lives;
            if !self.recover(is_last)? {
                return Ok(());
            }
            self.check()?;
            if is_last {
                return Ok(());
            }
            let lives_on = self.random.percent(15) || self.act(steps)?;
            if lives_on && self.trouble == Trouble::DiskFull && !self.mem.is_off() {
                match self.check_relief() {
                    Ok(()) | Err(Stop::Died) => {}
                    Err(violation) => return Err(violation),
                }
            }
            self.relieve();
            self.end_life();
        }
        Ok(())
    }

    // ---- crashes

    /// Recovers, itself crashed now and then; `false` when the directory is refused, which only a
    /// flipped bit excuses.
    fn recover(&mut self, is_last: bool) -> Result<bool, Stop> {
        if self.trouble == Trouble::None {
            self.check_checkpoint()?;
        }
        let newest_file = self.wal_files().iter().map(|file| file.number).max().unwrap_or(0);
        for attempt in 0.. {
            let crash = !is_last && attempt < 4 && self.random.percent(30);
            if crash {
                let calls = self.mem.calls() + 1 + self.random.below(40);
                self.mem.crash_at(calls);
            }
            match Node::open(&self.fs, self.config.clone()) {
                Ok(node) if !self.mem.is_off() => {
                    self.mem.crash_at(u64::MAX);
                    self.node = Some(node);
                    return self.after_recovery(newest_file).map(|()| true);
                }
                Err(WalError::Corrupt { path, what }) if self.flipped == 0 => {
                    return violation(format!("{}: {what}", path.display()));
                }
                Err(WalError::Corrupt { .. }) => return Ok(false),
                Err(WalError::DiskFull { .. } | WalError::TooManyOpenFiles { .. })
                    if !self.mem.is_off() =>
                {
                    // Nothing is running; the operator makes room and starts it again.
                    self.relieve();
                    self.mem.kill();
                }
                Ok(_) | Err(_) => {
                    trace!(self, "recovery crashed");
                    self.power_or_kill(65);
                    if self.trouble == Trouble::None {
                        self.check_checkpoint()?;
                    }
                }
            }
        }
        unreachable!("the loop only returns")
    }

    /// Whatever the checkpoint on disk counts on is on disk, at every crash.
    fn check_checkpoint(&self) -> Result<(), Stop> {
        let fs: Arc<dyn FileSystem> = Arc::new(self.mem.fork());
        let dir = self.config.dir.join("wal");
        let Ok(Some(checkpoint)) = Checkpoint::read(&fs, &dir) else { return Ok(()) };
        let files = FileCache::new(Arc::clone(&fs), 16);
        let config = SegmentsConfig::from(LogSettings::default());
        for (id, entry) in checkpoint.partitions.iter().filter(|(_, entry)| !entry.is_removed) {
            let dir = partition_dir(&self.config, *id);
            let start = entry.log_start.min(entry.recovery_point);
            let opened = Segments::open(&files, &dir, entry.recovery_point, start, config);
            let (_, report) = opened.map_err(|e| Stop::Violation(format!("{id}: {e}")))?;
            if !report.damaged.is_empty() {
                return violation(format!("the checkpoint counts on {id} {:?}", report.damaged));
            }
            for name in &entry.snapshots {
                if !matches!(snapshot::read(&*fs, &dir, *name), Ok(Some(_))) {
                    return violation(format!("the checkpoint counts on {id} {name:?}"));
                }
            }
        }
        Ok(())
    }

    fn wal_files(&self) -> Vec<FileHeader> {
        let files = self.mem.files().into_iter();
        let wal = files.filter(|path| path.extension().is_some_and(|e| e == "wal"));
        let header = |path: std::path::PathBuf| {
            let bytes = self.mem.contents(path).ok()?;
            FileHeader::decode_block(bytes.first_chunk()?, OWNER).ok()?
        };
        wal.filter_map(header).collect()
    }

    fn power_or_kill(&mut self, power_percent: u64) {
        let seed = self.random.next();
        if self.random.percent(power_percent) {
            trace!(self, "*** power loss");
            self.mem.crash(seed);
        } else {
            trace!(self, "*** kill");
            self.mem.kill();
            if self.random.percent(50) {
                self.mem.evict(seed);
            }
        }
    }

    fn end_life(&mut self) {
        self.logs.clear();
        self.node = None;
        self.power_or_kill(65);
        if self.flipped < 2 && self.random.percent(60) {
            match self.trouble {
                Trouble::None
                | Trouble::DiskFull
                | Trouble::FewDescriptors
                | Trouble::PageCache => {}
                Trouble::FlipWal => self.flip_frame(),
                Trouble::FlipSegments => self.flip_segment(),
            }
        }
    }

    /// After a recovery the log is what it kept, no more and no less than was told. Recoveries
    /// that crashed after they began a file have cut as well; their idle frames took sequences.
    fn after_recovery(&mut self, newest_file: u64) -> Result<(), Stop> {
        let begun = self.wal_files().into_iter().filter(|file| file.number > newest_file);
        let seal = begun.map(|file| file.first_sequence).min();
        let node = self.node.as_ref().expect("just opened");
        // The last sequence is recovery's own idle frame.
        let last = node.wal.shard().durable_sequence();
        let kept = seal.map_or(last, |seal| seal.min(last)) - 1;
        trace!(self, "recovered, kept through {kept}: {:?}", node.recovered);
        if kept < self.floor {
            return violation(format!("told of {} and kept {kept}", self.floor));
        }
        self.floor = kept;
        for model in &mut self.models {
            model.forget_above(kept);
        }
        for partition in node.recovered.partitions.clone() {
            let Some(model) = self.models.get(partition.id.partition as usize) else { continue };
            if !model.exists {
                let _ = node.wal.remove_log(partition.id);
                continue;
            }
            if partition.log_start_offset > partition.log_end_offset
                || partition.high_watermark > partition.log_end_offset
            {
                return violation(format!("{partition:?} is not in order"));
            }
            if partition.suspect || !partition.damaged.is_empty() {
                self.check_blame(&partition)?;
            }
            let expected = model.expected();
            if partition.high_watermark > expected.high_watermark && !partition.suspect {
                return violation(format!("{partition:?} was never committed that far"));
            }
            if let Some(snapshot) = partition.snapshot.filter(|_| !partition.suspect) {
                let ends = |batch: &Entry| batch.facts().next_offset() <= snapshot.tag;
                let straddles = expected
                    .batches
                    .iter()
                    .any(|batch| batch.facts().base_offset < snapshot.tag && !ends(batch));
                if straddles || snapshot.bytes != state_of(&expected.batches, snapshot.tag) {
                    return violation(format!("{} has a stale snapshot", partition.id));
                }
            }
        }
        self.open_logs();
        Ok(())
    }

    /// Damage and suspicion need a reason.
    fn check_blame(&self, partition: &crate::RecoveredPartition) -> Result<(), Stop> {
        if self.flipped == 0 {
            return violation(format!("not whole without a reason: {partition:?}"));
        }
        let model = &self.models[partition.id.partition as usize];
        let is_cleared = |lost: &LostHeader| {
            lost.id != partition.id && model.has_frame_between(lost.sequence, self.floor)
        };
        if partition.suspect && self.lost_headers.iter().all(is_cleared) {
            return violation(format!("suspect without a reason: {partition:?}"));
        }
        Ok(())
    }

    fn open_logs(&mut self) {
        let node = self.node.as_ref().expect("open");
        for place in 0..PARTITIONS {
            if self.models[place].exists {
                self.logs.insert(place, node.log(place as i32));
            }
        }
        node.wal.all_known_opened();
        for place in 0..PARTITIONS {
            self.tell_observer(place);
        }
    }

    // ---- what a broker does

    /// Returns whether the process still lives.
    fn act(&mut self, steps: u64) -> Result<bool, Stop> {
        let count = 1 + self.random.below(steps);
        if self.random.percent(35) {
            let sync = self.mem.syncs() + 1 + self.random.below(30);
            let seed = self.random.next();
            self.mem.fail_sync_at(sync, seed);
        }
        let crash_at = match self.random.percent(70) {
            true => self.random.below(count),
            false => u64::MAX,
        };
        for step in 0..count {
            if step == crash_at {
                let call = self.mem.calls() + 1 + self.random.below(25);
                self.mem.crash_at(call);
            }
            match self.step() {
                Ok(()) => {}
                Err(Stop::Died) => return Ok(false),
                Err(violation) => return Err(violation),
            }
            if step % 8 == 7 && !self.mem.is_off() {
                self.check()?;
            }
        }
        Ok(true)
    }

    fn step(&mut self) -> Result<(), Stop> {
        let place = self.random.below(PARTITIONS as u64) as usize;
        self.trouble();
        match self.random.below(100) {
            0..=29 => self.append(place),
            30..=53 => self.step_writer()?,
            54..=74 => {
                let _ = self.node().steppers.spill.step()?;
                let _ = self.node().steppers.remover.step()?;
            }
            75..=79 => {
                let _ = self.node().steppers.filler.step()?;
            }
            80 => self.retain(place),
            81..=85 => self.truncate(place),
            86..=87 => self.reset(place),
            88..=90 => self.raise_high_watermark(place),
            91..=93 => self.advance_log_start(place),
            94 => self.remove(place),
            95..=96 => self.add_again(place),
            97 => self.node().wal.shard().want_checkpoint(),
            _ => {
                for _ in 0..3 {
                    self.step_writer()?;
                }
            }
        }
        Ok(())
    }

    /// Takes away what the disk or the kernel may run out of, or gives it back.
    fn trouble(&mut self) {
        if !matches!(self.trouble, Trouble::DiskFull | Trouble::FewDescriptors)
            || !self.random.percent(8)
        {
            return;
        }
        if self.random.percent(50) {
            return self.relieve();
        }
        trace!(self, "out of room");
        let spare = self.random.below(20_000);
        match self.trouble {
            Trouble::DiskFull => {
                let files = self.mem.files();
                let sizes = files.iter().filter_map(|path| self.mem.contents(path).ok());
                let used: usize = sizes.map(|bytes| bytes.len()).sum();
                self.mem.set_capacity(used as u64 + spare);
            }
            _ => self.mem.set_open_files_max(self.mem.open_files() + spare as usize % 3),
        }
    }

    fn relieve(&mut self) {
        self.mem.set_capacity(u64::MAX);
        self.mem.set_open_files_max(usize::MAX);
    }

    /// A full disk ends by itself, and what waited goes on.
    fn check_relief(&mut self) -> Result<(), Stop> {
        self.relieve();
        for _ in 0..20 {
            self.step_writer()?;
            self.node().steppers.spill.step()?;
            self.node().steppers.filler.step()?;
        }
        match self.node().wal.try_reserve(1) {
            Ok(Some(_)) => Ok(()),
            other => violation(format!("room was made and nobody may append: {other:?}")),
        }
    }

    fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("the node lives")
    }

    fn next_sequence(&mut self) -> u64 {
        self.node().wal.shard().queue().next_sequence
    }

    fn append(&mut self, place: usize) {
        let Some((log, _)) = self.logs.get(&place).cloned() else { return };
        let records = 1 + self.random.below(3) as i32;
        let bytes = match self.random.percent(20) {
            true => 2000 + self.random.below(3000),
            false => 10 + self.random.below(500),
        };
        let entry = batch(log.log_end_offset(), records, bytes as usize, self.next_tag);
        self.next_tag += 1;
        let sequence = self.next_sequence();
        let reserved = self.node().wal.try_reserve(entry.len() as u64);
        let Ok(Some(mut reservation)) = reserved else { return };
        match log.append(EPOCH, vec![entry.clone()], &mut reservation) {
            Ok(()) => {
                trace!(
                    self,
                    "append p{place} {}..{} seq {sequence}",
                    entry.facts().base_offset,
                    entry.facts().next_offset()
                );
                self.models[place].operations.push(Operation::Append { sequence, entry });
            }
            Err(StorageError::Suspect | StorageError::Closed) => {}
            Err(error) => panic!("an append was refused: {error}"),
        }
        self.tell_observer(place);
    }

    fn step_writer(&mut self) -> Result<(), Stop> {
        let stepped = self.node().steppers.writer.step();
        // Whoever was told counts on it, and on everything the log calls durable.
        let durable = self.node().wal.shard().durable_sequence();
        let mut floor = durable;
        let told_counts = self.trouble != Trouble::PageCache;
        for (place, (_, observer)) in self.logs.iter().filter(|_| told_counts) {
            let told = *lock(&observer.told);
            for operation in &self.models[*place].operations {
                if let Operation::Append { sequence, entry } = operation
                    && entry.facts().next_offset() <= told
                    && self.is_live(*place, entry)
                {
                    floor = floor.max(*sequence);
                }
            }
        }
        trace!(self, "writer: durable {durable} told {floor}");
        self.floor = self.floor.max(floor);
        stepped?;
        Ok(())
    }

    fn is_live(&self, place: usize, entry: &Entry) -> bool {
        self.models[place].expected().batches.iter().any(|batch| batch.header == entry.header)
    }

    fn truncate(&mut self, place: usize) {
        let Some((log, observer)) = self.logs.get(&place).cloned() else { return };
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        if start >= end {
            return;
        }
        let to = start.plus(self.random.below((end.0 - start.0) as u64) as i64);
        let expected = self.models[place].expected();
        let holder = expected.batches.iter().map(Entry::facts);
        let mut holders =
            holder.filter(|facts| facts.base_offset <= to && to < facts.next_offset());
        let Some(holder) = holders.next().filter(|facts| facts.base_offset >= start) else {
            return;
        };
        // As the contract asks: the partition lowers its high watermark first.
        let lowered = (*lock(&observer.high_watermark)).min(holder.base_offset);
        *lock(&observer.high_watermark) = lowered;
        let sequence = self.next_sequence();
        match log.truncate(EPOCH, to) {
            Ok(at) => {
                trace!(self, "truncate p{place} to {at} seq {sequence}");
                assert_eq!(at, holder.base_offset, "a truncation goes to a batch boundary");
                self.models[place].operations.push(Operation::Truncate { sequence, to: at });
                let told = *lock(&observer.told);
                *lock(&observer.told) = told.min(at);
            }
            Err(StorageError::Suspect | StorageError::Closed) => {}
            Err(StorageError::Busy) if self.trouble == Trouble::FewDescriptors => {}
            Err(error) => assert!(self.flipped > 0 || self.mem.is_off(), "refused: {error}"),
        }
        self.tell_observer(place);
    }

    fn reset(&mut self, place: usize) {
        let Some((log, observer)) = self.logs.get(&place).cloned() else { return };
        let start = log.log_end_offset().plus(1 + self.random.below(3) as i64);
        let sequence = self.next_sequence();
        *lock(&observer.high_watermark) = start;
        if log.reset(EPOCH, start).is_ok() {
            trace!(self, "reset p{place} to {start} seq {sequence}");
            self.models[place].operations.push(Operation::Reset { sequence, start });
        }
        self.tell_observer(place);
    }

    fn raise_high_watermark(&mut self, place: usize) {
        let Some((log, observer)) = self.logs.get(&place).cloned() else { return };
        let mut high_watermark = lock(&observer.high_watermark);
        let room = log.durable_end_offset().0 - high_watermark.0;
        if room > 0 {
            *high_watermark = high_watermark.plus(1 + self.random.below(room as u64) as i64);
            trace!(self, "high watermark p{place} {high_watermark}");
            let raised = Operation::HighWatermark(*high_watermark);
            self.models[place].operations.push(raised);
        }
    }

    fn advance_log_start(&mut self, place: usize) {
        let Some((log, observer)) = self.logs.get(&place).cloned() else { return };
        let high_watermark = *lock(&observer.high_watermark);
        let room = high_watermark.min(log.durable_end_offset()).0 - log.log_start_offset().0;
        if room <= 0 {
            return;
        }
        let to = log.log_start_offset().plus(1 + self.random.below(room as u64) as i64);
        let told = Arc::clone(&self.models[place].log_start_told);
        trace!(self, "log start p{place} {to}");
        log.advance_log_start(
            to,
            Box::new(move || {
                let mut told = lock(&told);
                *told = (*told).max(to);
            }),
        );
    }

    /// Batches are from the first quarter of a second, by one byte of them each.
    fn retain(&mut self, place: usize) {
        let Some((log, _)) = self.logs.get(&place) else { return };
        let limits = [(-1, 4096), (100, -1), (50, 20_000), (-1, -1)];
        let (retention_ms, retention_bytes) = limits[self.random.below(4) as usize];
        let file_delete_delay = Duration::from_secs(60 * self.random.below(2));
        let settings = LogSettings {
            segment_bytes: 2048,
            segment_ms: 50,
            retention_ms,
            retention_bytes,
            file_delete_delay,
            ..LogSettings::default()
        };
        trace!(self, "retain p{place} {retention_ms} ms, {retention_bytes} bytes");
        let (id, now_ms) = (log.id(), 100 + self.random.below(300) as i64);
        self.node().wal.update_settings(id, settings);
        self.node().wal.run_retention(now_ms);
    }

    fn remove(&mut self, place: usize) {
        if self.logs.remove(&place).is_some() {
            trace!(self, "remove p{place}");
            self.node().wal.remove_log(id(place as i32)).expect("it was open");
            self.models[place] = Model::default();
        }
    }

    fn add_again(&mut self, place: usize) {
        if self.models[place].exists {
            return;
        }
        let observer = Arc::new(Observer::default());
        let settings = LogSettings { segment_bytes: 2048, ..LogSettings::default() };
        match self.node().wal.open_log(id(place as i32), settings, observer.clone()) {
            Ok(log) => {
                trace!(self, "add p{place} again");
                self.models[place].exists = true;
                self.logs.insert(place, (log, observer));
            }
            Err(WalError::Removing { .. }) => {}
            Err(error) => panic!("cannot add a partition: {error}"),
        }
    }

    /// The partition's state as its owner would give it for a snapshot.
    fn tell_observer(&mut self, place: usize) {
        let Some((log, observer)) = self.logs.get(&place) else { return };
        let expected = self.models[place].expected();
        let tag = log.log_end_offset();
        let bytes = state_of(&expected.batches, tag);
        *lock(&observer.snapshot) = Some(Snapshot { tag, bytes });
        let mut high_watermark = lock(&observer.high_watermark);
        *high_watermark =
            (*high_watermark).max(expected.high_watermark.min(log.durable_end_offset()));
    }

    // ---- comparing

    fn check(&mut self) -> Result<(), Stop> {
        for place in 0..PARTITIONS {
            if self.models[place].exists && !self.mem.is_off() {
                self.check_partition(place)?;
            }
        }
        Ok(())
    }

    fn check_partition(&mut self, place: usize) -> Result<(), Stop> {
        let Some((log, _)) = self.logs.get(&place).cloned() else { return Ok(()) };
        let expected = self.models[place].expected();
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        let is_suspect = matches!(log.read(start, end, 1, true), Err(ReadError::Suspect));
        if is_suspect {
            return Ok(());
        }
        if end != expected.end {
            return violation(format!("p{place} ends at {end}, not at {}", expected.end));
        }
        let told = *lock(&self.models[place].log_start_told);
        if start < told || start > end {
            return violation(format!("p{place} starts at {start}, told {told}, ends at {end}"));
        }
        self.check_contents(place, &log, &expected)
    }

    /// Every batch from the log start on is read back byte for byte, or is named as damaged.
    fn check_contents(&mut self, place: usize, log: &Log, expected: &Expected) -> Result<(), Stop> {
        let start = log.log_start_offset();
        let mut next = start;
        let batches = expected.batches.iter().filter(|batch| batch.facts().next_offset() > start);
        for batch in batches {
            let facts = batch.facts();
            if facts.next_offset() <= next {
                continue;
            }
            match self.read_one(log, next.max(facts.base_offset), expected.end) {
                Ok(Some(read)) if read == whole(batch) => next = facts.next_offset(),
                Ok(Some(_)) => return violation(format!("p{place} wrong bytes at {next}")),
                Ok(None) => return violation(format!("p{place} nothing to read at {next}")),
                Err(ReadError::Damaged { range }) if self.flipped > 0 => {
                    if !covers(&range, next.max(facts.base_offset)) {
                        return violation(format!("p{place} damage {range:?} is not at {next}"));
                    }
                    next = range.end;
                }
                Err(_) if self.mem.is_off() => return Ok(()),
                Err(ReadError::TooManyOpenFiles) if self.trouble == Trouble::FewDescriptors => {
                    return Ok(());
                }
                Err(error) => return violation(format!("p{place} at {next}: {error}")),
            }
        }
        Ok(())
    }

    /// The first whole batch at an offset.
    fn read_one(
        &mut self,
        log: &Log,
        from: Offset,
        upper: Offset,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        match log.read(from, upper, 1, true)? {
            ReadOutcome::Entries(entries) => Ok(entries.first().map(whole)),
            ReadOutcome::Cold(read) => {
                let answer = Arc::new(Mutex::new(None));
                let done = Arc::clone(&answer);
                log.read_cold(read, Box::new(move |read| *lock(&done) = Some(read)))?;
                let reader = &mut self.node().steppers.reader;
                while lock(&answer).is_none() {
                    reader.step().expect("the reader is never fatal");
                }
                let read = lock(&answer).take().expect("answered")?;
                let bytes: Vec<u8> = read.concat();
                let first = bytes.first_chunk().map(|header| {
                    tidelog_types::BatchHeader::decode(header).batch_bytes() as usize
                });
                Ok(first.map(|first| bytes[..first.min(bytes.len())].to_vec()))
            }
        }
    }

    // ---- flips

    /// Flips a bit of a frame that another frame or the checkpoint vouches for.
    fn flip_frame(&mut self) {
        let fork = self.mem.fork();
        let fs: Arc<dyn FileSystem> = Arc::new(fork);
        let Some((files, frames, vouched)) = frames_on_disk(&fs, &self.config) else { return };
        let candidates: Vec<&scan::Found> = frames
            .iter()
            .filter(|frame| {
                // What vouches must be durable itself, or a power loss takes it.
                let is_witness = |other: &&scan::Found| {
                    other.sequence != frame.sequence && other.sequence <= self.floor
                };
                let others = frames.iter().filter(is_witness);
                let durable = others.map(|other| other.durable_through).max().unwrap_or(0);
                frame.sequence <= durable.max(vouched)
            })
            .collect();
        if candidates.is_empty() {
            return;
        }
        let chosen = candidates[self.random.below(candidates.len() as u64) as usize];
        let payload = (chosen.bytes - 96) as u64;
        let in_header = payload == 0 || self.random.percent(50);
        let at = match in_header {
            true => self.random.below(92),
            false => 96 + self.random.below(payload),
        };
        let path = &files[chosen.file].path;
        let bit = self.random.below(8) as u8;
        if self.mem.flip(path, chosen.position + at, bit).is_err() {
            return;
        }
        trace!(
            self,
            "FLIP {} of seq {} p{}",
            if in_header { "header" } else { "payload" },
            chosen.sequence,
            chosen.id.partition
        );
        self.flipped += 1;
        if in_header {
            self.lost_headers.push(LostHeader { id: chosen.id, sequence: chosen.sequence });
        }
    }

    fn flip_segment(&mut self) {
        let files = self.mem.files();
        let below_topics: Vec<_> = files
            .iter()
            .filter(|path| path.components().any(|c| c.as_os_str() == "topics"))
            .collect();
        if below_topics.is_empty() {
            return;
        }
        let path = below_topics[self.random.below(below_topics.len() as u64) as usize].clone();
        let bytes = self.mem.contents(&path).map_or(0, |bytes| bytes.len() as u64);
        if bytes == 0 {
            return;
        }
        let (at, bit) = (self.random.below(bytes), self.random.below(8) as u8);
        if self.mem.flip(&path, at, bit).is_ok() {
            trace!(self, "FLIP {} at {at}", path.display());
            self.flipped += 1;
        }
    }
}

fn whole(entry: &Entry) -> Vec<u8> {
    [&entry.header[..], &entry.records].concat()
}

fn covers(range: &Range<Offset>, offset: Offset) -> bool {
    range.contains(&offset)
}

/// Every frame that recovery would find, and the highest sequence that the checkpoint vouches for.
#[allow(clippy::type_complexity, reason = "a test's helper")]
fn frames_on_disk(
    fs: &Arc<dyn FileSystem>,
    config: &WalConfig,
) -> Option<(Vec<Arc<ChainFile>>, Vec<scan::Found>, u64)> {
    let dir = config.dir.join("wal");
    let checkpoint = Checkpoint::read(fs, &dir).ok()??;
    let chain_config = ChainConfig {
        dir,
        owner: OWNER,
        file_bytes: config.file_bytes,
        first_file_bytes: config.first_file_bytes,
        files_max: 8,
        files_ready: 0,
    };
    let chain =
        crate::chain::recover(Arc::clone(fs), chain_config, checkpoint.oldest_needed).ok()?;
    let frames = scan::frames(&chain.files).ok()?;
    Some((chain.files, frames, checkpoint.vouches_through()))
}

#[test]
fn no_history_loses_what_was_told_or_brings_back_what_was_not() {
    check_all(0..1500, Trouble::None);
}

#[test]
fn a_flipped_bit_in_the_wal_is_named_and_never_shortens_a_log_silently() {
    check_all(10_000..10_800, Trouble::FlipWal);
}

#[test]
fn a_flipped_bit_in_a_segment_index_or_snapshot_never_serves_wrong_bytes() {
    check_all(20_000..20_800, Trouble::FlipSegments);
}

#[test]
fn a_full_disk_loses_nothing_and_ends_by_itself() {
    check_all(30_000..30_600, Trouble::DiskFull);
}

#[test]
fn few_descriptors_lose_nothing() {
    check_all(40_000..40_500, Trouble::FewDescriptors);
}

#[test]
fn without_waiting_for_syncs_a_power_loss_takes_the_end_and_nothing_before_it() {
    check_all(50_000..50_600, Trouble::PageCache);
}

fn check_all(seeds: Range<u64>, trouble: Trouble) {
    let seeds = match std::env::var("TIDELOG_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => {
            let more = std::env::var("TIDELOG_HISTORIES").ok().and_then(|count| count.parse().ok());
            seeds.start..more.map_or(seeds.end, |more: u64| seeds.start + more)
        }
    };
    let failures: Vec<String> = seeds.filter_map(|seed| run(seed, trouble).err()).collect();
    assert!(
        failures.is_empty(),
        "{} failures, first {:?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
}
