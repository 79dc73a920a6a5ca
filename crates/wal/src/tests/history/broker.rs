//! What a broker does to its log, one random step at a time.

use super::*;

impl World {
    /// Returns whether the process still lives.
    pub(super) fn act(&mut self, steps: u64) -> Result<bool, Stop> {
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

    pub(super) fn step(&mut self) -> Result<(), Stop> {
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
    pub(super) fn trouble(&mut self) {
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

    pub(super) fn relieve(&mut self) {
        self.mem.set_capacity(u64::MAX);
        self.mem.set_open_files_max(usize::MAX);
    }

    /// A full disk ends by itself, and what waited goes on.
    pub(super) fn check_relief(&mut self) -> Result<(), Stop> {
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

    pub(super) fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("the node lives")
    }

    pub(super) fn next_sequence(&mut self) -> u64 {
        self.node().wal.shard().queue().next_sequence
    }

    pub(super) fn append(&mut self, place: usize) {
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

    pub(super) fn step_writer(&mut self) -> Result<(), Stop> {
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

    pub(super) fn is_live(&self, place: usize, entry: &Entry) -> bool {
        self.models[place].expected().batches.iter().any(|batch| batch.header == entry.header)
    }

    pub(super) fn truncate(&mut self, place: usize) {
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

    pub(super) fn reset(&mut self, place: usize) {
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

    pub(super) fn raise_high_watermark(&mut self, place: usize) {
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

    pub(super) fn advance_log_start(&mut self, place: usize) {
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
    pub(super) fn retain(&mut self, place: usize) {
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

    pub(super) fn remove(&mut self, place: usize) {
        if self.logs.remove(&place).is_some() {
            trace!(self, "remove p{place}");
            self.node().wal.remove_log(id(place as i32)).expect("it was open");
            self.models[place] = Model::default();
        }
    }

    pub(super) fn add_again(&mut self, place: usize) {
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
    pub(super) fn tell_observer(&mut self, place: usize) {
        let Some((log, observer)) = self.logs.get(&place) else { return };
        let expected = self.models[place].expected();
        let tag = log.log_end_offset();
        let bytes = state_of(&expected.batches, tag);
        *lock(&observer.snapshot) = Some(Snapshot { tag, bytes });
        let mut high_watermark = lock(&observer.high_watermark);
        *high_watermark =
            (*high_watermark).max(expected.high_watermark.min(log.durable_end_offset()));
    }
}
