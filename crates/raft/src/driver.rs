//! What a Ready asks for, as effects in the order they must happen, and the two orders that a node
//! must keep: what waits for the disk, and what waits to be applied.
//!
//! Pure: nothing here reads, writes, sends or waits.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::{
    Ready,
    eraftpb::{ConfState, Entry, EntryType, HardState, Message, Snapshot},
};

/// One thing to do, in order, for a Ready.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    /// Send now: a leader's messages may overtake its own disk.
    Send(Vec<Message>),
    /// Make visible, then write: what must be durable before the Ready counts as persisted.
    Persist(Persist),
    /// Entries to hand out, in order; they are committed and durable here.
    HandOut(Vec<Entry>),
}

/// What a Ready wants on disk, and what may be said after it is there.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Persist {
    /// The Ready's number.
    pub(crate) number: u64,
    /// A snapshot that replaces the log.
    pub(crate) snapshot: Option<Snapshot>,
    /// Entries to append.
    pub(crate) entries: Vec<Entry>,
    /// Term, vote and commit index.
    pub(crate) hard_state: Option<HardState>,
    /// To be sent when all of it is durable.
    pub(crate) messages: Vec<Message>,
}

impl Persist {
    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.snapshot.is_none() && self.entries.is_empty() && self.hard_state.is_none()
    }
}

/// Takes a Ready apart. What is left of it goes to `advance_append_async`.
pub(crate) fn effects(ready: &mut Ready) -> Vec<Effect> {
    let mut effects = Vec::new();
    let messages = ready.take_messages();
    if !messages.is_empty() {
        effects.push(Effect::Send(messages));
    }
    effects.push(Effect::Persist(Persist {
        number: ready.number(),
        snapshot: Some(ready.snapshot()).filter(|s| !s.is_empty()).cloned(),
        entries: ready.take_entries(),
        hard_state: ready.hs().cloned(),
        messages: ready.take_persisted_messages(),
    }));
    let committed = ready.take_committed_entries();
    if !committed.is_empty() {
        effects.push(Effect::HandOut(committed));
    }
    effects
}

/// Readies that wait for the disk, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Unpersisted {
    readies: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    is_written: bool,
    messages: Vec<Message>,
    snapshot: Option<Snapshot>,
}

/// What became durable.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Persisted {
    /// The number for `on_persist_ready`, 0 where nothing did.
    pub(crate) number: u64,
    /// To be sent now.
    pub(crate) messages: Vec<Message>,
    /// A snapshot that the state machine is to be replaced by.
    pub(crate) restore: Option<Snapshot>,
}

impl Unpersisted {
    /// Adds a Ready; one with nothing to write waits only for the ones before it.
    pub(crate) fn push(&mut self, persist: &mut Persist) {
        let newest = self.readies.back().map_or(0, |waiting| waiting.number);
        assert!(newest < persist.number, "readies come in the order of their numbers");
        self.readies.push_back(Waiting {
            number: persist.number,
            is_written: !persist.is_empty(),
            messages: std::mem::take(&mut persist.messages),
            snapshot: persist.snapshot.clone(),
        });
    }

    /// Everything up to `number` that was written is durable; takes what follows from it.
    pub(crate) fn take(&mut self, number: u64) -> Persisted {
        let mut persisted = Persisted::default();
        while let Some(oldest) = self.readies.front() {
            if oldest.is_written && oldest.number > number {
                break;
            }
            let Some(oldest) = self.readies.pop_front() else { break };
            persisted.number = oldest.number;
            persisted.messages.extend(oldest.messages);
            persisted.restore = oldest.snapshot.or(persisted.restore);
        }
        persisted
    }
}

/// How far entries were handed out, and how far the owner has come with them.
#[derive(Debug)]
pub(crate) struct ApplyProgress {
    /// The last index that went by, handed out or Raft's own.
    passed: u64,
    /// Indexes that were handed out and are not applied.
    open: VecDeque<u64>,
}

impl ApplyProgress {
    /// Everything up to `applied` is in the state machine.
    pub(crate) fn new(applied: u64) -> ApplyProgress {
        ApplyProgress { passed: applied, open: VecDeque::new() }
    }

    /// An entry goes by; `is_handed_out` where the owner will answer for it.
    pub(crate) fn pass(&mut self, index: u64, is_handed_out: bool) {
        assert!(index > self.passed, "entries are handed out once, in order");
        self.passed = index;
        if is_handed_out {
            self.open.push_back(index);
        }
    }

    /// Whether the owner has nothing to answer for.
    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// The owner has applied everything up to `index`: the index that Raft may be told. Entries
    /// without data count as applied when everything before them is.
    pub(crate) fn applied(&mut self, index: u64) -> u64 {
        while self.open.front().is_some_and(|oldest| *oldest <= index) {
            self.open.pop_front();
        }
        self.open.front().map_or(self.passed, |oldest| oldest - 1)
    }
}

/// What a committed entry is to its node.
#[derive(Debug, PartialEq)]
pub(crate) enum Committed {
    /// The owner's: to be handed out.
    Data(Bytes),
    /// A change of members: to be applied by the node.
    Change(Entry),
    /// The entry that every leader begins its term with.
    Empty,
}

/// Sorts a committed entry.
pub(crate) fn sort(entry: Entry) -> Committed {
    match entry.get_entry_type() {
        EntryType::EntryNormal if entry.data.is_empty() => Committed::Empty,
        EntryType::EntryNormal => Committed::Data(entry.data),
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => Committed::Change(entry),
    }
}

/// The group's members by index, because a snapshot names those of its own index.
#[derive(Debug)]
pub(crate) struct Members {
    /// Since which index, and who; the first one covers everything still asked for.
    changes: Vec<(u64, ConfState)>,
}

impl Members {
    pub(crate) fn new(index: u64, conf_state: ConfState) -> Members {
        Members { changes: vec![(index, conf_state)] }
    }

    /// From `index` on the members are these.
    pub(crate) fn change(&mut self, index: u64, conf_state: ConfState) {
        assert!(self.changes[self.changes.len() - 1].0 < index, "changes come in order");
        self.changes.push((index, conf_state));
    }

    /// The members at `index`.
    pub(crate) fn at(&self, index: u64) -> ConfState {
        let after = self.changes.partition_point(|(since, _)| *since <= index);
        assert!(after > 0, "the members at an index older than the snapshot");
        self.changes[after - 1].1.clone()
    }

    /// Nobody asks for the members below `index` any more.
    pub(crate) fn forget_below(&mut self, index: u64) {
        let after = self.changes.partition_point(|(since, _)| *since <= index);
        self.changes.drain(..after.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use raft::{Config, RawNode, StateRole, storage::MemStorage};

    use super::*;

    fn persist(number: u64, is_written: bool) -> Persist {
        let hard_state = is_written.then(HardState::default);
        let messages = vec![Message { to: number, ..Message::default() }];
        Persist { number, hard_state, messages, ..Persist::default() }
    }

    #[test]
    fn a_ready_with_nothing_to_write_waits_for_those_before_it_and_for_no_sync() {
        let mut unpersisted = Unpersisted::default();
        let numbers =
            |p: Persisted| (p.number, p.messages.iter().map(|m| m.to).collect::<Vec<_>>());
        unpersisted.push(&mut persist(1, false));
        assert_eq!(numbers(unpersisted.take(0)), (1, vec![1]));
        for (number, is_written) in [(2, true), (3, false), (4, true), (5, false)] {
            unpersisted.push(&mut persist(number, is_written));
        }
        assert_eq!(numbers(unpersisted.take(1)), (0, vec![]));
        assert_eq!(numbers(unpersisted.take(2)), (3, vec![2, 3]));
        assert_eq!(numbers(unpersisted.take(4)), (5, vec![4, 5]));
        assert!(unpersisted.readies.is_empty());
    }

    #[test]
    fn raft_is_told_of_its_own_entries_only_behind_the_owners() {
        let mut progress = ApplyProgress::new(10);
        for (index, is_handed_out) in [(11, false), (12, true), (13, true), (14, false)] {
            progress.pass(index, is_handed_out);
        }
        assert_eq!(progress.applied(10), 11);
        assert_eq!(progress.applied(12), 12);
        assert_eq!(progress.applied(13), 14);
    }

    #[test]
    fn a_snapshot_gets_the_members_of_its_own_index() {
        let of = |voters: &[u64]| ConfState { voters: voters.to_vec(), ..ConfState::default() };
        let mut members = Members::new(5, of(&[1]));
        members.change(9, of(&[1, 2]));
        assert_eq!([5, 8, 9, 20].map(|i| members.at(i).voters.len()), [1, 1, 2, 2]);
        members.forget_below(12);
        assert_eq!(members.at(12), of(&[1, 2]));
    }

    #[test]
    fn a_sole_voter_sends_nothing_and_persists_before_it_hands_out() {
        let store = MemStorage::new_with_conf_state((vec![1], vec![]));
        let config = Config { id: 1, ..Config::default() };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut raw = RawNode::new(&config, store, &logger).expect("a valid configuration");
        raw.campaign().expect("a voter may stand");
        let mut ready = raw.ready();
        let effects = effects(&mut ready);
        let [Effect::Persist(persist)] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!(raw.raft.state, StateRole::Leader);
        assert_eq!((persist.entries.len(), persist.messages.len()), (1, 0));
        assert_eq!(persist.hard_state.as_ref().map(|h| (h.term, h.vote)), Some((1, 1)));
    }
}
