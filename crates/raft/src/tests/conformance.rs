//! Our storage beside raft-rs's own over random histories: appends that cut, compactions,
//! snapshots of a leader, restarts and torn tails.

use raft::{
    GetEntriesContext, Storage,
    eraftpb::{ConfState, Entry, HardState},
    storage::MemStorage,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{
    Seed, entry, seeds,
    store::{StoreTest, hard_state, snapshot},
};
use crate::log::SnapshotMeta;

/// What the log must be: every state since the last sync is one that a crash may leave.
#[derive(Debug, Clone, PartialEq)]
struct Model {
    term_and_vote: (u64, u64),
    truncated: (u64, u64),
    entries: Vec<Entry>,
    snapshot: SnapshotMeta,
}

impl Model {
    fn last(&self) -> u64 {
        self.truncated.0 + self.entries.len() as u64
    }

    fn term(&self, index: u64) -> Option<u64> {
        match index.checked_sub(self.truncated.0)? {
            0 => Some(self.truncated.1),
            place => self.entries.get(place as usize - 1).map(|entry| entry.term),
        }
    }

    /// All but the data.
    fn tell(&self) -> String {
        let terms: Vec<u64> = self.entries.iter().map(|entry| entry.term).collect();
        let (truncated, snapshot) = (self.truncated, (self.snapshot.index, self.snapshot.term));
        format!("{:?} after {truncated:?} snapshot {snapshot:?}: {terms:?}", self.term_and_vote)
    }

    fn append(&mut self, entry: Entry) {
        self.entries.truncate((entry.index - self.truncated.0 - 1) as usize);
        self.entries.push(entry);
    }

    fn truncate_prefix(&mut self, index: u64) {
        let term = self.term(index).expect("an index of the log");
        self.entries.drain(..(index - self.truncated.0) as usize);
        self.truncated = (index, term);
    }
}

/// One random history.
struct History {
    rng: StdRng,
    test: StoreTest,
    mem: MemStorage,
    model: Model,
    /// States that a crash may leave, the durable one first.
    possible: Vec<Model>,
    applied: u64,
    commit: u64,
}

impl History {
    fn new(seed: u64) -> History {
        let test = StoreTest::new();
        let snapshot = test.parts.node.raw.store().newest_snapshot();
        let model =
            Model { term_and_vote: (0, 0), truncated: (0, 0), entries: Vec::new(), snapshot };
        let mem = MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
        let possible = vec![model.clone()];
        let rng = StdRng::seed_from_u64(seed);
        History { rng, test, mem, model, possible, applied: 0, commit: 0 }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..45 => self.append(),
            45..55 => self.vote(),
            55..65 => self.apply(),
            65..75 => self.sync(),
            75..82 => self.compact(),
            82..86 => self.install(),
            86..93 => self.restart(),
            _ => self.crash(),
        }
    }

    /// Entries of this or a later term, now and then over what is not committed.
    fn append(&mut self) {
        let back = if self.rng.random_bool(0.2) { self.rng.random_range(0..6) } else { 0 };
        let first = (self.model.last() + 1 - back.min(self.model.last())).max(self.commit + 1);
        let before = self.model.term(first - 1).expect("the entry before").max(1);
        let cuts = first <= self.model.last();
        let newest = self.model.term(self.model.last()).expect("the last entry");
        let term = if cuts { newest + 1 } else { before + u64::from(self.rng.random_bool(0.1)) };
        let count = self.rng.random_range(1..=12);
        let mut entries: Vec<Entry> = (first..first + count).map(|i| entry(i, term)).collect();
        for entry in &mut entries {
            if self.rng.random_bool(0.1) {
                entry.data = vec![entry.index as u8; self.rng.random_range(0..3000)].into();
            }
        }
        self.test.persist(&entries, None);
        self.mem.wl().append(&entries).expect("entries in order");
        for entry in entries {
            self.model.append(entry);
            self.possible.push(self.model.clone());
        }
    }

    fn vote(&mut self) {
        let (term, vote) = self.model.term_and_vote;
        let commit = self.rng.random_range(self.commit..=self.model.last());
        let next = match self.rng.random_bool(0.5) {
            true => (term + 1, self.rng.random_range(1..=3)),
            false => (term, vote),
        };
        self.commit = commit;
        let state = hard_state(next.0, next.1, commit);
        self.test.persist(&[], Some(state.clone()));
        self.mem.wl().set_hardstate(state);
        self.model.term_and_vote = next;
        self.possible.push(self.model.clone());
    }

    /// Only what is durable is applied, as raft-rs has it.
    fn apply(&mut self) {
        self.sync();
        self.applied = self.rng.random_range(self.applied..=self.commit);
        let applied = self.applied;
        self.test.store().evict(applied);
    }

    fn sync(&mut self) {
        self.test.sync().expect("a disk that works");
        self.possible = vec![self.model.clone()];
    }

    fn compact(&mut self) {
        if self.applied <= self.model.snapshot.index {
            return;
        }
        let index = self.rng.random_range(self.model.snapshot.index + 1..=self.applied);
        let term = self.model.term(index).expect("an applied entry");
        let meta = SnapshotMeta { index, term, ..self.model.snapshot.clone() };
        let point = self.rng.random_range(self.model.truncated.0..=index);
        self.test.compact(&meta, point, b"state");
        if point < self.model.last() {
            self.mem.wl().compact(point + 1).expect("an index of the log");
        } else {
            let mut state = snapshot(&meta, b"");
            state.mut_metadata().index = point;
            self.mem.wl().apply_snapshot(state).expect("a newer snapshot");
        }
        self.model.snapshot = meta;
        self.possible.push(self.model.clone());
        self.model.truncate_prefix(point);
        self.possible.push(self.model.clone());
    }

    fn install(&mut self) {
        let index = self.model.last() + self.rng.random_range(1..20);
        let term = self.model.term(self.model.last()).expect("the last entry") + 1;
        let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
        let meta = SnapshotMeta { index, term, conf_state };
        let state = snapshot(&meta, b"a leader's state");
        let (held, vote) = self.model.term_and_vote;
        let committed = hard_state(held, vote, index);
        self.test.install(&state, committed.clone());
        self.mem.wl().apply_snapshot(state).expect("a newer snapshot");
        self.mem.wl().set_hardstate(committed);
        self.model.truncated = (index, term);
        self.model.entries.clear();
        self.model.snapshot = meta;
        self.possible.push(self.model.clone());
        (self.applied, self.commit) = (index, index);
        self.sync();
    }

    /// The process ends and starts again; what was queued for the disk may be lost.
    fn restart(&mut self) {
        if self.rng.random_bool(0.5) {
            self.sync();
        }
        let fs = self.test.fs.clone();
        fs.kill();
        self.recover(fs);
    }

    /// The power fails in the middle of writing what is queued.
    fn crash(&mut self) {
        let fs = self.test.fs.clone();
        fs.crash_at(fs.calls() + self.rng.random_range(1..6));
        let written = self.test.sync();
        if written.is_ok() {
            self.possible = vec![self.model.clone()];
        }
        fs.crash(self.rng.random());
        self.recover(fs);
    }

    fn recover(&mut self, fs: tidelog_wal::env::mem::MemFileSystem) {
        let config = self.test.config.clone();
        self.test = StoreTest::open(fs, config).expect("what a crash leaves can be read");
        let entries = self.test.read_all();
        let store = self.test.store();
        let state = store.initial_state().expect("a state").hard_state;
        let truncated = store.bounds().0;
        let found = Model {
            term_and_vote: (state.term, state.vote),
            truncated: (truncated, store.term(truncated).expect("the truncated term")),
            entries,
            snapshot: store.newest_snapshot(),
        };
        let is_possible = self.possible.contains(&found);
        let told: Vec<String> = self.possible.iter().map(Model::tell).collect();
        assert!(is_possible, "found {}\nof {told:#?}", found.tell());
        assert!(state.commit >= found.snapshot.index && state.commit <= found.last());
        self.applied = found.snapshot.index;
        self.commit = state.commit;
        self.mem = MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
        if found.truncated.0 > 0 {
            let (index, term) = found.truncated;
            let begin = SnapshotMeta { index, term, ..found.snapshot.clone() };
            self.mem.wl().apply_snapshot(snapshot(&begin, b"")).expect("the first snapshot");
        }
        self.mem.wl().append(&found.entries).expect("entries in order");
        self.mem.wl().set_hardstate(HardState { ..state });
        self.possible = vec![found.clone()];
        self.model = found;
    }

    /// Every question that raft-rs asks, asked of both.
    fn compare(&mut self) {
        let (first, last) = (self.mem.first_index(), self.mem.last_index());
        assert_eq!(self.test.store().first_index(), first);
        assert_eq!(self.test.store().last_index(), last);
        let (first, last) = (first.expect("first"), last.expect("last"));
        assert_eq!(self.test.store().term(first - 1), Ok(self.model.truncated.1));
        // raft-rs's own also knows a term below its truncated index; nobody may ask for it.
        for index in first.saturating_sub(3)..first - 1 {
            let compacted = raft::Error::Store(raft::StorageError::Compacted);
            assert_eq!(self.test.store().term(index), Err(compacted), "term of {index}");
        }
        for index in first..last + 3 {
            assert_eq!(self.test.store().term(index), self.mem.term(index), "term of {index}");
        }
        for _ in 0..4 {
            if first > last {
                break;
            }
            let low = self.rng.random_range(first..=last);
            let high = self.rng.random_range(low..=last) + 1;
            let max = self.rng.random_bool(0.7).then(|| self.rng.random_range(0..5000));
            let context = GetEntriesContext::empty(false);
            let expected = self.mem.entries(low, high, max, context).expect("entries");
            let found = self.test.read(low, high, max).expect("entries");
            assert!(!found.is_empty(), "an empty answer for {low}..{high}");
            assert_eq!(found, expected[..found.len()], "{low}..{high} within {max:?}");
        }
        let commit = self.mem.initial_state().expect("a state").hard_state.commit;
        let ours = self.test.store().initial_state().expect("a state");
        assert_eq!(ours.hard_state.commit, commit);
    }
}

#[test]
fn our_storage_answers_as_raft_rs_own_over_random_histories() {
    for seed in seeds(150) {
        let _seed = Seed(seed);
        let mut history = History::new(seed);
        for _ in 0..120 {
            history.step();
            history.compare();
        }
    }
}
