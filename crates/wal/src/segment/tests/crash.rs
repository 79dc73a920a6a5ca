//! The power fails at every call, in every life: what was checkpointed is there, and no more.

use proptest::prelude::*;

use super::*;

/// What a partition's owner does.
#[derive(Debug, Clone)]
enum Step {
    /// So many batches of so many bytes.
    Append(usize, usize),
    /// Sync, then raise the recovery point.
    Checkpoint,
    /// Lower the recovery point to this share of the log, then cut.
    Cut(f64),
    /// Raise the log start to this share of the checkpointed log, then drop.
    Drop(f64),
    Reset(i64),
    Reopen,
    /// The power fails so many calls from now.
    Crash(u64),
    /// The disk is full after so many bytes more, or is not any longer.
    Full(Option<u64>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..12_usize, 10..500_usize).prop_map(|(n, size)| Step::Append(n, size)),
        1 => Just(Step::Append(1, 300_000)),
        4 => Just(Step::Checkpoint),
        2 => (0.0..1.0).prop_map(Step::Cut),
        1 => (0.0..1.0).prop_map(Step::Drop),
        1 => (0..50_i64).prop_map(Step::Reset),
        1 => Just(Step::Reopen),
        4 => (1..25_u64).prop_map(Step::Crash),
        2 => (0..6000_u64).prop_map(|bytes| Step::Full(Some(bytes))),
        2 => Just(Step::Full(None)),
    ];
    prop::collection::vec(step, 1..40)
}

/// The owner: it knows what the segments should hold, and what survives.
struct Owner {
    machine: MemFileSystem,
    segments: Option<Segments>,
    held: Vec<Entry>,
    log_start: i64,
    recovery_point: i64,
    seed: u64,
}

impl Owner {
    fn new(seed: u64) -> Owner {
        let machine = MemFileSystem::new();
        machine.create_dir_all(Path::new("topics")).unwrap();
        machine.sync_dir(Path::new("")).unwrap();
        let mut owner = Owner {
            machine,
            segments: None,
            held: Vec::new(),
            log_start: 0,
            recovery_point: 0,
            seed,
        };
        owner.open();
        owner
    }

    fn end(&self) -> i64 {
        self.held.last().map_or(self.log_start, |entry| entry.facts().next_offset().0)
    }

    /// Opens until nothing fails on the way; the power may.
    fn open(&mut self) {
        drop(self.segments.take());
        self.held.retain(|entry| entry.facts().next_offset().0 <= self.recovery_point);
        self.held.retain(|entry| entry.facts().next_offset().0 > self.log_start);
        loop {
            let files = FileCache::new(Arc::new(self.machine.clone()), 4);
            let (to, start) = (Offset(self.recovery_point), Offset(self.log_start));
            match Segments::open(&files, Path::new(DIR), to, start, CONFIG) {
                Ok((segments, report)) => {
                    assert_eq!(report, SegmentsReport::default());
                    self.segments = Some(segments);
                    return;
                }
                Err(SegmentError::DiskFull { .. }) => self.machine.set_capacity(u64::MAX),
                Err(_) => self.power_loss(),
            }
        }
    }

    fn fill(&self, spare: Option<u64>) {
        self.machine.set_capacity(u64::MAX - 1);
        if let Some(spare) = spare {
            let free = self.machine.free_bytes(Path::new("")).unwrap_or(u64::MAX - 1);
            self.machine.set_capacity(u64::MAX - 1 - free + spare);
        }
    }

    fn power_loss(&mut self) {
        assert!(self.machine.is_off(), "an error and no power loss");
        self.machine.crash(self.seed);
        self.seed += 1;
    }

    /// The base offset at or below a share of what is held from `start` on.
    fn border(&self, share: f64, below: i64) -> i64 {
        let at = self.log_start + ((below - self.log_start) as f64 * share) as i64;
        let bases = self.held.iter().map(|entry| entry.facts().base_offset.0);
        bases.filter(|base| (self.log_start..=at).contains(base)).last().unwrap_or(self.log_start)
    }

    fn step(&mut self, step: &Step) -> Result<(), SegmentError> {
        let mut segments = self.segments.take().unwrap();
        let done = self.try_step(&mut segments, step);
        self.segments = Some(segments);
        done
    }

    fn try_step(&mut self, segments: &mut Segments, step: &Step) -> Result<(), SegmentError> {
        match step {
            Step::Append(count, size) => {
                let mut more = Vec::new();
                for n in 0..*count {
                    let end = self.end() + 2 * n as i64;
                    more.push(batch(end, 2, *size, self.seed as u8 ^ n as u8, end % 7));
                }
                if segments.end_offset().0 > self.end() {
                    // An earlier append came so far before the disk was full.
                    segments.cut(Offset(self.end()))?;
                }
                segments.append(&more)?;
                self.held.extend(more);
            }
            Step::Checkpoint => {
                if segments.end_offset().0 > self.end() {
                    segments.cut(Offset(self.end()))?;
                }
                segments.sync()?;
                self.recovery_point = self.end();
            }
            Step::Cut(share) => {
                let to = self.border(*share, self.end());
                self.recovery_point = self.recovery_point.min(to);
                segments.cut(Offset(to))?;
                self.held.retain(|entry| entry.facts().base_offset.0 < to);
            }
            Step::Drop(share) => {
                self.log_start = self.border(*share, self.recovery_point);
                segments.drop_below(Offset(self.log_start), std::time::Duration::ZERO)?;
                self.held.retain(|entry| entry.facts().next_offset().0 > self.log_start);
            }
            Step::Reset(beyond) => {
                let start = self.end() + beyond;
                (self.log_start, self.recovery_point) = (start, start);
                self.held.clear();
                segments.reset(Offset(start))?;
            }
            Step::Reopen | Step::Crash(_) | Step::Full(_) => {}
        }
        Ok(())
    }

    fn check(&self) {
        let segments = self.segments.as_ref().unwrap();
        let (bytes, damaged) = read_all(segments);
        let held = bytes_of(&self.held);
        assert!(bytes.starts_with(&held) && damaged.is_empty(), "{damaged:?}");
        // What a full disk left of an append is whole batches, and goes before the next.
        assert_eq!(bytes.len() > held.len(), segments.end_offset() > Offset(self.end()));
    }

    fn run(&mut self, steps: &[Step]) {
        for step in steps {
            self.seed += 1;
            match step {
                Step::Crash(calls) => self.machine.crash_at(self.machine.calls() + calls),
                Step::Reopen => self.open(),
                Step::Full(spare) => self.fill(*spare),
                _ => match self.step(step) {
                    Ok(()) | Err(SegmentError::DiskFull { .. }) => {}
                    Err(_) => {
                        self.power_loss();
                        self.open();
                    }
                },
            }
            if !self.machine.is_off() {
                self.check();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..Default::default()
    })]
    #[test]
    fn what_was_checkpointed_survives_every_crash(steps in steps(), seed in 0..1_000_000_u64) {
        Owner::new(seed).run(&steps);
    }
}

#[test]
fn a_crash_at_any_call_of_a_life_leaves_what_was_checkpointed() {
    let life = [
        Step::Append(9, 150),
        Step::Checkpoint,
        Step::Append(30, 100),
        Step::Append(1, 300_000),
        Step::Checkpoint,
        Step::Cut(0.4),
        Step::Append(20, 120),
        Step::Checkpoint,
        Step::Drop(0.6),
        Step::Append(3, 30),
        Step::Checkpoint,
        Step::Reset(5),
        Step::Append(20, 120),
        Step::Checkpoint,
    ];
    let mut whole = Owner::new(0);
    whole.run(&life);
    let calls = whole.machine.calls();
    assert!(calls > 60, "{calls} calls");
    for call in 1..=calls {
        for seed in 0..6 {
            let mut owner = Owner::new(seed * 1000);
            owner.machine.crash_at(call.max(owner.machine.calls() + 1));
            owner.run(&life);
            owner.open();
            owner.check();
        }
    }
}

/// An unlink that a dead process left unsynced, and a power loss after the log went on in a file
/// that was there: the file that comes back must not be taken for the log.
#[test]
fn a_name_that_comes_back_is_not_believed() {
    let expected = batches(0, 7, 100);
    for seed in 0..40 {
        let machine = MemFileSystem::new();
        let mut segments = filled(&machine, &expected[..5]);
        segments.append(&batches(12, 1, 90)).unwrap();
        segments.sync().unwrap();
        machine.remove_file(Path::new(&log_path(12))).unwrap();
        machine.kill();
        let (mut segments, _) = open_at(&machine, 0, 10);
        segments.append(&expected[5..]).unwrap();
        segments.sync().unwrap();
        assert_eq!(read_all(&segments), (bytes_of(&expected), vec![]));
        machine.crash(seed);
        let (segments, report) = open_at(&machine, 0, 14);
        assert_eq!(report, SegmentsReport::default());
        assert_eq!(read_all(&segments), (bytes_of(&expected), vec![]), "seed {seed}");
    }
}

/// Entries of batches that were cut must not vouch for what takes their place, not even where the
/// new batches end at the very same offset and byte with fewer entries.
#[test]
fn entries_of_batches_that_were_cut_are_not_believed() {
    let machine = MemFileSystem::new();
    let old = batches(0, 12, 100);
    let mut segments = filled(&machine, &old);
    segments.cut(Offset(2)).unwrap();
    let mut new = batches(2, 10, 10);
    new.push(batch(22, 2, 1000, 9, 0));
    segments.append(&new).unwrap();
    segments.sync().unwrap();
    new.insert(0, old[0].clone());
    assert_eq!(bytes_of(&new).len(), bytes_of(&old).len());
    let (segments, _) = open_at(&machine, 0, 24);
    assert_eq!(read_all(&segments), (bytes_of(&new), vec![]));
}
