//! How a history dies and comes back, and what every recovery owes it.

use super::*;

impl World {
    /// Recovers, itself crashed now and then; `false` when the directory is refused, which only a
    /// flipped bit excuses.
    pub(super) fn recover(&mut self, is_last: bool) -> Result<bool, Stop> {
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
    pub(super) fn check_checkpoint(&self) -> Result<(), Stop> {
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

    pub(super) fn wal_files(&self) -> Vec<FileHeader> {
        let files = self.mem.files().into_iter();
        let wal = files.filter(|path| path.extension().is_some_and(|e| e == "wal"));
        let header = |path: std::path::PathBuf| {
            let bytes = self.mem.contents(path).ok()?;
            FileHeader::decode_block(bytes.first_chunk()?, OWNER).ok()?
        };
        wal.filter_map(header).collect()
    }

    pub(super) fn power_or_kill(&mut self, power_percent: u64) {
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

    pub(super) fn end_life(&mut self) {
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
    pub(super) fn after_recovery(&mut self, newest_file: u64) -> Result<(), Stop> {
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
    pub(super) fn check_blame(&self, partition: &crate::RecoveredPartition) -> Result<(), Stop> {
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

    pub(super) fn open_logs(&mut self) {
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
}
